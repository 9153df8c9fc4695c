"""Names that a URL keyword argument may have, and those that it may not."""

import pytest
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter
from sockets.declaration.arguments import NameTaken
from sockets.models import Socket
from sockets.multiplexing import SocketDemultiplexer
from sockets.routing import include, route_class
from sockets.testing import SocketClient, sandbox

from .conftest import both_ways


class Plain(RoutedSocketHandler):
    pass


class Files(RoutedSocketHandler):
    def on_bytes(self, data):
        pass


class Own(RoutedSocketHandler):
    """Calls its arguments by names of its own."""

    routes = [('SAY', lambda sock, content, **kwargs: None)]

    def receive(self, frame, **kwargs):
        return super().receive(frame, **kwargs)

    def connect(self, opening, **kwargs):
        super().connect(opening, **kwargs)


class Page(View):
    socket = SocketRouter()

    @socket.connect
    def on_open(connection, **kwargs):
        pass


class Pictures(View):
    socket = SocketRouter()

    @socket.bytes
    def on_picture(socket, data):
        pass


class Everything(SocketDemultiplexer):
    streams = {'own': Own, 'page': Page.socket.Handler}


@pytest.mark.parametrize(
    'handler, name',
    [
        *((Plain, name) for name in ('self', 'socket', 'message', 'content')),
        (Files, 'data'),
        (Pictures.socket.Handler, 'data'),
        (Own, 'sock'),
        (Own, 'frame'),
        (Own, 'opening'),
        (Page.socket.Handler, 'connection'),
        (Everything, 'frame'),
        (Everything, 'connection'),
    ],
)
def test_a_name_that_is_taken_is_an_error_as_the_routing_is_built(handler, name):
    path = rf'^/page/(?P<{name}>\w+)/$'
    with pytest.raises(NameTaken, match='Use another name in the path, as in') as raised:
        route_class(handler, path=path)
    assert isinstance(raised.value, ImproperlyConfigured) and raised.value.handler is handler
    assert repr(path) in str(raised.value) and handler.__name__ in str(raised.value)
    # Of an include, it is known once there is something in it.
    entry = route_class(handler, path='^page/$')
    with pytest.raises(NameTaken):
        include([include([entry])], path=rf'^/(?P<{name}>\w+)/')
    with pytest.raises(NameTaken):
        with sandbox(routing=[include([entry], path=rf'^/(?P<{name}>\w+)/')]):
            pass


def test_the_check_says_so(settings):
    settings.CHANNEL_LAYERS = {'named': {'BACKEND': 'asgiref.inmemory.ChannelLayer', 'ROUTING': __name__ + '.routing'}}
    settings.SOCKETS = {'CHANNEL_LAYER': 'named', 'ROUTING': __name__ + '.routing'}
    message = next(message for message in checks.run_checks(tags=['sockets']) if message.id == 'sockets.E012')
    assert message.id == 'sockets.E012' and message.obj is Plain
    assert "'message'" in message.msg and message.hint == r'Use another name in the path, as in (?P<message_name>\w+).'


def __getattr__(name):
    # As a routing's module does while it is imported.
    if name == 'routing':
        return [route_class(Plain, path=r'^/(?P<message>\w+)/$')]
    raise AttributeError(name)


FREE = [
    'data',
    'func',
    'function',
    'args',
    'kwargs',
    'cls',
    'event',
    'request',
    'user',
    'session',
    'type',
    'path',
    'text',
    'bytes',
    'code',
    'reason',
    'handler',
    'consumer',
    'row',
    'value',
    'channel_name',
    'reply_channel',
    'accept',
    'close',
    'method',
    'name',
    'argument',
    'stream',
    'ref',
    'result',
    'route',
    'error',
    'visitor',
    'socket_id',
    'connection',
]


@pytest.mark.django_db
@pytest.mark.parametrize('name', FREE)
@both_ways
def test_every_other_name_works_in_every_function(connect, name):
    seen = []

    class Free(RoutedSocketHandler):
        routes = [('SAY', lambda self, content, **kwargs: kwargs)]

        def disconnect(self, message, **kwargs):
            seen.append(kwargs)

    if name != 'data':
        Free = type('Free', (Free,), {'on_bytes': lambda self, data, **kwargs: kwargs})
    connection = connect(Free, '/page/7/', pattern=rf'^/page/(?P<{name}>\w+)/$')
    assert connection.messages() == [{'accept': True}]
    assert connection.send({'type': 'SAY'}) == [{name: '7'}]
    connection.disconnect()
    assert seen == [{name: '7'}] and not Socket.objects.exists()


def test_the_test_client_raises_it_at_once(db):
    with sandbox(), pytest.raises(NameTaken):
        SocketClient('/page/7/', handler=Plain, pattern=r'^/page/(?P<content>\w+)/$').connect()
