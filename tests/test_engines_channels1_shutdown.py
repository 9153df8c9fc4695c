import time
from types import SimpleNamespace

import pytest
from twisted.internet import threads
from twisted.internet.defer import Deferred

from sockets.engines.channels1 import shutdown


class Protocol:
    """daphne's end of a websocket, or of a page."""

    STATE_CONNECTING, STATE_OPEN, STATE_CLOSING, STATE_CLOSED = 'connecting', 'open', 'closing', 'closed'

    def __init__(self, server, name, state='open', answers=True):
        self.answers = answers
        self.transport = self
        self.server, self.name, self.state, self.packets_received = server, name, state, 0
        self.is_read = True
        self.handshake_deferred = Deferred()
        self.handshake_deferred.addErrback(lambda failure: server.said.append((name, failure.value.code)))

    def serverClose(self, code):
        self.server.said.append((self.name, code))
        if self.answers:
            self.cleanup()

    def abortConnection(self):
        self.server.said.append((self.name, 'cut off'))
        self.cleanup()

    def stop_reading(self):
        self.is_read = False

    def cleanup(self):
        self.server.factory.reply_protocols.pop(self.name, None)


class Page:
    pass


class Server:
    """As much of daphne's server as a shutdown sees, and the layer that knows which connections are drained."""

    send_channel = 'server!'

    def __init__(self):
        self.factory = self.channel_layer = self
        self.poll = None
        self.listeners, self.reply_protocols, self.said, self.busy = [], {}, [], set()

    def drained_connections(self, server, names):
        assert server == self.send_channel
        return [name for name in names if name not in self.busy]

    def add(self, name, **kwargs):
        self.reply_protocols[name] = Protocol(self, name, **kwargs)
        return self.reply_protocols[name]


@pytest.fixture
def server(monkeypatch):
    for name, seconds in (('DRAIN_TIMEOUT', 1.5), ('_LAST_SECOND', 0.5), ('_HANDSHAKE', 0.5)):
        monkeypatch.setattr(shutdown, name, seconds)
    return Server()


@pytest.fixture
def shut_down(server, reactor):
    """A function that shuts the server down and returns after how many seconds that was over."""

    def shut_down():
        began = time.monotonic()
        threads.blockingCallFromThread(reactor, shutdown.Shutdown(server).begin)
        return time.monotonic() - began

    return shut_down


def later(reactor, seconds, function):
    reactor.callFromThread(reactor.callLater, seconds, function)


def test_a_drained_connection_is_closed_at_once_and_another_one_when_it_is_drained(server, shut_down, reactor):
    server.add('a'), server.add('b')
    server.busy.add('b')
    later(reactor, 0.4, lambda: (server.said.append('done'), server.busy.clear()))
    assert 0.4 < shut_down() < 1
    assert server.said == [('a', 1012), 'done', ('b', 1012)]


def test_nothing_more_is_read_of_a_client_that_goes_on_sending(server, shut_down, reactor):
    protocol = server.add('a')
    server.busy.add('a')
    later(reactor, 0.4, server.busy.clear)
    shut_down()
    assert not protocol.is_read and server.said == [('a', 1012)]


def test_a_client_that_waits_to_be_accepted_is_told_when_to_come_back(server, shut_down):
    protocol = server.add('a', state='connecting')
    server.withdraw = lambda name: True
    protocol.turn_away = lambda seconds: (server.said.append(('a', 'retry', seconds)), protocol.cleanup())
    shut_down()
    assert server.said == [('a', 'retry', 1)]


def test_a_client_that_sends_while_we_ask_is_not_drained(server, shut_down, reactor):
    protocol = server.add('a')
    protocol.packets_received = 0

    def drained(server_, names):
        # The frame is on its way to Redis, which knows nothing of it yet.
        if server.asked < 5:
            protocol.packets_received += 1
        server.asked += 1
        return names

    server.asked, server.drained_connections = 0, drained
    shut_down()
    assert server.asked >= 7 and server.said == [('a', 1012)]


def test_pages_are_waited_for(server, shut_down, reactor):
    server.reply_protocols['page'] = Page()
    later(reactor, 0.4, server.reply_protocols.clear)
    assert 0.35 < shut_down() < 1 and server.said == []


def test_it_ends_in_time_though_a_connection_is_not_drained(server, shut_down, caplog):
    server.add('a')
    server.busy.add('a')
    server.reply_protocols['page'] = Page()
    assert 1.4 < shut_down() < 2
    assert server.said == [('a', 1012)]
    assert 'Closing 1 connections whose frames have not been handled' in caplog.text


@pytest.mark.parametrize('state, told', [('open', [('a', 1012)]), ('closing', []), ('closed', [])])
def test_a_client_that_does_not_answer_a_close_is_cut_off_in_time_for_its_end_to_be_handled(
    server, shut_down, reactor, state, told
):
    # When the reactor has stopped, nobody waits for the workers: 29 rows of 30 stayed.
    server.add('a', state=state, answers=False)
    server.is_idle = lambda: not server.busy
    abort = server.reply_protocols['a'].abortConnection

    def abort_connection():
        abort()
        server.busy.add('the end of a')
        reactor.callLater(0.1, server.busy.clear)

    server.reply_protocols['a'].abortConnection = abort_connection
    assert 1.3 < shut_down() < 1.5
    assert server.said == told + [('a', 'cut off')]


def test_a_handshake_that_takes_too_long_is_refused_with_503(server, shut_down):
    server.add('a', state='connecting')
    server.busy.add('a')
    assert 0.4 < shut_down() < 1
    assert server.said == [('a', 503)]


def test_it_ends_in_time_if_the_layer_fails_or_hangs(server, shut_down, caplog):
    def fail(server_, names):
        raise ConnectionError('away')

    server.add('a')
    server.drained_connections = fail
    assert 0.9 < shut_down() < 2
    assert server.said == [('a', 1012)] and 'Waiting for the frames of 1 connections: away' in caplog.text
    server.add('b')
    server.drained_connections = lambda server_, names: time.sleep(3) or names
    assert 0.9 < shut_down() < 2
    assert server.said[1:] == [('b', 1012)]


def test_a_stock_layer_that_knows_nothing_is_not_asked(server, shut_down):
    server.channel_layer = SimpleNamespace()
    server.add('a')
    server.busy.add('a')
    assert shut_down() < 1 and server.said == [('a', 1012)]
