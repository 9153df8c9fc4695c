"""Connections that are only named, and rows that are real."""

import json
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.db import OperationalError
from django.utils import timezone

from sockets import RoutedSocketHandler, presence, signals
from sockets.engines.channels1 import audit
from sockets.engines.channels1.channel_layer import Adapter, channel_layer
from sockets.engines.channels1.sandbox import SERVER
from sockets.models import Socket

from .conftest import OUR_LAYERS

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def clock(monkeypatch):
    """The auditor's clock, a list of one number."""
    clock = [1000.0]
    monkeypatch.setattr(audit, 'time', SimpleNamespace(monotonic=lambda: clock[0], sleep=None))
    return clock


class Protocol:
    """As much of daphne's websocket as is looked at."""

    STATE_CONNECTING, STATE_CLOSING, STATE_OPEN = range(1, 4)

    def __init__(self, path='/page/', state=STATE_OPEN):
        self.state = state
        self.request_info = {'path': path}

    def serverClose(self):
        pass


class House:
    """A server, its auditor and a clock."""

    def __init__(self, clock):
        self.clock = clock
        self.protocols = {}
        self.auditor = audit.Auditor(SimpleNamespace(send_channel=SERVER, reply_protocols=self.protocols))

    def look(self, *seconds):
        """Look after each of ``seconds``."""
        for wait in seconds:
            self.clock[0] += wait
            self.auditor.look(list(self.protocols.items()))


@pytest.fixture
def house(clock):
    return House(clock)


def open_one(house, connect, **options):
    connection = connect(RoutedSocketHandler, **options)
    connection.messages()
    house.protocols[connection.name] = Protocol()
    return connection


def what_it_is_told(connection):
    return [(json.loads(message['text'])['type'], message['close']) for message in connection.messages()]


ours = pytest.mark.parametrize('layer', OUR_LAYERS, indirect=True)


@ours
def test_a_connection_whose_row_is_gone_is_closed_after_two_looks_and_no_frame_of_it_is_handled(connect, house, layer):
    victim, other = open_one(house, connect), open_one(house, connect)
    house.look(2)
    Socket.objects.filter(channel_name=victim.name)._raw_delete('default')
    house.look(2, 4.9)
    assert victim.messages() == []
    house.look(0.1)
    assert what_it_is_told(victim) == [('RECONNECT', 1012)] and other.messages() == []
    assert victim.send({'type': 'PING', 'ref': 1}) == []
    assert other.send({'type': 'PING', 'ref': 1}) == [{'type': 'ACK', 'ref': 1}]


@ours
def test_a_difference_of_a_moment_is_left_alone(connect, house, layer):
    connection = open_one(house, connect)
    row = Socket.objects.get()
    Socket.objects.all()._raw_delete('default')
    house.look(2, 3)
    row.save(force_insert=True)
    house.look(2)
    Socket.objects.all()._raw_delete('default')
    house.look(2, 4)
    assert connection.messages() == []
    house.look(1.1)
    assert what_it_is_told(connection) == [('RECONNECT', 1012)]


@ours
def test_a_connection_of_which_a_frame_is_being_handled_may_have_its_row_in_an_open_transaction(
    connect, house, layer, monkeypatch
):
    connection = open_one(house, connect)
    Socket.objects.all()._raw_delete('default')
    busy = [connection.name]
    monkeypatch.setattr(Adapter, 'idle', lambda self, names: [name for name in names if name not in busy])
    house.look(2, 6, 6, 6)
    assert connection.messages() == []
    busy.clear()
    house.look(2)
    assert what_it_is_told(connection) == [('RECONNECT', 1012)]


@ours
def test_a_row_that_comes_between_the_look_and_the_close_is_seen(connect, house, layer, monkeypatch):
    connection = open_one(house, connect)
    row = Socket.objects.get()
    Socket.objects.all()._raw_delete('default')

    def idle(names):
        row.save(force_insert=True)
        return names

    monkeypatch.setattr(Adapter, 'idle', lambda self, names: idle(names))
    house.look(2, 6)
    assert connection.messages() == []


@pytest.mark.parametrize('layer', ['asgiref.inmemory.ChannelLayer', 'asgi_redis.RedisChannelLayer'], indirect=True)
def test_a_stock_layer_does_not_know_what_is_being_handled_and_gets_a_minute(connect, house, layer):
    connection = open_one(house, connect)
    Socket.objects.all()._raw_delete('default')
    house.look(2, 6, 50)
    assert connection.messages() == []
    house.look(4)
    assert what_it_is_told(connection) == [('RECONNECT', 1012)]


@ours
def test_a_row_without_a_connection_ends_after_its_frames_with_its_functions_once(connect, house, layer):
    ended = []

    def on_end(socket, code, **kwargs):
        ended.append((socket.channel_name, code))

    signals.socket_disconnected.connect(on_end)
    gone, here = open_one(house, connect), open_one(house, connect)
    del house.protocols[gone.name]
    house.look(2, 4)
    here.messages()
    assert Socket.objects.count() == 2
    house.look(2)
    here.messages()
    assert ended == [(gone.name, 1006)] and Socket.objects.get().channel_name == here.name
    # Its own end, when it comes at last, is nobody's.
    gone.disconnect(1001)
    house.look(2, 6)
    assert len(ended) == 1


@ours
def test_one_too_many_and_one_too_few_are_found_in_a_while(connect, house, layer):
    gone, victim = open_one(house, connect), open_one(house, connect)
    house.look(2)
    del house.protocols[gone.name]
    Socket.objects.filter(channel_name=victim.name)._raw_delete('default')
    house.look(2)
    assert house.auditor.without_row == {}
    house.look(audit.NAMES_AFTER, 5)
    assert what_it_is_told(victim) == [('RECONNECT', 1012)]
    assert Socket.objects.count() == 0


@ours
def test_a_look_at_many_connections_is_one_query(connect, house, layer, django_assert_num_queries):
    for _ in range(5):
        open_one(house, connect)
    house.look(2)
    with django_assert_num_queries(1):
        house.look(2)
    Socket.objects.first().remove()
    with django_assert_num_queries(2):
        house.look(2)


@ours
def test_a_server_on_an_in_memory_layer_notes_in_its_rows_that_it_lives(connect, house, layer):
    open_one(house, connect)
    long_ago = timezone.now() - timedelta(hours=1)
    Socket.objects.update(modified=long_ago)
    house.look(1, 1)
    assert Socket.objects.get().modified == long_ago
    house.look(audit.BEAT)
    assert (Socket.objects.get().modified > long_ago) is channel_layer().local_only()
    # Whoever misses several is lost.
    assert 4 * audit.BEAT < presence.LOST_AFTER


def test_what_has_no_row_of_ours_is_left_alone(connect, house, layer):
    connect(RoutedSocketHandler)
    name = next(iter(Socket.objects.values_list('channel_name', flat=True)))
    house.protocols[name] = Protocol()
    # A consumer that is none of ours, one that is being opened, one that was turned away and is closing, and a page.
    house.protocols.update(
        {
            SERVER + 'bare': Protocol('/bare/'),
            SERVER + 'opening': Protocol(state=Protocol.STATE_CONNECTING),
            SERVER + 'closing': Protocol(state=Protocol.STATE_CLOSING),
            SERVER + 'page': object(),
        }
    )
    house.look(2, 10, 100)
    assert house.auditor.without_row == house.auditor.without_connection == {}


def test_an_error_is_logged_once_and_tried_again(house, monkeypatch, caplog):
    looks = []

    def look(connections):
        looks.append(None)
        raise OperationalError('away')

    monkeypatch.setattr(house.auditor, 'connections', dict)
    monkeypatch.setattr(house.auditor, 'look', look)

    def sleep(seconds):
        if len(looks) == 3:
            raise SystemExit

    monkeypatch.setattr(audit.time, 'sleep', sleep)
    with pytest.raises(SystemExit):
        house.auditor.run()
    assert caplog.text.count('Comparing connections with their rows waits: OperationalError: away') == 1


def test_a_server_has_one_auditor_however_many_connections_it_opens(monkeypatch):
    started = []
    monkeypatch.setattr(audit, '_begun', set())
    monkeypatch.setattr(audit.Auditor, 'start', lambda self: started.append(self.server))
    for name in ('one!', 'one!', 'two!', 'one!'):
        audit.begin(SimpleNamespace(send_channel=name, reply_protocols={}))
    assert started == ['one!', 'two!']
