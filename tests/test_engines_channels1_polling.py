"""Frames that are read by the threads that handle them: who reads what, and when the reactor does."""

import collections
import logging
import select
import socket
import threading
import time

import pytest

from sockets.engines.channels1 import direct, polling
from sockets.layers import InMemoryChannelLayer

from .wire import DirectTransport, Transport, Wire, frame, frames

pytestmark = pytest.mark.skipif(not hasattr(select, 'epoll'), reason='threads poll on Linux only')

FRAMES = ['websocket.receive', 'websocket.disconnect']
CLOSE, PING, PONG = 8, 9, 10


class Plugged(Transport):
    """A transport of a real socket."""

    bufferSize = 65536

    def plug(self, ours):
        self.socket = ours
        self.fileno = ours.fileno

    def doRead(self):
        try:
            data = self.socket.recv(self.bufferSize)
        except BlockingIOError:
            return None
        if not data:
            return 'over'
        self.protocol.dataReceived(data)

    def end(self, reason=None):
        super().end(reason)
        if self.socket.fileno() != -1:
            self.socket.close()
            del self.protocol


class DirectPlugged(DirectTransport, Plugged):
    """What it becomes when it is open."""


class Reactor:
    """Calls what it is told to when the test says so."""

    def __init__(self):
        self.calls, self.later, self.reading = [], [], set()
        self.addReader, self.removeReader = self.reading.add, self.reading.discard

    def callFromThread(self, *call):
        self.calls.append(call)

    def callLater(self, seconds, *call):
        self.later.append(call)

    def run(self):
        """Do what threads have asked for, and return how many things that were."""
        calls, self.calls[:] = list(self.calls), []
        for function, *args in calls:
            function(*args)
        return len(calls)

    def look(self, times=1):
        """Let so many looks pass."""
        for _ in range(times):
            calls, self.later[:] = list(self.later), []
            for function, *args in calls:
                function(*args)
            for reader in list(self.reading):
                if isinstance(reader, polling.Poll):
                    reader.doRead()


class Clients:
    """Connections of one server, whose frames a layer gets or threads read."""

    def __init__(self, **options):
        self.layer = InMemoryChannelLayer(**options)
        self.reactor = Reactor()
        self.poll = polling.Poll(self.reactor)
        self.layer.poll_with_threads(self.poll)

    def open(self):
        wire = Wire.open()
        wire.protocol.channel_layer = self.layer
        wire.factory.channel_layer = self.layer
        ours, wire.client = socket.socketpair()
        ours.setblocking(False), wire.client.settimeout(5)
        wire.transport.plug(ours)
        wire.transport.stopReading()
        wire.transport.poll = self.poll
        wire.transport.startReading()
        # Threads call this one, the tests of the protocol have none.
        wire.clock.callFromThread = self.reactor.callFromThread
        return wire

    def receive(self):
        """Return what one more frame says, and is of, taken by this thread."""
        _, message = self.layer.receive(FRAMES, block=True)
        return message and (message['reply_channel'], message.get('text', message.get('bytes')))

    def give_back(self):
        """Look until threads poll again."""
        for _ in range(500):
            time.sleep(0.01)
            self.reactor.look()
            if self.poll.is_open:
                return
        raise AssertionError('The reactor polls for ever.')


@pytest.fixture(autouse=True)
def transports(monkeypatch):
    """Have a real socket under each connection, to which threads write as to those of TCP."""
    monkeypatch.setattr('tests.wire.Transport', Plugged)
    monkeypatch.setitem(direct._DIRECT, Plugged, DirectPlugged)
    monkeypatch.setattr('sockets.layers.local_queues._PATIENCE', 0.2)
    monkeypatch.setattr('sockets.layers.local_polling._PATIENCE', 0.2)


@pytest.fixture
def clients():
    return Clients()


def end(thread):
    thread.join(5)
    assert not thread.is_alive()


class Taker(threading.Thread):
    """A thread that takes frames, and notes them, until there are none."""

    def __init__(self, clients, handle=lambda text: None, least=1):
        super().__init__(daemon=True)
        self.clients, self.handle, self.least, self.taken = clients, handle, least, []
        self.start()

    def run(self):
        while True:
            found = self.clients.receive()
            if found is None and len(self.taken) >= self.least:
                return
            if found is not None:
                self.taken.append(found)
                self.handle(found[1])


def test_a_thread_reads_the_frames_that_it_handles_and_the_reactor_is_asked_to_watch_it_once(clients):
    wire, other = clients.open(), clients.open()
    wire.client.sendall(frame(b'first'))
    assert clients.receive() == (wire.name, 'first')
    other.client.sendall(frame(b'\0\xff', opcode=2))
    assert clients.receive() == (other.name, b'\0\xff')
    wire.client.sendall(frame(b'x' * 70000)[:30000])
    assert clients.receive() is None
    wire.client.sendall(frame(b'x' * 70000)[30000:])
    assert clients.receive() == (wire.name, 'x' * 70000)
    assert clients.reactor.run() == 1 == len(clients.reactor.later)
    assert wire.protocol.packets_received == 2


def test_a_thread_that_waits_for_frames_gets_a_message_as_well(clients):
    wire = clients.open()
    taker = Taker(clients, least=2)
    time.sleep(0.1)
    clients.layer.send('websocket.disconnect', {'reply_channel': 'server!other', 'text': 'end'})
    time.sleep(0.1)
    wire.client.sendall(frame(b'frame'))
    end(taker)
    assert taker.taken == [('server!other', 'end'), (wire.name, 'frame')]


def test_several_frames_at_once_are_left_to_the_reactor_and_come_in_order(clients):
    wire = clients.open()
    wire.client.sendall(frame(b'1') + frame(b'2') + frame(b'ping', PING) + frame(b'3'))
    # Not before the reactor has handled what was read.
    assert clients.receive() is None and not wire.transport.is_polled
    wire.client.sendall(frame(b'4'))
    clients.reactor.run()
    assert [clients.receive()[1] for _ in range(4)] == ['1', '2', '3', '4']
    assert frames(wire.transport.sent) == [(PONG, b'ping')]


@pytest.mark.parametrize('data, code', [(frame(b'\xff'), 1007), (frame(b'', 3), 1002), (b'\x81\x05hello', 1002)])
def test_what_breaks_the_protocol_is_answered_with_a_close(clients, data, code):
    wire = clients.open()
    wire.client.sendall(frame(b'good'))
    assert clients.receive()[1] == 'good'
    wire.client.sendall(data)
    assert clients.receive() is None
    clients.reactor.run()
    assert frames(wire.transport.sent)[0][1][:2] == code.to_bytes(2, 'big')


def test_a_close_and_an_end_are_left_to_the_reactor(clients):
    wire, other = clients.open(), clients.open()
    wire.client.sendall(frame((1000).to_bytes(2, 'big'), CLOSE))
    other.client.close()
    assert clients.receive() is None
    clients.reactor.run()
    assert frames(wire.transport.sent) == [(CLOSE, (1000).to_bytes(2, 'big'))]
    # Its reactor reads it, and meets the end.
    assert other.transport.poll is None and other.transport.is_reading and other.transport.doRead() == 'over'


def test_nothing_is_read_after_our_close_nor_while_reading_is_paused(clients):
    wire, other = clients.open(), clients.open()
    wire.reply(close=True)
    other.protocol.set_paused(True)
    wire.client.sendall(frame(b'late'))
    other.client.sendall(frame(b'waits'))
    assert clients.receive() is None
    clients.reactor.run()
    assert clients.receive() is None
    other.protocol.set_paused(False)
    assert clients.receive() == (other.name, 'waits')


def test_a_frame_after_a_ping_stops_its_time_out_on_the_reactor(clients):
    wire = clients.open()
    wire.protocol.autoPingTimeoutCall = wire.clock.callLater(30, lambda: None)
    wire.client.sendall(frame(b'alive'))
    assert clients.receive() is None
    clients.reactor.run()
    assert clients.receive() == (wire.name, 'alive') and wire.protocol.autoPingTimeoutCall is None


def test_a_connection_that_has_ended_is_not_read(clients):
    wire = clients.open()
    wire.client.sendall(frame(b'late'))
    # The thread was told, and has not read it yet.
    clients.poll._ready.append(wire.transport.fileno())
    wire.transport.end()
    # Its disconnect.
    assert clients.receive() == (wire.name, None)
    assert clients.receive() is None and clients.poll.transports == {}


def test_an_error_while_one_is_read_ends_only_that_one(clients, caplog, monkeypatch):
    wire, other = clients.open(), clients.open()
    monkeypatch.setattr(wire.protocol.reader, 'limit', None, raising=False)
    wire.client.sendall(frame(b'first'))
    assert clients.receive() is None and 'Cutting off a websocket that could not be read' in caplog.text
    clients.reactor.run()
    assert wire.is_closed and not other.is_closed
    assert clients.receive() == (wire.name, None)
    other.client.sendall(frame(b'second'))
    assert clients.receive() == (other.name, 'second')


# While a thread is at work for long.


def test_the_reactor_reads_while_the_thread_is_at_work_for_long_and_gives_it_back(clients):
    wire, other = clients.open(), clients.open()
    hold, at_work = threading.Event(), threading.Event()

    def handle(text):
        if text == 'long':
            at_work.set(), hold.wait(5)

    taker = Taker(clients, handle, least=4)
    wire.client.sendall(frame(b'long'))
    at_work.wait(5)
    clients.reactor.run()
    other.client.sendall(frame(b'meanwhile'))
    clients.reactor.look(2)
    assert not clients.poll.is_open and clients.poll in clients.reactor.reading
    # It was read, and waits for a thread.
    assert not clients.layer.is_idle(other.name)
    wire.client.sendall(frame(b'next'))
    clients.poll.doRead()
    clients.reactor.look(20)
    assert not clients.poll.is_open
    hold.set()
    clients.give_back()
    assert clients.poll not in clients.reactor.reading
    wire.client.sendall(frame(b'last'))
    end(taker)
    assert [text for name, text in taker.taken if name == wire.name] == ['long', 'next', 'last']
    assert (other.name, 'meanwhile') in taker.taken


def test_a_thread_that_does_what_is_left_in_the_layer_gets_on(clients):
    # After one function of 10 ms, frames of 128 clients waited in the layer. While a thread did one after the other, the
    # reactor took it to be at work on one and the same, took over again, and read frames for three quarters of the time.
    wires = [clients.open() for _ in range(20)]
    clients.poll.watch()
    clients.reactor.run()
    clients.poll._take_over()
    for wire in wires:
        wire.client.sendall(frame(b'short'))
    clients.poll.doRead()
    clients.receive()
    # None of them took long.
    clients.poll._longest_at_work = lambda: 0
    clients.give_back()
    for _ in range(18):
        clients.receive()
        clients.reactor.look()
        assert clients.poll.is_open
    # On this one it is.
    clients.receive()
    clients.reactor.look(2)
    assert not clients.poll.is_open


def test_sockets_are_read_while_threads_have_enough_to_do_in_the_layer(clients):
    # Clients of TLS are read by the reactor. While 32 of them got one answer after another, nobody else got any.
    wire = clients.open()
    for number in range(100):
        clients.layer.send('websocket.receive', {'reply_channel': f'server!{number}', 'text': 'TLS'})
    wire.client.sendall(frame(b'waits'))
    clients.receive()
    clients.reactor.run()
    for _ in range(55):
        clients.receive()
        clients.reactor.look()
    assert not clients.poll.is_open and not clients.layer.is_idle(wire.name)
    for _ in range(45):
        name, text = clients.receive()
    assert (name, text) == (wire.name, 'waits')


def test_another_thread_takes_what_the_reactor_has_read_and_no_second_frame_of_that_connection(clients):
    clients.layer.wake_threads_after(60)
    wire, other = clients.open(), clients.open()
    hold, at_work = threading.Event(), threading.Event()

    def handle(text):
        if text == 'long':
            at_work.set(), hold.wait(5)

    takers = [Taker(clients, handle, least=0) for _ in range(2)]
    for taker in takers:
        taker.least = 1
    wire.client.sendall(frame(b'long'))
    at_work.wait(5)
    wire.client.sendall(frame(b'next'))
    other.client.sendall(frame(b'other'))
    clients.reactor.run()
    clients.reactor.look(2)
    time.sleep(0.1)
    found = [text for taker in takers for _, text in taker.taken]
    assert sorted(found) == ['long', 'other']
    hold.set()
    for taker in takers:
        end(taker)
    assert [text for taker in takers for _, text in taker.taken if text == 'next'] == ['next']


@pytest.mark.parametrize('frames, is_behind', [([7, 7, 7], True), ([7, 8, 7, 7], False), ([7, 8, 7, 7, 0], True)])
def test_the_reactor_reads_when_a_thread_gets_on_slowly_for_a_while_and_more_is_there(clients, frames, is_behind):
    # With functions that wait for a database, one thread would have done what several can do at a time.
    wires = [clients.open() for _ in range(40)]
    for wire in wires:
        wire.client.sendall(frame(b'query'))
    names = [clients.receive()[0]]
    clients.reactor.run()
    for count in frames:
        assert clients.poll.is_open
        names += [clients.receive()[0] for _ in range(count)]
        # Not at work on one and the same.
        clients.poll._turns += 1
        clients.reactor.look()
    assert clients.poll.is_open is not is_behind
    names += [clients.receive()[0] for _ in range(40 - len(names))]
    assert sorted(names) == sorted(wire.name for wire in wires)


def test_looks_end_when_nobody_sends_and_begin_with_the_next_frame(clients, monkeypatch):
    monkeypatch.setattr(polling, '_IDLE', 10)
    wire = clients.open()
    taker = Taker(clients, least=2)
    wire.client.sendall(frame(b'first'))
    while not clients.reactor.calls:
        time.sleep(0.01)
    clients.reactor.run()
    for _ in range(1000):
        clients.reactor.look()
        if not clients.reactor.later:
            break
        time.sleep(0.002)
    assert not clients.reactor.later and clients.poll.is_open
    wire.client.sendall(frame(b'second'))
    end(taker)
    assert clients.reactor.run() == 1 == len(clients.reactor.later)


def test_a_function_that_takes_long_is_seen_whatever_it_was_called_for(clients):
    # Nobody would have read the sockets while it ran.
    clients.layer.send('websocket.disconnect', {'reply_channel': 'server!other', 'text': 'end'})
    assert clients.receive() == ('server!other', 'end')
    assert clients.reactor.run() == 1 == len(clients.reactor.later)


def test_too_many_frames_close_a_connection_with_1013():
    clients = Clients(capacity=3)
    wire = clients.open()
    wire.client.sendall(frame(b'0'))
    assert clients.receive()[1] == '0'
    # Another thread reads on while this one is at work.
    other = Clients.__new__(Clients)
    other.layer = clients.layer
    for number in range(1, 6):
        wire.client.sendall(frame(b'%d' % number))
        taker = Taker(other, least=0)
        end(taker)
        assert taker.taken == []
    clients.reactor.run()
    assert frames(wire.transport.sent)[0][1][:2] == (1013).to_bytes(2, 'big')
    assert [clients.receive()[1] for _ in range(3)] == ['1', '2', '3']


# What meets what: the thread that polls, the reactor, and who hands something over.


@pytest.fixture
def patient(monkeypatch):
    """Have threads that poll wait for longer than a test does."""
    monkeypatch.setattr('sockets.layers.local_polling._PATIENCE', 60)


def test_the_thread_that_polls_is_not_taken_for_one_that_could(clients, patient):
    # It had begun to poll while the reactor looked for a thread: it got nothing, did not notice, and was handed nothing
    # any more until a frame came. Disconnects waited for a minute.
    taker = Taker(clients)
    time.sleep(0.1)
    clients.layer._queues.nudge('websocket.receive')
    clients.layer.send('websocket.disconnect', {'reply_channel': 'server!other', 'text': 'end'})
    time.sleep(0.2)
    assert taker.taken == [('server!other', 'end')]


def test_a_frame_that_is_left_to_others_is_told_to_the_reactor_at_once(clients, patient, monkeypatch):
    # The thread went to work on what had been handed over to it, and nobody was woken for the frame.
    clients.layer.wake_threads_after(60)
    told, queues = [], clients.layer._queues
    wire = clients.open()
    read = wire.protocol.read_now

    def read_now():
        clients.layer.send('websocket.disconnect', {'reply_channel': 'server!other', 'text': 'end'})
        monkeypatch.setattr(queues, 'tell_reactor', lambda: told.append(list(queues._calls)))
        return read()

    wire.protocol.read_now = read_now
    wire.client.sendall(frame(b'frame'))
    assert clients.receive() == ('server!other', 'end')
    assert len(told) == 1 and [call[-1] for call in told[0]] == [queues._relieve]


def test_the_reactor_is_not_busy_with_a_wake_up_that_came_too_late(clients):
    # It took all of a processor until the function ended.
    wire = clients.open()
    hold, at_work = threading.Event(), threading.Event()
    taker = Taker(clients, lambda text: (at_work.set(), hold.wait(5)), least=1)
    wire.client.sendall(frame(b'long'))
    at_work.wait(5)
    clients.reactor.run()
    clients.poll.wake()
    clients.reactor.look(2)
    assert not clients.poll.is_open and select.select([clients.poll], [], [], 0)[0] == []
    hold.set()
    end(taker)
    clients.give_back()
    # It is not lost.
    assert select.select([clients.poll], [], [], 0)[0] == [clients.poll]


def test_the_reactor_takes_over_while_a_thread_is_woken(clients):
    # The thread failed, and what it had been handed over was lost.
    class Ready(collections.deque):
        def extend(self, descriptors):
            super().extend(descriptors)
            clients.poll._take_over()

    clients.poll._ready = Ready()
    clients.poll.wake()
    assert clients.poll.next(1, None) is None and not clients.poll.is_open


def test_the_reactor_does_not_take_over_from_a_thread_that_waits_again(clients):
    taker = Taker(clients, least=0)
    time.sleep(0.1)
    clients.poll._take_over()
    assert clients.poll.is_open and clients.poll not in clients.reactor.reading
    end(taker)


def test_a_thread_that_begins_while_the_reactor_ends_to_look_is_looked_at(clients, monkeypatch):
    # A function that hung would have kept the sockets of all from being read.
    class Poll(polling.Poll):
        is_watched = False

        @property
        def _is_watched(self):
            return self.is_watched

        @_is_watched.setter
        def _is_watched(self, value):
            if self.is_watched and not value:
                self._turns += 1
                self.watch()
            self.is_watched = value

    monkeypatch.setattr(polling, '_IDLE', 1)
    clients.poll.__class__ = Poll
    clients.poll.is_watched = clients.poll._is_waiting = True
    clients.poll._look_later(1)
    clients.reactor.look()
    assert clients.reactor.later and clients.poll.is_watched


def test_frames_that_the_reactor_has_a_reason_to_handle_do_not_overtake_what_is_on_its_way_to_it(clients):
    wire = clients.open()
    wire.client.sendall(frame(b'1') + frame(b'2'))
    assert clients.receive() is None
    wire.protocol.resumeProducing()
    wire.clock.advance(0)
    assert not wire.transport.is_polled
    clients.reactor.run()
    assert [clients.receive()[1] for _ in range(2)] == ['1', '2']
    wire.client.sendall(frame(b'3'))
    assert clients.receive()[1] == '3'


def test_a_frame_comes_before_the_disconnect_of_a_connection_that_ends_while_it_is_read(clients):
    # It was handled after that, for a row that was gone.
    wire = clients.open()
    read, reactor = wire.protocol.read_now, threading.Thread(target=wire.transport.end)

    def read_now():
        message = read()
        reactor.start()
        time.sleep(0.1)
        return message

    wire.protocol.read_now = read_now
    wire.client.sendall(frame(b'last'))
    assert clients.receive() == (wire.name, 'last')
    reactor.join(5)
    assert clients.receive() == (wire.name, None)


def test_a_socket_that_cannot_be_polled_is_read_by_the_reactor(clients, caplog, monkeypatch):
    def register(*args):
        raise OSError('no more watches')

    wire = clients.open()
    wire.transport.stopReading()
    monkeypatch.setattr(clients.poll, '_epoll', type('', (), {'register': register}))
    wire.transport.startReading()
    assert wire.transport.is_reading and not wire.transport.is_polled
    # Not under the lock of the transport: a log handler may send something.
    assert caplog.text == ''
    with caplog.at_level(logging.WARNING):
        clients.reactor.run()
    assert 'no more watches' in caplog.text


# The end of a server.


def test_when_a_server_stops_the_reactor_reads_all_connections_old_and_new(clients):
    wire = clients.open()
    clients.poll.end()
    assert wire.transport.is_reading and not wire.transport.is_polled
    other = clients.open()
    assert other.transport.is_reading and not other.transport.is_polled
    wire.client.sendall(frame(b'last'))
    assert clients.receive() is None
    wire.transport.doRead()
    assert clients.receive() == (wire.name, 'last')
