"""What a frame finds of its row, user and session, where one process handles all frames of a connection, and elsewhere."""

import pickle
from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.contrib.sessions.models import Session
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from sockets import RoutedSocketHandler
from sockets.connection import copies, identity_cache, identity_entries
from sockets.connection.memory import memories
from sockets.models import Socket
from sockets.routes import Route
from sockets.testing import sandbox

from .conftest import InMemoryChannelLayer, both_ways

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def layer():
    """A layer whose process handles all frames, one after another."""
    layer = InMemoryChannelLayer()
    with sandbox(layer, routing=[]):
        yield layer


@pytest.fixture
def clock(monkeypatch):
    """A function that lets so many seconds pass, for what is kept."""

    class Time:
        passed = 0

        @classmethod
        def monotonic(cls):
            return cls.passed

        time = staticmethod(identity_cache.time.time)

    def wait(seconds):
        Time.passed += seconds

    monkeypatch.setattr(identity_cache, 'time', Time)
    return wait


@pytest.fixture
def alice(alice):
    alice.user_permissions.add(Permission.objects.get(codename='delete_socket'))
    return alice


def on_who(socket, content):
    user = socket.user
    return {
        'name': user.first_name,
        'row': socket.row.pk,
        'path': socket.socket.path,
        'same': socket.socket.user is user is socket.user,
        'may': [name for name in ('add', 'change', 'delete') if user.has_perm(f'sockets.{name}_socket')],
    }


def on_score(socket, content):
    user = socket.user
    user.first_name = str(int(user.first_name or 0) + 1)
    user.save()
    return {'score': user.first_name}


def on_spoil(socket, content):
    """Change what one has got, and save nothing."""
    socket.user.first_name = socket.socket.path = 'spoilt'
    socket.user.is_superuser = True
    may = socket.user.has_perm('sockets.add_socket')
    socket.user._perm_cache.add('sockets.change_socket')
    return {'name': socket.user.first_name, 'may': may}


class Page(RoutedSocketHandler):
    routes = (
        *RoutedSocketHandler.routes,
        ('WHO', on_who),
        ('SCORE', on_score),
        ('SPOIL', on_spoil),
        ('ECHO', lambda socket, content: content),
        Route('BET', lambda socket, content: content, permission='sockets.delete_socket', login_required=True),
    )


class Members(Page):
    login_required = True
    permission = 'sockets.delete_socket'


def queries_of(client, *types):
    with CaptureQueriesContext(connection) as queries:
        for type in types:
            client.send({'type': type})
    return len(queries)


@both_ways
def test_frames_between_two_refreshes_run_no_query(connect, login, alice, clock):
    for handler in (Page, Members):
        mine = connect(handler, cookies=login(alice))
        mine.send({'type': 'WHO'}), mine.send({'type': 'BET'})
        types = ['WHO', 'BET', 'ECHO'] * 20
        assert queries_of(mine, *types) == 0
        clock(0.9)
        assert queries_of(mine, *types) == 0
        clock(0.2)
        # The row with user and session; what the user may and what its groups may.
        assert queries_of(mine, *types) == 3
        assert queries_of(mine, *types) == 0


def test_a_stranger_is_kept_as_well(connect, clock):
    mine = connect(Page)
    assert queries_of(mine, *['WHO'] * 5) == 1
    clock(1)
    assert queries_of(mine, *['WHO'] * 5) == 1


@both_ways
def test_connections_that_speak_are_read_together_before_they_are_too_old(connect, login, alice, clock):
    mine = [connect(Page, cookies=login(alice)) for _ in range(5)]
    silent = connect(Page, cookies=login(alice))
    for client in (*mine, *mine):
        client.send({'type': 'WHO'})
    clock(1.1)
    # The rows with user and session; what the user may and what its groups may.
    assert sum(queries_of(client, 'WHO', 'BET') for client in mine) == 3
    assert queries_of(silent, 'HELLO') == 1


def test_new_connections_are_read_together_with_the_first_that_asks(connect, login, alice, clock, monkeypatch):
    # In a storm, the first frame of each read its own: 128 clients waited for a quarter of a second.
    monkeypatch.setattr(identity_cache, 'BATCH', 4)
    mine = [connect(Page, cookies=login(alice)) for _ in range(5)]
    mine[1].disconnect()
    found = [queries_of(client, 'HELLO') for client in (mine[0], *mine[2:])]
    # The one that has ended is not among the three.
    assert found == [1, 0, 0, 0]


def test_nobody_else_fails_for_a_connection_that_cannot_be_judged(connect, login, alice, monkeypatch):
    # An author's method raised for one user: so did the frame of another one, and what was written was noted for ever.
    bob, model = get_user_model().objects.create_user('bob'), get_user_model()
    mine, his, last = connect(Page, cookies=login(alice)), connect(Page, cookies=login(bob)), connect(Page)
    judge = model.get_session_auth_hash

    def get_session_auth_hash(self):
        if self.username == 'bob':
            raise KeyError('as told')
        return judge(self)

    with monkeypatch.context() as patch:
        patch.setattr(model, 'get_session_auth_hash', get_session_auth_hash)
        assert mine.send({'type': 'WHO'})[0]['name'] == ''
        assert queries_of(last, 'HELLO') == 0
        assert his.send({'type': 'WHO'})[0]['code'] == 'server_error'
        assert identity_cache.cache._readings == set()
    assert his.send({'type': 'WHO'})[0]['name'] == ''


def test_a_login_of_a_page_in_the_same_process_counts_with_the_next_frame(connect, login, alice):
    # What was kept said that the connection has the session that is gone.
    from django.contrib.sessions.backends.db import SessionStore

    def on_session(socket, content):
        row = socket.socket
        return {'row': row.session_id, 'data': row.session.get_decoded().get('n'), 'n': socket.session['n']}

    keyed = type('Keyed', (Page,), {'routes': (*Page.routes, ('SESSION', on_session))})
    cookies = login(alice)
    mine, other = connect(keyed, cookies=cookies), connect(keyed, cookies=cookies)
    store = SessionStore(cookies['sessionid'])
    store['n'] = 1
    store.save()
    assert mine.send({'type': 'SESSION'}) == [{'row': store.session_key, 'data': 1, 'n': 1}]
    store['n'] = 2
    store.cycle_key()
    for client in (other, mine):
        assert client.send({'type': 'SESSION'}) == [{'row': store.session_key, 'data': 2, 'n': 2}]


def test_a_new_connection_that_says_nothing_is_read_once(connect, login, alice, clock):
    mine, speaks, silent = (connect(Page, cookies=login(alice)) for _ in range(3))
    assert [queries_of(client, 'HELLO') for client in (mine, speaks)] == [1, 0]
    clock(1.1)
    assert [queries_of(client, 'HELLO') for client in (mine, speaks, silent)] == [1, 0, 1]


def test_of_so_many_new_connections_only_the_last_are_known(connect, login, alice, monkeypatch):
    monkeypatch.setattr(identity_cache, 'NEW', 2)
    mine = [connect(Page, cookies=login(alice)) for _ in range(4)]
    assert [queries_of(client, 'HELLO') for client in reversed(mine)] == [1, 0, 1, 1]


def test_more_than_one_query_takes_are_read_by_several(connect, login, alice, clock, monkeypatch):
    monkeypatch.setattr(identity_cache, 'BATCH', 3)
    mine = [connect(Page, cookies=login(alice)) for _ in range(7)]
    for client in (*mine, *mine):
        client.send({'type': 'HELLO'})
    clock(1.1)
    assert [queries_of(client, 'HELLO') for client in mine] == [1, 0, 0, 1, 0, 0, 1]


def test_what_was_read_together_with_others_does_not_outlive_what_is_written(connect, login, alice, clock):
    """What another connection has read of this one counts for it as if it had read that itself."""
    mine, other = (connect(Members, cookies=login(alice)) for _ in range(2))
    for client in (mine, other, mine, other):
        client.send({'type': 'WHO'})
    clock(1.1)
    assert mine.send({'type': 'WHO'})[0]['name'] == ''
    alice.first_name = 'Alice'
    alice.save()
    assert other.send({'type': 'WHO'})[0]['name'] == 'Alice'
    mine.send({'type': 'WHO'})
    clock(0.3)
    Socket.objects.latest('pk').save()
    other.send({'type': 'WHO'}), other.send({'type': 'WHO'})
    # Django does not tell of it. What is kept of the other is 0.8 seconds old when it is read with mine.
    Socket.objects.filter(pk=Socket.objects.latest('pk').pk)._raw_delete('default')
    clock(0.8)
    mine.send({'type': 'WHO'})
    other._put(text='{"type": "WHO"}')
    assert other.messages()[-1] == {'close': 1012}


@pytest.mark.parametrize('age', [0, 1])
def test_with_an_age_of_0_each_frame_reads(connect, login, alice, settings, age):
    settings.SOCKETS = {'IDENTITY_MAX_AGE': age}
    mine = connect(Page, cookies=login(alice))
    mine.send({'type': 'ECHO'})
    with CaptureQueriesContext(connection) as queries:
        for _ in range(5):
            mine.send({'type': 'HELLO'})
    assert len(queries) == (1 if age else 5)


def test_in_a_transaction_each_frame_reads(connect, login, alice):
    mine = connect(Page, cookies=login(alice))
    with transaction.atomic():
        assert queries_of(mine, 'HELLO', 'HELLO') == 2
        # As in a TestCase: what nobody else may ever see is not kept, and an update() shows at once.
        get_user_model().objects.update(first_name='Alice')
        assert mine.send({'type': 'WHO'})[0]['name'] == 'Alice'


@both_ways
def test_no_frame_sees_what_another_did_to_its_copies(connect, login, alice):
    mine = connect(Page, cookies=login(alice))
    for _ in range(2):
        (answer,) = mine.send({'type': 'WHO'})
        assert answer == {'name': '', 'row': Socket.objects.get().pk, 'path': '/page/', 'same': True, 'may': ['delete']}
        assert mine.send({'type': 'SPOIL'}) == [{'name': 'spoilt', 'may': True}]
        assert mine.send({'type': 'BET'}) == [{'type': 'BET'}]


@both_ways
def test_no_update_of_two_frames_is_lost(connect, login, alice):
    """A kept copy would lose one, were it not dropped by whoever writes."""
    mine = connect(Page, cookies=login(alice))
    for n in range(1, 501):
        assert mine.send({'type': 'SCORE'}) == [{'score': str(2 * n - 1)}]
        assert mine.send({'type': 'SCORE'}) == [{'score': str(2 * n)}]
    alice.refresh_from_db()
    assert alice.first_name == '1000'


def test_no_update_of_frames_and_a_page_in_the_same_process_is_lost(connect, login, alice):
    def page():
        user = get_user_model().objects.get(pk=alice.pk)
        user.first_name = str(int(user.first_name or 0) + 1)
        user.save()

    mine = connect(Page, cookies=login(alice))
    for n in range(1, 1001):
        if n % 2:
            with transaction.atomic():
                page()
        else:
            page()
        assert mine.send({'type': 'SCORE'}) == [{'score': str(2 * n)}]


def test_a_frame_that_fails_after_it_has_written_leaves_nothing_behind(connect, login, alice):
    def on_fail(socket, content):
        with transaction.atomic():
            on_score(socket, content)
            assert socket.user.first_name == '1'
            raise KeyError('as told')

    failing = type('Failing', (Page,), {'routes': (*Page.routes, ('FAIL', on_fail))})
    mine = connect(failing, cookies=login(alice))
    mine.send({'type': 'WHO'})
    mine.send({'type': 'FAIL'})
    assert mine.send({'type': 'WHO'})[0]['name'] == ''


def test_a_row_that_a_function_saves_is_read_again(connect):
    def on_mark(socket, content):
        row = socket.socket
        row.active = not row.active
        row.save()
        return {'active': row.active}

    marking = type('Marking', (Page,), {'routes': (('MARK', on_mark),)})
    mine = connect(marking)
    assert [mine.send({'type': 'MARK'})[0]['active'] for _ in range(4)] == [False, True, False, True]


@both_ways
def test_what_this_process_writes_counts_with_the_next_frame(connect, login, alice):
    mine = connect(Page, cookies=login(alice))
    assert mine.send({'type': 'BET'}) == [{'type': 'BET'}]
    alice.user_permissions.clear()
    assert mine.send({'type': 'BET'})[0]['code'] == 'not_allowed'
    alice.first_name = 'Alice'
    alice.save()
    assert mine.send({'type': 'WHO'})[0]['name'] == 'Alice'
    alice.set_password('other')
    alice.save()
    assert mine.send({'type': 'WHO'})[0]['details'] == 'Your password has changed.'


@pytest.mark.parametrize(
    'change, code',
    [
        (lambda user: get_user_model().objects.update(is_active=False), 4401),
        (lambda user: get_user_model().objects.update(password='other'), 4401),
        (lambda user: Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1)), 4401),
        (lambda user: Socket.objects.all()._raw_delete('default'), 1012),
        (lambda user: user.user_permissions.through.objects.all()._raw_delete('default'), 4403),
    ],
)
def test_what_django_does_not_tell_counts_once_what_is_kept_is_old(connect, login, alice, clock, change, code):
    mine = connect(Members, cookies=login(alice))
    mine.send({'type': 'WHO'})
    mine.messages()
    change(alice)
    clock(0.5)
    assert mine.send({'type': 'ECHO', 'ref': 1}) == [{'type': 'ECHO', 'ref': 1}]
    mine.messages()
    clock(0.6)
    mine._put(text='{"type": "ECHO"}')
    assert mine.messages()[-1] == {'close': code}


def test_an_expiry_that_only_the_copy_shows_closes_nobody(connect, login, alice, monkeypatch):
    mine = connect(Members, cookies=login(alice))
    Session.objects.update(expire_date=timezone.now() + timedelta(seconds=5))
    identity_cache.cache.drop([identity_entries.PERMISSIONS])
    mine.send({'type': 'WHO'})
    # A page has prolonged it, in another process.
    Session.objects.update(expire_date=timezone.now() + timedelta(days=1))
    later = identity_cache.time.time() + 10
    monkeypatch.setattr(identity_cache.time, 'time', lambda: later)
    assert queries_of(mine, 'WHO') > 0
    assert mine.send({'type': 'ECHO', 'ref': 1}) == [{'type': 'ECHO', 'ref': 1}]


@pytest.mark.parametrize('lose', [lambda rows: rows._raw_delete('default'), lambda rows: rows.remove()])
def test_a_route_that_never_asks_ends_with_the_next_note_of_life(connect, settings, lose):
    """Of a connection without a row, every frame was answered until somebody noticed that it said nothing."""
    settings.SOCKETS = {'LAST_PING_RESOLUTION': 15}
    mine, other = connect(Page), connect(Page)
    mine.messages()
    lose(Socket.objects.filter(channel_name=mine.name))
    assert mine.send({'type': 'ECHO', 'ref': 1}) == [{'type': 'ECHO', 'ref': 1}]
    for client in (mine, other):
        memories.get(client.name).noted -= 15
    mine._put(text='{"type": "ECHO"}')
    assert mine.messages()[-1] == {'close': 1012}
    assert other.send({'type': 'ECHO', 'ref': 1}) == [{'type': 'ECHO', 'ref': 1}]


@both_ways
def test_or_with_the_frame_after_its_server_has_missed_the_row(connect, login, alice):
    mine, other = connect(Page, cookies=login(alice)), connect(Page)
    mine.send({'type': 'WHO'}), mine.messages()
    memories.doubt([mine.name, other.name, 'daphne.response.a!nobody'])
    # It was in the transaction of a function.
    for client in (mine, other):
        assert client.send({'type': 'ECHO', 'ref': 1}) == [{'type': 'ECHO', 'ref': 1}]
        assert not memories.get(client.name).is_in_doubt
    Socket.objects.filter(channel_name=mine.name)._raw_delete('default')
    mine.messages()
    memories.doubt([mine.name])
    mine._put(text='{"type": "ECHO"}')
    assert mine.messages()[-1] == {'close': 1012}


def test_what_is_told_of_the_row_is_as_new_as_the_note_of_life(connect):
    mine = connect(Page)
    mine.send({'type': 'HELLO'})
    Socket.objects.update(active=False, last_ping=timezone.now() - timedelta(minutes=5))
    memories.get(mine.name).noted -= 15
    (answer,) = mine.send({'type': 'HELLO'})
    assert answer['last_ping'][:16] == timezone.now().isoformat()[:16]


@pytest.mark.channels1('on Channels 4, one process handles all frames of a connection')
def test_where_another_process_may_handle_the_frame_each_reads(connect, login, alice, monkeypatch):
    monkeypatch.setattr(InMemoryChannelLayer, 'keeps_order', False)
    mine = connect(Page, cookies=login(alice))
    assert queries_of(mine, 'HELLO', 'HELLO') == 2
    assert len(identity_cache.cache) == 0


def test_a_middleware_that_makes_somebody_else_of_the_user_does_so_for_one_frame(connect, login, alice, settings):
    def middleware(next):
        def handle(socket, content):
            if socket.event == 'receive' and content.get('as'):
                socket.user.is_superuser = True
            return next(socket, content)

        return handle

    class Raised(Page):
        pass

    Raised.middleware = [middleware]
    alice.user_permissions.clear()
    mine = connect(Raised, cookies=login(alice))
    for _ in range(2):
        assert mine.send({'type': 'BET', 'ref': 1})[0]['code'] == 'not_allowed'
        assert mine.send({'type': 'BET', 'ref': 1, 'as': 'root'})[0]['type'] == 'BET'


@pytest.mark.parametrize('kind', ['plain', 'pickled'])
def test_a_copy_that_is_saved_takes_nothing_back_that_another_process_wrote(connect, login, alice, kind, monkeypatch):
    if kind == 'pickled':
        monkeypatch.setattr(copies, '_is_plain', lambda *args: False)
    mine = connect(Page, cookies=login(alice))
    users = get_user_model().objects
    assert queries_of(mine, 'WHO', 'WHO')
    # As another process does: this one is not told.
    users.update(is_staff=True, last_name='Liddell', email='a@example.com')
    assert mine.send({'type': 'SCORE'}) == [{'type': 'SCORE', 'score': '1'}] or mine.received() == []
    alice = users.get()
    assert (alice.first_name, alice.is_staff, alice.last_name, alice.email) == ('1', True, 'Liddell', 'a@example.com')


def test_a_copy_that_is_saved_brings_nobody_back_who_was_deleted(connect, login, alice):
    mine = connect(Page, cookies=login(alice))
    mine.send({'type': 'WHO'})
    for table in ('sockets_socket', 'auth_user_user_permissions', 'auth_user'):
        with connection.cursor() as cursor:
            cursor.execute(f'delete from {table}')
    assert mine.send({'type': 'SCORE', 'ref': 1})[0]['code'] == 'server_error'
    assert not get_user_model().objects.exists()


def test_a_copy_can_be_put_into_a_cache_and_another_user_be_made_of_it(connect, login, alice):
    class Copies(Page):
        routes = (('COPY', 'on_copy'),)

        def on_copy(self, content):
            found = pickle.loads(pickle.dumps(self.user))
            found.pk, found.username = None, 'bob'
            found.save()
            user = self.user
            user.pk, user.username = None, content['name']
            user.save()

    mine = connect(Copies, cookies=login(alice))
    for name in 'carol', 'dave':
        assert mine.send({'type': 'COPY', 'ref': 1, 'name': name}) == [{'type': 'ACK', 'ref': 1}]
        get_user_model().objects.filter(username='bob').delete()
    assert {user.username for user in get_user_model().objects.all()} == {'alice', 'carol', 'dave'}


@both_ways
def test_a_receive_that_makes_somebody_else_of_the_user_does_so_for_one_frame(connect, login, alice):
    class Raised(Page):
        def receive(self, content, **kwargs):
            if 'as' in content:
                self.user.is_superuser = content['as'] == 'root'
                self.user.is_active = content['as'] != 'nobody'
            return super().receive(content, **kwargs)

    alice.user_permissions.clear()
    mine = connect(Raised, cookies=login(alice))
    for _ in range(2):
        assert mine.send({'type': 'BET', 'ref': 1})[0]['code'] == 'not_allowed'
        assert mine.send({'type': 'BET', 'ref': 1, 'as': 'root'})[0]['type'] == 'BET'
        assert mine.send({'type': 'BET', 'ref': 1, 'as': 'nobody'})[0]['code'] == 'not_allowed'
