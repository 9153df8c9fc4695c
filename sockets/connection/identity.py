"""Who is behind a connection, for one event: its row, user and session, and whether they still hold."""

import asyncio
import functools
import json

from django.db import router

from .. import conf, engine
from ..access import auth
from ..exceptions import ConnectionRevoked, RowMissing
from ..execution import coroutines, thread_state
from . import identity_cache, sessions, signs_of_life
from .openings import openings

_UNREAD = object()

# What is not loaded with the row: it is long, and few functions look at it.
DEFERRED = ('handshake',)


class Identity:
    """Row, user and session of ``connection``: copies of what is kept of them, or else read when they are asked for.

    ``memory`` is what this process remembers of the connection. Once ``must_hold`` is set, asking for one of them raises
    ``ConnectionRevoked`` if they no longer hold.
    """

    __slots__ = (
        'name',
        'memory',
        'deferred',
        'function',
        'must_hold',
        'is_for_middleware',
        '_entry',
        '_row',
        '_user',
        '_session',
        '_session_row',
        '_problem',
    )

    def __init__(self, connection, memory, deferred=DEFERRED):
        self.name, self.memory, self.deferred = connection.name, memory, deferred
        # Whether a middleware may have changed what this frame has got.
        self.must_hold = self.is_for_middleware = False
        # The one that runs on the event loop and is not known to ask for any of this.
        self.function = None
        self._row, self._entry = _UNREAD, None
        self._user = self._session = self._session_row = self._problem = None
        if memory.is_served_here is None:
            memory.is_served_here = connection.is_served_here
            memory.is_kept = memory.is_served_here and connection.keeps_order

    @classmethod
    def of_cookie(cls, connection, memory, key):
        """Return that of a new connection, which has no row, and whose session cookie is ``key``."""
        identity = cls(connection, memory)
        identity._row = None
        store, identity._user = openings.find(connection, key)
        identity._session = sessions.opened(store)
        if not auth.is_in_rows(store):
            # No row says it: it is as good as a password.
            memory.session_key = store.session_key
        return identity

    @classmethod
    def of_user(cls, connection, memory, user):
        """Return that of a new connection, which has no row, and of whose ``user`` another than a session has told."""
        identity = cls(connection, memory)
        identity._row, identity._user = None, user
        identity._session = sessions.of_nobody()
        return identity

    @classmethod
    def of_row(cls, connection, memory, row):
        """Return that of a connection whose ``row``, loaded with its user and session, has been removed."""
        identity = cls(connection, memory)
        identity._take(row)
        return identity

    @property
    def row(self):
        """The row; ``None`` before there is one, and once it is gone."""
        self._load()
        if self._row is _UNREAD:
            self._row = self._entry.row(self.user)
            signs_of_life.tell(self._row, self.memory)
        return self._row

    @row.setter
    def row(self, row):
        self._row = row

    @property
    def user(self):
        """The user, an ``AnonymousUser`` where nobody is logged in."""
        self._load()
        if self._user is None:
            if self._row is _UNREAD:
                self._user = self._entry.user()
            else:
                has_user = self._row is not None and self._row.user_id is not None
                self._user = self._row.user if has_user else auth.anonymous()
        return self._user

    @property
    def session(self):
        """The session, which is read when it is touched."""
        self._load()
        if self._session is None:
            self._session = self._find_session()
        return self._session

    def load(self):
        """Read the row and user now, unless they are at hand. Who asks for them is told whether they hold."""
        if self._entry is None and self._row is _UNREAD:
            self._find()

    def is_at_hand(self):
        """Whether the row and user can be asked for without a query."""
        if self._entry is None and self._row is _UNREAD and self.memory.is_kept:
            entry = identity_cache.cache.find(self.memory)
            # A page may have prolonged the session: that is asked before anybody is turned away.
            if entry is not None and not entry.has_expired():
                self._entry = entry
        return self._entry is not None or self._row is not _UNREAD

    def has_changes(self):
        """Whether ``save()`` will write to the database or whatever else keeps sessions."""
        return self._session is not None and self._session.modified

    def confirm(self):
        """Read the row now, whatever is kept of it; raise ``ConnectionRevoked`` if it does not hold."""
        identity_cache.cache.forget(self.memory)
        self._row = _UNREAD
        self._entry = self._user = self._session = self._problem = None
        self._load()
        self.memory.is_in_doubt = False

    def entry_of(self, user):
        """Return the ``Entry`` that is kept of ``user``; ``None`` if there is none, or for one that may have been changed."""
        return None if self.is_for_middleware or user is not self._user else self._entry

    def save(self):
        """Save what a function has changed in the session, and keep what it has read of the permissions of its user."""
        if self._entry is not None and self._user is not None and '_perm_cache' in vars(self._user):
            self._entry.note_permissions(self._user)
        if self._session is not None:
            self._session.save_changes()
            if not auth.is_in_rows(self._session):
                self.memory.session_key = self._session.session_key

    def _load(self):
        if self._entry is None:
            if self._row is _UNREAD:
                self._find()
            if self.must_hold and self._problem is not None:
                raise self._problem

    def _find_on_loop(self):
        # Nobody else is served meanwhile, once: for its next frames, it is read before the function is called.
        self.function.asks_who, self.function = True, None
        coroutines.outside_of_loop(self._find_and_leave)

    def _find_and_leave(self):
        try:
            self._find()
        finally:
            thread_state.close_idle()

    def _find(self):
        if self.is_at_hand():
            return
        if self.function is not None and asyncio._get_running_loop() is not None:
            return self._find_on_loop()
        rows = _rows(self.deferred)
        cache, reading = identity_cache.cache, None
        if self.memory.is_kept and conf.IDENTITY_MAX_AGE and not identity_cache.is_in_transaction(rows.db):
            reading = cache.begin()
        try:
            others = {} if reading is None else cache.companions(self.memory, self.deferred)
            found = {row.channel_name: row for row in rows.filter(channel_name__in=[self.name, *others])}
            row = found.get(self.name)
            self._take(row)
            self._problem = _problem_of(row)
            _note_until(self.memory, row)
            if reading is None:
                return
            if self._problem is not None:
                return cache.forget(self.memory, reading)
            # This frame works with what it has read, and asks for permissions that the next one need not ask for.
            self._entry = cache.keep(self.memory, row, reading, self.deferred, _as_read(others, found))
        except BaseException:
            cache.end(reading)
            raise

    def _take(self, row):
        if row is not None:
            signs_of_life.tell(row, self.memory)
        self._row = row
        self._session_row = None if row is None or row.session_id is None else row.session

    def _find_session(self):
        if self._entry is not None:
            key = self._entry.session_key
        else:
            key = None if self._row is None else self._row.session_id
        if key is not None:
            # What this event has read is not read again.
            data = None if self._session_row is None else self._session_row.get_decoded()
            # Not a method of ours: who holds us would be held by us.
            return sessions.session(key, data, functools.partial(_key_of_row, self.name))
        if self.row is not None and self.row.authentication is not None:
            return sessions.of_nobody()
        if self._entry is None and self._row is None or auth.is_in_rows(auth.session_store()):
            return sessions.session(None)
        return sessions.session(self.memory.session_key) if self.memory.is_served_here else sessions.out_of_reach()


def _as_read(others, rows):
    """Return what ``cache.keep()`` takes of ``others``. Those that do not hold are dropped: their next frames say why."""
    for name, (memory, entry) in others.items():
        row = rows.get(name)
        try:
            _note_until(memory, row)
            holds = _problem_of(row) is None
        except Exception:
            # A project's user model may raise.
            holds = False
        yield memory, entry, row if holds else None


def _note_until(memory, row):
    if row is not None and (row.authenticated_until or memory.until):
        memory.until = row.authenticated_until and row.authenticated_until.timestamp()


def _rows(deferred):
    """Return the rows, with user and session, but without the columns ``deferred``."""
    from ..models import Socket

    using = router.db_for_write(Socket)
    if (using, deferred) not in _QUERIES:
        # Making it takes a third of what it costs to run it.
        _QUERIES[using, deferred] = Socket.objects.using(using).select_related('user', 'session').defer(*deferred)
    return _QUERIES[using, deferred]


_QUERIES = {}


def subprotocol_of(connection, identity):
    """Return the subprotocol that ``connection`` has been accepted with, or will be; ``None`` for none."""
    if connection.subprotocol is not None or engine.current().has_loop and connection.is_served_here:
        return connection.subprotocol
    # Another message, and perhaps another process, has accepted it.
    row = identity.row
    return None if row is None else json.loads(row.handshake or '{}').get('subprotocol')


def _key_of_row(name):
    """Return the key that the session of the connection ``name`` has by now: a login may have given it another one."""
    from ..models import Socket

    return Socket.objects.on_primary().filter(channel_name=name).values_list('session', flat=True).first()


def _problem_of(row):
    if row is None:
        return RowMissing()
    try:
        auth.check_still_valid(row)
    except ConnectionRevoked as problem:
        return problem
    return None
