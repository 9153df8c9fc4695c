import pytest
from channels.exceptions import DenyConnection
from django.core.exceptions import ImproperlyConfigured
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter
from sockets.declaration import middleware
from sockets.exceptions import FrameError
from sockets.models import Socket

pytestmark = pytest.mark.django_db

seen = []


@pytest.fixture(autouse=True)
def forget():
    seen.clear()


def audit(next):
    def handle(socket, content):
        seen.append((socket.event, content and content.get('type')))
        return next(socket, content)

    return handle


def upper(next):
    """Changes the content on its way in, and the answer on its way out."""

    def handle(socket, content):
        if socket.event != 'receive':
            return next(socket, content)
        answer = next(socket, {**content, 'text': content.get('text', '').upper()})
        return {**answer, 'through': 'upper'} if answer else answer

    return handle


class Doorman:
    """A class will do, and may refuse a connection or a frame, or answer itself."""

    def __init__(self, next):
        self.next = next
        seen.append('made')

    def __call__(self, socket, content):
        if socket.event == 'connect' and socket.request.META.get('HTTP_X_MOOD') == 'angry':
            raise DenyConnection()
        if socket.event == 'connect' and socket.request.META.get('HTTP_X_MOOD') == 'silent':
            return
        if socket.event == 'receive' and content['type'] == 'BRIBE':
            raise FrameError('not_allowed', 'Not with me.')
        if socket.event == 'receive' and content['type'] == 'DOOR':
            return {'type': 'OPEN'}
        return self.next(socket, content)


@pytest.fixture
def handler():
    """A handler class of its own, whose middleware has not been made yet."""

    class Base(RoutedSocketHandler):
        middleware = [Doorman, upper]

    class Club(View):
        socket = SocketRouter(handler=Base)

        @socket.connect
        def on_open(socket):
            seen.append('opened')

        @socket.route('SAY')
        def on_say(socket, content):
            return {'type': 'SAID', 'text': content['text'], 'raw': socket.content['text']}

        @socket.disconnect
        def on_close(socket):
            seen.append('closed')

    return Club.socket.Handler


def test_middleware_sees_all_and_may_change_answer_and_refuse(connect, handler, settings):
    settings.SOCKETS = {'MIDDLEWARE': ['tests.test_middleware.audit']}
    club = connect(handler)
    assert club.messages() == [{'accept': True}]
    assert club.send({'type': 'SAY', 'text': 'hi'}) == [{'type': 'SAID', 'text': 'HI', 'raw': 'hi', 'through': 'upper'}]
    assert club.send({'type': 'DOOR', 'ref': 1}) == [{'type': 'OPEN', 'ref': 1}]
    assert club.send({'type': 'BRIBE'})[0]['details'] == 'Not with me.'
    club.disconnect()
    assert seen == [
        'made',
        ('connect', None),
        'opened',
        ('receive', 'SAY'),
        ('receive', 'DOOR'),
        ('receive', 'BRIBE'),
        ('disconnect', None),
        'closed',
    ]


@pytest.mark.parametrize('mood', ['angry', 'silent'])
def test_middleware_that_raises_or_does_not_pass_a_connect_on_refuses_the_connection(connect, handler, mood):
    club = connect(handler, headers={'x-mood': mood})
    assert [message.get('close') for message in club.messages()] == [4403]
    assert not Socket.objects.exists() and 'opened' not in seen


def test_middleware_is_made_once_for_each_handler_class(connect, handler):
    class Other(handler):
        pass

    for _ in range(2):
        for path, each in (('/one/', handler), ('/two/', Other)):
            connect(each, path).send({'type': 'SAY', 'text': 'hi'})
    assert seen.count('made') == 2


@pytest.mark.parametrize(
    'entry, word',
    [
        ('no.such.module', 'no.such.module'),
        ('tests.test_middleware.nothing', 'nothing'),
        (lambda: 1, 'def middleware'),
        (lambda next: None, 'which is not a function of'),
    ],
)
def test_middleware_that_is_none_is_named(entry, word):
    with pytest.raises(ImproperlyConfigured, match=word):
        middleware.chain([entry], print)


def test_mixins_cooperate_in_any_order(connect):
    class Log:
        def connect(self, message, **kwargs):
            seen.append('connect ' + type(self).__name__)
            super().connect(message, **kwargs)

        def receive(self, content, **kwargs):
            seen.append(content['type'])
            return super().receive(content, **kwargs)

    class Polite:
        def receive(self, content, **kwargs):
            return {**super().receive(content, **kwargs), 'please': True}

        def disconnect(self, message, **kwargs):
            seen.append('bye')
            super().disconnect(message, **kwargs)

    class One(Log, Polite, RoutedSocketHandler):
        routes = (('A', lambda socket: {'type': 'B'}),)

    class Two(Polite, Log, RoutedSocketHandler):
        routes = One.routes

    for handler, path in ((One, '/one/'), (Two, '/two/')):
        connection = connect(handler, path)
        connection.messages()
        assert connection.send({'type': 'A'}) == [{'type': 'B', 'please': True}]
        connection.disconnect()
        assert seen == ['connect ' + handler.__name__, 'A', 'bye']
        seen.clear()
