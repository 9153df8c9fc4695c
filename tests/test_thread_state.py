import socket as sockets_of_the_system
from types import SimpleNamespace

import django
import pytest
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import request_finished, request_started
from django.db import connection, connections
from django.http import HttpResponse
from django.test import override_settings
from django.urls import get_script_prefix, get_urlconf, reverse, set_script_prefix, set_urlconf
from django.utils import timezone, translation

from sockets import RoutedSocketHandler, SocketRouter
from sockets.execution import request_state, thread_state
from sockets.models import Socket
from sockets.testing import SocketClient, sandbox

from .client import ON_CHANNELS_1, Connection
from .paths import re_path

pytestmark = pytest.mark.django_db

urlpatterns = [re_path(r'^item/(\d+)/$', lambda request, number: HttpResponse(reverse('item', args=[7])), name='item')]


def look():
    """Return what a function sees of this thread."""
    return [
        reverse('item', args=[7], urlconf=__name__),
        translation.get_language(),
        timezone.get_current_timezone_name(),
        get_urlconf(),
    ]


def leave_traces():
    set_script_prefix('/elsewhere/')
    set_urlconf('tests.urls')
    translation.activate('de')
    timezone.activate('Asia/Tokyo')


FRESH = ['/item/7/', 'en-us', 'America/Chicago', None]
TRACES = ['/elsewhere/item/7/', 'de', 'Asia/Tokyo', 'tests.urls']


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Begin with a thread that nobody has used, and leave it so."""
    thread_state.begin()
    yield
    request_state.forget()


seen = []
router = SocketRouter()


@router.connect
def on_connect(socket):
    seen.append(('connect', look()))
    leave_traces()


@router.route('LOOK')
def on_look(socket, content):
    before = look()
    leave_traces()
    return {'type': 'SEEN', 'state': before}


@router.route('LOOK_ASYNC')
async def on_look_async(socket, content):
    return on_look(socket, content)


@router.route('END')
def on_end(socket, content):
    leave_traces()
    count = Socket.objects.filter(channel_name=content['name']).revoke()
    return {'type': 'ENDED', 'count': count, 'state': look()}


@router.disconnect
def on_disconnect(socket):
    seen.append(('disconnect', look(), socket.request.META['SCRIPT_NAME']))
    leave_traces()


@pytest.fixture(autouse=True)
def nothing_seen():
    del seen[:]


def test_the_state_of_a_function_is_not_left_for_the_next_one():
    with sandbox(), SocketClient('/page/', handler=router.Handler) as one:
        with SocketClient('/page/', handler=router.Handler) as other:
            for _ in range(2):
                for client in (one, other):
                    for type in ('LOOK', 'LOOK_ASYNC'):
                        assert client.request(type)['state'] == FRESH
            assert look() == FRESH
    assert seen == [('connect', FRESH)] * 2 + [('disconnect', FRESH, '')] * 2


def test_nothing_of_a_test_or_a_page_is_seen_by_a_function_and_all_of_it_is_there_afterwards():
    leave_traces()
    with SocketClient('/page/', handler=router.Handler) as client:
        assert client.request('LOOK')['state'] == FRESH
        assert look() == TRACES
    assert look() == TRACES
    assert seen == [('connect', FRESH), ('disconnect', FRESH, '')]
    # A command, under which nothing is translated.
    translation.deactivate_all()
    with SocketClient('/page/', handler=router.Handler) as client:
        assert client.request('LOOK')['state'] == FRESH
    assert translation.get_language() is None


def test_a_function_that_ends_another_connection_keeps_its_own_state_and_the_other_does_not_see_it():
    with sandbox(), SocketClient('/page/', handler=router.Handler) as one:
        with SocketClient('/page/', handler=router.Handler) as other:
            del seen[:]
            assert one.request('END', name=other.channel_name) == {'type': 'ENDED', 'count': 1, 'state': TRACES}
            assert seen == [('disconnect', FRESH, '')]


# What reverse() begins with.


@pytest.mark.parametrize('prefix', ['/shop', '/shop/'])
def test_the_script_name_that_is_forced_is_that_of_every_function(settings, prefix):
    settings.FORCE_SCRIPT_NAME = prefix
    expected = ['/shop/item/7/', *FRESH[1:]]
    with SocketClient('/page/', handler=router.Handler) as client:
        assert client.request('LOOK')['state'] == expected
        assert client.request('LOOK_ASYNC')['state'] == expected
    assert seen == [('connect', expected), ('disconnect', expected, prefix)]


class Behind(Connection):
    """A client of a daphne with ``--root-path /shop``."""

    def _handshake(self):
        return {**super()._handshake(), 'root_path': '/shop'}

    def _put(self, **frame):
        super()._put(**frame, **({'root_path': '/shop'} if ON_CHANNELS_1 else {}))


@pytest.mark.parametrize('forced, begins', [(None, '/shop'), ('/forced', '/forced'), ('', '')])
def test_the_root_path_of_a_connection_is_that_of_its_functions(settings, forced, begins):
    settings.FORCE_SCRIPT_NAME = forced
    expected = [begins + '/item/7/', *FRESH[1:]]
    with sandbox():
        client = Behind('/page/', handler=router.Handler)
        assert client.send({'type': 'LOOK'}) == [{'type': 'SEEN', 'state': expected}]
        client.disconnect()
    assert seen == [('connect', expected), ('disconnect', expected, begins)]


def test_a_disconnect_function_that_is_run_by_somebody_else_has_the_root_path_of_the_connection():
    with sandbox():
        Behind('/page/', handler=router.Handler)
        Socket.objects.revoke()
    assert seen[1:] == [('disconnect', ['/shop/item/7/', *FRESH[1:]], '/shop')]


def test_a_disconnect_function_runs_also_where_nobody_has_loaded_the_handshake():
    class Plain(RoutedSocketHandler):
        def disconnect(self, message, **kwargs):
            seen.append(look())

    with sandbox():
        Connection('/page/', handler=Plain)
        Socket.objects.defer('handshake').revoke()
    assert seen == [FRESH]


# The signals of requests.


class Heard(list):
    def started(self, sender, **kwargs):
        self.append(('started', sender))

    def finished(self, sender, **kwargs):
        self.append(('finished', sender))


@pytest.fixture
def heard():
    heard = Heard()
    request_started.connect(heard.started)
    request_finished.connect(heard.finished)
    yield heard
    request_started.disconnect(heard.started)
    request_finished.disconnect(heard.finished)


def test_each_frame_sends_the_signals_of_a_request(heard):
    handler = type('Page', (router.Handler,), {})
    one = [('started', handler), ('finished', handler)]
    with sandbox(), SocketClient('/page/', handler=handler) as client:
        browser_was_here = len(heard)
        client.request('LOOK')
        client.request('LOOK_ASYNC')
        assert heard[browser_was_here:] == one * 2
        with SocketClient('/page/', handler=handler) as other:
            del heard[:]
            client.request('END', name=other.channel_name)
            # What it brings about is a part of it, but for the disconnect that daphne tells of when it closes.
            assert heard == one * 2
    # The test goes on in its transaction.
    assert connection.in_atomic_block and Socket.objects.count() == 0


def test_frames_are_answered_though_a_receiver_of_a_request_signal_raises(caplog):
    def fail(**kwargs):
        raise KeyError('as told')

    request_started.connect(fail)
    try:
        with SocketClient('/page/', handler=router.Handler, raise_exceptions=False) as client:
            assert client.request('LOOK')['state'] == FRESH
    finally:
        request_started.disconnect(fail)
    assert 'A receiver of a signal raised' in caplog.text


def test_a_cache_is_closed_after_each_frame(monkeypatch):
    closed = []
    monkeypatch.setattr(LocMemCache, 'close', lambda cache: closed.append(cache))
    assert caches['default']
    with SocketClient('/page/', handler=router.Handler) as client:
        del closed[:]
        client.request('LOOK')
        assert len(closed) == 1


@pytest.mark.skipif(django.VERSION < (3, 2), reason='caches belong to a thread, and not to a context')
def test_frames_of_a_thread_share_its_caches_and_not_what_belongs_to_one_request():
    # Made anew in each context, a cache would connect to its server for each frame.
    class Page(RoutedSocketHandler):
        def receive(self, content, **kwargs):
            found.append(caches['default'])
            leave_traces()
            return {'state': look()}

    found = []
    with SocketClient('/page/', handler=Page) as client:
        for _ in range(2):
            assert client.request('X')['state'] == TRACES
    assert found[0] is found[1] and look() == FRESH
    # Other settings have other ones.
    with override_settings(CACHES={'default': {'BACKEND': 'django.core.cache.backends.dummy.DummyCache'}}):
        with SocketClient('/page/', handler=Page) as client:
            client.request('X')
    assert type(found[2]).__name__ == 'DummyCache'
    with override_settings(CACHES={'default': {'BACKEND': 'no.such.Cache'}}):
        with SocketClient('/page/', handler=router.Handler) as client:
            assert client.request('LOOK')['state'] == FRESH


def test_a_cache_that_cannot_be_closed_is_logged_and_nothing_is_left(monkeypatch, caplog):
    monkeypatch.setattr(LocMemCache, 'close', lambda cache: 1 / 0)
    assert caches['default']
    with SocketClient('/page/', handler=router.Handler, raise_exceptions=False) as client:
        assert client.request('LOOK')['state'] == FRESH
        assert look() == FRESH
    assert 'Could not close the caches after a frame' in caplog.text


# Database connections.


class Database:
    """A connection of Django's to a server, of which this holds the other end."""

    in_atomic_block = False
    alias, vendor = 'default', 'postgresql'

    def __init__(self, is_usable=True):
        self.near, self.far = sockets_of_the_system.socketpair()
        self.connection = self.near
        self.usable, self.asked, self.looked, self.closed = is_usable, 0, 0, 0

    def close_if_unusable_or_obsolete(self):
        self.looked += 1

    def is_usable(self):
        self.asked += 1
        return self.usable

    def close(self):
        self.closed += 1
        self.connection = None


@pytest.fixture
def database(monkeypatch):
    database = Database()
    monkeypatch.setattr(thread_state, 'connections', SimpleNamespace(all=lambda: [database]))
    yield database
    database.near.close(), database.far.close()


def test_a_database_connection_on_which_nothing_came_is_asked_nothing(database):
    thread_state.close_stale()
    assert (database.looked, database.asked, database.closed) == (1, 0, 0)


@pytest.mark.parametrize(
    'end',
    [lambda far: far.send(b'FATAL'), lambda far: far.close(), lambda far: far.shutdown(sockets_of_the_system.SHUT_WR)],
)
def test_a_database_connection_that_was_ended_is_closed_before_it_is_used(database, end):
    database.usable = False
    end(database.far)
    thread_state.close_stale()
    assert (database.asked, database.closed) == (1, 1)
    # There is none now.
    thread_state.close_stale()
    assert (database.looked, database.closed) == (1, 1)


def test_a_database_connection_with_a_notice_is_kept(database):
    database.far.send(b'notice')
    thread_state.close_stale()
    assert (database.asked, database.closed) == (1, 0)


def test_a_database_connection_whose_driver_knows_that_it_is_closed_is_closed(database):
    database.connection = SimpleNamespace(fileno=lambda: 1 / 0)
    thread_state.close_stale()
    assert (database.asked, database.closed) == (0, 1)


def test_sqlite_is_looked_after_as_for_a_page(database):
    database.connection, database.vendor, database.usable = object(), 'sqlite', False
    thread_state.close_stale()
    assert (database.looked, database.asked, database.closed) == (1, 0, 0)


def test_a_driver_that_hides_its_descriptor_is_asked_once_a_second(database, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(thread_state, 'time', SimpleNamespace(monotonic=lambda: clock[0]))
    thread_state._thread.asked = {}
    database.connection, database.vendor = object(), 'mysql'
    for seconds, asked in ((0, 1), (0.5, 1), (0.6, 2)):
        clock[0] += seconds
        thread_state.close_stale()
        assert (database.asked, database.closed) == (asked, 0)
    database.usable = False
    clock[0] += 60
    thread_state.close_stale()
    assert (database.asked, database.closed) == (3, 1)
    thread_state._thread.asked = {}


def test_a_process_without_the_databases_driver_has_nothing_to_close(monkeypatch):
    def fail():
        raise ImproperlyConfigured('Error loading psycopg2 module')

    monkeypatch.setattr(thread_state, 'connections', SimpleNamespace(all=fail))
    thread_state.close_stale()


def test_nothing_is_closed_within_a_transaction(database):
    database.in_atomic_block, database.usable = True, False
    database.far.close()
    thread_state.close_stale()
    assert (database.looked, database.closed) == (0, 0)


def test_a_database_connection_that_cannot_be_looked_after_keeps_no_frame_from_being_handled(database, caplog):
    database.close_if_unusable_or_obsolete = lambda: 1 / 0
    thread_state.close_stale()
    assert "Could not look after the database connection 'default'" in caplog.text


def test_a_descriptor_too_large_for_select_is_looked_at(database):
    resource = pytest.importorskip('resource')
    import fcntl

    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= 1500:
        pytest.skip('this process may not have as many files')
    number = fcntl.fcntl(database.near.fileno(), fcntl.F_DUPFD, 1500)
    high = sockets_of_the_system.socket(fileno=number)
    database.connection = high
    thread_state.close_stale()
    high.close()
    assert (database.asked, database.closed) == (0, 0)


def test_frames_of_a_handler_class_without_a_router_are_handled_alike():
    class Plain(RoutedSocketHandler):
        routes = (('LOOK', lambda socket, content: {'type': 'SEEN', 'state': look(), 'prefix': get_script_prefix()}),)

    leave_traces()
    with SocketClient('/page/', handler=Plain) as client:
        assert client.request('LOOK') == {'type': 'SEEN', 'state': FRESH, 'prefix': '/'}
    assert connections['default'].in_atomic_block
