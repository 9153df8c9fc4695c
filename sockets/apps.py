"""The Django app."""
from django.apps import AppConfig

from . import compat


class SocketsConfig(AppConfig):
    name = 'sockets'
    verbose_name = 'Sockets'

    def ready(self):
        compat.install()
        from . import checks, transport  # noqa: F401, checks register themselves
        transport.install()
