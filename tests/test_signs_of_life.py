"""When rows say that their clients live, in a process whose thread writes that for all of them together."""

import threading
from datetime import timedelta

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from sockets import RoutedSocketHandler, signals
from sockets.connection import identity_cache, signs_of_life
from sockets.connection.memory import memories
from sockets.connection.signs_of_life import SignsOfLife, signs
from sockets.models import Socket

from .conftest import OUR_LAYERS

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.parametrize('layer', [OUR_LAYERS[0]], indirect=True)]

heard = []


class Page(RoutedSocketHandler):
    def receive(self, content, **kwargs):
        if content.get('type') == 'WHEN':
            return {'type': 'WHEN', 'last_ping': self.socket.last_ping.isoformat(), 'active': self.socket.active}
        return super().receive(content, **kwargs)

    def disconnect(self, message, **kwargs):
        heard.append(self.socket.last_ping)


@pytest.fixture(autouse=True)
def is_open(monkeypatch):
    """Nothing is written before ``signs.write()``."""
    monkeypatch.setattr(signs, '_is_open', True)
    monkeypatch.setattr(signs, '_waiting', {})
    heard.clear()


def ago(**kwargs):
    return timezone.now() - timedelta(**kwargs)


def silent(client, seconds=3600, active=True):
    """Have it be a while since ``client`` has sent anything."""
    memory = memories.get(client.name)
    memory.noted = memory.heard = memory.noted - seconds
    Socket.objects.filter(channel_name=client.name).update(
        last_ping=ago(seconds=seconds), modified=ago(seconds=seconds), active=active
    )
    identity_cache.cache.drop([identity_cache.PERMISSIONS])


def row(client):
    return Socket.objects.get(channel_name=client.name)


def statements():
    """Return what ``signs.write()`` asks of the database, as the first words of its statements."""
    with CaptureQueriesContext(connection) as context:
        signs.write()
    return [
        query['sql'].split()[0]
        for query in context.captured_queries
        if query['sql'].split()[0] in ('SELECT', 'UPDATE', 'INSERT', 'DELETE')
    ]


def test_the_signs_of_all_connections_are_one_update(connect):
    # Each was an update of its own.
    clients = [connect(Page) for _ in range(7)]
    for client in clients:
        silent(client, active=False)
        with CaptureQueriesContext(connection) as context:
            client.send({'type': 'NONSENSE'}), client.send('no JSON at all')
        assert not [query for query in context.captured_queries if 'UPDATE' in query['sql']]
    locks = connection.features.has_select_for_update
    # MySQL is asked for its version, once.
    connection.features.has_select_for_update_skip_locked
    assert statements() == ['SELECT'] + ['SELECT'] * locks + ['UPDATE']
    assert all(row(client).active and ago(seconds=5) < row(client).last_ping < timezone.now() for client in clients)
    assert statements() == []


def test_many_are_written_in_parts(connect, monkeypatch):
    monkeypatch.setattr(signs_of_life.databases, 'IN_ONE_QUERY', 3)
    clients = [connect(Page) for _ in range(7)]
    for client in clients:
        silent(client), client.send({'type': 'NONSENSE'})
    assert statements().count('UPDATE') == 3
    assert Socket.objects.filter(last_ping__gt=ago(seconds=5)).count() == 7


def test_a_row_is_never_later_than_the_last_frame_nor_behind_by_more_than_the_resolution(
    connect, settings, monkeypatch
):
    settings.SOCKETS = {'LAST_PING_RESOLUTION': 15}
    client, clock = connect(Page), [signs_of_life.time.monotonic()]
    began = timezone.now() - timedelta(seconds=clock[0])
    from sockets.connection import frame

    class Clock:
        perf_counter = staticmethod(frame.time.perf_counter)
        sleep = staticmethod(frame.time.sleep)

        @staticmethod
        def monotonic():
            return clock[0]

    monkeypatch.setattr(frame, 'time', Clock)
    monkeypatch.setattr(signs_of_life, 'time', Clock)
    monkeypatch.setattr(signs_of_life.timezone, 'now', lambda: began + timedelta(seconds=clock[0]))
    silences, written = [], 0
    # One that speaks every 0.7 s, and then every 4 s; what waits is written every 5 s.
    for step in range(600):
        clock[0] += 0.1
        if step % (7 if step < 300 else 40) == 0:
            client.send({'type': 'NONSENSE'})
            last = clock[0]
        if step % 50 == 49:
            written += statements().count('UPDATE')
        behind = (began + timedelta(seconds=last) - row(client).last_ping).total_seconds()
        silences.append(behind)
    assert min(silences) >= -0.001 and 9 < max(silences) <= 15
    # Every 10 to 15 s.
    assert 4 <= written <= 6


def test_a_function_is_told_of_the_frame_that_it_handles_before_the_row_is(connect):
    client = connect(Page)
    silent(client, active=False)
    for _ in range(2):
        answer = client.send({'type': 'WHEN'})[-1]
        assert answer['active'] and answer['last_ping'] > ago(seconds=5).isoformat()
        assert row(client).last_ping < ago(minutes=50)
    assert client.send({'type': 'HELLO'})[-1]['last_ping'][:16] == timezone.now().isoformat()[:16]
    signs.write()
    answer = client.send({'type': 'WHEN'})[-1]
    assert answer['active'] and answer['last_ping'] == row(client).last_ping.isoformat() > ago(seconds=5).isoformat()


def test_what_runs_at_the_end_is_told_of_the_last_sign(connect):
    client, told = connect(Page), []
    silent(client), client.send({'type': 'NONSENSE'})

    def note(socket, **kwargs):
        told.append(socket.last_ping)

    signals.socket_disconnected.connect(note)
    try:
        client.disconnect()
    finally:
        signals.socket_disconnected.disconnect(note)
    assert heard == told and told[0] > ago(seconds=5)
    # It has no row, and nobody asks for it.
    assert statements() == []


@pytest.mark.parametrize('lose', [lambda rows: rows._raw_delete('default'), lambda rows: rows.remove()])
def test_a_connection_whose_row_has_gone_is_told_so_with_the_frame_after(connect, lose):
    mine, other = connect(Page), connect(Page)
    for client in (mine, other):
        client.messages()
        silent(client)
    lose(Socket.objects.filter(channel_name=mine.name))
    for client in (mine, other):
        client.send({'type': 'NONSENSE', 'ref': 1})
    signs.write()
    assert memories.get(mine.name).is_in_doubt and not memories.get(other.name).is_in_doubt
    mine._put(text='{"type": "NONSENSE"}')
    assert mine.messages()[-1] == {'close': 1012}
    assert other.send({'type': 'NONSENSE', 'ref': 1})[-1]['code'] == 'unknown_type'


def test_who_was_asked_for_a_sign_after_the_frame_has_yet_to_give_one(connect):
    client = connect(Page)
    silent(client), client.send({'type': 'NONSENSE'})
    Socket.objects.cleanup_stale()
    signs.write()
    assert not row(client).active and row(client).last_ping > ago(seconds=5)
    client.send({'type': 'PING'})
    assert row(client).active


def test_a_row_that_somebody_else_has_told_is_left_alone(connect):
    client = connect(Page)
    silent(client), client.send({'type': 'NONSENSE'})
    Socket.objects.mark_active()
    before = row(client).last_ping
    signs.write()
    assert row(client).last_ping == before


def test_the_next_frame_is_noted_by_what_the_row_says_of_the_one_that_another_process_had(connect, settings):
    # A row that another worker had told ten seconds ago was told of no frame for ten seconds more.
    settings.SOCKETS = {'LAST_PING_RESOLUTION': 15}
    client = connect(Page)
    silent(client), client.send({'type': 'NONSENSE'})
    Socket.objects.update(last_ping=ago(seconds=9))
    signs.write()
    assert ago(seconds=10) < row(client).last_ping < ago(seconds=8)
    memory = memories.get(client.name)
    now = signs_of_life.time.monotonic()
    assert not memory.is_due(now + 0.1, signs.resolution())
    assert memory.is_due(now + 1.5, signs.resolution())
    # Nor does one whose clock is ahead have it told late.
    silent(client), client.send({'type': 'NONSENSE'})
    Socket.objects.update(last_ping=ago(seconds=-60))
    signs.write()
    assert memory.is_due(signs_of_life.time.monotonic() + 10.1, signs.resolution())


def test_signs_wait_while_the_database_is_away(connect, monkeypatch, caplog):
    client = connect(Page)
    silent(client), client.send({'type': 'NONSENSE'})
    working = signs_of_life._update

    def fail(*args):
        raise OperationalError('away')

    monkeypatch.setattr(signs_of_life, '_update', fail)
    signs._try_to_write(), signs._try_to_write()
    assert caplog.text.count('1 signs of life wait to be written: OperationalError: away') == 1
    # What comes meanwhile does not get lost either, and the function is still told.
    other = connect(Page)
    silent(other), other.send({'type': 'NONSENSE'})
    assert client.send({'type': 'WHEN'})[-1]['last_ping'] > ago(seconds=5).isoformat()
    monkeypatch.setattr(signs_of_life, '_update', working)
    signs._try_to_write()
    assert Socket.objects.filter(last_ping__gt=ago(seconds=5)).count() == 2
    assert len(signs) == 0


def test_a_deadlock_is_tried_again(connect, monkeypatch):
    client, tries, working = connect(Page), [], signs_of_life._update

    def fail(*args):
        tries.append(args)
        if len(tries) < 3:
            raise OperationalError('deadlock detected')
        return working(*args)

    monkeypatch.setattr(signs_of_life, '_update', fail)
    silent(client), client.send({'type': 'NONSENSE'})
    signs.write()
    assert len(tries) == 3 and row(client).last_ping > ago(seconds=5)


def test_those_who_spoke_at_different_times_are_not_written_as_if_at_the_first_of_them(connect):
    # The database was away for a minute: who had spoken last was said to have been silent for all of it.
    before, lately = connect(Page), connect(Page)
    for client, seconds in (before, 60), (lately, 1):
        silent(client), client.send({'type': 'NONSENSE'})
        memories.get(client.name).heard -= seconds
    signs.write()
    assert ago(seconds=65) < row(before).last_ping < ago(seconds=59)
    assert ago(seconds=5) < row(lately).last_ping < ago(seconds=1)


def test_no_row_is_told_of_a_frame_that_another_connection_sends_while_they_are_written(connect, monkeypatch):
    # The time of all was read when their turn came; by then the first of them might have spoken again.
    monkeypatch.setattr(signs_of_life.databases, 'IN_ONE_QUERY', 2)
    clients, working = [connect(Page) for _ in range(4)], signs_of_life._update
    for place, client in enumerate(clients):
        silent(client), client.send({'type': 'NONSENSE'})
        memories.get(client.name).heard -= 4 - place / 10

    def update(*args):
        for client in clients[::2]:
            memories.get(client.name).heard = signs_of_life.time.monotonic()
        return working(*args)

    monkeypatch.setattr(signs_of_life, '_update', update)
    signs.write()
    assert [row(client).last_ping < ago(seconds=3) for client in clients] == [True] * 4
    assert Socket.objects.filter(last_ping__gt=ago(seconds=10)).count() == 4


@pytest.mark.skipif(
    'not connection.features.has_select_for_update_skip_locked', reason='This database cannot skip what is locked.'
)
def test_a_row_that_somebody_keeps_locked_holds_up_no_other(connect):
    # All signs of a process waited for the end of one transaction, and their connections looked dead meanwhile.
    clients, is_locked, over = [connect(Page) for _ in range(3)], threading.Event(), threading.Event()
    for client in clients:
        silent(client), client.send({'type': 'NONSENSE'})

    def hold():
        with transaction.atomic():
            Socket.objects.filter(channel_name=clients[0].name).update(user_ip='203.0.113.9')
            is_locked.set()
            over.wait(20)
        connections.close_all()

    thread = threading.Thread(target=hold)
    thread.start()
    assert is_locked.wait(5)
    writer = threading.Thread(target=lambda: (signs.write(), connections.close_all()))
    writer.start()
    writer.join(5)
    was_held_up = writer.is_alive()
    waits = len(signs), signs._has_held, memories.get(clients[0].name).is_unwritten
    over.set(), thread.join(), writer.join()
    assert not was_held_up and waits == (1, True, True)
    assert all(row(client).last_ping > ago(seconds=5) for client in clients[1:])
    signs.write()
    assert row(clients[0]).last_ping > ago(seconds=5) and len(signs) == 0 and not signs._has_held


def test_without_a_resolution_each_frame_is_written_at_once(connect, settings):
    settings.SOCKETS = {'LAST_PING_RESOLUTION': 0}
    client = connect(Page)
    silent(client), client.send({'type': 'NONSENSE'})
    assert row(client).last_ping > ago(seconds=5) and len(signs) == 0


def test_what_waits_is_written_when_the_process_ends(connect, monkeypatch):
    client = connect(Page)
    silent(client), client.send({'type': 'NONSENSE'})
    # A child that was forked has them as well, and its parent's connection to the database.
    with monkeypatch.context() as child:
        child.setattr(signs_of_life.os, 'getpid', lambda: 1)
        signs._write_last()
    assert len(signs) == 1
    signs._write_last()
    assert row(client).last_ping > ago(seconds=5)


def test_a_thread_writes_them_once_it_is_open(connect, settings, monkeypatch):
    settings.SOCKETS = {'LAST_PING_RESOLUTION': 0.3}
    ours, written, registered = SignsOfLife(), threading.Event(), []
    monkeypatch.setattr(signs_of_life.atexit, 'register', registered.append)
    monkeypatch.setattr(ours, 'write', lambda: (ours._waiting.clear(), written.set(), connections.close_all()))
    client = connect(Page)
    assert not ours.take(client, memories.get(client.name))
    ours.open(), ours.open()
    assert registered == [ours._write_last]
    assert [thread.name for thread in threading.enumerate()].count('sockets-life') >= 1

    class Known:
        name, keeps_order = client.name, True

    assert ours.take(Known, memories.get(client.name))
    assert written.wait(5)


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason='SQLite has one lock for all.')
def test_rows_that_others_write_in_another_order_are_all_written(connect):
    """Two that lock the same rows in opposite orders wait for each other, and one of them is sent away."""
    clients = [connect(Page) for _ in range(20)]
    keys = [row(client).pk for client in clients]
    over = threading.Event()

    def write_backwards():
        while not over.is_set():
            try:
                with transaction.atomic():
                    for key in reversed(keys):
                        Socket.objects.filter(pk=key).update(user_ip='203.0.113.9')
                over.wait(0.05)
            except OperationalError:
                # It is the one that was sent away.
                pass
        connections.close_all()

    thread = threading.Thread(target=write_backwards)
    thread.start()
    try:
        for _ in range(5):
            for client in clients:
                silent_memory(client)
            # Those that are locked, or have lost five times, wait for the next time.
            for _ in range(100):
                signs._try_to_write()
                if not len(signs):
                    break
                over.wait(0.01)
            assert len(signs) == 0
    finally:
        over.set()
        thread.join()
    assert Socket.objects.filter(last_ping__gt=ago(seconds=60)).count() == 20


def silent_memory(client):
    memory = memories.get(client.name)
    memory.noted = memory.heard = memory.noted - 100
    client.send({'type': 'NONSENSE'})
