"""Ends that others have found: noted with the removal of the row, and handled once."""

import threading
import time

import pytest
from django.contrib.sessions.models import Session
from django.db import OperationalError, connections, transaction
from django.db.models import F

from sockets import RoutedSocketHandler, callbacks, presence, signals
from sockets.connection import claims, endings
from sockets.models import Ending, Membership, Socket, removal

from .conftest import OUR_LAYERS

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.parametrize('layer', [OUR_LAYERS[0]], indirect=True)]

heard = []


class Curious(RoutedSocketHandler):
    """Asks for everything when its connection ends."""

    def connect(self, message, **kwargs):
        super().connect(message, **kwargs)
        self.join('tea'), self.join('cake')

    def disconnect(self, message, **kwargs):
        row = self.row
        heard.append(
            {
                'pk': row.pk,
                'name': row.channel_name,
                'user': self.user.get_username(),
                'user_id': row.user_id,
                'session': self.session.get('colour'),
                'rooms': sorted(self.rooms),
                'code': message.get('code'),
                'query': self.request.GET.get('page'),
                'ip': row.user_ip,
                'authentication': row.authentication,
                'path': row.path,
                'server': row.server,
                'layer': row.layer,
                'created': row.created,
                'last_ping': row.last_ping,
                'kwargs': kwargs,
            }
        )


@pytest.fixture(autouse=True)
def nothing_heard():
    heard.clear()


@pytest.fixture
def mine(connect, alice, client, settings):
    """A connection of alice, in two rooms."""
    client.force_login(alice)
    session = client.session
    session['colour'] = 'red'
    session.save()
    return connect(
        Curious,
        '/page/tea/?page=3',
        pattern=r'^/page/(?P<pot>\w+)/$',
        cookies={settings.SESSION_COOKIE_NAME: session.session_key},
    )


def expected(row, code):
    return {
        'pk': row.pk,
        'name': row.channel_name,
        'user': 'alice',
        'user_id': row.user_id,
        'session': 'red',
        'rooms': ['cake', 'tea'],
        'code': code,
        'query': '3',
        'ip': '192.0.2.1',
        'authentication': row.authentication,
        'path': '/page/tea/',
        'server': row.server,
        'layer': row.layer,
        'created': row.created,
        'last_ping': row.last_ping,
        'kwargs': {'pot': 'tea'},
    }


@pytest.fixture
def dies(monkeypatch):
    """This process dies when a transaction has been committed that removes rows."""
    monkeypatch.setattr(callbacks, 'end', lambda rows, details, code: None)


def end_leases():
    Ending.objects.update(claimed_until=removal.in_seconds(-5))


@pytest.mark.parametrize(
    'end',
    [
        lambda user: Socket.objects.all().revoke('Gone.'),
        lambda user: Socket.objects.all().delete(),
        lambda user: Session.objects.all().delete(),
        # The rooms were empty: Django had deleted them.
        lambda user: user.delete(),
    ],
)
def test_a_disconnect_function_finds_what_has_been_deleted_with_the_row(mine, alice, end):
    row = Socket.objects.get()
    end(alice)
    assert heard == [expected(row, 4401)]
    assert not (Ending.objects.exists() or Membership.objects.exists() or Socket.objects.exists())


def test_a_disconnect_function_that_another_process_runs_knows_what_has_found_its_user(mine, dies):
    """Of a connection with a token, it did not know that it has no session."""
    Socket.objects.update(authentication='mysite.auth.by_token')
    Socket.objects.all().revoke('Gone.')
    end_leases()
    presence.Housekeeper().look()
    assert [end['authentication'] for end in heard] == ['mysite.auth.by_token']


def test_it_is_noted_in_the_transaction_that_removes_the_row(mine):
    with pytest.raises(KeyError), transaction.atomic():
        Socket.objects.all().revoke()
        assert (Socket.objects.count(), Membership.objects.count(), Ending.objects.count()) == (0, 0, 1)
        raise KeyError
    assert (Socket.objects.count(), Membership.objects.count(), Ending.objects.count()) == (1, 2, 0)
    assert heard == []


def test_what_a_process_that_died_has_left_is_handled_by_another_one_when_its_lease_ends(mine, dies):
    row = Socket.objects.get()
    Socket.objects.all().revoke('Gone.')
    end = Ending.objects.get()
    assert end.claimed_by and end.reason == 'Gone.' and str(end) == f'{row.path} {row.channel_name}'
    for look in (presence.purge, presence.Housekeeper().look):
        look()
        assert heard == []
    end_leases()
    presence.Housekeeper().look()
    assert heard == [expected(row, 4401)]
    presence.purge()
    assert len(heard) == 1 and not Ending.objects.exists()


def test_to_another_process_a_user_who_is_gone_is_nobody(mine, dies, alice):
    row = Socket.objects.get()
    alice.delete()
    end_leases()
    claims.run_due()
    (found,) = heard
    assert found == dict(expected(row, 4401), user='', user_id=None)


def test_nothing_is_lost_when_somebody_elses_function_fails_at_the_commit(mine):
    # Django calls none of those that come after it.
    def fail():
        raise KeyError('not ours')

    with pytest.raises(KeyError), transaction.atomic():
        transaction.on_commit(fail)
        Socket.objects.all().revoke()
    assert heard == [] and not Socket.objects.exists()
    end_leases()
    claims.run_due()
    assert len(heard) == 1


grouped = pytest.mark.channels1('the groups of Channels 4 know no connections of ours')


@pytest.mark.parametrize(
    'made, listens',
    [
        ({}, False),
        ({}, True),
        ({'disconnect': lambda self, message, **kwargs: None}, False),
        ({'middleware': ['tests.test_claims.through']}, False),
        pytest.param({'groups': ['tea']}, False, marks=grouped),
        pytest.param({'connection_groups': lambda self, **kwargs: []}, False, marks=grouped),
    ],
)
def test_only_what_has_something_to_run_is_noted(connect, dies, monkeypatch, made, listens):
    # Those of tests before this one may still be there.
    monkeypatch.setattr(signals.socket_disconnected, 'receivers', [])
    handler = type('Plain', (RoutedSocketHandler,), dict(made, __module__=__name__))
    connect(handler)

    def listen(**kwargs):
        pass

    if listens:
        signals.socket_disconnected.connect(listen)
    assert Socket.objects.all().revoke() == 1
    assert Ending.objects.count() == (made != {} or listens)


def through(next):
    return next


def test_what_is_noted_for_all_is_claimed_by_one(mine, dies):
    Socket.objects.update(active=False)
    assert Socket.objects.all().purge_inactive(in_last_mins=-1) == 1
    assert Ending.objects.get().claimed_by is None
    tasks = []
    assert claims.claim(False, tasks) and len(tasks) == 1
    assert not claims.claim(False, tasks) and len(tasks) == 1
    claims._held.clear()
    end_leases()
    assert claims.claim(False, tasks) and len(tasks) == 2
    claims._held.clear()


def test_of_two_that_look_at_once_one_claims(mine, dies, monkeypatch):
    Socket.objects.update(active=False)
    Socket.objects.all().purge_inactive(in_last_mins=-1)
    in_seconds, tasks = claims.in_seconds, []

    def another_is_quicker(seconds):
        monkeypatch.setattr(claims, 'in_seconds', in_seconds)
        Ending.objects.update(claimed_by='another', claimed_until=in_seconds(20))
        return in_seconds(seconds)

    monkeypatch.setattr(claims, 'in_seconds', another_is_quicker)
    claims.claim(False, tasks)
    assert tasks == [] and Ending.objects.get().claimed_by == 'another'


def test_a_claim_counts_by_the_clock_of_the_database(mine, dies, monkeypatch):
    Socket.objects.all().revoke()
    far = time.time() + 10**6
    monkeypatch.setattr(time, 'time', lambda: far)
    claims.run_due()
    assert heard == []


def test_a_claim_is_renewed_while_its_functions_run(mine, dies, monkeypatch):
    Socket.objects.all().revoke()
    name = Ending.objects.get().claimed_by
    Ending.objects.update(claimed_until=removal.in_seconds(1))
    claims._held[name] = 1
    sleeps = []

    def sleep(seconds):
        sleeps.append(seconds)
        if len(sleeps) > 1:
            claims._held.clear()

    monkeypatch.setattr(claims.time, 'sleep', sleep)
    claims._renew()
    assert sleeps == [removal.LEASE / 4] * 2
    assert Ending.objects.filter(claimed_until__gt=removal.in_seconds(10)).exists()
    assert claims._is_renewing == []


def test_what_another_process_took_while_a_transaction_lasted_is_left_to_it(mine, monkeypatch):
    with transaction.atomic():
        (row,) = Socket.objects.all().remove(4401, 'Gone.')
    row.claim.since -= removal.LEASE
    Ending.objects.update(claimed_by='another')
    endings.end([row], 'Gone.', None)
    assert heard == []
    Ending.objects.update(claimed_by=row.claim.name, claimed_until=F('noted'))
    endings.end([row], 'Gone.', None)
    assert len(heard) == 1 and not Ending.objects.exists()


def test_a_database_that_cannot_be_told_is_told_later_and_nothing_runs_twice(mine, monkeypatch, caplog):
    find, again = claims._ends, []

    def away():
        raise OperationalError('away')

    monkeypatch.setattr(callbacks, 'try_again', again.append)
    with transaction.atomic():
        (row,) = Socket.objects.all().remove(4401, 'Gone.')
    monkeypatch.setattr(claims, '_threads_allowed', lambda: 0)
    monkeypatch.setattr(claims, '_ends', away)
    endings.end([row], 'Gone.', None)
    assert len(heard) == 1 and claims._held[row.claim.name] == 1 and 'will be told again' in caplog.text
    again.pop()()
    # Nor does whoever has ended the connection hear of it.
    row.claim.since -= removal.LEASE
    endings.end([row], 'Gone.', None)
    assert len(heard) == 1
    monkeypatch.setattr(claims, '_ends', find)
    again.pop()()
    assert not Ending.objects.exists() and not claims._held and len(heard) == 1


def test_a_function_that_raises_has_run(connect, caplog):
    class Broken(RoutedSocketHandler):
        def disconnect(self, message, **kwargs):
            raise SystemExit('broken')

    connect(Broken), connect(Broken)
    assert Socket.objects.all().revoke() == 2
    assert not Ending.objects.exists() and caplog.text.count('SystemExit: broken') == 2


@pytest.mark.parametrize('how', ['it is replaced', 'the housekeeper looks again'])
def test_another_thread_goes_on_where_a_function_hangs(layer, monkeypatch, how):
    hangs, go_on, done = threading.Event(), threading.Event(), []

    class End:
        def __init__(self, pk):
            self.pk, self.code, self.reason, self.due = pk, None, None, None

    def end(row, code, reason):
        if row == 'hangs':
            hangs.set()
            assert go_on.wait(10)
        done.append(row)

    monkeypatch.setattr(claims.disconnect, 'end', end)
    monkeypatch.setattr(claims, '_finish', lambda name, pk: None)
    monkeypatch.setattr(claims, 'claim', lambda late, tasks: False)
    claims._tasks.extend(('claim', row, End(1)) for row in ('hangs', 'waits'))
    helper = claims.Helper(False)
    claims._helpers.add(helper)
    helper.start()
    assert hangs.wait(5)
    if how == 'it is replaced':
        helper.replace()
    else:
        # No MAX_HANDLING_TIME is set, and nothing more is noted.
        monkeypatch.setattr(claims, '_threads_allowed', lambda: 10)
        claims.run_due(waits=False)
    for other in claims._helpers - {helper}:
        other.join(5)
    assert done == ['waits']
    go_on.set()
    helper.join(5)
    assert done == ['waits', 'hangs'] and not claims._helpers


def test_who_waits_for_nobody_has_others_run_the_functions(mine, monkeypatch):
    monkeypatch.setattr(threading.current_thread(), 'waits_for_nobody', True, raising=False)
    looks = []
    monkeypatch.setattr(claims, 'run_due', lambda late=False, waits=True: looks.append(waits))
    assert Socket.objects.all().revoke() == 1
    assert Ending.objects.get().claimed_by is None and looks == [False]


def test_in_a_process_of_its_own_threads_share_the_work(mine, monkeypatch):
    database = connections['default']
    monkeypatch.setattr(type(database), 'is_in_memory_db', lambda self: False, raising=False)
    monkeypatch.setattr(claims, 'THREADS', 10)
    assert claims._threads_allowed() == 10
    with transaction.atomic():
        assert claims._threads_allowed() == 0


def test_rooms_of_nobody_are_emptied_by_the_housekeeper(mine):
    Membership.objects.create(socket_id=12345, key=Membership.key_of('tea'), name='tea')
    presence.Housekeeper().look()
    assert Membership.objects.count() == 2 and not Membership.objects.filter(socket=12345).exists()
