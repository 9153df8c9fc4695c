"""The project that the fleets of servers run: settings, routing and pages, configured by the environment.

``REDIS_URL`` (none: the in-memory layer), ``DATABASE_URL``, ``NOTES`` (a directory), ``CAPACITY``, ``EXPIRY``,
``SESSION_ENGINE``, ``TRUSTED_PROXIES``, ``PREFIX``.
"""
import os
import threading
import time
from urllib.parse import urlsplit

from tests.settings import *  # noqa: F401,F403

_database = urlsplit(os.environ['DATABASE_URL'])
DATABASES = {'default': {
    'ENGINE': 'django.db.backends.postgresql', 'NAME': _database.path[1:], 'HOST': _database.hostname,
    'PORT': _database.port, 'USER': _database.username, 'CONN_MAX_AGE': 60,
} if _database.scheme != 'sqlite' else {'ENGINE': 'django.db.backends.sqlite3', 'NAME': _database.path}}
SESSION_ENGINE = os.environ.get('SESSION_ENGINE', 'django.contrib.sessions.backends.db')
_layer = {'capacity': int(os.environ.get('CAPACITY', 100)), 'channel_capacity': {'narrow': 1},
          'expiry': int(os.environ.get('EXPIRY', 60))}
if os.environ.get('REDIS_URL'):
    _layer['hosts'] = os.environ['REDIS_URL'].split()
    _layer['prefix'] = os.environ.get('PREFIX', 'sockets:')
CHANNEL_LAYERS = {'default': {
    'BACKEND': 'sockets.layers.' + ('RedisChannelLayer' if 'hosts' in _layer else 'InMemoryChannelLayer'),
    'CONFIG': _layer,
    'ROUTING': 'tests.live.soak_site.routing',
}}
ROOT_URLCONF = 'tests.live.soak_site'
ALLOWED_HOSTS = ['*']
SOCKETS = {'TRUSTED_PROXIES': os.environ.get('TRUSTED_PROXIES', '').split()}

_lock = threading.Lock()
_notes = []


def note(*words):
    """Write a line to this process's notes. It is out of our hands at once, so a SIGKILL takes none of them back."""
    with _lock:
        if not _notes:
            _notes.append(os.open(os.path.join(os.environ['NOTES'], str(os.getpid())),
                                  os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    # One clock for all processes of this machine.
    os.write(_notes[0], '{} {:.6f}\n'.format(' '.join(map(str, words)), time.monotonic()).encode())


def on_work(socket, content):
    """Be at work for some seconds, raise if told so, and note both ends."""
    note('start', content['connection'], content['n'])
    try:
        time.sleep(content.get('seconds', 0))
        if content.get('raises'):
            raise KeyError('as told')
    finally:
        note('end', content['connection'], content['n'])


def on_shout(socket, content):
    """Send to everybody on this path, and tell how many that were."""
    from sockets.models import Socket
    return {'type': 'HEARD', 'by': Socket.objects.filter(path=socket.path).send_json(dict(content['content']))}


def on_who(socket, content):
    return {'type': 'ME', 'pid': os.getpid(), 'thread': threading.get_ident(), 'id': socket.socket.pk}


def on_exit(socket, content):
    raise SystemExit('as told')


def on_overflow(socket, content):
    """Fill Channels' pending store with what its flush cannot get rid of: it raises where workers do not catch."""
    from channels import Channel
    for _ in range(2):
        Channel('narrow').send({'n': 1})


def on_later(socket, content):
    from channels import Channel
    Channel('background').send({'n': 1}, immediately=True)


def slow_page(request):
    from django.http import HttpResponse
    note('start', 'page', 0)
    time.sleep(float(request.GET.get('seconds', 0)))
    return HttpResponse('pid {}'.format(os.getpid()))


def __getattr__(name):
    # Django imports this module as its settings before there are any apps, and as routing and URLs after that.
    if name == 'urlpatterns':
        from django.conf.urls import url
        return [url(r'^page/$', slow_page)]
    if name == 'routing':
        from channels import route, route_class

        from sockets import RoutedSocketHandler

        class Soak(RoutedSocketHandler):
            routes = (
                *RoutedSocketHandler.routes,
                ('ECHO', lambda socket, content: content),
                ('WORK', on_work),
                ('SHOUT', on_shout),
                ('WHO', on_who),
                ('EXIT', on_exit),
                ('OVERFLOW', on_overflow),
                ('LATER', on_later),
            )

        class Hall(Soak):
            """Notes each connect and each disconnect function that runs."""

            def connect(self, message, **kwargs):
                super().connect(message, **kwargs)
                note('open', self.socket.pk)

            def disconnect(self, message, **kwargs):
                note('close', self.socket.pk)

        class Slow(Soak):
            """Is accepted long before its row can be seen."""

            def connect(self, message, **kwargs):
                from django.db import transaction
                with transaction.atomic():
                    super().connect(message, **kwargs)
                    time.sleep(8)

        return [
            route_class(Hall, path=r'^/hall/$'),
            route_class(Slow, path=r'^/slow/$'),
            route_class(Soak, path=r'^/soak/$'),
            route_class(Soak, path=r'^/crowd/$'),
            route('background', lambda message: note('background', message['n'])),
        ]
    raise AttributeError(name)
