"""What a connect needs and does not get: a client is told to come back, unless it is our fault."""

import logging

import pytest
from django.contrib.sessions.backends import cache
from django.db import DataError, InterfaceError, OperationalError, ProgrammingError

from sockets import RoutedSocketHandler
from sockets.access import outages
from sockets.models import Socket


class OfRedis(Exception):
    """As redis-py has it."""


OfRedis.__name__ = 'ConnectionError'


def caused_by(error):
    caused = RuntimeError('The session cannot be saved.')
    caused.__cause__ = error
    return caused


AWAY = [
    OperationalError('FATAL: sorry, too many clients already'),
    OperationalError('database is locked'),
    InterfaceError('connection already closed'),
    ConnectionRefusedError(111, 'Connection refused'),
    TimeoutError(),
    type('BusyLoadingError', (OfRedis,), {})(),
    caused_by(OfRedis()),
]
OURS = [ValueError('x'), KeyError('x'), ProgrammingError('no such column'), DataError('too long'), RuntimeError()]


@pytest.mark.parametrize('error', AWAY + OURS, ids=lambda error: type(error).__name__)
def test_an_outage_is_what_may_have_passed_at_the_next_try(error):
    assert outages.is_outage(error) is (error in AWAY)


class Page(RoutedSocketHandler):
    """A handler of its own."""


@pytest.mark.parametrize('where', ['row', 'function'])
@pytest.mark.parametrize('error, code', [(AWAY[0], 1013), (AWAY[-2], 1013), (OURS[0], 1011)])
def test_who_connects_during_an_outage_is_asked_to_try_again_later(connect, monkeypatch, where, error, code, caplog):
    def fail(*args, **kwargs):
        raise error

    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr(*((Socket, 'save') if where == 'row' else (Page, 'connect')), fail)
    assert connect(Page).messages() == [{'close': code}]


def test_after_the_accept_it_is_an_error_as_any_other(connect, monkeypatch):
    def fail(handler, message, **kwargs):
        handler.accept()
        raise AWAY[0]

    monkeypatch.setattr(Page, 'connect', fail)
    accept, error, close = connect(Page).messages()
    assert close == {'close': 1011}


class Away:
    """A cache that is away, or that refuses keys."""

    def __init__(self, error):
        self.error = error

    def get(self, *args, **kwargs):
        raise self.error


@pytest.mark.parametrize(
    'error, code', [(ConnectionRefusedError(), 1013), (OfRedis(), 1013), (ValueError('key'), None)]
)
def test_who_connects_while_the_cache_of_sessions_is_away_is_not_taken_for_logged_out(
    db, connect, settings, monkeypatch, error, code, caplog
):
    """A login_required socket was closed with 4401, after which no page comes back."""
    caplog.set_level(logging.CRITICAL)
    settings.SESSION_ENGINE = 'django.contrib.sessions.backends.cache'
    away = Away(error)
    monkeypatch.setattr(cache.SessionStore, '__init__', lambda self, key=None: _begin(self, key, away))
    closes = [message.get('close') for message in connect(Page, cookies={'sessionid': 'a' * 32}).messages()]
    assert closes == [code]
    # Nothing is asked for who has no cookie.
    assert [message.get('close') for message in connect(Page).messages()] == [None]


def _begin(store, key, away):
    cache.SessionBase.__init__(store, key)
    store._cache = away
