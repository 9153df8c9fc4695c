import json
import threading
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.contrib.sessions.models import Session
from django.db import OperationalError, ProgrammingError, connections
from django.urls import get_script_prefix
from django.utils import timezone

from sockets import RoutedSocketHandler, callbacks, engine, fanout, presence, signals
from sockets.connection import timing
from sockets.execution import background
from sockets.models import Socket, queryset, removal
from sockets.presence import start_housekeeper

from .client import ON_CHANNELS_1, Connection
from .conftest import OUR_LAYERS, STOCK_LAYERS

pytestmark = pytest.mark.django_db(transaction=True)


class Noted(RoutedSocketHandler):
    """Notes its disconnects: of whom, with which message, and whether the row was still there."""

    ended = []

    def disconnect(self, message, **kwargs):
        self.ended.append((self.socket.channel_name, self.user.get_username(), message.get('code'), kwargs))


@pytest.fixture(autouse=True)
def nothing_noted():
    Noted.ended.clear()


@pytest.fixture
def dead(monkeypatch):
    """A list of servers that the engine finds dead."""
    dead = []
    monkeypatch.setattr(engine.current(), 'dead_servers', lambda servers=None: list(dead))
    monkeypatch.setattr(engine.current(), 'forget_server', dead.remove)
    return dead


def row(n, server='dead!', **fields):
    return Socket.objects.create(channel_name=f'{server}{n}', path='/room/x/', **fields)


def row_of(layer_name, n, **fields):
    """Make a row as a process with another layer, or of an older version, does."""
    Socket.objects.filter(pk=row(n, **fields).pk).update(layer=layer_name)


def test_a_row_knows_its_server(layer):
    assert row(1).server == Socket.objects.get().server == 'dead!'


def test_all_rows_of_a_dead_server_go_each_with_its_disconnect_function_and_its_signal_once(
    connect, dead, alice, django_assert_num_queries
):
    living = connect(Noted, '/room/x/', pattern=r'^/room/(?P<room>\w+)/$')
    row(1, user=alice), row(2)
    told = []

    def listen(socket, code, reason, **kwargs):
        told.append((socket.channel_name, code, reason))

    signals.socket_disconnected.connect(listen)
    dead.append('dead!')
    assert Socket.objects.purge_dead() == 2
    assert sorted(Noted.ended) == [('dead!1', 'alice', None, {'room': 'x'}), ('dead!2', '', None, {'room': 'x'})]
    assert sorted(told) == [(f'dead!{n}', None, 'The server of this connection is gone.') for n in (1, 2)]
    assert dead == [] and Socket.objects.get().channel_name == living.name
    assert Socket.objects.purge_dead() == 0 and len(Noted.ended) == 2


def test_as_many_go_as_are_asked_for_and_the_server_is_not_forgotten_before_all_have(layer, dead):
    for n in range(5):
        row(n)
    dead.append('dead!')
    assert Socket.objects.purge_dead(at_most=3) == 3 and dead == ['dead!']
    assert Socket.objects.purge_dead(at_most=3) == 2 and dead == []


def test_many_rows_go_in_parts_before_any_function_runs(layer, dead, monkeypatch):
    # A hundred went, their functions ran, and the next hundred waited for that.
    monkeypatch.setattr(queryset, '_PART', 3)
    parts, remove = [], removal.remove

    def note_and_remove(rows, *args):
        parts.append(len(rows))
        return remove(rows, *args)

    monkeypatch.setattr(removal, 'remove', note_and_remove)
    monkeypatch.setattr(callbacks, 'end', lambda rows, details, code: parts.append(('end', len(rows))))
    for n in range(7):
        row(n)
    dead.append('dead!')
    assert Socket.objects.purge_dead() == 7 and dead == []
    assert parts == [3, 3, 1, 0, ('end', 7)]


def test_rows_whose_path_no_route_leads_to_go_with_their_signal(layer, dead):
    told = []

    def listen(sender, socket, **kwargs):
        told.append((sender, socket.channel_name))

    signals.socket_disconnected.connect(listen)
    row(1)
    dead.append('dead!')
    assert Socket.objects.purge_dead() == 1
    assert told == [(Socket, 'dead!1')]


def test_connects_and_messages_look_for_the_dead_in_passing_but_not_all_the_time(connect, dead, monkeypatch):
    monkeypatch.setattr(presence, '_next_purge', [None])
    clock = [1000.0]
    monkeypatch.setattr(presence, 'time', SimpleNamespace(monotonic=lambda: clock[0]))
    looks = []
    monkeypatch.setattr(type(Socket.objects), 'purge_dead', lambda self, at_most: looks.append(at_most))
    for seconds in (0, 11, 11):
        clock[0] += seconds
        for _ in range(3):
            connect(Noted).messages()
            Socket.objects.filter(path='/nowhere/').send_json({})
    assert looks == [presence.AT_MOST_WHILE_SERVING] * 2


def test_nobody_looks_in_passing_who_is_told_not_to_or_is_in_a_transaction(layer, monkeypatch, settings):
    from django.db import transaction

    monkeypatch.setattr(presence, '_next_purge', [0])
    monkeypatch.setattr(type(Socket.objects), 'purge_dead', lambda self, at_most: pytest.fail('looked'))
    with transaction.atomic():
        Socket.objects.send_json({})
    settings.SOCKETS = {'PURGE_INTERVAL': None}
    monkeypatch.setattr(presence, '_next_purge', [0])
    Socket.objects.send_json({})


def test_nobody_waits_for_a_look_in_passing(layer, monkeypatch):
    # A Redis that hung for 25 s held each frame that came by for as long.
    started, go_on, looked = threading.Event(), threading.Event(), []

    def purge_dead(self, at_most):
        looked.append(threading.current_thread())
        started.set()
        go_on.wait(10)

    monkeypatch.setattr(type(Socket.objects), 'purge_dead', purge_dead)
    monkeypatch.setattr(type(connections['default']), 'is_in_memory_db', lambda self: False, raising=False)
    # The sandbox has it done here.
    monkeypatch.setattr(presence, 'background', background)
    before = set(threading.enumerate())
    for _ in range(3):
        monkeypatch.setattr(presence, '_next_purge', [0])
        began = time.monotonic()
        presence.purge_if_due()
        assert time.monotonic() - began < 1
        assert started.wait(5)
    go_on.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
    # One at a time, and none of them ours.
    assert len(looked) == 1 and looked[0] is not threading.current_thread()


def test_who_has_housekeeper_does_not_look_in_passing(layer, monkeypatch):
    monkeypatch.setattr(presence, '_next_purge', [0])
    monkeypatch.setattr(type(Socket.objects), 'purge_dead', lambda self, at_most: pytest.fail('looked'))
    monkeypatch.setattr(presence, '_has_housekeeper', lambda: True)
    presence.purge_if_due()


def test_only_servers_that_can_be_heard_of_are_judged(layer, dead):
    # Rows of another prefix, or of another version of what is in Redis, went with their connections open.
    for n, layer_name in enumerate(['sockets:0:', 'other:1:', None]):
        row_of(layer_name, n)
    dead.append('dead!')
    assert row(9).layer == engine.current().layer_name()
    assert Socket.objects.purge_dead() == 1
    assert set(Socket.objects.values_list('layer', flat=True)) == {'sockets:0:', 'other:1:', None}


def test_a_row_keeps_the_layer_that_it_was_made_on(layer):
    row_of('other:1:', 1)
    old = Socket.objects.get()
    old.save()
    assert Socket.objects.get().layer == 'other:1:'


def test_who_cannot_be_asked_is_not_silent(layer):
    # A ping went to nobody, and the row of a connection that was well followed.
    long_ago = timezone.now() - timedelta(minutes=10)
    for n, layer_name in enumerate(['other:1:', None, engine.current().layer_name()]):
        row_of(layer_name, n, active=False, last_ping=long_ago)
    # Those that say no layer are of Channels 1.
    left = ['other:1:'] if ON_CHANNELS_1 else ['other:1:', None]
    assert presence.purge() == 3 - len(left)
    assert list(Socket.objects.order_by('pk').values_list('layer', flat=True)) == left


@pytest.mark.channels1('rows that say no layer are of Channels 1')
@pytest.mark.parametrize('layer', OUR_LAYERS, indirect=True)
def test_rows_of_an_older_version_go_by_their_silence(layer, monkeypatch):
    row_of(None, 1, active=False, last_ping=timezone.now() - timedelta(minutes=10))
    row_of(None, 2)
    presence.Housekeeper().look()
    assert Socket.objects.get().channel_name == 'dead!2'


def test_a_purge_removes_the_silent_closes_the_expired_and_asks_the_quiet(connect, alice, login, dead):
    def minutes_ago(n):
        return timezone.now() - timedelta(minutes=n)

    quiet, silent, lively = (connect(Noted) for _ in range(3))
    expired = connect(Noted, cookies=login(alice))
    for connection in (quiet, silent, expired, lively):
        connection.messages()
    Socket.objects.filter(channel_name=quiet.name).update(last_ping=minutes_ago(3))
    Socket.objects.filter(channel_name=silent.name).update(last_ping=minutes_ago(6), active=False)
    Session.objects.update(expire_date=minutes_ago(0))
    assert presence.purge() == 2
    assert quiet.received() == [{'type': 'PING'}]
    assert [message['close'] for message in silent.messages()] == [1000]
    assert [message['close'] for message in expired.messages()] == [4401]
    assert lively.messages() == []
    assert {name for name, *_ in Noted.ended} == {silent.name, expired.name}


def test_users_that_were_switched_off_by_an_update_are_found(connect, alice, login):
    connection = connect(Noted, cookies=login(alice))
    type(alice).objects.update(is_active=False)
    assert presence.revoke_inactive() == 1
    assert connection.messages()[-1]['close'] == 4401


def seconds_ago(n):
    return timezone.now() - timedelta(seconds=n)


IN_MEMORY_LAYERS = [*STOCK_LAYERS[:1], OUR_LAYERS[0]]


@pytest.mark.channels1('on Channels 4, servers have heartbeats')
@pytest.mark.parametrize('layer', IN_MEMORY_LAYERS, indirect=True)
def test_rows_of_a_container_that_is_gone_go_with_their_functions_and_those_of_one_that_lives_stay(connect, layer):
    # It left no lease that anybody could see, and its rows stayed for ever.
    living = connect(Noted)
    for n in range(2):
        row(n)
    assert presence.purge_lost() == 0
    Socket.objects.filter(server='dead!').update(modified=seconds_ago(presence.LOST_AFTER + 5))
    presence.Housekeeper().look()
    assert Socket.objects.get().channel_name == living.name


@pytest.mark.channels1('on Channels 4, it is heartbeats that say who lives, and no layer')
@pytest.mark.parametrize('layer', OUR_LAYERS[1:], indirect=True)
def test_rows_of_an_in_memory_layer_go_when_the_site_has_changed_to_redis(layer):
    row_of('memory:', 1), row_of('other:1:', 2), row(3), row_of(None, 4)
    Socket.objects.update(modified=seconds_ago(presence.LOST_AFTER + 5))
    assert presence.purge_lost() == 1
    assert not Socket.objects.filter(layer='memory:').exists()


@pytest.mark.parametrize('layer', [OUR_LAYERS[0]], indirect=True)
def test_a_server_in_another_process_is_neither_asked_nor_taken_for_silent(layer, monkeypatch):
    # manage.py sockets purge asked nobody, and five minutes later removed who had not answered and was well.
    row(1, server='other!', last_ping=seconds_ago(1000))
    row(2, server='other!', active=False, last_ping=seconds_ago(1000))
    monkeypatch.setattr(fanout, 'local_servers', set())
    monkeypatch.setattr(engine.current(), 'live_servers', lambda servers: ['other!'])
    Socket.objects.update(modified=seconds_ago(1000))
    assert presence.purge() == 0
    assert sorted(Socket.objects.values_list('active', flat=True)) == [False, True]


STEPS = ['purge_lost', 'revoke_expired', 'revoke_inactive', 'purge_silent_here', 'remove_left_rooms', 'purge_dead']


@pytest.mark.parametrize('broken', STEPS)
def test_no_step_of_a_purge_keeps_the_others_from_running(layer, monkeypatch, broken):
    # A user model without a column is_active stopped it before it came to the silent and to what is left of rooms.
    taken = []

    def step(name):
        def take(*args):
            if name == broken:
                raise ValueError('broken: ' + name)
            taken.append(name)
            return 1

        return take

    for name in STEPS:
        monkeypatch.setattr(type(Socket.objects) if name == 'purge_dead' else presence, name, step(name))
    with pytest.raises(ValueError, match=broken):
        presence.purge()
    assert sorted([*taken, broken]) == sorted(STEPS)


@pytest.mark.parametrize(
    'broken', ['revoke_expired', 'revoke_inactive', 'ask_the_old', 'purge_lost', 'purge_dead', 'an end']
)
def test_no_step_of_the_housekeeper_keeps_the_others_from_running_and_each_trouble_is_said_once(
    layer, monkeypatch, caplog, broken
):
    taken = []

    def step(name):
        def take(*args):
            taken.append(name)
            if name == broken:
                raise ValueError('broken: ' + name)

        return take

    names = ['revoke_expired', 'revoke_inactive', 'ask_the_old', 'purge_lost', 'purge_dead']
    for name in names:
        monkeypatch.setattr(type(Socket.objects) if name == 'purge_dead' else presence, name, step(name))
    housekeeper = presence.Housekeeper()
    for _ in range(2):
        presence._unfinished.extend([step('an end'), step('another end')])
        housekeeper.next_thorough, housekeeper.found = 0, {'expired'}
        housekeeper.look()
    assert sorted(taken) == sorted(2 * [*names, 'an end', 'another end'])
    assert caplog.text.count('Housekeeping waits: ValueError: broken: ' + broken) == 1
    broken, housekeeper.next_thorough = None, 0
    housekeeper.look()
    assert not housekeeper.troubles


def test_a_disconnect_that_the_database_does_not_hear_of_is_told_again(connect, monkeypatch, caplog):
    connection = connect(Noted)
    remove, away = Socket.remove, [True, True]

    def fail(self):
        if away and away.pop():
            raise OperationalError('away')
        return remove(self)

    monkeypatch.setattr(Socket, 'remove', fail)
    connection.disconnect(1001)
    housekeeper = presence.Housekeeper()
    assert Socket.objects.count() == 1 and Noted.ended == []
    housekeeper.look()
    assert Socket.objects.count() == 1 and Noted.ended == []
    housekeeper.look()
    assert Socket.objects.count() == 0 and [code for _, _, code, _ in Noted.ended] == [1001]
    housekeeper.look()
    assert len(Noted.ended) == 1
    assert caplog.text.count('will be told again') == 1


unconnected = pytest.mark.channels1('a server of ASGI calls for nothing before the connect')


@unconnected
def test_a_disconnect_that_overtakes_its_connect_runs_once_all_the_same(layer, connect):
    connect(Noted).messages()
    hasty = Connection('/page/', connect=False)
    hasty.disconnect()
    hasty.connect()
    housekeeper = presence.Housekeeper()
    housekeeper.look(), housekeeper.look()
    # Ours would not have let it pass.
    in_order = hasattr(layer, 'keeps_order')
    assert Socket.objects.count() == 1 + in_order
    assert [name for name, *_ in Noted.ended] == ([] if in_order else [hasty.name])


@unconnected
def test_an_end_that_nothing_began_is_not_looked_for_for_ever(layer, connect):
    connect(Noted)
    Connection('/page/', connect=False).disconnect()
    for _ in range(5):
        presence.Housekeeper().look()
    assert not presence._unfinished


def test_an_end_that_is_handled_later_is_watched_and_leaves_the_thread_as_it_was(connect, monkeypatch, settings):
    # The script prefix of its connection stayed with the housekeeper, and a function that hung kept it from its work.
    class Watched(RoutedSocketHandler):
        def disconnect(self, message, **kwargs):
            seen.append((get_script_prefix(), [handling.what for handling in timing.handled.values()]))

    def away(self):
        raise OperationalError('away')

    seen, again = [], []
    settings.SOCKETS = {'MAX_HANDLING_TIME': 60}
    page = connect(Watched)
    Socket.objects.update(handshake='{"root_path": "/shop"}')
    monkeypatch.setattr(callbacks, 'try_again', again.append)
    with monkeypatch.context() as patch:
        patch.setattr(Socket, 'remove', away)
        page.disconnect()
    again[0]()
    assert seen == [('/shop/', ['disconnect'])]
    assert get_script_prefix() == '/' and not Socket.objects.exists()


def test_a_close_that_the_layer_could_not_be_told_of_is_told_again_until_it_can_be(connect, monkeypatch, caplog):
    # It was sent once, a failure was logged, and whoever had logged out went on talking.
    connection = connect(Noted)
    connection.messages()
    send_many, away = fanout.send_many, [True] * 3

    def fail(names, message):
        if 'close' in message and away and away.pop():
            raise ConnectionError('away')
        return send_many(names, message)

    monkeypatch.setattr(fanout, 'send_many', fail)
    Socket.objects.all().revoke('Gone.')
    housekeeper = presence.Housekeeper()
    for _ in range(2):
        assert len(presence._unfinished) == 1
        housekeeper.look()
        assert connection.messages() == []
    housekeeper.look()
    (message,) = connection.messages()
    assert (json.loads(message['text'])['details'], message['close']) == ('Gone.', 4401)
    assert not presence._unfinished and len(Noted.ended) == 1
    assert caplog.text.count('trying until it is done: ConnectionError: away') == 1


def test_rows_are_looked_at_more_closely_at_once_when_the_layer_has_lost_its_memory(layer, monkeypatch):
    # A server that died with the Redis that knew it was found half a minute later.
    looks = []
    monkeypatch.setattr(type(Socket.objects), 'purge_dead', lambda self: looks.append(None))
    forgotten = [True, False, False]
    monkeypatch.setattr(engine.current(), 'dead_servers', lambda prefixes=None: [])
    monkeypatch.setattr(engine.current(), 'has_forgotten', lambda: forgotten.pop(0))
    housekeeper = presence.Housekeeper()
    housekeeper.next_thorough = time.monotonic() + 1000
    for seen in (1, 1, 1):
        housekeeper.look()
        assert len(looks) == seen


def test_the_rows_of_a_server_that_lives_again_stay(layer, dead, monkeypatch):
    # Somebody else had been quicker, and the server had come back.
    monkeypatch.setattr(queryset, '_PART', 2)
    for n in range(5):
        row(n)
    dead.append('dead!')
    found = [['dead!'], ['dead!'], []]
    monkeypatch.setattr(engine.current(), 'dead_servers', lambda prefixes=None: found.pop(0))
    assert Socket.objects.purge_dead() == 2
    assert Socket.objects.count() == 3


def test_a_process_has_one_housekeeper_which_survives_what_goes_wrong(monkeypatch, caplog):
    looks = []

    def look(self):
        looks.append(None)
        raise OperationalError('away')

    monkeypatch.setattr(presence.Housekeeper, 'look', look)
    monkeypatch.setattr(presence.signs, 'open', lambda: None)

    def sleep(seconds):
        if len(looks) >= 5:
            raise SystemExit

    monkeypatch.setattr(presence, 'time', SimpleNamespace(sleep=sleep))
    start_housekeeper(), start_housekeeper()
    for thread in presence.threading.enumerate():
        if isinstance(thread, presence.Housekeeper):
            thread.join(5)
    assert len(looks) == 5
    assert caplog.text.count('Housekeeping waits: OperationalError: away') == 1


@pytest.mark.parametrize(
    'kind, said',
    [
        (OperationalError, 'no such table: sockets_{}'),
        (OperationalError, 'no such column: {}.epoch'),
        (ProgrammingError, 'relation "sockets_{}" does not exist\nLINE 1: SELECT ...'),
        (ProgrammingError, 'column sockets_{}.layer does not exist'),
        (ProgrammingError, "(1146, \"Table 'site.sockets_{}' doesn't exist\")"),
        (OperationalError, "(1054, \"Unknown column 'sockets_{}.layer' in 'field list'\")"),
    ],
)
def test_tables_that_are_missing_are_one_trouble_with_its_remedy(caplog, kind, said):
    # Each of five tables was a line of its own, and none said what to type.
    housekeeper = presence.Housekeeper()
    for name in ('socket', 'server', 'streamhead'):
        housekeeper.note_trouble(kind(said.format(name)))
    (record,) = caplog.records
    assert 'sockets_socket' in record.getMessage() or 'socket.' in record.getMessage()
    assert record.getMessage().endswith('. Type: python manage.py migrate')


@pytest.mark.parametrize(
    'error',
    [OperationalError('database "site" does not exist'), ValueError('no such table'), OperationalError('away')],
)
def test_other_troubles_are_not_those_of_a_missing_table(caplog, error):
    presence.Housekeeper().note_trouble(error)
    assert 'migrate' not in caplog.text


@pytest.mark.parametrize('layer', OUR_LAYERS, indirect=True)
def test_a_live_server_loses_no_row_to_a_purge(layer, connect):
    connection = connect(Noted)
    assert presence.purge() == 0 == len(Noted.ended)
    assert Socket.objects.get().channel_name == connection.name


def test_a_frame_keeps_a_row_alive_at_the_cost_of_one_write_in_a_while(connect, settings, monkeypatch):
    from sockets.connection import connect as opening
    from sockets.connection import frame

    clock = [5000.0]
    for module in (opening, frame):
        monkeypatch.setattr(module, 'time', SimpleNamespace(monotonic=lambda: clock[0], perf_counter=time.perf_counter))
    connection = connect(RoutedSocketHandler)
    long_ago = timezone.now() - timedelta(hours=1)
    Socket.objects.update(active=False, last_ping=long_ago)
    connection.send({'type': 'NONSENSE'})
    assert Socket.objects.get().last_ping == long_ago
    clock[0] += 16
    connection.send('no JSON at all')
    after = Socket.objects.get()
    assert after.active and after.last_ping > long_ago
    Socket.objects.update(last_ping=long_ago)
    clock[0] += 14
    connection.send({'type': 'NONSENSE'})
    assert Socket.objects.get().last_ping == long_ago
    settings.SOCKETS = {'LAST_PING_RESOLUTION': 10}
    connection.send({'type': 'NONSENSE'})
    assert Socket.objects.get().last_ping > long_ago


def test_what_goes_out_proves_nothing(connect):
    connect(RoutedSocketHandler)
    long_ago = timezone.now() - timedelta(hours=1)
    Socket.objects.update(last_ping=long_ago)
    Socket.objects.send_json({})
    Socket.objects.get().send_json({})
    assert Socket.objects.get().last_ping == long_ago


@unconnected
def test_a_message_of_a_client_that_is_not_there_makes_no_row(layer, connect):
    connect(Noted)
    ghost = Connection('/page/', connect=False)
    ghost.send({'type': 'PING'})
    ghost.disconnect()
    assert Socket.objects.count() == 1 and Noted.ended == []


def test_a_housekeeper_whose_disconnect_function_hangs_is_replaced(monkeypatch):
    began = []
    monkeypatch.setattr(presence.Housekeeper, 'start', lambda self: began.append(self))
    monkeypatch.setattr(presence.time, 'sleep', lambda seconds: None)
    first = presence.Housekeeper()
    # It comes back from the function, finishes its look and ends.
    monkeypatch.setattr(first, 'look', first.replace)
    first.run()
    assert len(began) == 1 and began[0] is not first
