"""What is no Exception, raised where a project's code runs: its client is told, and the worker goes on."""

import asyncio

import pytest
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter, signals
from sockets.models import Socket

from .conftest import OUR_LAYERS, both_ways

pytestmark = [pytest.mark.django_db, pytest.mark.parametrize('layer', OUR_LAYERS[:1], indirect=True)]


class Unheard(BaseException):
    """What a library may have of its own."""


exits = pytest.mark.parametrize(
    'raised',
    [SystemExit('the secret'), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), Unheard()],
    ids=lambda raised: type(raised).__name__,
)


@pytest.fixture
def heard():
    """The outcomes of all frames."""
    outcomes = []

    def listen(outcome, **kwargs):
        outcomes.append(outcome)

    signals.message_handled.connect(listen)
    yield outcomes
    signals.message_handled.disconnect(listen)


class Fragile(RoutedSocketHandler):
    """Raises where it is told to."""

    raised = where = None
    routes = (*RoutedSocketHandler.routes, ('RAISE', 'fail'), ('LATER', 'fail_later'), ('ECHO', 'echo'))

    def connect(self, message, **kwargs):
        super().connect(message, **kwargs)
        self.fail_at('connect')

    def disconnect(self, message, **kwargs):
        self.fail_at('disconnect')

    def echo(self, content):
        return content

    def fail(self, content):
        raise self.raised

    async def fail_later(self, content):
        await asyncio.sleep(0)
        raise self.raised

    def fail_at(self, where):
        if where == self.where:
            raise self.raised


def fragile(raised, where=None, **attributes):
    return type('Fragile', (Fragile,), {'raised': raised, 'where': where, **attributes})


def goes_on(connection):
    return connection.send({'type': 'ECHO', 'ref': 2}) == [{'type': 'ECHO', 'ref': 2}]


@both_ways
@exits
@pytest.mark.parametrize('sent', ['RAISE', 'LATER'])
def test_a_function_that_exits_is_answered_with_an_error(connect, heard, raised, sent, caplog):
    connection = connect(fragile(raised))
    connection.messages()
    (answer,) = connection.send({'type': sent, 'ref': 1})
    assert (answer['type'], answer['code'], answer['ref']) == ('ERROR', 'server_error', 1)
    assert 'secret' not in str(answer) and 'raised in a frame' in caplog.text
    assert goes_on(connection) and heard == ['server_error', 'ok']


@both_ways
@exits
def test_a_connect_that_exits_closes_with_1011(connect, raised):
    connection = connect(fragile(raised, 'connect'))
    assert connection.messages()[-1] == {'close': 1011}
    connection.disconnect(1011)
    assert not Socket.objects.exists()


@both_ways
@exits
def test_a_disconnect_that_exits_still_deletes_the_row(connect, raised, caplog):
    connection = connect(fragile(raised, 'disconnect'))
    connection.disconnect()
    assert not Socket.objects.exists() and 'failed' in caplog.text
    # Nor does it end who revokes.
    other = connect(fragile(raised, 'disconnect'))
    assert Socket.objects.all().revoke() == 1
    assert other.messages()[-1]['close'] == 4401


@both_ways
@exits
def test_functions_of_a_view_and_middleware_that_exit_are_treated_alike(connect, heard, raised):
    def middleware(next):
        def handle(socket, content):
            if socket.event == 'receive' and content['type'] == 'STOP':
                raise raised
            return next(socket, content)

        return handle

    class Base(Fragile):
        pass

    Base.middleware = [middleware]

    class Page(View):
        socket = SocketRouter(handler=Base)

        @socket.disconnect
        def on_close(socket):
            raise raised

    connection = connect(Page.socket.Handler)
    connection.messages()
    (answer,) = connection.send({'type': 'STOP', 'ref': 1})
    assert (answer['code'], answer['ref']) == ('server_error', 1) and goes_on(connection)
    assert heard == ['server_error', 'ok']
    connection.disconnect()
    assert not Socket.objects.exists()


@exits
def test_a_receiver_of_a_signal_that_exits_is_treated_alike(connect, raised, caplog):
    def receive(**kwargs):
        raise raised

    for signal in (signals.socket_connected, signals.message_handled, signals.socket_disconnected):
        signal.connect(receive)
    try:
        connection = connect(Fragile)
        assert connection.messages() == [{'accept': True}]
        assert goes_on(connection)
        connection.disconnect()
    finally:
        for signal in (signals.socket_connected, signals.message_handled, signals.socket_disconnected):
            signal.disconnect(receive)
    assert not Socket.objects.exists()
    assert caplog.text.count('A receiver of a signal raised') == 3


@exits
def test_a_decoder_or_an_encoder_that_exits_is_treated_alike(connect, heard, raised):
    def decode(self, text, data):
        if data == b'raise':
            raise raised
        return super(Fragile, self).decode(text or data.decode(), None)

    def encode(self, content):
        if content['type'] == 'RECONNECT' or 'raise' in content:
            raise raised
        return super(Fragile, self).encode(content)

    connection = connect(fragile(raised, decode=decode, encode=encode))
    connection.messages()
    assert connection.send(b'raise')[0]['code'] == 'server_error'
    (answer,) = connection.send({'type': 'ECHO', 'raise': 1, 'ref': 1})
    assert (answer['code'], answer['ref']) == ('server_error', 1) and goes_on(connection)
    assert heard == ['server_error', 'server_error', 'ok']
    # What says why may be lost, the close is not.
    Socket.objects.get().remove()
    connection._put(text='{"type": "PING"}')
    assert connection.messages() == [{'close': 1012}]
    stranger = connect(fragile(raised, encode=encode, login_required=True))
    assert stranger.messages() == [{'accept': True}, {'close': 4401}]


def test_an_error_that_cannot_be_told_is_a_server_error(connect, heard, settings):
    from sockets.exceptions import FrameError

    class Mute(Exception):
        def __str__(self):
            raise SystemExit

    settings.DEBUG = True
    for raised in (FrameError('invalid_content', errors={'x': object()}), FrameError(object()), Mute()):
        connection = connect(fragile(raised))
        (answer,) = connection.send({'type': 'RAISE', 'ref': 1})
        assert (answer['code'], answer['ref']) == ('server_error', 1)
        assert connect(fragile(raised, 'connect')).messages()[-1] == {'close': 1011}
    assert heard == ['server_error'] * 3


@pytest.mark.channels1('Channels 4 has no such exception')
@both_ways
def test_consume_later_reaches_channels(connect, heard):
    from channels.exceptions import ConsumeLater

    class Later(Fragile):
        def fail(self, content):
            calls.append(content)
            if len(calls) == 1:
                raise ConsumeLater()
            return {'type': 'NOW'}

    calls = []
    connection = connect(Later)
    connection.messages()
    assert connection.send({'type': 'RAISE'}) == [{'type': 'NOW'}]
    assert heard == ['ok']
