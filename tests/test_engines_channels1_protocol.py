"""daphne's end of a websocket, without a network."""

import math

import pytest

from sockets.backlog import BACKLOG
from sockets.engines.channels1 import opening
from sockets.engines.channels1 import protocol as protocol_module
from sockets.engines.channels1.factory import SocketFactory
from sockets.engines.channels1.protocol import SocketProtocol
from sockets.engines.channels1.reading import FRAMES_A_TURN

from .wire import REQUEST, Wire, frame, frames

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def test_daphne_uses_it():
    import daphne.server
    from daphne import http_protocol

    assert http_protocol.HTTPFactory is daphne.server.HTTPFactory is SocketFactory
    assert http_protocol.HTTPFactory(None, send_channel='test!').ws_factory.protocol is SocketProtocol


def test_a_message_comes_in_and_one_goes_out():
    wire = Wire.open()
    wire.receive(frame(b'hi') + frame(b'\xff', BINARY))
    assert wire.layer.sent == [
        ('websocket.receive', {'reply_channel': wire.name, 'path': '/page/', 'order': 1, 'text': 'hi'}),
        ('websocket.receive', {'reply_channel': wire.name, 'path': '/page/', 'order': 2, 'bytes': b'\xff'}),
    ]
    wire.reply(text='hello')
    wire.reply(bytes=b'\x00')
    assert wire.frames() == [(TEXT, b'hello'), (BINARY, b'\x00')]


@pytest.mark.parametrize(
    'data, code',
    [
        (frame(b'\xff'), 1007),
        (frame(b'x', mask=None), 1002),
        (frame(b'x', 3), 1002),
        (frame(b'x', BINARY, fin=False) + frame(b'x' * 100, 0), 1009),
        (frame(b'\x03\xee', CLOSE), 1002),
    ],
)
def test_a_violation_is_answered_with_a_close_and_nothing_after_it_is_handled(settings, data, code):
    settings.SOCKETS = {'MAX_MESSAGE_SIZE': 20}
    wire = Wire.open()
    wire.receive(data + frame(b'after') + frame(b'', PING))
    assert [(opcode, payload[:2]) for opcode, payload in wire.frames()] == [(CLOSE, code.to_bytes(2, 'big'))]
    wire.receive(frame(code.to_bytes(2, 'big'), CLOSE))
    wire.transport.drain()
    assert wire.is_closed and wire.layer.channels() == ['disconnect']


def test_a_binary_frame_may_be_larger_than_a_text_if_the_settings_say_so(settings):
    settings.SOCKETS = {'MAX_MESSAGE_SIZE': 20, 'MAX_BINARY_SIZE': 200}
    wire = Wire.open()
    wire.receive(frame(b'x' * 800, BINARY) + frame(b'x' * 400, BINARY, fin=False) + frame(b'x' * 400, 0))
    assert wire.layer.messages() == [b'x' * 800] * 2
    for data in (
        frame(b'x' * 801, BINARY),
        frame(b'x' * 400, BINARY, fin=False) + frame(b'x' * 401, 0),
        frame(b'x' * 81),
        frame(b'x', fin=False) + frame(b'x' * 80, 0),
    ):
        wire = Wire.open()
        wire.receive(data)
        assert wire.frames()[0][1][:2] == b'\x03\xf1' and wire.layer.messages() == []
    # Encodings of one's own come in binary frames, too.
    settings.SOCKETS = {'MAX_MESSAGE_SIZE': 20, 'MAX_BINARY_SIZE': 10}
    wire = Wire.open()
    wire.receive(frame(b'x' * 80, BINARY))
    assert wire.layer.messages() == [b'x' * 80]


# What the server closes.


@pytest.mark.parametrize(
    'code, sent',
    [(True, b'\x03\xe8'), (1000, b'\x03\xe8'), (4401, b'\x11\x31'), (1011, b'\x03\xf3'), (1012, b'\x03\xf4restart')],
)
def test_daphne_can_close_with_codes_that_autobahn_keeps_to_itself(code, sent):
    wire = Wire.open()
    wire.reply(close=code)
    assert wire.frames() == [(CLOSE, sent)]


@pytest.mark.parametrize('code', [999, 1004, 1005, 1006, 1015, 2000, 5000, 1, 1.5, '1000'])
def test_an_invalid_close_code_closes_with_1011(code, caplog):
    # Channels' own consumers and groups send what they are given. The connection stayed open, or broke its client.
    wire = Wire.open()
    wire.reply(close=code)
    assert wire.frames() == [(CLOSE, b'\x03\xf3')]
    assert f'{code!r} is not a close code' in caplog.text


@pytest.mark.parametrize(
    'late',
    [
        frame(b'late'),
        frame(b'late', BINARY),
        frame(b'la', fin=False) + frame(b'te', 0),
        frame(b'ping', PING),
        frame(b'\xff'),
        frame(b'x', 3),
        frame(b'x' * 70000),
    ],
)
def test_what_comes_after_our_close_is_not_handled(late):
    # A frame that was executed and could not be answered was sent again by its client, to the next server.
    wire = Wire.open()
    wire.receive(frame(b'in time') + frame(b'fragment', fin=False))
    wire.reply(close=1012)
    for _ in range(3):
        wire.receive(late)
    assert wire.layer.messages() == ['in time'] and len(wire.frames()) == 1
    wire.receive(frame(b'\x03\xf4restart', CLOSE))
    wire.transport.drain()
    assert wire.is_closed and wire.layer.sent[-1][0] == 'websocket.disconnect'
    assert wire.layer.sent[-1][1]['code'] == 1012


def test_what_was_read_before_our_close_and_not_handled_is_dropped():
    wire = Wire.open()
    wire.receive(frame(b'x') * (FRAMES_A_TURN + 10), turns=False)
    assert len(wire.layer.sent) == FRAMES_A_TURN
    wire.reply(close=1012)
    wire.turns()
    assert len(wire.layer.sent) == FRAMES_A_TURN


def test_a_client_that_is_about_to_be_closed_is_not_read_any_more():
    # A client that always had a request under way kept a server that was told to stop from closing in good order.
    wire = Wire.open()
    wire.receive(frame(b'in time'))
    wire.protocol.stop_reading()
    assert not wire.transport.is_reading
    wire.receive(frame(b'late'))
    wire.reply(text='answer')
    wire.reply(close=1012)
    wire.turns()
    assert wire.transport.is_reading and wire.layer.messages() == ['in time']
    assert wire.frames() == [(TEXT, b'answer'), (CLOSE, b'\x03\xf4restart')]
    wire.receive(frame(b'later') + frame(b'\x03\xf4', CLOSE))
    wire.transport.drain()
    assert wire.is_closed and wire.layer.messages() == ['in time']


def test_a_connection_is_gone_when_its_client_does_not_answer_a_close():
    wire = Wire.open()
    wire.reply(close=4000)
    wire.turns(protocol_module.CLOSE_TIMEOUT + 1)
    assert wire.is_closed and wire.layer.channels() == ['disconnect'] and wire.clock.getDelayedCalls() == []


def test_a_connection_is_gone_when_its_client_closes_and_does_not_read():
    # The transport waited for ever to get rid of what was to be said before the end.
    wire = Wire.open(room=1000)
    wire.reply(text='x' * 50000)
    wire.receive(frame(b'\x03\xe8', CLOSE))
    assert not wire.is_closed
    wire.turns(protocol_module.CLOSE_TIMEOUT + 1)
    assert wire.is_closed and wire.layer.channels() == ['disconnect'] and wire.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    'told',
    [
        {'accept': True},
        {'accept': False},
        {'close': True},
        {'close': 1012},
        {'text': 'late'},
        {'retry': 1.0},
    ],
)
@pytest.mark.parametrize('first', [{'close': 4000}, {'accept': False}])
def test_a_message_to_a_connection_that_is_ending_does_no_harm(told, first):
    wire = Wire()
    wire.receive(REQUEST + b'\r\n')
    if first == {'close': 4000}:
        wire.reply(accept=True)
    name = wire.name
    wire.reply(**first)
    wire.factory.dispatch_reply(name, told)
    wire.protocol.serverReject(), wire.protocol.serverAccept(), wire.protocol.serverClose()
    wire.turns(10)
    wire.transport.drain()
    assert wire.is_closed and wire.layer.channels() == ['connect', 'disconnect']


def test_daphnes_check_of_its_time_outs_survives_a_connection_that_is_not_open_yet():
    # It closed one, which autobahn refuses before the handshake, and never looked at any again.
    wire = Wire(websocket_timeout=1)
    wire.receive(REQUEST + b'\r\n')
    wire.protocol.socket_opened -= 5
    wire.factory.check_timeouts()
    assert wire.status == 403


# Messages of the layer.


def test_empty_messages_arrive():
    wire = Wire.open()
    wire.reply(text='')
    wire.reply(bytes=b'')
    wire.reply(text='x', bytes=None)
    assert wire.frames() == [(TEXT, b''), (BINARY, b''), (TEXT, b'x')]


@pytest.mark.parametrize(
    'message, words',
    [
        ({'txt': 'x'}, "'txt'"),
        ({'text': 'x', 'status': 200}, "'status'"),
        ({'text': 'x', 'bytes': b'x'}, 'both'),
    ],
)
def test_a_message_that_makes_no_sense_raises(message, words):
    with pytest.raises(ValueError) as caught:
        Wire.open().reply(**message)
    assert words in str(caught.value)


def test_daphne_handles_a_message_for_a_page_and_one_for_no_connection():
    from daphne import http_protocol

    class Page(http_protocol.WebRequest):
        def __init__(self):
            self.got = []

        def serverResponse(self, message):
            self.got.append(message)

    factory = SocketFactory(None, send_channel='test!')
    page = factory.reply_protocols['test!page'] = Page()
    factory.dispatch_reply('test!page', {'status': 200})
    factory.dispatch_reply('test!nobody', {'anything': 1})
    assert page.got == [{'status': 200}]


def test_a_message_accepts_and_a_close_refuses():
    for message, status in (
        ({'accept': True}, 101),
        ({'text': 'x'}, 101),
        ({'text': ''}, 101),
        ({'accept': False}, 403),
        ({'close': True}, 403),
        ({'close': 4403}, 403),
        ({'close': 1000}, 403),
        ({'close': 1011}, 500),
        ({'close': 1012}, 503),
        ({'close': 1013}, 503),
    ):
        wire = Wire()
        wire.receive(REQUEST + b'\r\n')
        wire.reply(**message)
        assert wire.status == status


def asking(is_ours=True):
    wire = Wire()
    wire.receive(REQUEST + b'Sec-WebSocket-Protocol: v2, v1\r\n\r\n')
    wire.protocol.is_ours = is_ours
    return wire


def told(wire):
    """Return the frames behind the answer to the handshake."""
    return frames(wire.transport.sent.partition(b'\r\n\r\n')[2])


def test_what_is_sent_before_a_handler_of_ours_accepts_waits_for_that():
    # A message to many accepted those whose rows had just been inserted, without their subprotocol: browsers give up then.
    wire = asking()
    wire.reply(text='early')
    wire.reply(bytes=b'too')
    assert wire.transport.sent == b''
    wire.reply(accept=True, subprotocol='v1')
    wire.reply(text='opened')
    assert wire.status == 101 and b'Sec-WebSocket-Protocol: v1\r\n' in wire.transport.sent
    assert told(wire) == [(TEXT, b'early'), (BINARY, b'too'), (TEXT, b'opened')]


def test_who_is_told_to_come_back_is_told_at_once():
    wire = asking()
    wire.reply(text='early')
    wire.reply(text='{"type": "RECONNECT"}', close=4401)
    assert wire.status == 101
    assert told(wire) == [(TEXT, b'early'), (TEXT, b'{"type": "RECONNECT"}'), (CLOSE, b'\x11\x31')]


def test_what_waits_for_an_accept_that_does_not_come_is_dropped():
    for refusal in ({'accept': False}, {'close': 4403}):
        wire = asking()
        wire.reply(text='early')
        wire.reply(**refusal)
        assert wire.status == 403 and b'early' not in wire.transport.sent
    wire = asking()
    wire.reply(text='early')
    wire.reply(retry=3)
    assert wire.status == 101 and b'early' not in wire.transport.sent


def test_a_consumer_of_others_accepts_with_its_first_message():
    wire = asking(is_ours=False)
    wire.reply(text='first')
    assert wire.status == 101 and told(wire) == [(TEXT, b'first')]


# A client that does not read, and one that sends without end.


def test_frames_are_handled_some_at_a_time_and_nothing_is_read_meanwhile():
    wire = Wire.open()
    wire.receive(frame(b'x') * 200, turns=False)
    assert len(wire.layer.sent) == FRAMES_A_TURN and not wire.transport.is_reading
    wire.turns()
    assert wire.layer.messages() == ['x'] * 200 and wire.transport.is_reading


def test_a_transport_that_is_resumed_by_others_is_paused_again():
    # daphne does, after the handshake.
    wire = Wire.open()
    wire.receive(frame(b'x') * 65, turns=False)
    wire.transport.resumeProducing()
    wire.receive(frame(b'x'), turns=False)
    assert not wire.transport.is_reading and len(wire.layer.sent) == 64
    wire.turns()
    assert wire.transport.is_reading and len(wire.layer.sent) == 66


def test_of_pings_that_arrive_together_the_last_is_answered():
    wire = Wire.open()
    wire.receive(frame(b'1', PING) + frame(b'text') + frame(b'2', PING))
    assert wire.frames() == [(PONG, b'2')] and wire.layer.messages() == ['text']


def test_a_client_that_sends_pings_and_does_not_read_is_not_read_either():
    # Its pongs were held without a bound: 851 MB from one client.
    wire = Wire.open(room=100000)
    for _ in range(20000):
        wire.receive(frame(b'x' * 125, PING))
        if not wire.transport.is_reading:
            break
    assert 65536 < len(wire.transport.dataBuffer) + wire.transport._tempDataLen < 70000
    assert len(wire.protocol.reader) < 200
    wire.transport.drain()
    wire.turns()
    assert wire.transport.is_reading
    wire.receive(frame(b'on we go'))
    assert wire.layer.messages() == ['on we go']


@pytest.mark.parametrize('content', [{'text': 'x' * 1000}, {'bytes': b'x' * 1000}])
def test_a_client_that_does_not_read_is_cut_off_when_too_much_waits(content):
    wire = Wire.open(room=0)
    for _ in range(BACKLOG // 1004 - 10):
        wire.reply(**content)
    assert not wire.is_closed
    for _ in range(20):
        wire.protocol.serverSend(*(list(content.values()) + ['bytes' in content]))
    assert wire.is_closed and wire.layer.channels() == ['disconnect']


@pytest.mark.parametrize('before', [0, 100000])
def test_a_frame_longer_than_all_that_may_wait_reaches_a_client_that_reads(before):
    # Every follower of a stream was cut off by a message of 5 MiB, pushed or asked for.
    wire = Wire.open(room=0)
    wire.reply(text='x' * before)
    wire.reply(text='x' * (2 * BACKLOG))
    wire.reply(text='x' * 1000)
    assert not wire.is_closed
    wire.transport.drain()
    sent = frames(wire.transport.sent.partition(b'\r\n\r\n')[2])
    assert [len(payload) for _, payload in sent] == [before, 2 * BACKLOG, 1000] and not wire.is_closed


def test_behind_a_long_frame_no_more_may_wait_than_behind_others():
    wire = Wire.open(room=0)
    wire.reply(text='x' * (2 * BACKLOG))
    for _ in range(BACKLOG // 100000 + 1):
        wire.reply(text='x' * 100000)
    assert wire.is_closed and wire.layer.channels() == ['disconnect']


def test_a_client_that_reads_slowly_but_reads_is_not_cut_off():
    # What was sent since it had begun to lag was counted, whatever it had taken of it.
    wire = Wire.open(room=0)
    for _ in range(3 * BACKLOG // 100000):
        wire.reply(text='x' * 100000)
        wire.transport.drain(99000)
    assert not wire.is_closed


def test_a_client_that_has_come_up_is_read_again_though_it_is_never_done():
    wire = Wire.open(room=0)
    wire.reply(text='x' * 100000)
    assert not wire.transport.is_reading
    wire.transport.drain(90000)
    wire.reply(text='x' * 1000)
    wire.turns()
    assert wire.transport.is_reading and not wire.is_closed


def test_a_layer_that_fails_ends_the_connection_and_nothing_else():
    wire = Wire.open()
    wire.layer.refused, wire.layer.refusal = ['websocket.receive'], OSError('Redis')
    wire.receive(frame(b'x'))
    assert wire.is_closed and wire.layer.channels() == ['disconnect'] and wire.factory.reply_protocols == {}


def test_too_many_frames_close_with_1013():
    wire = Wire.open()
    wire.layer.refused = ['websocket.receive']
    wire.receive(frame(b'x') * 3)
    assert wire.frames() == [(CLOSE, (1013).to_bytes(2, 'big'))]
    wire.receive(frame(b'\x03\xf5', CLOSE))
    wire.transport.drain()
    # The layer sees to its end.
    assert wire.is_closed and wire.layer.sent == []


# Pings.


def silence(wire, seconds):
    """Let time pass as daphne does, which looks every two seconds."""
    for _ in range(seconds // 2):
        wire.protocol.last_data -= 2
        wire.factory.check_timeouts()
        wire.turns(2)


def test_a_silent_client_is_pinged_and_one_that_is_gone_is_found():
    wire = Wire.open()
    silence(wire, 24)
    ((opcode, payload),) = wire.frames()
    assert opcode == PING
    wire.receive(frame(payload, PONG))
    silence(wire, 20)
    assert not wire.is_closed and len(wire.frames()) == 2
    silence(wire, 34)
    assert wire.is_closed and wire.layer.channels() == ['disconnect'] and wire.clock.getDelayedCalls() == []


def test_an_answer_that_takes_longer_than_the_interval_is_an_answer():
    # daphne sent the next ping, forgot the first one, and cut off whoever answered either.
    wire = Wire.open(ping_interval=4, ping_timeout=30)
    silence(wire, 16)
    ((_, payload),) = wire.frames()
    wire.receive(frame(payload, PONG))
    wire.turns(25)
    assert not wire.is_closed


@pytest.mark.parametrize(
    'pieces',
    [
        [frame(b'x' * 100000, BINARY)[n : n + 2000] for n in range(0, 100000, 2000)],
        [frame(b'x' * 2000, BINARY, fin=False), *[frame(b'x' * 2000, 0, fin=False)] * 49],
    ],
)
def test_a_client_that_sends_one_large_frame_over_a_slow_line_is_not_silent(pieces):
    # It answers a ping when the frame is through; before, it was cut off half-way, again and again.
    wire = Wire.open()
    for piece in pieces:
        silence(wire, 4)
        wire.receive(piece)
    assert not wire.is_closed and {opcode for opcode, _ in wire.frames()} == {PING}
    silence(wire, 54)
    assert wire.is_closed


@pytest.mark.parametrize('answers', [True, False])
def test_a_client_that_is_not_read_because_it_reads_slowly_may_still_answer(answers):
    wire = Wire.open(room=0)
    wire.reply(text='x' * 100000)
    silence(wire, 24)
    assert not wire.transport.is_reading
    wire.turns(28)
    # Its answer is there, but was not read.
    assert not wire.is_closed and wire.transport.is_reading
    if answers:
        wire.receive(frame(b'a message', TEXT) + frame(wire.protocol.autoPingPending, PONG))
        assert not wire.transport.is_reading
    wire.turns(3)
    assert wire.is_closed is not answers


# Turned away.


def full(wire, **attributes):
    wire.layer.refused = ['websocket.connect']
    for name, value in attributes.items():
        setattr(wire.layer.refusal, name, value)
    return wire


def test_a_connect_for_which_there_is_no_room_is_refused_with_503():
    wire = full(Wire())
    wire.receive(REQUEST + b'\r\n')
    assert wire.status == 503 and b'Retry-After' not in wire.transport.sent
    wire.transport.drain()
    assert wire.is_closed and wire.layer.sent == [] and wire.factory.reply_protocols == {}


def turned_away(wire):
    """Return the frames behind the answer to the handshake."""
    assert wire.status == 101
    return frames(wire.transport.sent.partition(b'\r\n\r\n')[2])


@pytest.mark.parametrize('later', [False, True])
@pytest.mark.parametrize('answers', [True, False])
def test_a_connect_for_which_there_will_be_room_later_is_told_when_to_come_back(answers, later):
    wire = Wire(ws_protocols=['chat'])
    if not later:
        full(wire, retry_after=7.44)
    wire.receive(REQUEST + b'Sec-WebSocket-Protocol: chat\r\n\r\n' + frame(b'early'))
    if later:
        wire.reply(retry=7.44)
        wire.layer.sent.clear()
    wire.turns()
    assert turned_away(wire) == [(CLOSE, b'\x03\xf5retry=7.4')]
    # A browser that has asked for one takes no less.
    assert b'Sec-WebSocket-Protocol: chat' in wire.transport.sent
    assert wire.factory.reply_protocols == {} and wire.factory.turned_away == 1
    if answers:
        wire.receive(frame(b'late') + frame(b'\x03\xf5', CLOSE))
        wire.transport.drain()
    else:
        wire.turns(opening.TURN_AWAY_TIMEOUT + 1)
    assert wire.is_closed and wire.layer.sent == [] and wire.factory.turned_away == 0
    assert wire.clock.getDelayedCalls() == []


@pytest.mark.parametrize('later', [False, True])
def test_beyond_a_number_of_them_the_answer_is_503_with_the_time(monkeypatch, later):
    monkeypatch.setattr(opening, 'MAX_TURNED_AWAY', 1)
    first = full(Wire(), retry_after=7.4)
    first.receive(REQUEST + b'\r\n')
    assert first.status == 101
    second = Wire(factory=first.factory, clock=first.clock)
    second.layer.refused = [] if later else ['websocket.connect']
    second.receive(REQUEST + b'\r\n')
    if later:
        second.reply(retry=7.4)
    assert second.status == 503 and f'Retry-After: {math.ceil(7.4)}\r\n'.encode() in second.transport.sent
    second.transport.drain()
    assert second.is_closed and second.factory.reply_protocols == {} and second.factory.turned_away == 1


def test_a_client_that_leaves_before_it_is_accepted_gets_a_disconnect():
    wire = Wire()
    wire.receive(REQUEST + b'\r\n')
    wire.transport.end()
    assert wire.layer.channels() == ['connect', 'disconnect'] and wire.factory.reply_protocols == {}
    assert wire.clock.getDelayedCalls() == []


@pytest.mark.parametrize('setting, told, seconds', [(None, 5, 5), (12, 5, 12), (None, 30, 30)])
def test_the_time_for_a_handshake_is_the_settings_or_the_servers(settings, setting, told, seconds):
    settings.SOCKETS = {'HANDSHAKE_TIMEOUT': setting}
    wire = Wire(websocket_handshake_timeout=told)
    wire.receive(REQUEST + b'\r\n')
    wire.turns(seconds - 1)
    assert not wire.is_closed
    wire.turns(2)
    assert wire.is_closed and wire.layer.channels() == ['connect', 'disconnect']


# What is written at once.


class Transport:
    """What SocketProtocol needs of a TCP transport of Twisted's; it takes ``room`` bytes at once."""

    def __init__(self, room, dataBuffer=b'', waiting=()):
        self.room, self.dataBuffer, self._tempDataBuffer = room, dataBuffer, list(waiting)
        self.at_once, self.later = [], []

    def writeSomeData(self, data):
        if isinstance(self.room, Exception):
            return self.room
        self.at_once.append(data[: self.room])
        return len(data[: self.room])

    def write(self, data):
        self.later.append(data)


@pytest.mark.parametrize(
    'transport, at_once, later',
    [
        (Transport(100), [b'frame'], []),
        (Transport(2), [b'fr'], [b'ame']),
        (Transport(0), [b''], [b'frame']),
        (Transport(ConnectionError()), [], [b'frame']),
        (Transport(100, dataBuffer=b'before'), [], [b'frame']),
        (Transport(100, waiting=[b'before']), [], [b'frame']),
    ],
)
def test_a_frame_is_written_at_once_unless_something_waits_before_it(transport, at_once, later):
    protocol = SocketProtocol()
    protocol.transport, protocol.send_queue = transport, []
    protocol.sendData(b'frame')
    assert (transport.at_once, transport.later) == (at_once, later)


def test_a_transport_that_is_not_tcp_itself_is_left_to_write_as_it_likes():
    # Twisted's TLS hands out what the transport under it has: a frame went out without TLS.
    class Tls:
        def __init__(self):
            self.transport = Transport(100)

        def __getattr__(self, name):
            return getattr(self.transport, name)

        def write(self, data):
            written.append(data)

    written, protocol = [], SocketProtocol()
    protocol.transport, protocol.send_queue = Tls(), []
    protocol.sendData(b'frame')
    assert written == [b'frame'] and protocol.transport.transport.at_once == []


# Pages share a little of it.


@pytest.mark.parametrize('first', [b'GET /\xa2', b'GET /?\xc3\xa5', b'GET /page/?\xff', b'G\xa2 /'])
@pytest.mark.parametrize('head', [b'Host: localhost\r\n', REQUEST.partition(b'\r\n')[2]])
def test_what_is_not_ascii_in_a_request_line_is_answered_without_a_word_in_the_log(first, head, caplog):
    # Each wrote a traceback, which the next client could have repeated for ever.
    wire = Wire(through_http=True)
    wire.receive(first + b' HTTP/1.1\r\n' + head + b'\r\n')
    for channel, message in list(wire.layer.sent):
        if channel == 'http.request':
            assert message['query_string'].decode('ascii')
            wire.factory.dispatch_reply(message['reply_channel'], {'status': 200, 'content': b''})
        elif channel == 'websocket.connect':
            wire.factory.dispatch_reply(message['reply_channel'], {'accept': True})
    wire.transport.drain()
    assert wire.status in (200, 101, 400)
    assert [record for record in caplog.records if record.levelname == 'ERROR'] == []


def test_cookies_in_several_lines_are_as_many_cookies_as_in_one():
    from daphne.http_protocol import WebRequest
    from twisted.web.http_headers import Headers

    class Request(WebRequest):
        def __init__(self, *lines):
            self.requestHeaders, self.received_cookies = Headers({b'cookie': lines}), {}

    request = Request(b'a=1', b'b=\xc3\x85')
    request.parseCookies()
    assert request.requestHeaders.getRawHeaders(b'cookie') == [b'a=1; b=\xc3\x85']
    assert request.received_cookies == {b'a': b'1', b'b': b'\xc3\x85'}
    Request().parseCookies()


def test_a_connection_is_not_described_for_a_log_that_nobody_reads():
    from autobahn.websocket import protocol

    assert protocol.pformat is str
