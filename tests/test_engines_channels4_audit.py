"""Connections that are only named, and rows that are real. Nothing here needs Channels, so both stacks run it."""

import json
from types import SimpleNamespace

import pytest

from sockets import engine, signals
from sockets.connection import claims
from sockets.engines.channels4 import audit
from sockets.models import Socket

pytestmark = pytest.mark.django_db

SERVER = 'one!'


class House:
    """A server, its audit and a clock."""

    def __init__(self):
        self.now = 1000.0
        self.name = SERVER
        self.connections = {}
        self.sent = []
        self.audit = audit.Audit(self)

    def send(self, names, message):
        self.sent.append((names, message))

    def look(self, *seconds):
        """Look after each of ``seconds``."""
        for wait in seconds:
            self.now += wait
            self.audit.look()

    def open(self, n, row=True, **state):
        """Hold a connection of that number."""
        name = f'{SERVER}{n}'
        self.connections[name] = SimpleNamespace(**{'accepted': True, 'has_ended': False, 'busy_since': None, **state})
        if row:
            Socket.objects.create(channel_name=name, path='/page/')
        return name

    def closed(self):
        """Return the names that have been closed."""
        names = [name for names, _ in self.sent for name in names]
        for _, message in self.sent:
            assert json.loads(message['text'])['type'] == 'RECONNECT' and message['close'] == 1012
        self.sent.clear()
        return names


@pytest.fixture
def house(monkeypatch):
    house = House()
    monkeypatch.setattr(audit, 'time', SimpleNamespace(monotonic=lambda: house.now))
    monkeypatch.setattr(claims, 'THREADS', 0)
    monkeypatch.setattr(engine.current(), 'handler_at', lambda path: None)
    return house


def lose_row(name):
    Socket.objects.filter(channel_name=name)._raw_delete('default')


def test_a_connection_whose_row_is_gone_is_closed_after_two_looks(house):
    victim, _ = house.open(1), house.open(2)
    house.look(2)
    lose_row(victim)
    house.look(2, 4.9)
    assert house.closed() == []
    house.look(0.1)
    assert house.closed() == [victim] and Socket.objects.count() == 1


def test_a_difference_of_a_moment_is_left_alone(house):
    name = house.open(1)
    row = Socket.objects.get()
    lose_row(name)
    house.look(2, 3)
    row.save(force_insert=True)
    house.look(2)
    lose_row(name)
    house.look(2, 4)
    assert house.closed() == []
    house.look(1.1)
    assert house.closed() == [name]


def test_a_connection_of_which_a_frame_is_handled_may_have_its_row_in_an_open_transaction(house):
    name = house.open(1, row=False, busy_since=17)
    house.look(2, 6, 60)
    assert house.closed() == []
    house.connections[name].busy_since = None
    house.look(2)
    assert house.closed() == [name]


def test_a_row_that_comes_between_the_look_and_the_close_is_seen(house, monkeypatch):
    house.open(1)
    row = Socket.objects.get()
    lose_row(row.channel_name)
    house.look(2, 4)
    monkeypatch.setattr(audit.memories, 'doubt', lambda names: names and row.save(force_insert=True))
    house.look(2)
    assert house.closed() == []


@pytest.mark.parametrize('state', [{'accepted': False}, {'has_ended': True}])
def test_a_connection_that_is_opened_or_closed_may_have_a_row_or_none(house, state):
    house.open(1, **state), house.open(2, row=False, **state)
    house.look(2, 10, 100)
    assert house.closed() == [] and Socket.objects.count() == 1


def test_a_row_without_a_connection_ends_with_its_signal_once(house):
    ended = []

    def on_end(socket, code, **kwargs):
        ended.append((socket.channel_name, code))

    signals.socket_disconnected.connect(on_end)
    gone, here = house.open(1), house.open(2)
    del house.connections[gone]
    house.look(2, 4)
    assert Socket.objects.count() == 2 and ended == []
    house.look(2, 2, 2)
    assert Socket.objects.get().channel_name == here and ended == [(gone, 1006)]


def test_rows_of_other_servers_are_left_alone(house):
    Socket.objects.create(channel_name='two!1', path='/page/')
    house.look(2, 10, 100)
    assert Socket.objects.count() == 1


def test_one_too_many_and_one_too_few_are_found_in_a_while(house):
    gone, victim = house.open(1), house.open(2)
    house.look(2)
    del house.connections[gone]
    lose_row(victim)
    house.look(2)
    assert house.audit.without_row == {}
    house.look(audit.NAMES_AFTER, 5)
    assert house.closed() == [victim] and not Socket.objects.exists()


def test_a_look_at_many_connections_is_one_query(house, django_assert_num_queries):
    for n in range(5):
        house.open(n)
    house.look(2)
    with django_assert_num_queries(1):
        house.look(2)


def test_one_thread_looks_for_all_servers_and_goes_on_after_an_error(monkeypatch, caplog):
    monkeypatch.setattr(audit, '_auditor', None)
    monkeypatch.setattr(audit.Auditor, 'start', lambda self: None)
    monkeypatch.setattr(audit.Auditor, 'is_alive', lambda self: True)
    looks = []

    class Failing(audit.Audit):
        def look(self):
            looks.append(self.server.name)
            raise ValueError('away')

    monkeypatch.setattr(audit, 'Audit', Failing)
    one, two = House(), House()
    two.name = 'two!'
    audit.begin(one), audit.begin(two), audit.end(one)

    def sleep(seconds):
        if len(looks) == 3:
            raise SystemExit

    monkeypatch.setattr(audit, 'time', SimpleNamespace(sleep=sleep))
    with pytest.raises(SystemExit):
        audit._auditor.run()
    assert looks == ['two!'] * 3
    assert caplog.text.count('Comparing connections with their rows waits: ValueError: away') == 1
