"""A primary and a replica that is read-only and behind: what the library reads and writes, it reads on the primary."""

import json
from datetime import timedelta
from io import StringIO
from unittest import mock

import pytest
from django.conf import settings as django_settings
from django.contrib.admin import site
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.auth import login as log_in
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db import DatabaseError, connections, router
from django.http import HttpRequest
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from sockets import RoutedSocketHandler, databases, engine, presence
from sockets.access import revocation
from sockets.models import Membership, Socket
from sockets.operations import doctor

from .conftest import OUR_LAYERS

pytestmark = pytest.mark.parametrize('layer', [OUR_LAYERS[0]], indirect=True)


class FromReplica:
    """A router as people write it. It says nothing of relations, so Django allows none between databases."""

    def db_for_read(self, model, **hints):
        return 'replica'

    def db_for_write(self, model, **hints):
        return 'default'


@pytest.fixture(scope='module')
def replica_file(tmp_path_factory, django_db_blocker):
    """A database with our tables and nothing in them: a replica that is far behind."""
    path = str(tmp_path_factory.mktemp('replica') / 'replica.sqlite3')
    with django_db_blocker.unblock(), second_database(path):
        call_command('migrate', database='replica', verbosity=0)
    return path


class second_database:
    """Adds it, for a while."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        connections.databases['replica'] = {
            # Django before 4 adds what is left out.
            **connections.databases['default'],
            'ENGINE': 'django.db.backends.sqlite3',
            'NAME': self.path,
            'OPTIONS': {},
        }
        connection = connections['replica']
        # Since Django 3, a test may use no database that was not there when it began.
        connection.ensure_connection = lambda: connection.connection or connection.connect()

    def __exit__(self, *raised):
        connections['replica'].close()
        del connections['replica']
        del connections.databases['replica']


@pytest.fixture
def replica(layer, transactional_db, replica_file, settings):
    """The queries that the replica gets, which refuses to write."""
    with second_database(replica_file):
        with connections['replica'].cursor() as cursor:
            cursor.execute('pragma query_only = 1')
        settings.DATABASE_ROUTERS = [FromReplica()]
        with CaptureQueriesContext(connections['replica']) as queries:
            yield queries
        settings.DATABASE_ROUTERS = []


class Page(RoutedSocketHandler):
    routes = (*RoutedSocketHandler.routes, ('LOOK', 'on_look'), ('CHANGE', 'on_change'))
    ended = []

    def connect(self, message, **kwargs):
        super().connect(message, **kwargs)
        self.join('tea')

    def on_look(self, content):
        return {
            'path': self.request.path,
            'rooms': self.rooms,
            'user': self.user.get_username(),
            'key': self.session.session_key,
        }

    def on_change(self, content):
        self.join('cake')
        self.leave('tea')
        self.session['changed'] = True

    def disconnect(self, message, **kwargs):
        self.ended.append((self.channel_name, self.user.get_username(), self.rooms))


@pytest.fixture
def cookies(transactional_db):
    """The cookie of alice, who is logged in."""
    user = get_user_model().objects.create_user('alice')
    request = HttpRequest()
    from django.contrib.sessions.backends.db import SessionStore

    request.session = SessionStore()
    log_in(request, user, backend='django.contrib.auth.backends.ModelBackend')
    request.session.save()
    del Page.ended[:]
    return {django_settings.SESSION_COOKIE_NAME: request.session.session_key}


@pytest.fixture
def mine(connect, cookies, replica):
    """A connection of alice, of which the replica does not know."""
    connection = connect(Page, '/page/', cookies=cookies)
    connection.messages()
    return connection


def primary():
    return Socket.objects.using('default')


def closes(connection):
    return [message.get('close') for message in connection.messages()]


def test_the_replica_of_these_tests_takes_no_writes_and_has_no_rows(mine):
    # Or the tests below would show nothing.
    with pytest.raises(DatabaseError, match='readonly'):
        Session(session_key='x', expire_date=timezone.now()).save(using='replica')
    assert Socket.objects.count() == 0 and primary().count() == 1


def test_a_connection_lives_without_the_replica(mine, cookies, replica):
    (session_key,) = cookies.values()
    assert mine.send({'type': 'HELLO'})[0]['user_id'] == get_user_model().objects.using('default').get().pk
    assert mine.send({'type': 'LOOK', 'ref': 1}) == [
        {'path': '/page/', 'rooms': ['tea'], 'user': 'alice', 'key': session_key, 'ref': 1}
    ]
    assert mine.send({'type': 'CHANGE', 'ref': 2}) == [{'type': 'ACK', 'ref': 2}]
    assert mine.send({'type': 'PING', 'ref': 3}) == [{'type': 'ACK', 'ref': 3}]
    assert mine.send({'type': 'LOOK'})[0]['rooms'] == ['cake']
    assert Session.objects.using('default').get().get_decoded()['changed'] is True
    primary().update(active=False, last_ping=timezone.now() - timedelta(hours=1))
    from sockets.connection.memory import memories

    memories.forget(mine.name)
    mine.send({'type': 'LOOK'})
    assert primary().get().active
    mine.disconnect()
    assert Page.ended == [(mine.name, 'alice', ['cake'])]
    assert not primary().exists() and not Membership.objects.using('default').exists()
    assert replica.captured_queries == []


@pytest.mark.parametrize(
    'end, code, said',
    [
        (lambda: primary().revoke('Gone.'), 4401, 'Gone.'),
        (lambda: get_user_model().objects.using('default').get().sockets.revoke('Gone.'), 4401, 'Gone.'),
        (lambda: Socket.objects.revoke('Gone.'), 4401, 'Gone.'),
        (lambda: Socket.objects.all()[:5].revoke('Gone.'), 4401, 'Gone.'),
        (lambda: Socket.objects.in_room('tea').revoke('Gone.'), 4401, 'Gone.'),
        (lambda: Session.objects.using('default').get().delete(), 4401, 'session is gone'),
        (lambda: get_user_model().objects.using('default').get().delete(), 4401, 'session is gone'),
        (lambda: primary().get().delete(), 4401, 'session is gone'),
        (lambda: (Session.objects.update(expire_date=timezone.now()), presence.purge()), 4401, 'expired'),
        (lambda: (get_user_model().objects.update(is_active=False), presence.Housekeeper().look()), 4401, 'not active'),
        (
            lambda: (Socket.objects.mark_inactive(), Socket.objects.purge_inactive(in_last_mins=-1)),
            1000,
            'sign of life',
        ),
        (lambda: revocation.log_out(Socket.objects.all()), 4401, 'logged out'),
    ],
    ids=range(12),
)
def test_every_end_of_a_connection_is_written_to_the_primary(mine, replica, end, code, said):
    end()
    (message,) = mine.messages()
    assert message['close'] == code and said in json.loads(message['text'])['details']
    assert [(name, user) for name, user, _ in Page.ended] == [(mine.name, 'alice')]
    assert not primary().exists() and not Membership.objects.using('default').exists()
    assert replica.captured_queries == []


def test_rows_of_the_dead_the_silent_and_of_no_room_go(mine, replica, monkeypatch):
    primary().create(channel_name='dead!1', path='/page/', last_ping=timezone.now() - timedelta(minutes=3))
    Membership.objects.using('default').create(socket_id=12345, key='x', name='x')
    assert Socket.objects.cleanup_stale() == 2
    monkeypatch.setattr(engine.current(), 'dead_servers', lambda prefixes=None: ['dead!'])
    monkeypatch.setattr(engine.current(), 'forget_server', lambda server: None)
    assert presence.purge() == 1
    assert primary().get().channel_name == mine.name
    assert Membership.objects.using('default').get().name == 'tea'
    assert replica.captured_queries == []


def test_a_login_takes_the_connections_of_its_session_along(mine, cookies, replica):
    from django.contrib.sessions.backends.db import SessionStore

    with databases.on_primary():
        session = SessionStore(*cookies.values())
        assert SESSION_KEY in session
    replica.captured_queries
    before = len(replica)
    session.cycle_key()
    assert primary().get().session_id == session.session_key
    # Django looks for the old session there.
    assert not [query for query in replica.captured_queries[before:] if 'sockets_' in query['sql']]
    assert mine.send({'type': 'LOOK'})[0]['key'] == session.session_key


def test_limits_are_of_all_connections(mine, connect, cookies, settings):
    settings.SOCKETS = {'MAX_CONNECTIONS_PER_USER': 1}
    assert closes(connect(Page, '/page/', cookies=cookies))[-1] == 4429


def test_a_row_that_a_project_has_read_from_a_replica_is_written_on_the_primary(mine, replica):
    row = primary().get()
    row._state.db = 'replica'
    assert row.join('cake') and row.leave('tea') and row.rooms == ['cake']
    row.active = False
    row.save()
    assert row.remove() and row.remove() is False
    row.forget()
    assert replica.captured_queries == [] and not primary().exists()


def test_what_a_project_asks_goes_where_its_router_says(mine):
    assert Socket.objects.send_action('NEWS') == Socket.objects.in_room('tea').send_action('NEWS') == 0
    assert Socket.objects.on_primary().in_room('tea').send_action('NEWS') == 1
    assert Socket.objects.using('replica').on_primary().count() == 0
    assert mine.received() == [{'type': 'NEWS'}]


def test_commands_the_admin_and_the_doctor_look_at_the_primary(mine, replica):
    out = StringIO()
    call_command('sockets', 'list', stdout=out)
    call_command('sockets', 'close', all=True, stdout=out)
    assert '1 connections, 1 users' in out.getvalue() and 'Closed 1 connections.' in out.getvalue()
    assert site._registry[Socket].get_queryset(HttpRequest()).get().channel_name == mine.name
    assert [query for query in replica.captured_queries if 'sockets_' in query['sql']] == []
    said = doctor.examine_database()
    assert '1 connections' in said[0].text
    assert [(finding.ok, finding.text) for finding in said[1:]] == [
        (None, "A project's own Socket.objects reads from 'replica', and rows are written to 'default'.")
    ]


class KeepsRowsElsewhere:
    """A router that says of each model where it is, and nothing of what is about no model."""

    def allow_migrate(self, db, app_label, model_name=None, **hints):
        return None if model_name is None else db == 'default'


def test_a_database_that_has_no_table_of_ours_is_migrated_all_the_same(layer, transactional_db, tmp_path):
    # It was: no such table: sockets_socket.
    with mock.patch.object(router, 'routers', [KeepsRowsElsewhere()]), second_database(str(tmp_path / 'no_rows')):
        call_command('migrate', 'sockets', database='replica', verbosity=0)
        call_command('migrate', 'sockets', '0005', database='replica', verbosity=0)
        assert Socket._meta.db_table not in connections['replica'].introspection.table_names()


def test_only_a_thread_that_asks_is_on_the_primary_and_only_for_as_long(replica):
    with pytest.raises(KeyError), databases.on_primary():
        with databases.on_primary():
            assert router.db_for_read(Session) == 'default'
        assert router.db_for_read(Session) == 'default'
        raise KeyError
    assert router.db_for_read(Session) == 'replica'
