"""Openings: the sessions and users of the clients that wait to connect, all read by one query each.

Whoever opens a connection reads them for those that wait behind it, as far as Django would read them with queries of its own
that are known here. The others, and those of which anything is unusual, read their own.
"""

import threading
import time

from django.conf import settings
from django.contrib import auth as django_auth
from django.contrib.sessions.backends import db
from django.db import router
from django.http import parse_cookie
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from .. import databases
from ..access import auth
from . import copies, handshakes, identity_cache

# For how many connections they are read at a time.
BATCH = 64

# Seconds for which what was read is good. Who has come after that is not judged by it.
GOOD_FOR = 0.25

# Seconds for which somebody waits for what another one reads.
_PATIENCE = 1


class Openings:
    """What was read for connections that are not open yet, by their names. For several threads."""

    def __init__(self):
        self._lock = threading.Lock()
        self._found = {}

    def __len__(self):
        return len(self._found)

    def find(self, connection, key):
        """Return the session of the cookie ``key``, the empty one if that is not good, and its user, for ``connection``."""
        found = self.take(connection, key)
        if found is None:
            with databases.on_primary():
                store = auth.session_from_cookie(key)
                found = store, auth.user_of(store)
        return found

    def take(self, connection, key):
        """Return the session ``key`` and its user for ``connection``; ``None`` if they are to be read for it alone."""
        found = self._take(connection.name)
        if found is None and key and _is_known(auth.session_engine()) and connection.waiting(1):
            if not self._lock.acquire(timeout=_PATIENCE):
                return None
            try:
                # Somebody else has just read it, or it is the first one.
                found = self._take(connection.name)
                if found is None and not identity_cache.is_in_transaction(_session_database()):
                    self._read(connection, key)
                    found = self._take(connection.name)
            finally:
                self._lock.release()
        return None if found is None or found.key != key else found.open()

    def _take(self, name):
        found = self._found.pop(name, None)
        return None if found is None or found.until < time.monotonic() else found

    def _read(self, connection, key):
        now = time.monotonic()
        for name, found in list(self._found.items()):
            # It has left.
            if found.until < now:
                self._found.pop(name, None)
        keys = {name: _key_of(content) for name, content in connection.waiting(BATCH)}
        keys = {connection.name: key, **{name: key for name, key in keys.items() if name not in self._found}}
        sessions = _sessions_of([key for key in keys.values() if key and '\0' not in key])
        users = _users_of(sessions.values())
        for name, key in keys.items():
            if key in sessions:
                self._found[name] = _Found(key, sessions[key], users, now + GOOD_FOR)


class _Found:
    """The content of the session ``key``, and ``users`` by primary key: those of all that were read."""

    __slots__ = ('key', 'data', 'users', 'until')

    def __init__(self, key, data, users, until):
        self.key, self.data, self.users, self.until = key, data, users, until

    def open(self):
        """Return the session and its user; ``None`` where Django might do more than to return them."""
        store = auth.session_store(self.key)
        # Each connection has its own.
        store._session_cache = store.decode(self.data)
        if django_auth.SESSION_KEY not in store:
            return store, auth.anonymous()
        user = self.users.get(_user_key(store._session_cache))
        if user is None:
            return None
        user = user.copy()
        known = store.get(django_auth.HASH_SESSION_KEY)
        backend = _backend(store._session_cache)
        is_good = (
            known
            and hasattr(user, 'get_session_auth_hash')
            and constant_time_compare(known, user.get_session_auth_hash())
            and backend is not None
            and backend.user_can_authenticate(user)
        )
        return (store, user) if is_good else None


def _is_known(engine):
    """Whether ``engine`` reads sessions from Django's own table, and does nothing else for it."""
    return (
        engine.load is db.SessionStore.load
        and getattr(engine, '_get_session_from_db', None) is getattr(db.SessionStore, '_get_session_from_db', None)
        and auth.is_in_rows(engine())
    )


def _session_database():
    from django.contrib.sessions.models import Session

    return router.db_for_write(Session)


def _key_of(content):
    """Return the key of the session of the request ``content``."""
    return parse_cookie(handshakes.header(content, 'cookie') or '').get(settings.SESSION_COOKIE_NAME)


def _sessions_of(keys):
    from django.contrib.sessions.models import Session

    rows = Session.objects.using(_session_database()).filter(session_key__in=set(keys), expire_date__gt=timezone.now())
    return dict(rows.values_list('session_key', 'session_data'))


def _users_of(sessions):
    """Return what makes copies of the users of ``sessions``, by their primary keys."""
    store, keys = auth.session_store(), set()
    for session in sessions:
        data = store.decode(session)
        if django_auth.SESSION_KEY in data and _backend(data) is not None:
            keys.add(_user_key(data))
    keys.discard(None)
    found = {}
    if keys:
        with databases.on_primary():
            for user in django_auth.get_user_model()._default_manager.filter(pk__in=keys):
                try:
                    found[user.pk] = copies.original(user)
                except TypeError:
                    # It reads its own.
                    pass
    return found


def _user_key(data):
    try:
        return django_auth.get_user_model()._meta.pk.to_python(data[django_auth.SESSION_KEY])
    except Exception:
        return None


def _backend(data):
    """Return the backend that has logged in the user of a session, if it finds users as Django's own does."""
    from django.contrib.auth.backends import ModelBackend

    path = data.get(django_auth.BACKEND_SESSION_KEY)
    if path not in settings.AUTHENTICATION_BACKENDS:
        return None
    backend = django_auth.load_backend(path)
    return backend if getattr(type(backend), 'get_user', None) is ModelBackend.get_user else None


openings = Openings()
