"""Binary frames on their way through a handler: routes for bytes, their options, their size, their answers."""

import json
from types import SimpleNamespace

import pytest
from django.contrib.auth.models import Permission
from django.core.exceptions import ImproperlyConfigured
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter, signals
from sockets.access import limits
from sockets.connection.envelopes import unwrap, wrap
from sockets.declaration import handler_classes
from sockets.models import Socket
from sockets.routes import Route, RouteTable
from sockets.testing import SocketClient

pytestmark = pytest.mark.django_db


class Pictures(View):
    socket = SocketRouter()

    @socket.bytes
    def on_picture(socket, data, lot):
        return {'type': 'TAKEN', 'size': len(data), 'lot': lot}

    @socket.route('PICTURE')
    def on_ask(socket):
        return bytearray(b'picture')


def handler_with(function=lambda socket, data: {'type': 'TAKEN', 'size': len(data)}, **options):
    router = SocketRouter()
    router.bytes(**options)(function)
    return router.Handler


def answers(connection, frame):
    """Send a binary frame and return what comes back: contents and bytes."""
    connection.messages()
    connection._put(bytes=frame)
    return [
        json.loads(message['text']) if 'text' in message else message.get('bytes', message)
        for message in connection.messages()
    ]


def test_binary_frames_go_to_the_function_for_bytes_with_the_arguments_of_the_url(connect):
    page = connect(Pictures.socket.Handler, '/lot/7/', pattern=r'^/lot/(?P<lot>\d+)/$')
    assert answers(page, b'abc') == [{'type': 'TAKEN', 'size': 3, 'lot': '7'}]
    assert answers(page, b'') == [{'type': 'TAKEN', 'size': 0, 'lot': '7'}]


def test_a_request_with_bytes_gets_one_answer_with_its_ref_whatever_that_is(connect):
    def function(socket, data):
        if data == b'fail':
            raise ValueError(data)
        return {b'dict': {'type': 'TAKEN'}, b'bytes': b'\0\1', b'view': memoryview(b'ab'), b'nothing': None}[data]

    page = connect(handler_with(function))
    assert answers(page, wrap(b'dict', 'a1')) == [{'type': 'TAKEN', 'ref': 'a1'}]
    assert answers(page, wrap(b'nothing', 'a2')) == [{'type': 'ACK', 'ref': 'a2'}]
    assert answers(page, wrap(b'bytes', 'a3')) == [wrap(b'\0\1', 'a3')]
    assert answers(page, wrap(b'view', 'a4')) == [wrap(b'ab', 'a4')]
    (failed,) = answers(page, wrap(b'fail', 'a5'))
    assert (failed['code'], failed['ref']) == ('server_error', 'a5')
    assert answers(page, b'bytes') == [b'\0\1']
    assert answers(page, b'nothing') == []


def test_a_request_in_json_that_is_answered_with_bytes_has_its_ref(connect):
    # They came without one, and the client waited for its answer until its time was over.
    page = connect(Pictures.socket.Handler, '/lot/7/', pattern=r'^/lot/(?P<lot>\d+)/$')
    page.messages()
    page._put(text='{"type": "PICTURE", "ref": 5}')
    page._put(text='{"type": "PICTURE"}')
    assert page.messages() == [{'bytes': wrap(b'picture', 5)}, {'bytes': b'picture'}]


def test_a_function_sees_the_envelope_beside_the_data(connect):
    page = connect(
        handler_with(lambda socket, data: {'type': 'SEEN', 'envelope': socket.envelope, 'same': socket.content == data})
    )
    for frame, envelope in ((b'\0{"ref":null,"resent":true}\0data', {'ref': None, 'resent': True}), (b'data', {})):
        assert answers(page, frame) == [{'type': 'SEEN', 'envelope': envelope, 'same': True}]


def test_bytes_that_look_like_an_envelope_are_sent_in_one(connect):
    page = connect(handler_with(lambda socket, data: socket.send(bytes=data) or data))
    strange = b'\0{"ref":"a1"}\0'
    assert [unwrap(frame) for frame in answers(page, wrap(strange))] == [({'ref': None}, strange)] * 2
    Socket.objects.send(bytes=strange)
    Socket.objects.get().send(bytes=strange)
    assert [unwrap(message['bytes']) for message in page.messages()] == [({'ref': None}, strange)] * 2


def test_a_request_with_bytes_is_refused_with_its_ref_where_no_function_takes_bytes(connect):
    page = connect(RoutedSocketHandler)
    (refused,) = answers(page, wrap(b'data', 'a1'))
    assert (refused['code'], refused['ref']) == ('invalid_message', 'a1')
    assert answers(page, b'data')[0]['code'] == 'invalid_message'


def test_a_broken_envelope_is_refused(connect):
    page = connect(handler_with())
    assert [answer['code'] for answer in answers(page, b'\0{"ref":1')] == ['invalid_message']
    assert [answer['code'] for answer in answers(page, b'\0{"ref":x}\0')] == ['invalid_json']
    assert answers(page, b'ab') == [{'type': 'TAKEN', 'size': 2}]


def test_to_a_handler_with_a_decoder_of_its_own_there_are_no_envelopes(connect):
    class Own(RoutedSocketHandler):
        routes = (('ECHO', lambda socket, content: content),)

        def decode(self, text, data):
            return {'type': 'ECHO', 'length': len(data)}

    assert answers(connect(Own), b'\0{"ref":1}\0') == [{'type': 'ECHO', 'length': 11}]


def test_the_options_of_a_route_count_for_bytes(connect, alice, login, monkeypatch):
    alice.user_permissions.add(Permission.objects.get(codename='delete_socket'))
    clock = [1000.0]
    monkeypatch.setattr(limits, 'time', SimpleNamespace(monotonic=lambda: clock[0]))

    def whole(data):
        if len(data) % 2:
            raise ValueError('That is half a picture.')
        return data * 2

    for options in (
        {'login_required': True},
        {'permission': 'sockets.delete_socket'},
        {'permission': ['sockets.delete_socket', 'sockets.none']},
    ):
        page = connect(handler_with(**options))
        (refused,) = answers(page, wrap(b'ab', 'a1'))
        assert (refused['code'], refused['ref']) == ('not_allowed', 'a1')
        if 'sockets.none' not in options.get('permission', ()):
            page = connect(handler_with(**options), cookies=login(alice))
            assert answers(page, b'ab') == [{'type': 'TAKEN', 'size': 2}]

    page = connect(handler_with(form=whole))
    assert answers(page, b'ab') == [{'type': 'TAKEN', 'size': 4}]
    (refused,) = answers(page, wrap(b'abc', 'a1'))
    assert (refused['code'], refused['details'], refused['ref']) == ('invalid_content', 'That is half a picture.', 'a1')

    page = connect(handler_with(rate='1/m'))
    outcomes = [answers(page, wrap(b'ab', n))[0] for n in range(4)]
    assert outcomes[0] == {'type': 'TAKEN', 'size': 2, 'ref': 0}
    assert (outcomes[-1]['code'], outcomes[-1]['ref']) == ('rate_limited', 3)
    # That of the others does not count for them, nor theirs for others.
    assert page.send({'type': 'PING', 'ref': 1}) == [{'type': 'ACK', 'ref': 1}]


def test_pictures_have_a_size_of_their_own(connect, settings):
    settings.SOCKETS = {'MAX_MESSAGE_SIZE': 100, 'MAX_BINARY_SIZE': 1000}
    page, other = connect(handler_with()), connect(RoutedSocketHandler, '/other/')
    assert answers(page, b'x' * 1000) == [{'type': 'TAKEN', 'size': 1000}]
    # The envelope is none of the data, and who sends too much is told so as the answer.
    assert answers(page, wrap(b'x' * 1000, 'a1')) == [{'type': 'TAKEN', 'size': 1000, 'ref': 'a1'}]
    (refused,) = answers(page, wrap(b'x' * 1001, 'a2'))
    assert (refused['code'], refused['ref']) == ('too_large', 'a2')
    assert refused['details'] == 'A frame has at most 1000 bytes.'
    # JSON has not, nor has what nobody takes.
    assert page.send({'type': 'PING', 'text': 'x' * 100})[0]['code'] == 'too_large'
    assert answers(other, b'x' * 101)[0]['code'] == 'too_large'
    settings.SOCKETS = {'MAX_BINARY_SIZE': 10}
    assert answers(page, b'x' * 11)[0]['code'] == 'too_large'
    settings.SOCKETS = {'MAX_MESSAGE_SIZE': 100}
    assert answers(page, b'x' * 101)[0]['code'] == 'too_large'


def test_a_decoder_of_one_s_own_keeps_the_size_of_json(connect, settings):
    class Own(RoutedSocketHandler):
        def decode(self, text, data):
            return {'type': 'PING', 'ref': 1}

    settings.SOCKETS = {'MAX_MESSAGE_SIZE': 100, 'MAX_BINARY_SIZE': 1000}
    assert answers(connect(Own), b'x' * 101)[0]['code'] == 'too_large'


def test_message_handled_and_the_middleware_hear_of_bytes(connect):
    heard, seen = [], []

    def watch(next):
        return lambda socket, content: seen.append((socket.event, content)) or next(socket, content)

    class Watched(handler_with()):
        middleware = [watch]

    def receiver(socket, route, outcome, **kwargs):
        heard.append((route, outcome))

    signals.message_handled.connect(receiver)
    try:
        page = connect(Watched)
        answers(page, wrap(b'data', 1))
    finally:
        signals.message_handled.disconnect(receiver)
    assert heard == [('(bytes)', 'ok')]
    assert seen == [('connect', None), ('receive', b'data')]


class WithMethod(RoutedSocketHandler):
    def on_bytes(self, data):
        return b'method'


class WithRoute(RoutedSocketHandler):
    routes = (*RoutedSocketHandler.routes, Route(bytes, 'on_bytes', login_required=True))

    def on_bytes(self, data):
        return b'route'


class Replaced(WithRoute):
    routes = (*WithRoute.routes, (bytes, lambda socket, data: b'replaced'))


class Overridden(Replaced):
    def on_bytes(self, data):
        return b'overridden'


class Renamed(WithRoute):
    def on_bytes(self, data):
        return b'renamed'


class OfRouter(View):
    socket = SocketRouter(handler=WithMethod)

    @socket.bytes
    def on_picture(socket, data):
        return b'router'


class OfRouterOfRouter(View):
    socket = SocketRouter(handler=OfRouter.socket.Handler)

    @socket.bytes()
    def on_picture(socket, data):
        return b'another router'


@pytest.mark.parametrize(
    'handler, function, needs_login',
    [
        (WithMethod, b'method', False),
        (WithRoute, b'route', True),
        (Replaced, b'replaced', False),
        (Overridden, b'overridden', False),
        (Renamed, b'renamed', True),
        (OfRouter.socket.Handler, b'router', False),
        (OfRouterOfRouter.socket.Handler, b'another router', False),
    ],
)
def test_what_is_defined_last_takes_the_bytes_and_an_override_keeps_the_options(handler, function, needs_login):
    route = handler._route_table.binary
    assert route.function(None, b'', {}) == function
    assert route.login_required is needs_login
    assert route.function in handler_classes.functions(handler)


@pytest.mark.parametrize(
    'misuse, words',
    [
        (lambda: SocketRouter().bytes('PICTURE'), 'is not a function'),
        (lambda: SocketRouter().bytes(lambda: None), 'takes no argument'),
        (lambda: SocketRouter().bytes(nonsense=1), 'nonsense'),
        (lambda: SocketRouter().bytes(form=SimpleNamespace(is_valid=1, __call__=1)), 'form'),
        (
            lambda: [router.bytes(lambda socket: 1) for router in [SocketRouter()] for _ in range(2)],
            'function for bytes',
        ),
        (lambda: Route(str, 'x'), "@socket.route\\('TYPE'\\)"),
        (lambda: Route(bytearray, 'x'), "@socket.route\\('TYPE'\\)"),
    ],
)
def test_misuse_is_a_type_error(misuse, words):
    with pytest.raises(TypeError, match=words):
        misuse()


def test_a_form_of_fields_is_refused_for_bytes():
    from django import forms

    with pytest.raises(TypeError, match='their form is a function of the data'):
        SocketRouter().bytes(form=forms.Form)


def test_two_functions_for_bytes_in_one_class_are_an_error_that_names_both():
    with pytest.raises(ImproperlyConfigured, match=r"Both has on_bytes\(\) and <Route '\(bytes\)' -> .*>: remove one"):
        type(
            'Both',
            (RoutedSocketHandler,),
            {'routes': ((bytes, lambda socket, data: None),), 'on_bytes': lambda self, data: None},
        )
    with pytest.raises(ImproperlyConfigured, match='Bad.on_bytes: .* takes no argument'):
        type('Bad', (RoutedSocketHandler,), {'on_bytes': lambda: None})


def test_bytes_are_not_a_type():
    table = RouteTable([Route('A', None), Route(bytes, None)], Route(bytes, None, rate=1))
    assert table.match('(bytes)') is table.match('bytes') is table.match(bytes) is table.match(b'A') is None
    assert [route.pattern for route in table] == ['A'] and table.has_rates


def test_own_routes_are_those_of_the_class_bytes_included():
    assert [route.name for route in handler_classes.own_routes(Replaced)] == ['(bytes)']
    assert [route.name for route in handler_classes.own_routes(OfRouterOfRouter.socket.Handler)] == ['(bytes)']


def test_the_test_client_asks_with_bytes():
    with SocketClient('/lot/7/', handler=Pictures.socket.Handler, pattern=r'^/lot/(?P<lot>\d+)/$') as client:
        assert client.request_bytes(b'abc') == {'type': 'TAKEN', 'size': 3, 'lot': '7'}
        assert client.request('PICTURE') == b'picture'
        assert client.received() == []
        with pytest.raises(AssertionError, match='got no reply to bytes'):
            client._take_reply('none', 'bytes')
