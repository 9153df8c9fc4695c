import copy
import re

import pytest
from channels.exceptions import DenyConnection
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter
from sockets.declaration import handler_classes
from sockets.router import ViewInRouting
from sockets.routing import route_class

from .client import ON_CHANNELS_1
from .conftest import both_ways


class Page(View):
    socket = SocketRouter()

    @socket.connect
    def on_open(socket):
        socket.send_json({'connected': True})

    @socket.route('PING')
    def on_ping(socket, content):
        return {'type': 'PONG'}

    @socket.route(re.compile('GAME_ACTION_.+'))
    def on_game_action(socket, content):
        return {'type': 'ACTED', 'action': content['type']}

    @socket.route('A')
    @socket.route('B')
    def on_either(socket, content):
        return {'type': 'EITHER'}

    @socket.default_route
    def unknown(socket, content=None):
        return {'type': 'WHAT', 'was': content.get('type')}

    @socket.disconnect
    def on_close(socket, message):
        closed.append((socket.socket.path, message['code']))


class Child(View):
    socket = SocketRouter(handler=Page.socket.Handler)

    @socket.route('PING')
    def on_ping(socket):
        return {'type': 'CHILD_PONG'}

    @socket.route('ONLY_CHILD')
    def only_child(socket):
        return {'type': 'ONLY_CHILD'}


closed = []


def test_a_view_has_a_websocket(connect):
    del closed[:]
    page = connect(Page.socket.Handler)
    assert page.received() == [{'connected': True}]
    assert page.send({'type': 'PING'}) == [{'type': 'PONG'}]
    assert page.send({'type': 'GAME_ACTION_FOLD'}) == [{'type': 'ACTED', 'action': 'GAME_ACTION_FOLD'}]
    assert page.send({'type': 'A'}) == page.send({'type': 'B'}) == [{'type': 'EITHER'}]
    assert page.send({'type': 'HUH', 'ref': 1}) == [{'type': 'WHAT', 'was': 'HUH', 'ref': 1}]
    page.disconnect(1001)
    assert closed == [('/page/', 1001)]


def test_a_router_builds_on_the_handler_of_another(connect):
    child = connect(Child.socket.Handler, '/child/')
    assert child.received() == [{'connected': True}]
    assert child.send({'type': 'PING'}) == [{'type': 'CHILD_PONG'}]
    assert child.send({'type': 'ONLY_CHILD'}) == [{'type': 'ONLY_CHILD'}]
    assert child.send({'type': 'GAME_ACTION_X'})[0]['type'] == 'ACTED'
    # Two routers never share a table.
    page = connect(Page.socket.Handler)
    assert page.received() and page.send({'type': 'ONLY_CHILD'})[0]['type'] == 'WHAT'


def test_functions_get_url_arguments_that_they_name(connect):
    class Room(View):
        socket = SocketRouter()

        @socket.connect
        def on_open(socket, room):
            socket.send_json({'opened': room})

        @socket.route('SAY')
        def on_say(socket, content, room):
            return {'said': content['text'], 'room': room, 'kwargs': socket.kwargs}

        @socket.default_route
        def other(socket, content, room):
            return {'other': room}

        @socket.disconnect
        def on_close(socket, message, room):
            left.append(room)

    left = []
    room = connect(Room.socket.Handler, '/room/lobby/', pattern=r'^/room/(?P<room>\w+)/$')
    assert room.received() == [{'opened': 'lobby'}]
    assert room.send({'type': 'SAY', 'text': 'hi'}) == [{'said': 'hi', 'room': 'lobby', 'kwargs': {'room': 'lobby'}}]
    assert room.send({'type': 'X'}) == [{'other': 'lobby'}]
    room.disconnect()
    assert left == ['lobby']


def test_the_connect_function_runs_beside_an_overridden_connect(connect):
    class Handler(RoutedSocketHandler):
        def connect(self, message, **kwargs):
            self.accept()
            self.send_json({'from': 'method'})

    class Both(View):
        socket = SocketRouter(handler=Handler)

        @socket.connect
        def on_open(socket):
            socket.send_json({'from': 'function'})

    assert connect(Both.socket.Handler).received() == [{'from': 'method'}, {'from': 'function'}]


class Lot(View):
    socket = SocketRouter()

    @socket.connect
    def on_open(socket, lot):
        ran.append('lot opens')
        if lot == 'closed':
            socket.close(4403)
        if lot == 'denied':
            raise DenyConnection()

    @socket.disconnect
    def on_close(socket):
        ran.append('lot closes')


class LiveLot(View):
    socket = SocketRouter(handler=Lot.socket.Handler)

    @socket.connect
    def on_open(socket, message):
        ran.append('live lot opens')

    @socket.disconnect
    def on_close(socket):
        ran.append('live lot closes')
        1 / 0


class BestLot(View):
    socket = SocketRouter(handler=type('Between', (LiveLot.socket.Handler,), {}))

    @socket.connect
    def on_open(socket):
        ran.append('best lot opens')

    @socket.disconnect
    def on_close(socket):
        ran.append('best lot closes')


class Quiet(LiveLot.socket.Handler):
    connect_functions = ()


ran = []


@both_ways
def test_connect_and_disconnect_functions_of_a_base_run_too_inside_out(connect, caplog):
    # The base's were replaced without a word, and with them its checks.
    def come_and_go(handler, lot):
        del ran[:]
        connect(handler, f'/lot/{lot}/', pattern=r'^/lot/(?P<lot>\w+)/$').disconnect()
        return ran[:]

    assert come_and_go(LiveLot.socket.Handler, '7') == ['lot opens', 'live lot opens', 'live lot closes', 'lot closes']
    # What one of them raises is logged, and keeps no other from running.
    assert 'ZeroDivisionError' in caplog.text
    assert come_and_go(BestLot.socket.Handler, '7') == [
        'lot opens',
        'live lot opens',
        'best lot opens',
        'best lot closes',
        'live lot closes',
        'lot closes',
    ]
    assert come_and_go(Lot.socket.Handler, '7') == ['lot opens', 'lot closes']
    assert come_and_go(Quiet, '7') == ['live lot closes', 'lot closes']
    # Once the base has closed the connection, or refused it, nobody greets it.
    assert come_and_go(BestLot.socket.Handler, 'closed')[:1] == ['lot opens']
    assert 'live lot opens' not in ran and 'best lot closes' in ran
    assert come_and_go(BestLot.socket.Handler, 'denied') == ['lot opens']


def test_the_functions_of_all_bases_are_checked_for_their_arguments():
    assert {function.function.__qualname__ for function in handler_classes.functions(BestLot.socket.Handler)} >= {
        'Lot.on_open',
        'LiveLot.on_open',
        'BestLot.on_open',
        'Lot.on_close',
        'LiveLot.on_close',
        'BestLot.on_close',
    }


def test_decorators_return_the_function_unchanged():
    router = SocketRouter()

    def function(socket):
        pass

    assert router.connect(function) is router.disconnect(function) is router.default_route(function) is function
    assert router.route('X')(function) is router.bytes(function) is function
    assert SocketRouter().bytes(rate=1)(function) is function


def test_the_handler_is_a_real_class_named_after_its_view():
    handler = Page.socket.Handler
    assert isinstance(handler, type) and issubclass(handler, RoutedSocketHandler)
    assert handler.__name__ == 'PageSocketHandler'
    assert handler.__module__ == __name__
    assert handler is Page.socket.Handler
    assert issubclass(Child.socket.Handler, handler)
    assert repr(Page.socket) == '<SocketRouter Page.socket>'


@pytest.mark.parametrize('name', ['conect', 'on_connect', 'receive', 'handler', 'routes', 'follow'])
def test_a_wrong_name_of_a_decorator_is_an_error_that_lists_the_decorators(name):
    with pytest.raises(AttributeError) as error:
        getattr(SocketRouter(), name)
    for decorator in ('connect', 'disconnect', 'route(pattern)', 'bytes', 'default_route'):
        assert '@socket.' + decorator in str(error.value)
    # A view that calls follow() on it has no connection.
    assert str(error.value).endswith('What a connection has, such as follow(), its functions call on their argument.')


@pytest.mark.parametrize(
    'misuse',
    [
        lambda router: router.connect(),
        lambda router: router.connect('PING'),
        lambda router: router.connect(lambda: None),
        lambda router: router.route('X')(lambda: None),
        lambda router: router.route(lambda socket: None),
        lambda router: router.route(None),
        lambda router: router.route('X')('on_x'),
        lambda router: [router.connect(lambda socket: None) for _ in range(2)],
    ],
)
def test_wrong_use_of_a_decorator_raises_type_error_at_once(misuse):
    with pytest.raises(TypeError):
        misuse(SocketRouter())


def test_decorating_after_the_handler_was_built_is_an_error_and_not_lost():
    router = SocketRouter()
    router.Handler
    for late in (router.connect, router.disconnect, router.default_route, router.route('X'), router.bytes):
        with pytest.raises(ImproperlyConfigured, match='built already'):
            late(lambda socket: None)


@pytest.mark.parametrize('handler', [object, View, 'Handler', RoutedSocketHandler.connect])
def test_a_handler_to_build_on_is_a_routed_socket_handler(handler):
    with pytest.raises(ImproperlyConfigured, match='RoutedSocketHandler'):
        SocketRouter(handler=handler).Handler


def test_a_forgotten_app_is_named_where_the_router_is_made(monkeypatch):
    monkeypatch.setattr(apps, 'is_installed', lambda name: name != 'sockets')
    with pytest.raises(ImproperlyConfigured, match="add 'sockets' to INSTALLED_APPS"):
        SocketRouter()


def test_a_router_can_be_copied():
    assert copy.copy(SocketRouter()).view is None


class NewPage(Page):
    """A view that shares its base's websocket."""


@pytest.mark.parametrize(
    'consumer, name',
    [
        (Page, 'Page'),
        (Page.socket, 'Page'),
        (Page.as_view(), 'Page'),
        (NewPage, 'NewPage'),
        (__name__ + '.Page', 'Page'),
    ],
)
def test_a_view_in_a_routing_is_told_to_name_its_handler(consumer, name):
    makers = [route_class]
    if ON_CHANNELS_1:
        from channels import route

        makers.append(lambda consumer: route('websocket.connect', consumer))
    for make in makers:
        with pytest.raises(ViewInRouting, match=rf'names the view {name}, .* route_class\({name}.socket.H'):
            make(consumer)


@pytest.mark.channels1('its routing is of Channels; ours takes handler classes')
def test_other_things_in_a_routing_are_left_to_channels():
    from channels import route

    with pytest.raises(ValueError, match='channel_names'):
        route_class(View)
    assert route('http.request', View.as_view())
