from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model, login, logout
from django.contrib.sessions.models import Session
from django.db import connections, transaction
from django.http import HttpRequest
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from sockets import RoutedSocketHandler, callbacks
from sockets.access import revocation
from sockets.models import Socket

from .conftest import both_ways
from .test_presence import Noted, nothing_noted  # noqa: F401, a fixture

pytestmark = pytest.mark.django_db(transaction=True)

LOGGED_OUT = [{'type': 'RECONNECT', 'details': 'Your session is gone. Come back with a new one.'}]


def browser_of(engine, user=None, key=None):
    """Return a request of a browser whose session is kept by ``engine``."""
    from importlib import import_module

    request = HttpRequest()
    request.session = import_module('django.contrib.sessions.backends.' + engine).SessionStore(key)
    if user is not None:
        login(request, user, backend='django.contrib.auth.backends.ModelBackend')
        request.user = user
    request.session.save()
    return request


def ends(connection):
    """Return the close codes that a connection was given, each of them with a RECONNECT."""
    told = connection.messages()
    assert all('RECONNECT' in message['text'] for message in told)
    return [message['close'] for message in told]


@pytest.mark.parametrize(
    'take_away, details',
    [
        (lambda user, request: logout(request), 'Your session is gone'),
        (lambda user, request: request.session.delete(), 'Your session is gone'),
        (lambda user, request: Session.objects.all().delete(), 'Your session is gone'),
        (lambda user, request: user.delete(), 'Your session is gone'),
        (lambda user, request: Socket.objects.all().delete(), 'Your session is gone'),
        (lambda user, request: (setattr(user, 'is_active', False), user.save()), 'Your account is not active'),
        (lambda user, request: (request.session.set_expiry(-1), request.session.save()), 'has expired'),
        (lambda user, request: Socket.objects.revoke('Enough.'), 'Enough.'),
    ],
)
@both_ways
def test_a_right_that_ends_closes_the_connection_and_runs_its_disconnect_function_once(
    connect, settings, alice, take_away, details
):
    request = browser_of('db', alice)
    mine = connect(Noted, cookies={settings.SESSION_COOKIE_NAME: request.session.session_key})
    mine.messages()
    take_away(alice, request)
    (told,) = mine.messages()
    assert told['close'] == 4401 and details in told['text']
    assert [(name, user, code) for name, user, code, _ in Noted.ended] == [(mine.name, 'alice', 4401)]
    assert not Socket.objects.exists()
    # daphne says so, too, when the client has gone.
    mine.disconnect(4401)
    assert len(Noted.ended) == 1


@both_ways
def test_other_connections_stay(connect, settings, alice):
    bob = get_user_model().objects.create_user('bob')
    requests = [browser_of('db', user) for user in (alice, alice, bob)]
    mine, elsewhere, his = (
        connect(Noted, cookies={settings.SESSION_COOKIE_NAME: request.session.session_key}) for request in requests
    )
    for connection in (mine, elsewhere, his):
        connection.messages()
    logout(requests[0])
    assert [ends(connection) for connection in (mine, elsewhere, his)] == [[4401], [], []]
    alice.is_active = False
    alice.save()
    assert [ends(connection) for connection in (elsewhere, his)] == [[4401], []]


@both_ways
def test_nothing_happens_to_a_connection_before_the_transaction_is_sure(connect, settings, alice):
    request = browser_of('db', alice)
    mine = connect(Noted, cookies={settings.SESSION_COOKIE_NAME: request.session.session_key})
    mine.messages()
    with pytest.raises(KeyError), transaction.atomic():
        alice.delete()
        raise KeyError
    assert mine.messages() == [] == Noted.ended
    assert Socket.objects.filter(user__username='alice').count() == 1
    assert mine.send({'type': 'HELLO'})[0]['type'] == 'GOT_HELLO'


def test_saving_an_active_user_or_a_live_session_asks_nothing_about_sockets(alice):
    request = browser_of('db', alice)
    with CaptureQueriesContext(connections['default']) as queries:
        alice.save()
        request.session.save()
    assert queries.captured_queries
    assert not [query['sql'] for query in queries.captured_queries if 'sockets_socket' in query['sql']]


@both_ways
def test_a_login_gives_the_session_another_key_and_the_connection_goes_on(connect, settings, alice):
    request = browser_of('db')
    mine = connect(Noted, cookies={settings.SESSION_COOKIE_NAME: request.session.session_key})
    mine.messages()
    old = request.session.session_key
    login(request, alice, backend='django.contrib.auth.backends.ModelBackend')
    request.session.save()
    assert request.session.session_key != old
    assert mine.messages() == [] == Noted.ended
    assert Socket.objects.get().session_id == request.session.session_key
    assert mine.send({'type': 'HELLO'})[0]['type'] == 'GOT_HELLO'
    logout(request)
    assert ends(mine) == [4401]


@pytest.mark.parametrize('engine', ['db', 'cached_db', 'cache', 'file', 'signed_cookies'])
@both_ways
def test_logging_out_ends_connections_whatever_keeps_the_session(connect, settings, alice, engine, tmp_path):
    settings.SESSION_ENGINE = 'django.contrib.sessions.backends.' + engine
    settings.SESSION_FILE_PATH = str(tmp_path)
    settings.CACHES = {'default': {'BACKEND': 'django.core.cache.backends.locmem.LocMemCache'}}
    here, there = browser_of(engine, alice), browser_of(engine, alice)
    mine, elsewhere = (
        connect(Noted, cookies={settings.SESSION_COOKIE_NAME: request.session.session_key}) for request in (here, there)
    )
    mine.messages(), elsewhere.messages()
    assert Socket.objects.filter(user=alice).count() == 2
    logout(here)
    # A row cannot tell one session from another if the database keeps none of them.
    both = engine not in ('db', 'cached_db')
    assert ends(mine) == [4401] and ends(elsewhere) == ([4401] if both else [])
    assert len(Noted.ended) == (2 if both else 1)


@both_ways
def test_a_child_or_a_proxy_of_the_user_is_the_user(connect, login, alice):
    from django.db.models.signals import post_save

    proxy = type(
        'Proxy',
        (get_user_model(),),
        {'__module__': 'tests.test_revocation', 'Meta': type('Meta', (), {'proxy': True, 'app_label': 'auth'})},
    )
    revocation.install()
    mine = connect(Noted, cookies=login(alice))
    mine.messages()
    stranger = proxy.objects.get(pk=alice.pk)
    stranger.is_active = False
    stranger.save()
    post_save.disconnect(sender=proxy, dispatch_uid='sockets')
    assert ends(mine) == [4401]


@both_ways
def test_no_frame_reaches_a_route_after_the_right_has_ended(connect, login, alice, layer):
    heard = []
    handler = type(
        'Heard',
        (RoutedSocketHandler,),
        {'login_required': True, 'routes': (('SAY', lambda socket, content: heard.append(content)),)},
    )
    mine = connect(handler, cookies=login(alice))
    alice.is_active = False
    alice.save()
    mine.send({'type': 'SAY'})
    assert heard == []


@both_ways
def test_a_layer_that_is_away_keeps_no_disconnect_function_from_running(connect, monkeypatch, caplog):
    from sockets import fanout

    mine = connect(Noted)

    def fail(names, message):
        raise ConnectionError('away')

    monkeypatch.setattr(fanout, 'send_many', fail)
    assert Socket.objects.revoke() == 1
    assert [name for name, *_ in Noted.ended] == [mine.name]
    assert 'Could not tell 1 connections that they end' in caplog.text


@pytest.mark.parametrize('engine', ['db', 'cached_db', 'cache', 'file', 'signed_cookies'])
@both_ways
def test_a_user_is_logged_out_of_every_session_that_can_be_searched(connect, settings, alice, engine, tmp_path):
    settings.SESSION_ENGINE = 'django.contrib.sessions.backends.' + engine
    settings.SESSION_FILE_PATH = str(tmp_path)
    settings.CACHES = {'default': {'BACKEND': 'django.core.cache.backends.locmem.LocMemCache'}}
    bob = get_user_model().objects.create_user('bob')
    here, there, without, his = (browser_of(engine, user) for user in (alice, alice, alice, bob))
    mine, elsewhere, bobs = (
        connect(Noted, cookies={settings.SESSION_COOKIE_NAME: request.session.session_key})
        for request in (here, there, his)
    )
    for connection in (mine, elsewhere, bobs):
        connection.messages()
    ended = revocation.log_out(Socket.objects.filter(channel_name=mine.name))
    searched = engine in ('db', 'cached_db')
    theirs = {request.session.session_key for request in (here, there, without)}
    assert ended == ({alice.pk}, theirs if searched else set(), 2, searched)
    assert ends(mine) == ends(elsewhere) == [4401] and ends(bobs) == []
    assert sorted((name, user) for name, user, _, _ in Noted.ended) == sorted(
        (connection.name, 'alice') for connection in (mine, elsewhere)
    )
    for request in (here, there, without, his):
        again = type(request.session)(request.session.session_key)
        assert ('_auth_user_id' in again) == (request is his or not searched)


@both_ways
def test_an_anonymous_connection_is_logged_out_with_its_session(connect, settings, alice):
    request = browser_of('db')
    cookies = {settings.SESSION_COOKIE_NAME: request.session.session_key}
    mine, other_tab, nobody, hers = (
        connect(Noted, cookies=each)
        for each in (
            cookies,
            cookies,
            None,
            {settings.SESSION_COOKIE_NAME: browser_of('db', alice).session.session_key},
        )
    )
    for connection in (mine, other_tab, nobody, hers):
        connection.messages()
    ended = revocation.log_out(Socket.objects.filter(channel_name__in=[mine.name, nobody.name]))
    assert ended == (set(), {request.session.session_key}, 3, True)
    assert [ends(connection) for connection in (mine, other_tab, nobody, hers)] == [[4401], [4401], [4401], []]
    assert Session.objects.count() == Socket.objects.count() == 1


@both_ways
def test_looking_for_sessions_ends_and_says_so(connect, settings, alice, monkeypatch):
    requests = [browser_of('db', alice) for _ in range(4)]
    mine = connect(Noted, cookies={settings.SESSION_COOKIE_NAME: requests[0].session.session_key})
    mine.messages()
    # Whoever has a connection is found in any case; of the others, those that expire last.
    Session.objects.filter(pk=requests[0].session.session_key).update(expire_date=timezone.now() + timedelta(hours=1))
    monkeypatch.setattr(revocation, 'SESSIONS_READ', 2)
    ended = revocation.log_out(Socket.objects.all())
    assert not ended.found_all and len(ended.sessions) == 3 and requests[0].session.session_key in ended.sessions
    monkeypatch.setattr(revocation, 'SESSIONS_READ', 1)
    connect(Noted, cookies={settings.SESSION_COOKIE_NAME: Session.objects.get().pk})
    assert revocation.log_out(Socket.objects.all()).found_all and not Session.objects.exists()
    assert ends(mine) == [4401]


@both_ways
def test_who_is_told_is_no_longer_logged_in(connect, settings, alice, monkeypatch):
    request = browser_of('db', alice)
    mine = connect(Noted, cookies={settings.SESSION_COOKIE_NAME: request.session.session_key})
    mine.messages()
    seen = []
    monkeypatch.setattr(callbacks, 'end', lambda rows, details, code: seen.append((len(rows), Session.objects.count())))
    revocation.log_out(Socket.objects.all())
    assert seen == [(1, 0)]
