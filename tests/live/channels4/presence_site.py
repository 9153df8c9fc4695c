"""A site on Channels 4 whose handler notes who comes and goes: settings, routing and ASGI application.

``DATABASE_URL``, and ``NOTES``, a directory.
"""

import os
import time

from tests.settings import *  # noqa: F403
from tests.settings import database_at

DATABASES = {'default': database_at(os.environ['DATABASE_URL'], CONN_MAX_AGE=60)}
CHANNEL_LAYERS = {'default': {'BACKEND': 'channels.layers.InMemoryChannelLayer'}}
ASGI_APPLICATION = 'tests.live.channels4.presence_site.application'
ROOT_URLCONF = 'tests.urls'
ALLOWED_HOSTS = ['*']
# Looks in passing, too.
SOCKETS = {'PURGE_INTERVAL': 1}


def note(*words):
    """Write a line to this process's notes, with the time of the one clock of this machine."""
    path = os.path.join(os.environ['NOTES'], str(os.getpid()))
    with open(path, 'a') as file:
        file.write('{} {:.6f}\n'.format(' '.join(map(str, words)), time.monotonic()))


def __getattr__(name):
    # Of what needs the apps, when somebody asks for it: this module is the settings as well.
    if name == 'application':
        import django

        django.setup()
        from sockets import RoutedSocketHandler
        from sockets.asgi import get_application
        from sockets.models import Socket
        from sockets.routing import route_class

        class Noting(RoutedSocketHandler):
            routes = (*RoutedSocketHandler.routes, ('NAME', 'on_name'), ('COUNT', 'on_count'))

            def on_name(self, content):
                note('handled', self.channel_name)
                return {'type': 'NAME', 'name': self.channel_name}

            async def on_count(self, content):
                return {'type': 'COUNTED', 'n': await Socket.objects.acount()}

            def disconnect(self, message, **kwargs):
                note('ended', self.socket.channel_name)

        globals()['application'] = get_application([route_class(Noting, path=r'^/soak/$')])
        return globals()['application']
    raise AttributeError(name)
