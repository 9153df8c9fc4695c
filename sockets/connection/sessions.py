"""The session of a connection in a function: read when it is touched, and saved key by key.

A page may have saved it meanwhile. What a function has changed is put on top of that.
"""

import contextlib
import copy
import functools

from django.contrib.sessions.backends import signed_cookies
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.contrib.sessions.base_session import AbstractBaseSession
from django.core.exceptions import ImproperlyConfigured
from django.db import router, transaction
from django.db.models import F
from django.utils import timezone

from .. import databases
from ..access import auth
from ..exceptions import ConnectionRevoked, RowMissing

try:
    from django.core.exceptions import SynchronousOnlyOperation
except ImportError:
    # Django before 3 runs no coroutines.
    class SynchronousOnlyOperation(Exception):
        pass


def opened(found):
    """Return the session of a connection that is being opened, which ``found``, a ``SessionStore``, has just loaded."""
    return session(found.session_key, found._session)


def session(key, data=None, look_again=None):
    """Return the session ``key`` for one frame; ``data`` is its content, if that has just been read. Without a key it is
    the empty one of a visitor that has none. ``look_again()`` returns the key that it has by now, should it have gone.
    """
    engine = auth.session_engine()
    kind = Absent if not key else ReadOnly if issubclass(engine, signed_cookies.SessionStore) else Merged
    found = _class(kind, engine)(key or None)
    found.look_again = look_again
    if data is not None:
        found.take(data)
    return found


def out_of_reach():
    """Return what stands for a session that this process cannot find: whoever touches it is told so."""
    return _class(OutOfReach, auth.session_engine())(None)


def of_nobody():
    """Return what stands for the session of a connection whose user is known by something else: there is none."""
    return _class(Needless, auth.session_engine())(None)


def gone(store):
    """Return what to raise where ``store`` is not found any more."""
    # A login gives the session another key, which a row says and nothing else: its client knows it.
    return ConnectionRevoked() if auth.is_in_rows(store) else RowMissing('Your session is gone. Please come back.')


@functools.lru_cache(maxsize=None)
def _class(kind, engine):
    # The name is part of what Django hashes.
    return type(engine.__name__, (kind, engine), {'__module__': engine.__module__})


class Kept:
    """A session as a function gets it, mixed into the project's ``SessionStore``."""

    # What it held when it was read.
    _before = None
    look_again = None

    def take(self, data):
        """Take ``data`` for what has been read."""
        self._before, self._session_cache = copy.deepcopy(data), data

    def load(self):
        key = self.session_key
        with databases.on_primary():
            data = super().load()
        # An engine drops a key that leads nowhere.
        if self.session_key != key:
            other, self.look_again = None if self.look_again is None else self.look_again(), None
            if other in (None, key):
                raise gone(self)
            self._session_key = other
            return self.load()
        self._before = copy.deepcopy(data)
        return data

    def save_changes(self):
        """Save what was changed since it was read, if anything was."""


for _name in ('aexists', 'acreate', 'asave', 'adelete', 'aload'):
    # Since Django 5.1, engines have methods for coroutines of their own. These call ours, in Django's thread.
    if hasattr(SessionBase, _name):
        setattr(Kept, _name, getattr(SessionBase, _name))


class Merged(Kept):
    """A session that can be written."""

    # A key that was made here: nobody else knows it.
    _is_new = False
    # It was emptied without having been read.
    _is_cleared = False

    def save_changes(self):
        if self.modified and not self.is_empty():
            self.save()

    def save(self, must_create=False):
        """Put what was changed on top of what is saved by now. ``ConnectionRevoked`` if the session has gone."""
        if must_create:
            return super().save(must_create)
        if not self.session_key:
            raise RuntimeError(_NO_COOKIE.format('The session of this connection was flushed'))
        key, ours = self.session_key, self._session
        try:
            with self._locked() as theirs:
                if theirs is not None:
                    self._session_cache = merged(theirs if self._is_cleared else self._before, ours, theirs)
                super().save()
        except UpdateError:
            raise gone(self)
        if self.session_key != key:
            raise RuntimeError(_IN_COOKIE.format(type(self).__module__))
        self._before = copy.deepcopy(self._session_cache)
        self.modified = self._is_cleared = False

    def create(self):
        super().create()
        self._is_new = True

    def clear(self):
        # What is there is to be deleted, and not only what was read.
        try:
            self.keys()
        except SynchronousOnlyOperation:
            self._is_cleared = True
        super().clear()

    async def aflush(self):
        await self.akeys()
        await super().aflush()

    @contextlib.contextmanager
    def _locked(self):
        """Yield what is saved of this session; nobody else writes it meanwhile where the engine has rows. ``None`` for
        one that was made here.
        """
        model = getattr(self, 'model', None)
        with databases.on_primary():
            if self._is_new:
                yield None
            elif isinstance(model, type) and issubclass(model, AbstractBaseSession):
                using = router.db_for_write(model)
                with transaction.atomic(using=using):
                    row = _locked_row(model.objects.using(using), self.session_key)
                    if row is None:
                        raise gone(self)
                    yield self.decode(row.session_data)
            else:
                others = auth.session_store(self.session_key)
                theirs = dict(others.items())
                if others.session_key != self.session_key:
                    raise gone(self)
                yield theirs


def _locked_row(rows, key):
    """Return the row of a session, which others can write when this transaction has ended; ``None`` if it has gone."""
    rows = rows.filter(session_key=key, expire_date__gt=timezone.now())
    if not transaction.get_connection(rows.db).features.has_select_for_update:
        # SQLite has one lock for all, and gives it to who writes.
        rows.update(expire_date=F('expire_date'))
    return rows.select_for_update().first()


def merged(before, ours, theirs):
    """Return ``theirs`` with what was changed between ``before`` and ``ours``: keys that were set, and deleted."""
    found = {key: value for key, value in theirs.items() if key not in before or key in ours}
    found.update((key, value) for key, value in ours.items() if key not in before or _differ(before[key], value))
    return found


def _differ(one, other):
    if type(one) is not type(other):
        return True
    try:
        # 1 is equal to True, and so is a list of it.
        if type(one) is dict:
            return list(one) != list(other) or any(_differ(one[key], other[key]) for key in one)
        if type(one) in (list, tuple):
            return len(one) != len(other) or any(map(_differ, one, other))
        return bool(one != other)
    except Exception:
        # What an author keeps in a session may not be comparable.
        return True


_NO_COOKIE = (
    '{}, and a websocket cannot set the cookie of a new one. Make the session in the page, before its socket '
    'connects: request.session.create(), or any write to request.session.'
)
_IN_COOKIE = (
    'SESSION_ENGINE {!r} keeps the session in a cookie, which a websocket cannot set. Write to the session in '
    'a page, or use another engine.'
)


class Unwritable(Kept):
    """A session that can be read. A write raises, where it is made."""

    @property
    def modified(self):
        return False

    @modified.setter
    def modified(self, value):
        if value:
            raise RuntimeError(self._why())


class ReadOnly(Unwritable):
    """A session in a cookie."""

    def create(self):
        # What Django does about a cookie that has expired.
        self._session_key = None

    def _why(self):
        return _IN_COOKIE.format(type(self).__module__)


class Absent(Unwritable):
    """The session of a visitor that has none."""

    def _why(self):
        return _NO_COOKIE.format('The client of this connection has no session')

    def create(self):
        raise RuntimeError(self._why())

    def save(self, must_create=False):
        raise RuntimeError(self._why())

    def clear(self):
        self._session_cache = {}

    def flush(self):
        self.clear()


class Needless(Absent):
    """The session of a client that has said otherwise who it is."""

    def _why(self):
        return (
            'This connection has no session: an authentication has found its user. Keep what belongs to the user in a model, '
            'and what belongs to the connection where its row says.'
        )


class OutOfReach(Unwritable):
    """A session whose key another process has."""

    @property
    def _session(self):
        raise ImproperlyConfigured(self._why())

    async def _aget_session(self, no_load=False):
        raise ImproperlyConfigured(self._why())

    def _why(self):
        return (
            f'SESSION_ENGINE {type(self).__module__!r} keeps sessions where a worker of another process cannot find that of a connection: '
            'only the cookie says which it is. Use runsockets, or the engine '
            "'django.contrib.sessions.backends.db' or '...cached_db'."
        )

    def _refuse(self, *args, **kwargs):
        raise ImproperlyConfigured(self._why())

    create = save = clear = flush = _refuse
