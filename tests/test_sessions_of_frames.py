"""``socket.session`` in routes, under every engine: each cell of the table in docs/how-to/handlers.md."""

import pytest
from django.contrib.sessions.models import Session
from django.core.cache import cache

from sockets import RoutedSocketHandler
from sockets.access import auth
from sockets.connection.memory import memories
from sockets.models import Socket
from sockets.testing import sandbox

from .client import ON_CHANNELS_1
from .conftest import InMemoryChannelLayer, both_ways
from .test_sessions import SessionStore, held

pytestmark = pytest.mark.django_db(transaction=True)

BUILT_IN = 'django.contrib.sessions.backends.'
IN_ROWS = [BUILT_IN + 'db', BUILT_IN + 'cached_db']
ELSEWHERE = [BUILT_IN + 'cache', BUILT_IN + 'file', 'tests.test_sessions']
COOKIE = [BUILT_IN + 'signed_cookies']
HERE, PAIR = 'one process', 'another process'
WHERE = [HERE, pytest.param(PAIR, marks=pytest.mark.channels1('on Channels 4, one process handles all frames'))]


@pytest.fixture
def layer():
    layer = InMemoryChannelLayer()
    with sandbox(layer, routing=[]):
        yield layer


@pytest.fixture
def use(settings, tmp_path, monkeypatch):
    """A function that chooses the engine, and whether another process may handle the frames."""

    def choose(engine, where=HERE):
        settings.SESSION_ENGINE = engine
        settings.SESSION_FILE_PATH = str(tmp_path)
        if where is PAIR:
            from sockets.engines.channels1.channel_layer import Adapter

            monkeypatch.setattr(Adapter, 'is_served_locally', lambda self: False)
        cache.clear()
        SessionStore.kept.clear()

    return choose


class Page(RoutedSocketHandler):
    ended = []

    def connect(self, message, **kwargs):
        super().connect(message, **kwargs)
        if 'on_connect' in self.session:
            self.session['on_connect'] += 1

    def on_read(self, content):
        return {'session': dict(self.session.items())}

    def on_write(self, content):
        self.session['n'] = self.session.get('n', 0) + 1
        return {'n': self.session['n']}

    def on_request(self, content):
        return {
            'same': self.request.session is self.session,
            'path': self.request.path,
            'message': self.has_session_on_its_message(),
        }

    def has_session_on_its_message(self):
        # Channels 4 has none on it.
        return (self.message.http_session if ON_CHANNELS_1 else self.session.session_key) is not None

    def disconnect(self, message, **kwargs):
        self.ended.append(dict(self.session.items()))
        self.session['ended'] = True

    routes = (('READ', on_read), ('WRITE', on_write), ('REQUEST', on_request))


def cookie_of(settings, **data):
    store = auth.session_store()
    store.update(data)
    store.save()
    return {settings.SESSION_COOKIE_NAME: store.session_key}, store.session_key


def refusal(client, type):
    (answer,) = client.send({'type': type, 'ref': 1})
    assert answer['type'] == 'ERROR'
    return answer['details']


@pytest.mark.parametrize('where', WHERE)
@pytest.mark.parametrize('engine', IN_ROWS + ELSEWHERE + COOKIE)
@both_ways
def test_a_session_in_a_route(connect, use, settings, caplog, engine, where):
    use(engine, where)
    settings.DEBUG = True
    cookies, key = cookie_of(settings, name='ada')
    mine = connect(Page, cookies=cookies)
    if where is PAIR and engine not in IN_ROWS:
        for type in ('READ', 'WRITE'):
            assert 'Use runsockets, or the engine' in refusal(mine, type)
        assert mine.send({'type': 'REQUEST'}) == [{'same': True, 'path': '/page/', 'message': False}]
        return
    assert mine.send({'type': 'READ'}) == [{'session': {'name': 'ada'}}]
    assert mine.send({'type': 'REQUEST'}) == [{'same': True, 'path': '/page/', 'message': True}]
    if engine in COOKIE:
        assert 'keeps the session in a cookie' in refusal(mine, 'WRITE')
        return
    assert mine.send({'type': 'WRITE'}) == [{'n': 1}]
    # A page saves it in between, as it has read it.
    page = auth.session_store(key)
    page['page'] = True
    page.save()
    assert mine.send({'type': 'WRITE'}) == [{'n': 2}]
    assert held(key) == {'name': 'ada', 'n': 2, 'page': True}
    # No row says more than it did before.
    assert Socket.objects.get().session_id == (key if engine in IN_ROWS else None)


@pytest.mark.parametrize('where', WHERE)
@pytest.mark.parametrize('engine', IN_ROWS + ELSEWHERE + COOKIE)
@both_ways
def test_a_visitor_without_a_session_reads_an_empty_one_and_is_told_that_it_cannot_write(
    connect, use, settings, engine, where
):
    use(engine, where)
    settings.DEBUG = True
    mine = connect(Page)
    if where is PAIR and engine not in IN_ROWS:
        assert 'Use runsockets' in refusal(mine, 'READ') and 'Use runsockets' in refusal(mine, 'WRITE')
        return
    assert mine.send({'type': 'READ'}) == [{'session': {}}]
    assert 'has no session, and a websocket cannot set the cookie' in refusal(mine, 'WRITE')


@pytest.mark.parametrize('engine', IN_ROWS + ELSEWHERE)
def test_a_connect_and_a_disconnect_function_write_as_well(connect, use, settings, engine):
    use(engine)
    cookies, key = cookie_of(settings, on_connect=1)
    mine = connect(Page, cookies=cookies)
    assert held(key) == {'on_connect': 2}
    page = auth.session_store(key)
    page['page'] = True
    page.save()
    Page.ended.clear()
    mine.disconnect()
    assert Page.ended == [{'on_connect': 2, 'page': True}]
    assert held(key) == {'on_connect': 2, 'page': True, 'ended': True}


@pytest.mark.parametrize('engine', IN_ROWS + ELSEWHERE)
def test_a_session_that_has_gone_closes_the_connection_of_who_touches_it(connect, use, settings, engine):
    use(engine)
    cookies, key = cookie_of(settings, name='ada')
    mine = connect(Page, cookies=cookies)
    mine.send({'type': 'READ'}), mine.messages()
    if engine in IN_ROWS:
        # By another process, whose word was lost.
        Socket.objects.all()._raw_delete('default')
        Session.objects.all()._raw_delete('default')
        cache.clear()
    else:
        auth.session_store(key).delete()
    mine._put(text='{"type": "WRITE"}')
    assert mine.messages()[-1] == {'close': 4401 if engine in IN_ROWS else 1012}
    assert held(key) == {}


def test_the_key_of_a_session_stays_with_a_connection_that_is_silent_for_long(connect, use, settings):
    use(BUILT_IN + 'cache')
    cookies, key = cookie_of(settings, name='ada')
    mine = connect(Page, cookies=cookies)
    memories._sweep(memories.get(mine.name).since + 2 * memories.forget_after)
    assert mine.send({'type': 'READ'}) == [{'session': {'name': 'ada'}}]
    mine.disconnect()
    assert mine.name not in memories._memories


@pytest.mark.parametrize('where', WHERE)
def test_a_login_in_a_page_gives_the_session_another_key_under_which_it_is_found(connect, use, settings, where):
    use(BUILT_IN + 'db', where)
    cookies, key = cookie_of(settings, name='ada')
    mine = connect(Page, cookies=cookies)
    assert mine.send({'type': 'WRITE'}) == [{'n': 1}]
    page = auth.session_store(key)
    page.cycle_key()
    page.save()
    assert page.session_key != key
    assert mine.send({'type': 'WRITE'}) == [{'n': 2}]
    assert held(page.session_key) == {'name': 'ada', 'n': 2}
