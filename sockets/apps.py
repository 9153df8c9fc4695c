"""The Django app."""

from django.apps import AppConfig

from . import engine

engine.prepare()


class SocketsConfig(AppConfig):
    name = 'sockets'
    verbose_name = 'Sockets'
    # As the migrations have it, whatever DEFAULT_AUTO_FIELD says.
    default_auto_field = 'django.db.models.AutoField'

    def ready(self):
        from django.apps import apps

        from . import callbacks, checks, presence
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
