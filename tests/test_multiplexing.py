import json

import pytest
from channels.exceptions import DenyConnection
from django.core.exceptions import ImproperlyConfigured
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter, signals
from sockets.models import Socket
from sockets.multiplexing import SocketDemultiplexer
from sockets.routes import Route

from .client import ON_CHANNELS_1

pytestmark = pytest.mark.django_db

seen = []


class Chat(View):
    socket = SocketRouter()

    @socket.connect
    def on_open(socket, room):
        seen.append(('open', room))
        socket.send_json({'type': 'WELCOME'})

    @socket.route('SAY')
    def on_say(socket, content, room):
        return {'type': 'SAID', 'text': content['text'], 'room': room, 'id': socket.socket.pk}

    @socket.route('COUNT')
    def on_count(socket):
        socket.session['count'] = socket.session.get('count', 0) + 1
        return {'type': 'COUNT', 'n': socket.session['count']}

    @socket.disconnect
    def on_close(socket):
        seen.append(('close', socket.socket.path))


class Secret(RoutedSocketHandler):
    login_required = True
    routes = *RoutedSocketHandler.routes, ('FAIL', lambda socket: 1 / 0)


class All(SocketDemultiplexer):
    streams = {'chat': Chat.socket.Handler, 'again': Chat.socket.Handler, 'secret': Secret}


@pytest.fixture
def all_(connect, alice, login):
    seen.clear()
    return connect(All, '/all/tea/', pattern=r'^/all/(?P<room>\w+)/$', cookies=login(alice))


def on(stream, **payload):
    return {'stream': stream, 'payload': payload}


def test_each_stream_has_its_handler_and_all_share_the_connection(all_):
    assert [json.loads(message['text']) for message in all_.messages() if 'text' in message] == [
        on('chat', type='WELCOME'),
        on('again', type='WELCOME'),
    ]
    row = Socket.objects.get()
    assert all_.send(on('chat', type='SAY', text='hi')) == [on('chat', type='SAID', text='hi', room='tea', id=row.pk)]
    assert all_.send(on('again', type='SAY', text='hi', ref=1)) == [
        on('again', type='SAID', text='hi', room='tea', id=row.pk, ref=1)
    ]
    assert all_.send(on('chat', type='COUNT')) == [on('chat', type='COUNT', n=1)]
    assert all_.send(on('again', type='COUNT')) == [on('again', type='COUNT', n=2)]
    all_.disconnect()
    assert seen == [('open', 'tea'), ('open', 'tea'), ('close', '/all/tea/'), ('close', '/all/tea/')]


def test_errors_are_sent_on_their_stream_and_those_of_the_envelope_without_one(all_, caplog):
    all_.received()
    (answer,) = all_.send(on('chat', type='NONE', ref=1))
    assert (answer['stream'], answer['payload']['code'], answer['payload']['ref']) == ('chat', 'unknown_type', 1)
    (answer,) = all_.send(on('secret', type='FAIL'))
    assert (answer['stream'], answer['payload']['code']) == ('secret', 'server_error')
    assert "Secret at '/all/tea/' raised" in caplog.text
    for content, code in (
        ({'stream': 'none', 'payload': {}}, 'unknown_type'),
        ({'stream': [], 'payload': {}}, 'unknown_type'),
        ({'stream': 'chat', 'payload': 'x'}, 'invalid_message'),
        ({'stream': 'chat'}, 'invalid_message'),
    ):
        (answer,) = all_.send({**content, 'ref': 2})
        assert (answer['type'], answer['code'], answer['ref']) == ('ERROR', code, 2)


def test_frames_without_a_stream_and_refs_of_the_envelope_are_ours(all_):
    all_.received()
    assert all_.send({'type': 'PING', 'ref': 1}) == [{'type': 'ACK', 'ref': 1}]
    assert all_.send({**on('chat', type='SAY', text='hi'), 'ref': 2})[-1] == {'type': 'ACK', 'ref': 2}


def test_a_stream_with_login_required_closes_connections_without_a_user(connect):
    # It ran the connect functions of all streams, and sent what they said.
    seen.clear()
    outer = type('Outer', (SocketDemultiplexer,), {'streams': {'all': All}})
    for handler in (All, outer):
        stranger = connect(handler, '/all/tea/', pattern=r'^/all/(?P<room>\w+)/$')
        accept, told, close = stranger.messages()
        assert accept == {'accept': True} and close == {'close': 4401}
        assert json.loads(told['text']) == {'type': 'RECONNECT', 'details': 'Log in to use this socket.'}
        stranger.disconnect(4401)
    assert seen == [] and not Socket.objects.exists()


def room(**streams):
    return type('Room', (SocketDemultiplexer,), {'streams': streams})


def noisy(name, fail=None, **attributes):
    def connect(self, message, **kwargs):
        RoutedSocketHandler.connect(self, message, **kwargs)
        seen.append(('open', name))
        if fail is not None:
            raise fail

    def disconnect(self, message, **kwargs):
        seen.append(('close', name, self.socket.path))

    return type(name, (RoutedSocketHandler,), dict(attributes, connect=connect, disconnect=disconnect))


def test_a_stream_that_denies_ends_those_that_were_open_before_it(connect):
    seen.clear()
    denied = connect(room(one=noisy('one'), two=noisy('two', DenyConnection()), three=noisy('three')))
    assert denied.messages() == [{'accept': True}, {'close': 4403}]
    assert seen == [('open', 'one'), ('open', 'two'), ('close', 'one', '/page/')]
    denied.disconnect(4403)
    assert len(seen) == 3 and not Socket.objects.exists()


def test_a_stream_may_refuse_before_the_accept_and_its_middleware_too(connect):
    def swallow(next):
        return lambda socket, content: None

    def deny(self, message, **kwargs):
        raise DenyConnection()

    for handler in (noisy('silent', middleware=[swallow]), type('Denying', (RoutedSocketHandler,), {'connect': deny})):
        refused = connect(room(it=handler))
        assert refused.messages() == [{'close': 4403}]
        assert not Socket.objects.exists()


def test_a_connect_of_a_stream_that_raises_is_told_on_it(connect, caplog):
    broken = connect(room(one=noisy('Broken', KeyError('in connect'))))
    accept, error, close = broken.messages()
    error = json.loads(error['text'])
    assert (error['stream'], error['payload']['code'], close) == ('one', 'server_error', {'close': 1011})
    assert "Broken at '/page/' raised in connect" in caplog.text
    if not ON_CHANNELS_1:
        return
    from channels.exceptions import WebsocketCloseException

    closed = connect(room(one=noisy('Closing', WebsocketCloseException(4242)), two=noisy('two')))
    assert closed.messages() == [{'accept': True}, {'close': 4242}]


def test_a_frame_takes_one_token_of_the_rate_that_holds_on_its_stream(connect, settings):
    settings.SOCKETS = {'MAX_FRAMES_PER_SECOND': 0.5}

    class Fast(RoutedSocketHandler):
        routes = Route('MOVE', lambda socket: {'type': 'MOVED'}, rate='1/m'), ('SLOW', lambda socket: {'type': 'SLOW'})

    class Rated(SocketDemultiplexer):
        streams = {'one': Fast, 'two': Fast}
        routes = *RoutedSocketHandler.routes, Route('MOVE', lambda socket: {'type': 'OURS'}, rate='1/m')

    connection = connect(Rated)
    connection.messages()
    # Each has its own, and none takes that of all.
    for stream in ('one', 'two'):
        assert connection.send(on(stream, type='MOVE')) == [on(stream, type='MOVED')]
        answer, ack = connection.send({**on(stream, type='MOVE', ref=1), 'ref': 2})
        assert (answer['stream'], answer['payload']['code'], answer['payload']['ref']) == (stream, 'rate_limited', 1)
        assert ack == {'type': 'ACK', 'ref': 2}
    assert connection.send({'type': 'MOVE'}) == [{'type': 'OURS'}]
    assert connection.send(on('one', type='SLOW')) == [on('one', type='SLOW')]
    # That is one for the connection.
    assert connection.send(on('two', type='SLOW'))[0]['payload']['code'] == 'rate_limited'
    assert connection.send({'type': 'PING', 'ref': 1})[0]['code'] == 'rate_limited'


@pytest.mark.parametrize(
    'bad', [on('none', type='PING'), {'stream': 'one', 'payload': 1}, {'stream': []}, on('one', type='NONE')]
)
def test_bad_payloads_and_unknown_streams_close_in_the_end(connect, settings, bad):
    settings.SOCKETS = {'MAX_BAD_FRAMES': 3}
    connection = connect(room(one=RoutedSocketHandler))
    connection.messages()
    for frame in (bad, bad, on('one', type='PING'), bad):
        connection.send(frame)
    connection._put(text=json.dumps(bad))
    assert connection.messages()[-1] == {'close': 4400}


def test_message_handled_is_sent_for_the_frame_of_a_stream(all_):
    heard = []

    def listen(route, outcome, **kwargs):
        heard.append((route, outcome))

    signals.message_handled.connect(listen)
    for content in (on('chat', type='COUNT'), on('secret', type='FAIL'), on('chat', type='NONE'), on('none', type='X')):
        all_.send(content)
    signals.message_handled.disconnect(listen)
    assert heard == [('COUNT', 'ok'), ('FAIL', 'server_error'), (None, 'unknown_type'), (None, 'unknown_type')]


@pytest.mark.parametrize('stream', [Chat, 'chat', View])
def test_a_stream_that_is_not_a_handler_class_is_refused_when_its_class_is_made(stream):
    with pytest.raises(ImproperlyConfigured, match=r"Broken.streams\['chat'\]"):
        type('Broken', (SocketDemultiplexer,), {'streams': {'chat': stream}})
