"""Sessions as functions get them: of every engine, read when they are touched, and saved key by key."""

import pytest
from django.contrib.auth import get_user_model, login, logout
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.models import Session
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest

from sockets.access import auth
from sockets.connection import sessions
from sockets.exceptions import ConnectionRevoked, RowMissing
from sockets.models import Socket

pytestmark = pytest.mark.django_db

WRITABLE = ['django.contrib.sessions.backends.' + name for name in ('db', 'cached_db', 'cache', 'file')] + [
    'tests.test_sessions'
]
COOKIES = 'django.contrib.sessions.backends.signed_cookies'


class SessionStore(SessionBase):
    """An engine of a project's own, as small as Django allows. This module is its SESSION_ENGINE."""

    kept = {}

    def load(self):
        if self.session_key in self.kept:
            return self.decode(self.kept[self.session_key])
        self._session_key = None
        return {}

    def exists(self, session_key):
        return session_key in self.kept

    def create(self):
        self._session_key = self._get_new_session_key()
        self.save(must_create=True)
        self.modified = True

    def save(self, must_create=False):
        self.kept[self._get_or_create_session_key()] = self.encode(self._get_session(no_load=must_create))

    def delete(self, session_key=None):
        self.kept.pop(session_key or self.session_key, None)


@pytest.fixture(params=WRITABLE)
def engine(request, settings, tmp_path):
    settings.SESSION_ENGINE = request.param
    settings.SESSION_FILE_PATH = str(tmp_path)
    return request.param


@pytest.fixture
def page(engine):
    """The session of a page, saved with a key."""
    return saved(a=1, b=[1])


def saved(**data):
    store = auth.session_store()
    store.update(data)
    store.save()
    return store


def held(key):
    return dict(auth.session_store(key).items())


def test_a_session_is_read_when_it_is_touched_and_once(page):
    mine = sessions.session(page.session_key)
    page['a'] = 2
    page.save()
    assert mine['a'] == 2
    page['a'] = 3
    page.save()
    assert mine['a'] == 2 and mine.session_key == page.session_key and not mine.modified


def test_a_change_is_merged_into_what_a_page_saved_meanwhile(page):
    mine = sessions.session(page.session_key)
    mine['mine'] = 1
    mine['b'].append(2)
    del mine['a']
    page['theirs'] = 1
    page['a'] = 5
    page.save()
    mine.save_changes()
    assert held(page.session_key) == {'b': [1, 2], 'mine': 1, 'theirs': 1}
    # Again, of what is saved now.
    page = auth.session_store(page.session_key)
    page['mine'] = 2
    page.save()
    mine['more'] = 1
    mine.save_changes()
    assert held(page.session_key) == {'b': [1, 2], 'mine': 2, 'theirs': 1, 'more': 1}


def test_what_a_page_deleted_stays_deleted(page):
    mine = sessions.session(page.session_key)
    mine['mine'] = 1
    del page['a']
    page.save()
    mine.save_changes()
    assert held(page.session_key) == {'b': [1], 'mine': 1}


def test_save_itself_merges_as_well(page):
    mine = sessions.session(page.session_key)
    mine['mine'] = 1
    page['theirs'] = 1
    page.save()
    mine.save()
    assert held(page.session_key) == {'a': 1, 'b': [1], 'mine': 1, 'theirs': 1}


def test_what_is_cleared_is_what_was_there(page):
    mine = sessions.session(page.session_key)
    mine.clear()
    mine['mine'] = 1
    page['theirs'] = 1
    page.save()
    mine.save_changes()
    assert held(page.session_key) == {'mine': 1, 'theirs': 1}


def test_a_session_that_is_not_changed_is_not_saved(page):
    mine = sessions.session(page.session_key)
    mine.get('a')
    page.delete()
    mine.save_changes()
    assert not page.exists(page.session_key)


def test_a_session_that_has_gone_ends_its_connection(page):
    """Where a row could tell of another key, there is none. Else its client may have one, and comes back with it."""
    read, written = sessions.session(page.session_key), sessions.session(page.session_key)
    written['a'] = 2
    auth.session_store(page.session_key).delete()
    expected = ConnectionRevoked if auth.is_in_rows(page) else RowMissing
    for touch in (lambda: read.get('a'), written.save_changes):
        with pytest.raises(ConnectionRevoked, match='session is gone') as raised:
            touch()
        assert raised.type is expected
    assert not page.exists(page.session_key)


def test_a_session_that_has_another_key_by_now_is_found_under_it(page):
    other = saved(a=2)
    page.delete()
    assert sessions.session(page.session_key, look_again=lambda: other.session_key)['a'] == 2
    for again in (lambda: page.session_key, lambda: None):
        with pytest.raises(ConnectionRevoked):
            sessions.session(page.session_key, look_again=again).get('a')


def test_a_key_that_a_function_cycles_is_saved_as_it_is(page):
    mine = sessions.session(page.session_key)
    mine['mine'] = 1
    mine.cycle_key()
    mine['more'] = 1
    mine.save_changes()
    assert mine.session_key != page.session_key
    assert held(mine.session_key) == {'a': 1, 'b': [1], 'mine': 1, 'more': 1}


def test_a_session_that_was_flushed_is_not_written(page):
    mine = sessions.session(page.session_key)
    mine.flush()
    mine.save_changes()
    mine['a'] = 1
    with pytest.raises(RuntimeError, match='was flushed'):
        mine.save_changes()
    assert not page.exists(page.session_key)


def test_what_was_loaded_at_the_connect_is_merged_the_same_way(page):
    mine = sessions.opened(auth.session_store(page.session_key))
    mine['b'].append(2)
    mine.modified = True
    page['theirs'] = 1
    page.save()
    mine.save_changes()
    assert held(page.session_key) == {'a': 1, 'b': [1, 2], 'theirs': 1}


def test_a_visitor_without_a_session_reads_an_empty_one_and_cannot_write(engine, rf, alice):
    for mine in (sessions.session(None), sessions.opened(auth.session_store())):
        assert mine.get('a') is None and list(mine.keys()) == [] and mine.session_key is None
        for write in (
            lambda: mine.__setitem__('a', 1),
            lambda: mine.update({'a': 1}),
            mine.create,
            mine.cycle_key,
            mine.save,
            lambda: mine.set_expiry(60),
        ):
            with pytest.raises(RuntimeError, match='has no session, and a websocket cannot set'):
                write()
        mine.save_changes()
        request = HttpRequest()
        request.session = mine
        with pytest.raises(RuntimeError):
            login(request, alice, backend='django.contrib.auth.backends.ModelBackend')
        logout(request)
    assert Session.objects.count() == 0


def test_a_session_in_a_cookie_is_read_and_not_written(settings):
    settings.SESSION_ENGINE = COOKIES
    page = saved(a=1)
    for mine in (sessions.session(page.session_key), sessions.opened(auth.session_store(page.session_key))):
        assert mine['a'] == 1
        for write in (lambda: mine.__setitem__('a', 2), mine.clear, mine.flush, mine.cycle_key, mine.save):
            with pytest.raises(RuntimeError, match='keeps the session in a cookie'):
                write()
    with pytest.raises(RowMissing):
        sessions.session(page.session_key + 'x').get('a')


def test_an_engine_of_ones_own_that_keeps_it_in_a_cookie_says_so_too(settings, monkeypatch):
    settings.SESSION_ENGINE = 'tests.test_sessions'
    page = saved(a=1)
    monkeypatch.setattr(SessionStore, 'save', lambda self, must_create=False: setattr(self, '_session_key', 'x' * 40))
    mine = sessions.session(page.session_key)
    mine['a'] = 2
    with pytest.raises(RuntimeError, match='keeps the session in a cookie'):
        mine.save_changes()


def test_what_another_process_has_raises_at_each_touch_and_says_what_to_do(engine, alice):
    mine = sessions.out_of_reach()
    assert mine.session_key is None
    for touch in (
        lambda: mine.get('a'),
        lambda: 'a' in mine,
        lambda: mine.__setitem__('a', 1),
        mine.keys,
        mine.clear,
        mine.flush,
        mine.create,
        mine.cycle_key,
        mine.save,
        lambda: mine.setdefault('a', 1),
    ):
        with pytest.raises(ImproperlyConfigured, match='Use runsockets, or the engine'):
            touch()
    mine.save_changes()


@pytest.mark.parametrize(
    'name, is_in_rows',
    [('db', True), ('cached_db', True), ('cache', False), ('file', False), ('signed_cookies', False)],
)
def test_a_row_can_say_which_session_it_is_of_djangos_own_table(settings, tmp_path, name, is_in_rows):
    settings.SESSION_ENGINE = 'django.contrib.sessions.backends.' + name
    settings.SESSION_FILE_PATH = str(tmp_path)
    assert auth.is_in_rows(auth.session_store()) is is_in_rows
    assert auth.is_in_rows(sessions.session(None)) is is_in_rows


@pytest.mark.parametrize(
    'before, ours, theirs, result',
    [
        ({'a': 1}, {'a': 1}, {'a': 2}, {'a': 2}),
        ({'a': 1}, {'a': 3}, {'a': 2}, {'a': 3}),
        ({'a': 1}, {}, {'a': 2, 'b': 1}, {'b': 1}),
        ({'a': 1}, {'a': 1}, {}, {}),
        ({'a': 1}, {'a': True}, {'a': 1}, {'a': True}),
        ({}, {'a': 1}, {'a': 2}, {'a': 1}),
        ({'a': float('nan')}, {}, {'a': 1}, {}),
    ],
)
def test_changes_are_told_by_key(before, ours, theirs, result):
    assert sessions.merged(before, ours, theirs) == result


def test_values_that_refuse_to_be_compared_count_as_changed():
    class Strange:
        def __ne__(self, other):
            raise ValueError

    strange = Strange()
    assert sessions.merged({'a': Strange()}, {'a': strange}, {'a': 1}) == {'a': strange}


@pytest.mark.parametrize(
    'before, after',
    [
        ([1], [True]),
        ({'on': 0}, {'on': False}),
        ({'deep': [{'n': 1}]}, {'deep': [{'n': 1.0}]}),
        ({'a': 1, 'b': 2}, {'b': 2, 'a': 1}),
    ],
)
def test_a_value_that_python_calls_equal_is_saved_as_it_was_set(engine, before, after):
    page = saved(value=before)
    frame = sessions.session(page.session_key)
    frame['value'] = after
    frame.save_changes()
    assert repr(sessions.session(page.session_key)['value']) == repr(after)


# In an async def, by the methods that Django has for it since 5.1: the promises are the same.

has_coroutines = pytest.mark.skipif(not hasattr(SessionBase, 'aget'), reason='Django before 5.1 has no such methods')


def run(function):
    """Run an ``async def`` as Django does, with this thread, which has the test's transaction, for what is not async."""
    from asgiref.sync import async_to_sync

    return async_to_sync(function)()


@has_coroutines
def test_a_change_is_merged_into_what_a_page_saved_meanwhile_in_a_coroutine(page):
    mine = sessions.session(page.session_key)

    async def change():
        await mine.aset('mine', 1)
        (await mine.aget('b')).append(2)
        await mine.apop('a')

    run(change)
    page['theirs'] = 1
    page['a'] = 5
    page.save()
    mine.save_changes()
    assert held(page.session_key) == {'b': [1, 2], 'mine': 1, 'theirs': 1}


@has_coroutines
def test_asave_itself_merges_as_well(page):
    mine = sessions.session(page.session_key)

    async def change():
        await mine.aupdate({'mine': 1})

    run(change)
    page['theirs'] = 1
    page.save()
    run(mine.asave)
    assert held(page.session_key) == {'a': 1, 'b': [1], 'mine': 1, 'theirs': 1} and not mine.modified


@has_coroutines
def test_a_session_that_has_gone_ends_its_connection_in_a_coroutine(page):
    read, written = sessions.session(page.session_key), sessions.session(page.session_key)
    written['a'] = 2
    auth.session_store(page.session_key).delete()
    expected = ConnectionRevoked if auth.is_in_rows(page) else RowMissing
    for touch in (read.akeys, written.asave):
        with pytest.raises(ConnectionRevoked, match='session is gone') as raised:
            run(touch)
        assert raised.type is expected
    assert not page.exists(page.session_key)


@has_coroutines
def test_a_session_that_has_another_key_by_now_is_found_under_it_in_a_coroutine(page):
    other = saved(a=2)
    page.delete()
    mine = sessions.session(page.session_key, look_again=lambda: other.session_key)
    assert dict(run(mine.aitems)) == {'a': 2}


@has_coroutines
def test_a_key_that_a_function_cycles_is_saved_as_it_is_in_a_coroutine(page):
    mine = sessions.session(page.session_key)

    async def cycle():
        await mine.aset('mine', 1)
        await mine.acycle_key()
        await mine.aset('more', 1)

    run(cycle)
    mine.save_changes()
    assert mine.session_key != page.session_key and not page.exists(page.session_key)
    assert held(mine.session_key) == {'a': 1, 'b': [1], 'mine': 1, 'more': 1}


@has_coroutines
def test_a_session_that_was_flushed_is_not_written_in_a_coroutine(page):
    mine = sessions.session(page.session_key)
    run(mine.aflush)
    mine.save_changes()
    mine['a'] = 1
    with pytest.raises(RuntimeError, match='was flushed'):
        run(mine.asave)
    assert not page.exists(page.session_key)


@has_coroutines
def test_what_is_cleared_in_a_coroutine_is_what_is_there(page):
    mine = sessions.session(page.session_key)

    async def clear():
        mine.clear()
        await mine.aset('mine', 1)

    run(clear)
    mine.save_changes()
    assert held(page.session_key) == {'mine': 1}
    # From then on it is merged again.
    other = auth.session_store(page.session_key)
    other['theirs'] = 1
    other.save()
    mine['more'] = 1
    mine.save_changes()
    assert held(page.session_key) == {'mine': 1, 'more': 1, 'theirs': 1}


@has_coroutines
def test_a_visitor_without_a_session_reads_an_empty_one_and_cannot_write_in_a_coroutine(engine):
    mine = sessions.session(None)

    async def write():
        await mine.aset('a', 1)

    assert list(run(mine.akeys)) == []
    for attempt in (write, mine.acreate, mine.acycle_key, mine.asave):
        with pytest.raises(RuntimeError, match='has no session, and a websocket cannot set'):
            run(attempt)
    run(mine.aflush)
    assert Session.objects.count() == 0


@has_coroutines
def test_a_session_in_a_cookie_is_read_and_not_written_in_a_coroutine(settings):
    settings.SESSION_ENGINE = COOKIES
    mine = sessions.session(saved(a=1).session_key)
    assert dict(run(mine.aitems)) == {'a': 1}
    for attempt in (mine.asave, mine.acycle_key):
        with pytest.raises(RuntimeError, match='keeps the session in a cookie'):
            run(attempt)


@has_coroutines
def test_what_another_process_has_raises_at_each_touch_in_a_coroutine(engine):
    mine = sessions.out_of_reach()
    for touch in (mine.akeys, mine.acreate, mine.asave, mine.aflush):
        with pytest.raises(ImproperlyConfigured, match='only the cookie says'):
            run(touch)


# What a page does with them.


def connection_of(login, alice):
    (key,) = login(alice).values()
    Socket.objects.create(channel_name='server!1', user=alice, session_id=key, path='/')
    return auth.session_store(key)


@has_coroutines
def test_a_login_in_a_coroutine_takes_the_connections_of_the_session_along(login, alice):
    page = connection_of(login, alice)
    old = page.session_key
    run(page.acycle_key)
    assert page.session_key != old and Socket.objects.get().session_id == page.session_key
    assert auth.user_of(page) == alice


@has_coroutines
def test_a_key_that_cannot_be_cycled_stays_that_of_its_connections(login, alice, monkeypatch):
    page = connection_of(login, alice)
    old = page.session_key

    async def fail(self):
        raise OSError('as told')

    monkeypatch.setattr(type(page), 'acreate', fail)
    with pytest.raises(OSError, match='as told'):
        run(page.acycle_key)
    assert Socket.objects.get().session_id == old


@has_coroutines
def test_a_logout_in_a_coroutine_ends_the_connections_of_the_session(login, alice):
    page = connection_of(login, alice)
    run(page.aflush)
    assert not Socket.objects.exists()


@has_coroutines
def test_a_user_who_is_changed_in_a_coroutine_loses_its_connections(login, alice):
    connection_of(login, alice)

    async def deactivate():
        user = await get_user_model().objects.aget()
        user.is_active = False
        await user.asave()

    run(deactivate)
    assert not Socket.objects.exists()
