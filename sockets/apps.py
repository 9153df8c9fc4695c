"""The Django app."""

from django.apps import AppConfig

from .engines.channels1 import compat

compat.patch_six_importer()


class SocketsConfig(AppConfig):
    name = 'sockets'
    verbose_name = 'Sockets'

    def ready(self):
        compat.patch_postgresql()
        from django.apps import apps

        from . import callbacks, checks, engine, presence
        from .connection import endings

        callbacks.end = endings.end
        callbacks.purge_if_due = presence.purge_if_due
        callbacks.try_again = presence.try_again
        engine.current().install()
        # What is missing is for the checks to say.
        if apps.is_installed('django.contrib.auth') and apps.is_installed('django.contrib.sessions'):
            from .access import revocation
            from .connection import identity_cache
            from .models import Socket

            revocation.install()
            identity_cache.install(Socket)
