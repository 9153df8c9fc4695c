"""Identify the client: the session of a cookie, its user, and whether both are still valid."""

from importlib import import_module

from django.conf import settings
from django.contrib import auth
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from ..exceptions import ConnectionRevoked
from . import outages

# What a client is told whose token or the like is too old.
EXPIRED = 'Your authentication has expired.'


class _Request:
    """As much of a request as ``django.contrib.auth`` looks at."""

    def __init__(self, session):
        self.session = session if not getattr(settings, 'SECRET_KEY_FALLBACKS', None) else _Keeping(session)
        self.META = {}


class _Keeping:
    """A session that stays as it is where its hash was made with an older secret key. Django would give it another key,
    and a websocket cannot tell the browser that one. Its next page does.
    """

    def __init__(self, session):
        self._session = session

    def __getattr__(self, name):
        return getattr(self._session, name)

    def __getitem__(self, name):
        return self._session[name]

    def __setitem__(self, name, value):
        pass

    def cycle_key(self):
        pass


def anonymous():
    """Return the user of a connection that has none, as ``request.user`` would be."""
    from django.contrib.auth.models import AnonymousUser

    return AnonymousUser()


def session_engine():
    """Return the ``SessionStore`` of the project's engine."""
    return import_module(settings.SESSION_ENGINE).SessionStore


def session_store(key=None):
    """Return a ``SessionStore`` of the project's engine for ``key``."""
    return session_engine()(key)


def session_from_cookie(key):
    """Return the live session of the cookie ``key``, or an empty one if the key is bad, expired or flushed."""
    if not key or '\0' in key:
        return session_store()
    store = session_store(key)
    key = store.session_key
    store.keys()  # loads it: an engine drops a key that has no session
    if store.session_key:
        return store
    if key and not is_in_rows(store):
        _ask_cache(store, key)
    return session_store()


def _ask_cache(store, key):
    """Raise if the cache in which ``store`` has found no session ``key`` is away. Django takes that for a logout."""
    cache = getattr(store, '_cache', None)
    if cache is None:
        return
    try:
        cache.get(store.cache_key_prefix + key)
    except Exception as error:
        if outages.is_outage(error):
            raise


def user_of(session):
    """Return the user that Django's own authentication finds in ``session``, like ``request.user``."""
    return auth.get_user(_Request(session))


def introduce(request, session, user):
    """Give ``request`` what Django's middleware gives one, since Django 5 with ``auser()`` for coroutines."""
    request.session, request.user = session, user
    if hasattr(auth, 'aget_user'):

        async def auser():
            return user

        request.auser = auser


def is_active(user):
    """Return whether ``user`` is active, as Django's own backend judges: a model need not have ``is_active`` at all.

    It may be a column, a property or a method.
    """
    value = getattr(user, 'is_active', None)
    value = value() if callable(value) else value
    return value is None or bool(value)


def has_active_column():
    """Return whether the database can be asked which users are active."""
    from django.core.exceptions import FieldDoesNotExist

    try:
        return auth.get_user_model()._meta.get_field('is_active').concrete
    except FieldDoesNotExist:
        return False


def is_in_rows(session):
    """Return whether a row's ``session`` says which session it is: only those of Django's own table have such a column."""
    from django.contrib.sessions.models import Session

    return getattr(session, 'model', None) is Session


def row_session_key(session):
    """Return the key that a row's ``session`` column can refer to, ``None`` where the session is not in that table."""
    return session.session_key if is_in_rows(session) else None


def expires(row):
    """Return when the right of ``row``, loaded with its session, ends: a time of ``time.time()``, ``None`` for no such time."""
    ends = [row.authenticated_until, None if row.session_id is None else row.session.expire_date]
    return min((end.timestamp() for end in ends if end is not None), default=None)


def check_still_valid(row):
    """Raise ``ConnectionRevoked`` unless ``row`` still stands for its user: what ``request.user`` would re-check."""
    if row.session_id is not None and row.session.expire_date < timezone.now():
        raise ConnectionRevoked('Your session has expired.')
    if row.authenticated_until is not None and row.authenticated_until <= timezone.now():
        raise ConnectionRevoked(EXPIRED)
    if row.user_id is None:
        return
    if not is_active(row.user):
        raise ConnectionRevoked('Your account is not active.')
    if row.session_id is None:
        return
    known = row.session.get_decoded().get(auth.HASH_SESSION_KEY)
    current = row.user.get_session_auth_hash() if hasattr(row.user, 'get_session_auth_hash') else None
    if known and current and not (constant_time_compare(known, current) or _is_of_older_secret(known, row.user)):
        raise ConnectionRevoked('Your password has changed.')


def _is_of_older_secret(known, user):
    """Return whether the hash ``known`` of a session was made with one of ``SECRET_KEY_FALLBACKS``, since Django 4.1."""
    hashes = getattr(user, 'get_session_auth_fallback_hash', tuple)()
    return any(constant_time_compare(known, other) for other in hashes)
