"""Servers that beat and those that do not, in simulated rounds. Nothing here needs Channels, so both stacks run it."""

import threading
from datetime import timedelta
from functools import partial

import pytest
from django.contrib.sessions.models import Session
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from sockets import engine, presence
from sockets.connection import claims
from sockets.engines.channels4 import heartbeats
from sockets.engines.channels4.heartbeats import INTERVAL, ROUNDS, ROUNDS_OF_GRACE, Heartbeats
from sockets.models import Ending, Server, Socket
from sockets.models.servers import HEARTBEATS, ServerQuerySet

pytestmark = pytest.mark.django_db


@pytest.fixture
def clock(monkeypatch):
    """The clock of all processes, a list of one number."""
    clock = [1000.0]
    monkeypatch.setattr(heartbeats, 'uptime', lambda: clock[0])
    return clock


@pytest.fixture
def process(monkeypatch, clock):
    """A function that returns what a process has, with a server of that name if it has one: no thread, only rounds."""
    monkeypatch.setattr(Heartbeats, '_start', lambda self: None)

    def process(server=None):
        found = Heartbeats()
        found.lost = []
        if server is not None:
            found.hold(server, found.lost.append)
            found.round()
        return found

    return process


@pytest.fixture
def go_on(clock):
    """A function that has all of some processes take rounds, each in its turn."""

    def go_on(processes, rounds=1):
        for _ in range(rounds):
            clock[0] += INTERVAL
            for process in processes:
                process.round()

    return go_on


def beats_of(server):
    return Server.objects.get(name=server).beats


def row(server, n=1, **fields):
    found = Socket.objects.create(channel_name=f'{server}{n}', path='/page/', **fields)
    Socket.objects.filter(pk=found.pk).update(layer=fields.get('layer', HEARTBEATS))
    return found


def test_a_server_has_a_row_that_beats_once_a_round_until_it_is_released(process, go_on):
    one = process('one!')
    before = beats_of('one!')
    go_on([one], 3)
    assert beats_of('one!') == before + 3 and one.live_servers([]) == ['one!']
    one.release('one!')
    assert not Server.objects.exists()
    go_on([one], 3)
    assert not Server.objects.exists() and one.lost == []


def test_a_server_is_dead_that_has_not_beaten_for_four_rounds_and_not_sooner(process, go_on):
    one, two, other = process('one!'), process('two!'), process('other!')
    go_on([two, one, other], 5)
    # two! is killed.
    go_on([one, other], ROUNDS - 1)
    assert one.dead_servers() == other.dead_servers() == []
    assert one.live_servers([]) == ['one!', 'other!', 'two!']
    go_on([one, other])
    assert one.dead_servers() == other.dead_servers() == ['two!']
    assert one.live_servers([]) == other.live_servers([]) == ['one!', 'other!']
    # With the round in which its last beat was seen.
    assert (ROUNDS + 1) * INTERVAL < 5
    one.forget_server('two!')
    assert one.dead_servers() == [] and set(Server.objects.values_list('name', flat=True)) == {'one!', 'other!'}
    go_on([one, other])
    assert other.dead_servers() == []


def test_a_slow_server_lives(process, go_on):
    one, slow = process('one!'), process('slow!')
    for _ in range(5):
        go_on([one], ROUNDS - 1)
        go_on([one, slow])
    assert one.dead_servers() == slow.lost == []


def test_a_server_that_was_stopped_and_wakes_is_told_once_and_beats_no_more(process, go_on):
    one, two = process('one!'), process('two!')
    go_on([two, one], 2)
    go_on([one], ROUNDS)
    assert two.lost == []
    go_on([two])
    assert two.lost == ['two!'] and beats_of('two!') is None
    go_on([two], 2)
    assert two.lost == ['two!']
    # Under another name, it is as new.
    two.hold('three!', two.lost.append)
    go_on([one, two], 9)
    assert one.dead_servers() == ['two!'] and one.live_servers([]) == ['one!', 'three!'] and two.lost == ['two!']


def test_a_server_that_was_stopped_knows_of_its_doubt_before_it_knows_more(process, go_on, clock, monkeypatch):
    one = process('one!')
    for _ in range(3):
        assert one.may_serve()
        go_on([one])
    clock[0] += ROUNDS * INTERVAL
    assert not one.may_serve()
    one.round()
    assert one.may_serve()
    # Where the database answers that it is not there, the process is at work.
    monkeypatch.setattr(ServerQuerySet, 'beat', lambda self, server: 1 / 0)
    for _ in range(9):
        with pytest.raises(ZeroDivisionError):
            go_on([one])
        assert one.may_serve()


@pytest.mark.parametrize('is_seen, serves', [(False, True), (True, False)])
def test_a_server_that_has_no_rounds_is_in_no_doubt(clock, monkeypatch, is_seen, serves):
    # In a test, and with a database in memory, it took no frame after three seconds.
    monkeypatch.setattr(heartbeats, '_is_seen_by_threads', lambda: is_seen)
    monkeypatch.setattr(Heartbeats, '_start', lambda self: None)
    found = Heartbeats()
    found.hold('one', None)
    clock[0] += ROUNDS * INTERVAL
    assert found.may_serve() is serves


def test_a_server_whose_row_is_gone_is_told(process, go_on):
    one, two = process('one!'), process('two!')
    go_on([one], 1 + ROUNDS)
    one.forget_server('two!')
    go_on([two])
    assert two.lost == ['two!'] and not Server.objects.filter(name='two!').exists()


def test_nobody_is_judged_by_a_time_in_which_the_database_was_away(process, go_on, clock, monkeypatch):
    one, two = process('one!'), process('two!')
    go_on([one, two], 2)

    def away(*args):
        raise OperationalError('away')

    go_on([one], ROUNDS - 1)
    for method in ('beat', 'look'):
        with monkeypatch.context() as patch:
            patch.setattr(ServerQuerySet, method, away)
            for _ in range(6):
                with pytest.raises(OperationalError):
                    go_on([one])
        # The other one is as late as it may be.
        go_on([one], ROUNDS - 1)
        assert one.dead_servers() == []
        go_on([two, one])
    assert one.dead_servers() == two.lost == []
    go_on([one], ROUNDS)
    assert one.dead_servers() == ['two!']


def test_who_can_read_and_not_write_judges_nobody(process, go_on, monkeypatch):
    # As after a failover to a copy that takes no writes yet: no server can beat.
    one = process('one!')
    process('two!')
    go_on([one])

    def read_only(*args):
        raise OperationalError('read-only')

    with monkeypatch.context() as patch:
        patch.setattr(ServerQuerySet, 'beat', read_only)
        for _ in range(3 * ROUNDS):
            with pytest.raises(OperationalError):
                go_on([one])
    assert one.dead_servers() == [] and beats_of('two!') is not None


@pytest.mark.parametrize('seconds', [3, 8, 3600])
def test_who_slept_judges_nobody_by_that_time(process, go_on, clock, seconds):
    one, two = process('one!'), process('two!')
    go_on([one, two], 2)
    go_on([one], ROUNDS - 1)
    clock[0] += seconds
    go_on([one], ROUNDS - 1)
    assert one.dead_servers() == []
    go_on([two, one])
    assert one.dead_servers() == two.lost == []


def test_a_beat_that_comes_as_it_is_found_dead_counts(process, go_on, monkeypatch):
    one, two = process('one!'), process('two!')
    go_on([one, two], 2)
    go_on([one], ROUNDS - 1)
    look = ServerQuerySet.look

    def look_and_beat(self, questions):
        answer = look(self, questions)
        assert Server.objects.beat('two!')
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(ServerQuerySet, 'look', look_and_beat)
        go_on([one])
    assert one.dead_servers() == [] and beats_of('two!') is not None
    go_on([two])
    assert two.lost == []


def test_a_process_without_a_server_judges_by_what_it_has_seen_itself(process, go_on, clock):
    one, two, shell = process('one!'), process('two!'), process()
    go_on([one, two], 50)
    # However long ago the last beat was.
    clock[0] += 3600
    shell.round()
    assert shell.dead_servers() == []
    assert not shell.account.is_decided()
    go_on([one, shell], ROUNDS - 1)
    assert shell.dead_servers() == []
    go_on([one, shell])
    assert shell.dead_servers() == ['two!'] and shell.account.is_decided()


def test_a_process_without_a_server_takes_what_others_have_found_at_once(process, go_on):
    one, shell = process('one!'), process()
    process('two!')
    go_on([one], 1 + ROUNDS)
    shell.round()
    assert shell.dead_servers() == ['two!']


def test_a_server_that_was_never_heard_of_has_a_while_to_be(process, go_on):
    one = process('one!')
    row('late!'), row('never!'), row('one!')
    go_on([one])
    one.dead_servers(['late!', 'never!', 'one!'])
    assert one.has_forgotten()
    go_on([one], ROUNDS_OF_GRACE - 1)
    assert one.dead_servers() == []
    late = process('late!')
    go_on([one, late])
    assert one.dead_servers() == ['never!'] and not one.has_forgotten()
    # Should it be there after all, it beats no more.
    never = process('never!')
    go_on([never, late])
    assert never.lost == ['never!'] and late.lost == []


def test_a_server_that_leaves_rows_is_found_dead_at_once(process, go_on):
    one, two = process('one!'), process('two!')
    row('two!')
    two.release('two!')
    go_on([one])
    assert one.dead_servers() == ['two!']


def test_what_others_look_for_is_asked_in_the_same_round(process, go_on, monkeypatch):
    one = process('one!')
    monkeypatch.setattr(one, '_thread', threading.current_thread())
    asked = []

    def questions():
        asked.append(None)
        return {'ended': Ending.objects.filter(path='/page/'), 'expired': Socket.objects.filter(path='/page/')}

    def next_look():
        # This thread's database is no other one's: the rounds are here, and who waits is there.
        found = []
        thread = threading.Thread(target=lambda: found.append(one.next_look(questions)))
        thread.start()
        while one._questions is None and thread.is_alive():
            pass
        go_on([one])
        thread.join(5)
        one._questions = None
        return found

    assert next_look() == [set()]
    row('one!')
    assert next_look() == [{'expired'}]
    Ending.of(row('one!', 2), []).save()
    assert next_look() == [{'ended', 'expired'}] and len(asked) == 3
    monkeypatch.setattr(ServerQuerySet, 'beat', lambda self, server: 1 / 0)
    found = []
    thread = threading.Thread(target=lambda: found.append(one.next_look(questions)))
    thread.start()
    while one._questions is None:
        pass
    with pytest.raises(ZeroDivisionError):
        go_on([one])
    thread.join(5)
    assert found == [None]


def test_nobody_waits_for_a_round_where_there_are_none(process):
    assert process().next_look(dict) is None


@pytest.fixture
def current(monkeypatch):
    """The engine of either stack, which routes nothing, and of which the names of servers are all that matters."""
    current = engine.current()
    monkeypatch.setattr(claims, 'THREADS', 0)
    monkeypatch.setattr(current, 'handler_at', lambda path: None)
    monkeypatch.setattr(current, 'is_local', lambda: False)
    for name in ('watch_servers', 'next_look', 'has_forgotten', 'dead_servers', 'live_servers', 'forget_server'):
        monkeypatch.setattr(current, name, partial(getattr(engine.Engine, name), current))
    monkeypatch.setattr(current, 'layer_name', lambda: 'sockets:1:')
    monkeypatch.setattr(current, 'hand_over', lambda names, message: [])
    return current


@pytest.fixture
def site(process, current, monkeypatch):
    """What a process with the server ``one!`` has, whose engine asks it."""
    found = process('one!')
    monkeypatch.setattr(current, 'layer_name', lambda: HEARTBEATS)
    for name in ('dead_servers', 'live_servers', 'forget_server', 'has_forgotten', 'watch_servers'):
        monkeypatch.setattr(current, name, getattr(found, name))
    return found


def test_the_rows_of_a_dead_server_go_and_then_its_own(site, process, go_on):
    process('two!')
    row('one!'), row('two!'), row('two!', 2)
    go_on([site], 1 + ROUNDS)
    presence.Housekeeper().look()
    assert Socket.objects.get().server == 'one!'
    assert Server.objects.get().name == 'one!'


def test_the_rows_of_a_server_that_nobody_has_heard_of_go_after_a_while(site, go_on):
    row('one!'), row('never!')
    housekeeper = presence.Housekeeper()
    for _ in range(ROUNDS_OF_GRACE):
        go_on([site])
        housekeeper.look()
        assert Socket.objects.count() == 2
    go_on([site], 2)
    housekeeper.look()
    assert Socket.objects.get().server == 'one!' and Server.objects.get().name == 'one!'


def long_ago():
    return timezone.now() - timedelta(days=1)


def of_all_engines(**fields):
    """Make a row for each kind of server: those of Channels 1, of before there was a mark, and one with heartbeats."""
    for n, layer in enumerate(['memory:', '', None, 'sockets:1:', HEARTBEATS]):
        row('gone!', n, layer=layer, **fields)
    Socket.objects.update(modified=long_ago(), last_ping=long_ago(), active=False)


def layers():
    return set(Socket.objects.values_list('layer', flat=True))


def test_a_process_with_heartbeats_leaves_what_is_of_channels_1_alone(site, go_on, alice):
    session = Session.objects.create(session_key='over', session_data='', expire_date=long_ago())
    of_all_engines(user=alice, session=session)
    type(alice).objects.update(is_active=False)
    go_on([site])
    assert not presence.lost().exists()
    for _ in range(ROUNDS_OF_GRACE + 1):
        presence.Housekeeper().look()
        go_on([site])
    presence.purge()
    assert layers() == {'memory:', '', None, 'sockets:1:'}


def test_the_old_are_judged_by_their_heartbeats_and_by_nothing_else(site, go_on):
    row('one!')
    Socket.objects.update(modified=long_ago())
    presence.Housekeeper().look()
    assert not presence.lost().exists() and layers() == {HEARTBEATS}


def test_a_process_without_heartbeats_leaves_what_has_them_alone(alice, current, monkeypatch):
    session = Session.objects.create(session_key='over', session_data='', expire_date=long_ago())
    monkeypatch.setattr(current, 'dead_servers', lambda servers=None: ['gone!'])
    of_all_engines(user=alice, session=session)
    type(alice).objects.update(is_active=False)
    presence.Housekeeper().look()
    presence.purge()
    assert layers() == {HEARTBEATS}


def count_queries(seconds, look):
    with CaptureQueriesContext(connection) as queries:
        for second in range(seconds):
            look(second)
    return len(queries)


def test_an_idle_process_asks_less_than_three_queries_a_second(site, go_on, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(presence.time, 'monotonic', lambda: clock[0])
    housekeeper = presence.Housekeeper()
    row('one!')
    site._questions = housekeeper.questions

    def look(second):
        clock[0] += INTERVAL
        go_on([site])
        housekeeper.found = site._answer[1]
        housekeeper.look()

    look(0)
    # Without what compares connections with rows, which asks one every two seconds (test_engines_channels4_audit.py).
    assert count_queries(120, look) / (120 * INTERVAL) <= 2.5


def test_a_process_of_channels_1_asks_one_and_a_half_a_second(current, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(presence.time, 'monotonic', lambda: clock[0])
    housekeeper = presence.Housekeeper()

    def look(second):
        clock[0] += 1
        housekeeper.look()

    look(0)
    assert count_queries(120, look) / 120 <= 1.5


def test_no_thread_looks_at_servers_in_a_sandbox(monkeypatch):
    pytest.importorskip('channels', minversion='4')
    from sockets.testing import sandbox

    with sandbox(routing=[]):
        monkeypatch.setattr(heartbeats, '_is_seen_by_threads', lambda: True)
        begun = []
        monkeypatch.setattr(Heartbeats, '_run', lambda self: begun.append(self))
        Socket.objects.purge_dead()
        presence.purge()
    for thread in threading.enumerate():
        if thread.name == 'sockets-heartbeats':
            thread.join(5)
    assert not begun


def test_the_rows_of_channels_4_say_what_is_judged_here():
    pytest.importorskip('channels', minversion='4')
    from sockets.engines.channels4.engine import engine as channels4

    assert channels4.layer_name() == HEARTBEATS
