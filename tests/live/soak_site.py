"""The project that the fleets of servers run: settings, routing and pages, configured by the environment.

``REDIS_URL`` (none: the in-memory layer), ``LAYER`` (see ``stack``), ``DATABASE_URL``, ``NOTES`` (a directory),
``CAPACITY``, ``EXPIRY``, ``SESSION_ENGINE``, ``TRUSTED_PROXIES``, ``PREFIX``, ``MAX_HANDLING_TIME``, ``THREADS``, ``CONNECT_SECONDS`` (what the connect function
at ``/storm/`` takes, or a file that says so).
"""

import os
import threading
import time
from pathlib import Path

from tests.live import stack
from tests.settings import *  # noqa: F403
from tests.settings import database_at

DATABASES = {'default': database_at(os.environ['DATABASE_URL'], CONN_MAX_AGE=60)}
SESSION_ENGINE = os.environ.get('SESSION_ENGINE', 'django.contrib.sessions.backends.db')
ROOT_URLCONF = 'tests.live.soak_site'
ALLOWED_HOSTS = ['*']
CHANNEL_LAYERS = stack.channel_layers(
    'tests.live.soak_site.routing',
    os.environ.get('REDIS_URL', ''),
    prefix=os.environ.get('PREFIX', 'sockets:'),
    capacity=int(os.environ.get('CAPACITY', 100)),
    channel_capacity={'narrow': 1},
    expiry=int(os.environ.get('EXPIRY', 60)),
)
ASGI_APPLICATION = stack.APPLICATION
SOCKETS = {
    **stack.routed('tests.live.soak_site.routing'),
    'TRUSTED_PROXIES': os.environ.get('TRUSTED_PROXIES', '').split(),
    **({'THREADS': int(os.environ['THREADS'])} if 'THREADS' in os.environ else {}),
    'MAX_HANDLING_TIME': float(os.environ.get('MAX_HANDLING_TIME', 0)) or None,
}

_lock = threading.Lock()
_notes = []


def note(*words):
    """Write a line to this process's notes. It is out of our hands at once, so a SIGKILL takes none of them back."""
    with _lock:
        if not _notes:
            _notes.append(
                os.open(os.path.join(os.environ['NOTES'], str(os.getpid())), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            )
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


def on_count(socket, content):
    """Count in the session."""
    socket.session['n'] = socket.session.get('n', 0) + content.get('step', 1)
    return {'type': 'COUNT', 'n': socket.session['n']}


def on_exit(socket, content):
    raise SystemExit('as told')


def on_overflow(socket, content):
    """Fill Channels' pending store with what its flush cannot get rid of: it raises where workers do not catch."""
    from channels import Channel

    for _ in range(2):
        Channel('narrow').send({'n': 1})


def on_later(socket, content):
    from channels import Channel

    Channel('background').send({'n': 1, 'seconds': content.get('seconds', 0)}, immediately=True)


def work_in_the_background(message):
    note('start', 'background', message['n'])
    time.sleep(message.get('seconds', 0))
    note('background', message['n'])


def slow_page(request):
    from django.http import HttpResponse

    note('start', 'page', 0)
    time.sleep(float(request.GET.get('seconds', 0)))
    return HttpResponse(f'pid {os.getpid()}' + 'x' * int(float(request.GET.get('size', 0))))


def stream(request):
    """A page of some megabytes (``megabytes``, none: without end) that notes when its generator begins and ends."""
    from django.http import StreamingHttpResponse

    megabytes, name = int(request.GET.get('megabytes', 0)), request.GET.get('name', 'page')

    def parts():
        note('start', name, 0)
        try:
            n = 0
            while not megabytes or n < megabytes:
                if 'raises' in request.GET and n == int(request.GET['raises']):
                    raise KeyError('as told')
                yield b'%08d' % n * (128 * 1024)
                n += 1
                time.sleep(float(request.GET.get('seconds', 0)))
        finally:
            note('end', name, n)

    response = StreamingHttpResponse(parts())
    if 'length' in request.GET:
        response['Content-Length'] = request.GET['length']
    return response


def lines(request):
    """A page of many small parts."""
    from django.http import StreamingHttpResponse

    return StreamingHttpResponse(f'line {n}\n' for n in range(int(request.GET['count'])))


def whole(request):
    from django.http import HttpResponse

    return HttpResponse(b'x' * (int(request.GET['megabytes']) * 1024 * 1024))


def score(request):
    from django.http import HttpResponse

    return HttpResponse(_score(request.user))


def on_score(socket, content):
    return {'type': 'SCORE', 'score': _score(socket.user)}


def _score(user):
    """Add one to what a column of ``user`` says, as it was read, and save all columns."""
    user.first_name = str(int(user.first_name or 0) + 1)
    user.save()
    return user.first_name


def root(request):
    from django.http import HttpResponse

    return HttpResponse(request.META['SCRIPT_NAME'] + ' ' + str(len(request.body)))


def __getattr__(name):
    # Django imports this module as its settings before there are any apps, and as routing and URLs after that.
    if name == 'urlpatterns':
        from django.urls import re_path

        return [
            re_path(r'^page/$', slow_page),
            re_path(r'^stream/$', stream),
            re_path(r'^lines/$', lines),
            re_path(r'^whole/$', whole),
            re_path(r'^score/$', score),
            re_path(r'^root/$', root),
            re_path(r'^x/root/$', root),
        ]
    if name == 'routing':
        from sockets import RoutedSocketHandler, SocketRouter
        from sockets.routes import Route
        from sockets.routing import route_class

        class Soak(RoutedSocketHandler):
            routes = (
                *RoutedSocketHandler.routes,
                ('ECHO', lambda socket, content: content),
                ('WORK', on_work),
                ('SHOUT', on_shout),
                ('WHO', on_who),
                ('EXIT', on_exit),
                ('COUNT', on_count),
                ('SCORE', on_score),
                ('SET', lambda socket, content: socket.session.update({content['name']: True})),
                ('KEYS', lambda socket, content: {'type': 'KEYS', 'keys': sorted(socket.session.keys())}),
                ('OVERFLOW', on_overflow),
                ('LATER', on_later),
                Route('TEN', lambda socket, content: content, rate='10/h', per='user'),
            )

        class Hall(Soak):
            """Notes each connect and each disconnect function that runs."""

            def connect(self, message, **kwargs):
                super().connect(message, **kwargs)
                note('open', self.socket.pk)

            def disconnect(self, message, **kwargs):
                note('close', self.socket.pk)

        class Ending(Soak):
            """Is in a room, and takes its time to end."""

            def connect(self, message, **kwargs):
                super().connect(message, **kwargs)
                self.join('ending')
                note('enter', self.socket.pk)

            def disconnect(self, message, **kwargs):
                note('begin', self.socket.pk)
                time.sleep(0.03)
                assert self.rooms == ['ending']
                note('ended', self.socket.pk)

        class Staff(Hall):
            permission = 'sockets.delete_socket'

        class Quiet(Soak):
            """Notes each frame that a route sees, and never asks whose it is."""

            routes = (*Soak.routes, ('SEE', lambda socket, content: note('saw', content['connection'])))

        class Asking(Quiet):
            login_required = True

        storm = SocketRouter(handler=Soak)

        @storm.connect
        def on_connect(socket):
            note('open', socket.socket.pk)
            seconds = os.environ.get('CONNECT_SECONDS', '0')
            time.sleep(float(Path(seconds).read_text() if seconds.startswith('/') else seconds))

        class Late(Soak):
            """Is accepted long before its row can be seen."""

            def connect(self, message, **kwargs):
                from django.db import transaction

                with transaction.atomic():
                    super().connect(message, **kwargs)
                    time.sleep(8)

        class Slow(Soak):
            """Waits before or after its accept, as the query says."""

            def connect(self, message, **kwargs):
                time.sleep(float(self.request.GET.get('before', 0)))
                super().connect(message, **kwargs)
                time.sleep(float(self.request.GET.get('after', 0)))

        consumers = []
        if stack.ON_CHANNELS_1:
            from channels import route

            consumers = [route('background', work_in_the_background)]
        # It is asked for with each end that is found, and the classes are declared only once.
        globals()[name] = [
            route_class(Slow, path=r'^/slow/$'),
            route_class(Late, path=r'^/late/$'),
            route_class(Hall, path=r'^/hall/$'),
            route_class(Ending, path=r'^/ending/$'),
            route_class(Staff, path=r'^/staff/$'),
            route_class(Quiet, path=r'^/quiet/$'),
            route_class(Asking, path=r'^/asking/$'),
            route_class(storm.Handler, path=r'^/storm/$'),
            route_class(Soak, path=r'^/soak/$'),
            route_class(Soak, path=r'^/crowd/$'),
            *consumers,
        ]
        return globals()[name]
    raise AttributeError(name)
