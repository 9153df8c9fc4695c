import logging
import threading
import time

import pytest

from sockets import engine, fanout, signals
from sockets.exceptions import DeliveryFailed

MESSAGE = {'text': '{}'}


class Mailboxes:
    """Servers whose mailboxes hold 3 messages, as an engine sees them. It counts how often one was asked."""

    def __init__(self):
        self.lock = threading.Lock()
        self.mailboxes = {}
        self.tries = 0

    def hand_over(self, names, message):
        with self.lock:
            return [name for name in names if not self.take(name)]

    def take(self, name):
        mailbox = self.mailboxes.setdefault(engine.server_of(name), [])
        self.tries += 1
        return len(mailbox) < 3 and not mailbox.append(name)

    def receive(self, server):
        with self.lock:
            return self.mailboxes[server].pop(0) if self.mailboxes.get(server) else None

    def note_dropped(self, servers):
        pass


@pytest.fixture
def small(settings):
    settings.SOCKETS = {'SEND_TIMEOUT': 0.2}
    return Mailboxes()


def test_a_full_mailbox_is_waited_for_and_nothing_is_lost(small):
    received = []

    def read():
        while len(received) < 50:
            name = small.receive('server!')
            if name:
                received.append(name)
            time.sleep(0.002)

    reader = threading.Thread(target=read)
    reader.start()
    names = [f'server!{n}' for n in range(50)]
    assert fanout.hand_over(small, names, MESSAGE) == 50
    reader.join()
    assert received == names


def test_a_slow_server_gets_everything_as_long_as_it_takes_something(small):
    received = []

    def read():
        while len(received) < 8:
            time.sleep(0.1)
            received.append(small.receive('server!'))

    reader = threading.Thread(target=read)
    reader.start()
    # 5 of them wait for 0.5 s in all, and no one for the 0.2 s that a server may take nothing.
    assert fanout.hand_over(small, [f'server!{n}' for n in range(8)], MESSAGE) == 8
    reader.join()


def test_messages_to_a_server_that_takes_nothing_are_dropped_and_logged_once(small, caplog):
    def listen(servers, **kwargs):
        told.append(servers)

    told = []
    signals.messages_dropped.connect(listen)
    names = [f'dead!{n}' for n in range(10)] + ['alive!1', 'alive!2']
    started = time.monotonic()
    with caplog.at_level(logging.ERROR, 'sockets'):
        assert fanout.hand_over(small, names, MESSAGE) == 3 + 2
    assert 0.2 <= time.monotonic() - started < 2
    (record,) = caplog.records
    assert '7 messages' in record.getMessage() and 'dead! (7)' in record.getMessage()
    assert 'alive' not in record.getMessage()
    assert told == [{'dead!': 7}]
    # Only those are tried again that were refused.
    assert small.tries < 12 + 7 * 25


def test_a_server_that_is_known_to_be_stuck_is_asked_and_not_waited_for(small, caplog):
    told, stuck = [], set()

    def listen(servers, **kwargs):
        told.append(servers)

    signals.messages_dropped.connect(listen)
    assert fanout.hand_over(small, [f'dead!{n}' for n in range(4)], MESSAGE, stuck) == 3 and stuck == {'dead!'}
    started = time.monotonic()
    for _ in range(100):
        # Others get theirs.
        small.mailboxes.pop('alive!', None)
        assert fanout.hand_over(small, ['dead!1', 'alive!1'], MESSAGE, stuck) == 1
    assert time.monotonic() - started < 0.2
    # All are told, and the log says it once.
    assert told == [{'dead!': 1}] * 101 and len(caplog.records) == 1
    small.receive('dead!')
    assert fanout.hand_over(small, ['dead!1'], MESSAGE, stuck) == 1 and not stuck
    # Whoever says nothing of it waits.
    assert fanout.hand_over(small, ['dead!1'], MESSAGE) == 0 and not stuck
    assert time.monotonic() - started >= 0.2


class Away(Exception):
    """What a layer raises when its Redis cannot be reached."""


def test_a_fan_out_that_cannot_reach_some_serves_the_others_and_says_how_many():
    class Sharded:
        def hand_over(self, names, message):
            asked.append(list(names))
            error = Away('Redis is away')
            error.undelivered = [name for name in names if name.startswith('far!')]
            error.refused = [name for name in names if name.startswith('full!')]
            if error.undelivered:
                raise error
            return []

    asked = []
    with pytest.raises(DeliveryFailed, match='3 of 5 connections.*Redis is away') as raised:
        fanout.hand_over(Sharded(), ['far!1', 'near!1', 'full!1', 'far!2', 'near!2'], MESSAGE)
    assert (raised.value.delivered, raised.value.total) == (3, 5)
    assert isinstance(raised.value.__cause__, Away)
    # Who is full is tried again, who cannot be reached is not.
    assert asked[1:] == [['full!1']]
