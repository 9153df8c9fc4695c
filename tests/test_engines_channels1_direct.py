"""Answers that a worker's thread writes itself: what is written when, by whom, and never to whom."""

import socket
import struct
import threading
import time

import pytest
from autobahn.twisted.websocket import WebSocketServerFactory
from daphne import http_protocol
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import tcp, threads

from sockets.engines.channels1 import audit, direct
from sockets.layers import InMemoryChannelLayer

from .wire import REQUEST, DirectTransport, Transport, Wire, frame, frames

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


@pytest.fixture(autouse=True)
def direct_transport(monkeypatch):
    """Have the transports of tests written to as those of TCP."""
    monkeypatch.setitem(direct._DIRECT, Transport, DirectTransport)


class Wakeups:
    """A reactor that counts what threads have it call."""

    def __init__(self, wire):
        self.calls = []
        wire.transport.reactor.callFromThread = lambda *call: self.calls.append(call)

    def run(self):
        calls, self.calls[:] = list(self.calls), []
        for function, *args in calls:
            function(*args)


def opened(room=1 << 60):
    wire = Wire.open()
    wire.transport.room = room
    wire.wakeups = Wakeups(wire)
    return wire


# What a thread writes.


@pytest.mark.parametrize(
    'text', ['', 'a', 'a' * 125, 'a' * 126, 'ä' * 63, '\0', '€' * direct.LONGEST, '\U0001f600' * direct.LONGEST]
)
def test_it_is_the_frame_that_autobahn_makes_and_nobody_is_woken(text):
    wire = opened()
    assert wire.factory.write_now(wire.name, text)
    assert wire.transport.sent == WebSocketServerFactory().prepareMessage(text.encode()).payloadHybi
    assert wire.wakeups.calls == []


@pytest.mark.parametrize('text', ['a' * (direct.LONGEST + 1), '\ud800'])
def test_a_long_text_and_one_that_is_no_text_are_left_to_the_reactor(text):
    # A frame longer than all that may wait counts where the backlog is counted.
    wire = opened()
    assert not wire.factory.write_now(wire.name, text) and wire.transport.sent == b''


def test_nothing_is_written_before_what_waits_to_be_written():
    wire = opened(room=3)
    wire.reply(text='first')
    assert not wire.factory.write_now(wire.name, 'second')
    wire.wakeups.run()
    wire.transport.drain()
    assert wire.factory.write_now(wire.name, 'third')
    assert wire.frames() == [(TEXT, b'first'), (TEXT, b'third')]


def test_the_rest_of_a_frame_is_written_by_the_reactor_which_is_woken_once():
    wire = opened(room=3)
    assert wire.factory.write_now(wire.name, 'first')
    assert not wire.factory.write_now(wire.name, 'not yet')
    assert len(wire.wakeups.calls) == 1 and wire.transport not in wire.transport.reactor.writing
    # What the reactor is about to send comes after it.
    wire.reply(text='second')
    wire.wakeups.run()
    wire.transport.drain()
    assert wire.frames() == [(TEXT, b'first'), (TEXT, b'second')] and wire.wakeups.calls == []


def test_the_rest_is_written_before_the_close_and_before_the_end():
    wire = opened(room=3)
    assert wire.factory.write_now(wire.name, 'first')
    wire.reply(close=4401)
    wire.receive(frame(b'\x11\x31', CLOSE))
    assert not wire.is_closed
    wire.transport.drain()
    assert wire.frames() == [(TEXT, b'first'), (CLOSE, b'\x11\x31')] and wire.is_closed
    # The reactor had been asked, and comes too late.
    wire.wakeups.run()
    assert wire.transport not in wire.transport.reactor.writing


def test_a_transport_that_takes_nothing_or_fails_is_left_to_the_reactor():
    wire = opened(room=0)
    assert not wire.factory.write_now(wire.name, 'a')
    wire.transport.writeSomeData = lambda data: ConnectionError()
    assert not wire.factory.write_now(wire.name, 'a') and wire.wakeups.calls == []


def test_nothing_is_written_before_a_connection_is_open():
    wire = Wire()
    wire.receive(REQUEST + b'\r\n')
    assert not wire.factory.write_now(wire.name, 'a') and wire.transport.sent == b''
    assert not wire.factory.write_now('daphne.response.test!nobody', 'a')


def test_nothing_is_written_once_a_close_is_on_its_way():
    for end in (
        lambda wire: wire.reply(close=True),
        lambda wire: wire.receive(frame(b'\x03\xe8', CLOSE)),
        lambda wire: wire.receive(frame(b'\xff')),
        lambda wire: wire.transport.end(),
        lambda wire: wire.protocol.cut_off('as told'),
    ):
        wire = opened()
        protocol = wire.protocol
        end(wire)
        sent = wire.transport.sent
        assert not protocol.write_now('late') and wire.transport.sent == sent


def test_what_autobahn_sends_in_pieces_is_not_cut_in_two():
    wire = opened()
    wire.protocol.sendData(b'\x81\x04four', chopsize=3)
    assert not wire.factory.write_now(wire.name, 'late')


def test_tls_and_transports_that_nobody_knows_are_left_alone():
    class Tls(tcp.Server):
        TLS = True

        def __init__(self):
            pass

    transport = Tls()
    assert not direct.open_to_threads(transport) and type(transport) is Tls
    transport.__class__, transport.TLS = tcp.Server, True
    assert not direct.open_to_threads(transport) and type(transport) is tcp.Server
    transport.TLS = False
    assert direct.open_to_threads(transport) and type(transport) is direct.Server


# Who waits for whom.


class Held:
    """A system call that has been begun and does not return yet."""

    def __init__(self, transport, taken=None):
        self.began, self.may_end = threading.Event(), threading.Event()
        write = transport.writeSomeData

        def writeSomeData(data):
            self.began.set()
            assert self.may_end.wait(10)
            transport.writeSomeData = write
            return write(data if taken is None else data[:taken])

        transport.writeSomeData = writeSomeData


def begin(function, *args):
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread


def waits(thread):
    thread.join(0.05)
    return thread.is_alive()


@pytest.mark.parametrize(
    'act, last',
    [
        (lambda wire: wire.reply(text='second'), (TEXT, b'second')),
        (lambda wire: wire.reply(close=4401), (CLOSE, b'\x11\x31')),
        (lambda wire: wire.receive(frame(b'x', PING)), (PONG, b'x')),
        (lambda wire: wire.transport.write(b'\x81\x01x'), (TEXT, b'x')),
        (lambda wire: wire.transport.writeSequence([b'\x81', b'\x01x']), (TEXT, b'x')),
    ],
)
@pytest.mark.parametrize('taken', [None, 1, 3])
def test_the_reactor_waits_for_a_thread_that_is_writing(act, last, taken):
    wire = opened()
    held = Held(wire.transport, taken)
    first = begin(wire.factory.write_now, wire.name, 'first')
    assert held.began.wait(10)
    second = begin(act, wire)
    assert waits(second)
    held.may_end.set()
    first.join(10), second.join(10)
    wire.wakeups.run()
    wire.transport.drain()
    assert wire.frames() == [(TEXT, b'first'), last]


def test_a_connection_is_not_closed_while_a_thread_is_writing_to_it():
    # The descriptor would belong to the next client.
    wire = opened()
    held = Held(wire.transport)
    first = begin(wire.factory.write_now, wire.name, 'first')
    assert held.began.wait(10)
    end = begin(wire.transport.connectionLost, None)
    assert waits(end) and wire.transport.connected
    held.may_end.set()
    first.join(10), end.join(10)
    assert not wire.transport.connected and not wire.transport.write_now(b'late')


# Against autobahn.

texts = st.one_of(st.text(max_size=5), st.sampled_from(['x' * 125, 'x' * 126, 'ä' * 5000, 'x' * 70000]))
acts = st.one_of(
    st.tuples(st.just('write_now'), texts),
    st.tuples(st.just('write_now'), texts),
    st.tuples(st.just('reply'), texts),
    st.tuples(st.just('ping'), st.binary(max_size=5)),
    st.tuples(st.just('pong'), st.binary(max_size=5)),
    st.tuples(st.just('room'), st.sampled_from([0, 1, 2, 3, 130, 70000])),
    st.tuples(st.just('drain'), st.sampled_from([1, 2, 100, 70000, 1 << 60])),
    st.tuples(st.just('wakeups'), st.none()),
    st.tuples(st.just('close'), st.sampled_from([True, 1012, 4401])),
)


class Plain(Wire):
    """A connection whose frames are autobahn's own work, each in its turn, on a network that takes all of them."""

    def act(self, what, value):
        sending = super(type(self.protocol), self.protocol)
        if what in ('write_now', 'reply'):
            payload = value.encode()
            self.protocol.sendPreparedMessage(self.factory.ws_factory.prepareMessage(payload, False))
        elif what == 'ping':
            sending.sendPing(value)
        elif what == 'pong':
            sending.sendPong(value)
        elif what == 'close':
            self.reply(close=value)


@settings(max_examples=300, deadline=None)
@given(st.lists(acts, max_size=25))
def test_whoever_writes_the_client_gets_what_autobahn_would_have_sent(acts):
    direct._DIRECT[Transport] = DirectTransport
    wire = opened()
    del direct._DIRECT[Transport]
    plain = Plain.open()
    for what, value in acts:
        if what == 'write_now':
            if not wire.factory.write_now(wire.name, value):
                wire.reply(text=value)
        elif what == 'reply':
            wire.reply(text=value)
        elif what in ('ping', 'pong'):
            getattr(wire.protocol, 'send' + what.title())(value)
        elif what == 'room':
            wire.transport.room = value
        elif what == 'drain':
            wire.transport.drain(value)
        elif what == 'wakeups':
            wire.wakeups.run()
        elif what == 'close':
            wire.reply(close=value)
        if not wire.is_closed and plain.protocol.state == plain.protocol.STATE_OPEN:
            plain.act(what, value)
    wire.wakeups.run()
    wire.transport.drain()
    assert wire.transport.sent == plain.transport.sent


# Over a network.


class Server:
    """daphne's connections on a port, with threads that answer each frame with its own text."""

    def __init__(self, reactor, number, answer):
        self.layer = InMemoryChannelLayer(capacity=10000)
        self.factory = http_protocol.HTTPFactory(self.layer, send_channel='daphne.response.direct!')
        self.written, self.reactor = [], reactor
        self.port = threads.blockingCallFromThread(reactor, reactor.listenTCP, 0, self.factory, interface='127.0.0.1')
        self.address = '127.0.0.1', self.port.getHost().port
        self.layer.deliver_to('daphne.response.direct!', self.factory.dispatch_reply, self._write)
        self.is_over = False
        self.threads = [begin(self._work, answer) for _ in range(number)]

    def _write(self, channel, text):
        done = self.factory.write_now(channel, text)
        self.written.append(done)
        return done

    def _work(self, answer):
        while not self.is_over:
            channel, message = self.layer.receive(
                ['websocket.connect', 'websocket.receive', 'websocket.disconnect'], block=False
            )
            if channel is None:
                time.sleep(0.0005)
            elif channel == 'websocket.connect':
                self.layer.send(message['reply_channel'], {'accept': True})
            elif channel == 'websocket.receive':
                answer(self.layer, message['reply_channel'], message['text'])

    def stop(self):
        if self.is_over:
            return
        self.is_over = True
        for thread in self.threads:
            thread.join(10)
        threads.blockingCallFromThread(self.reactor, self.port.stopListening)
        for protocol in list(self.factory.reply_protocols.values()):
            self.reactor.callFromThread(protocol.transport.abortConnection)


class Client:
    def __init__(self, address):
        self.socket = socket.create_connection(address, 10)
        self.socket.sendall(REQUEST + b'\r\n')
        self.data = b''
        while b'\r\n\r\n' not in self.data:
            self.data += self.socket.recv(65536)
        assert self.data.startswith(b'HTTP/1.1 101')
        self.data = self.data.partition(b'\r\n\r\n')[2]

    def read(self, is_enough):
        while not is_enough(self.data):
            more = self.socket.recv(65536)
            assert more, 'closed'
            self.data += more
        return self.data


@pytest.fixture
def server(reactor, monkeypatch):
    servers = []
    # It would look into the database.
    monkeypatch.setattr(audit, 'begin', lambda factory: None)

    def start(number, answer=lambda layer, name, text: layer.send(name, {'text': text})):
        servers.append(Server(reactor, number, answer))
        return servers[-1]

    yield start
    for one in servers:
        one.stop()


def test_an_answer_to_a_client_that_is_alone_goes_straight_to_it(server):
    one = server(1)
    client = Client(one.address)
    for n in range(20):
        client.socket.sendall(frame(b'%d' % n))
        client.read(lambda data: data.endswith(b'%d' % n))
    # It is noted when it has been written, and by then the client may have it.
    one.stop()
    assert one.written == [True] * 20


def test_answers_of_a_frame_keep_their_order_and_pongs_come_between_them(server):
    def answer(layer, name, text):
        for n in range(5):
            # Some go one way and some the other.
            layer.send(name, {'text': f'{text}.{n}', **({'bytes': None} if n == 2 else {})})

    one = server(3, answer)
    client = Client(one.address)
    for n in range(100):
        client.socket.sendall(frame(b'%d' % n) + frame(b'p%d' % n, PING))
    data = client.read(lambda data: b'99.4' in data and b'p99' in data)
    texts = [payload.decode() for opcode, payload in frames(data) if opcode == TEXT]
    assert texts == [f'{n}.{part}' for n in range(100) for part in range(5)]
    assert True in one.written


def test_a_client_that_reads_slowly_gets_all_of_it_in_order(server):
    one = server(2, lambda layer, name, text: layer.send(name, {'text': text * 5000}))
    client = Client(one.address)
    for n in range(300):
        client.socket.sendall(frame(b'%03d' % n))
    time.sleep(0.1)
    data = client.read(lambda data: len(data) == 300 * (4 + 15000))
    assert frames(data) == [(TEXT, b'%03d' % n * 5000) for n in range(300)]
    assert True in one.written and False in one.written


def test_no_client_gets_what_was_written_for_one_that_is_gone(server):
    def answer(layer, name, text):
        for _ in range(3):
            layer.send(name, {'text': text})

    one = server(3, answer)
    failures = []

    def visit(number):
        try:
            for n in range(60):
                client, text = Client(one.address), b'%d-%d' % (number, n)
                client.socket.sendall(frame(text) * 3)
                if n % 2:
                    # Gone at once: the next client gets the descriptor while its answers are being written.
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
                else:
                    data = client.read(lambda data, text=text: data.count(text) >= 9)
                    assert {payload for _, payload in frames(data)} == {text}
                client.socket.close()
        except Exception as error:
            failures.append(error)

    visitors = [begin(visit, number) for number in range(4)]
    for visitor in visitors:
        visitor.join(60)
    assert failures == [] and True in one.written


def test_nothing_comes_after_a_close(server):
    one = server(1)
    for n in range(30):
        client = Client(one.address)
        client.socket.sendall(frame(b'x') * (n % 3) + frame(b'\x03\xe8', CLOSE) + frame(b'y') * 3)
        data = b''
        while True:
            more = client.socket.recv(65536)
            if not more:
                break
            data += more
        assert [opcode for opcode, _ in frames(client.data + data)][-1] == CLOSE
