from datetime import timedelta

import django
import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from sockets.access import auth
from sockets.exceptions import ConnectionRevoked
from sockets.models import Socket

pytestmark = pytest.mark.django_db


@pytest.fixture
def row(login, alice):
    (key,) = login(alice).values()
    Socket.objects.create(channel_name='daphne.response.a!1', user=alice, session_id=key, path='/')
    return lambda: Socket.objects.select_related('user', 'session').get()


def check(row):
    auth.check_still_valid(row)


def test_a_cookie_leads_to_its_session_and_user(login, alice):
    (key,) = login(alice).values()
    session = auth.session_from_cookie(key)
    assert session.session_key == auth.row_session_key(session) == key
    assert auth.user_of(session) == alice


@pytest.mark.parametrize('key', [None, '', 'short', 'x' * 40, 'nul\0nul\0nul'])
def test_a_cookie_without_a_session_is_an_empty_session(key):
    session = auth.session_from_cookie(key)
    assert session.session_key is None and list(session.keys()) == []
    assert auth.row_session_key(session) is None
    assert not auth.user_of(session).is_authenticated


def test_a_key_that_postgresql_refuses_is_not_looked_up(django_assert_num_queries):
    with django_assert_num_queries(0):
        auth.session_from_cookie('nul\0nul\0nul')


def test_an_anonymous_session_is_kept(client):
    session = client.session
    session['name'] = 'guest'
    session.save()
    assert auth.session_from_cookie(session.session_key)['name'] == 'guest'


def test_a_row_is_valid_while_nothing_changes(row):
    check(row())


def test_an_expired_session_is_revoked(row):
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
    with pytest.raises(ConnectionRevoked, match='expired'):
        check(row())


def test_an_inactive_user_is_revoked(row):
    get_user_model().objects.update(is_active=False)
    with pytest.raises(ConnectionRevoked, match='not active'):
        check(row())


def test_a_changed_password_is_revoked(row, alice):
    alice.set_password('other')
    alice.save()
    with pytest.raises(ConnectionRevoked, match='password'):
        check(row())


def test_logging_out_deletes_the_row(row, settings):
    browser = Client()
    browser.cookies[settings.SESSION_COOKIE_NAME] = row().session_id
    browser.logout()
    assert not Socket.objects.exists()


@pytest.mark.parametrize(
    'is_active, expected',
    [
        (True, True),
        (False, False),
        (None, True),
        (0, False),
        (property(lambda self: False), False),
        (property(lambda self: True), True),
        (lambda self: False, False),
        (lambda self: True, True),
    ],
)
def test_is_active_may_be_a_column_a_property_or_a_method(is_active, expected):
    assert auth.is_active(type('User', (), {'is_active': is_active})()) is expected


def test_users_of_a_model_without_is_active_are_active():
    assert auth.is_active(object())


# SECRET_KEY_FALLBACKS, since Django 4.1.

has_fallbacks = pytest.mark.skipif(django.VERSION < (4, 2), reason='Django before 4.1 has no SECRET_KEY_FALLBACKS')


@has_fallbacks
def test_a_session_of_an_older_secret_key_is_valid_and_keeps_its_key(row, settings, alice):
    key = row().session_id
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = 'a new one', [settings.SECRET_KEY]
    check(row())
    session = auth.session_from_cookie(key)
    assert auth.user_of(session) == alice
    # The browser's cookie still leads to it: no websocket can set another one.
    assert session.session_key == key and auth.session_from_cookie(key).session_key == key
    assert Socket.objects.get().session_id == key


@has_fallbacks
def test_an_older_secret_key_does_not_outlive_a_new_password(row, settings, alice):
    key = row().session_id
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = 'a new one', [settings.SECRET_KEY]
    alice.set_password('another')
    alice.save()
    with pytest.raises(ConnectionRevoked, match='password'):
        check(row())
    assert not auth.user_of(auth.session_from_cookie(key)).is_authenticated


@has_fallbacks
def test_a_session_of_a_secret_key_that_is_not_known_any_more_is_nobodys(row, settings):
    session = auth.session_from_cookie(row().session_id)
    settings.SECRET_KEY = 'a new one'
    assert not auth.user_of(session).is_authenticated
