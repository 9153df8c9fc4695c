"""Whose a connection is: its row and its user, kept where one process handles all of its frames.

They are read again once they are ``SOCKETS['IDENTITY_MAX_AGE']`` seconds old, and as soon as this process has written
the row, the user or the session. Each frame gets copies.
"""

import functools
import threading
import time

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import connections, transaction
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_save

from .. import conf
from ..access import auth
from . import copies

# What every identity depends on: which permissions groups have.
PERMISSIONS = 'permissions'

# What Django's backends keep on a user. They are sets of names.
_CACHES = '_perm_cache', '_user_perm_cache', '_group_perm_cache'

# Seconds between two looks for identities that nobody has asked for lately.
SWEEP_EVERY = 2


class Entry:
    """The row and the user of one connection as they were read ``since`` then, a time of ``time.monotonic()``."""

    __slots__ = ('since', 'keys', 'session_key', 'expires', '_row', '_user', 'allowed', '_session', '_caches')

    def __init__(self, row, since):
        """Keep ``row``, loaded with its user and session. ``TypeError`` if one of them cannot be copied."""
        self.since = since
        self._row = copies.original(row)
        self._user = None if row.user_id is None else copies.original(row.user)
        self._session = None if row.session_id is None else copies.original(row.session)
        # Whether the user has these permissions, by their names.
        self.allowed = {}
        self._caches = {}
        self.session_key = row.session_id
        self.expires = auth.expires(row)
        self.keys = frozenset(
            [
                PERMISSIONS,
                *keys_of(row),
                *([] if row.user_id is None else keys_of(row.user)),
                *([] if row.session_id is None else keys_of(row.session)),
            ]
        )

    def has_expired(self):
        """Whether its right is over, as far as is known here: a page may have prolonged the session."""
        return self.expires is not None and self.expires < time.time()

    def row(self, user):
        """Return a copy of the row, with ``user`` as its user."""
        row = self._row.copy()
        if self._user is not None:
            _set_related(row, 'user', user)
        if self._session is not None:
            _set_related(row, 'session', self._session.copy())
        return row

    def user(self):
        """Return a copy of the user, an ``AnonymousUser`` if there is none."""
        if self._user is None:
            return auth.anonymous()
        user = self._user.copy()
        for name, value in self._caches.items():
            setattr(user, name, set(value))
        return user

    def note_permissions(self, user):
        """Keep what a backend has read of the permissions of ``user``, a copy, unless somebody has changed that."""
        if self._user is None or all(name in self._caches or name not in vars(user) for name in _CACHES):
            return
        original = vars(self._user.copy())
        if all(vars(user).get(name) == value for name, value in original.items() if name != '_state'):
            self._caches = {name: frozenset(vars(user)[name]) for name in _CACHES if name in vars(user)}


def _set_related(row, name, value):
    field = row._meta.get_field(name)
    if hasattr(field, 'set_cached_value'):
        field.set_cached_value(row, value)
    else:
        setattr(row, copies.cache_name(field), value)


class Reading:
    """A query that is under way, and the keys of what was written since it began."""

    __slots__ = ('since', 'written')

    def __init__(self, since):
        self.since = since
        self.written = set()


class IdentityCache:
    """The identities that this process keeps, each in the ``memory`` of a connection: any object that has an attribute
    ``identity``. For several threads.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._readings = set()
        self._kept = set()
        self._by_key = {}
        self._next_sweep = 0
        # Whether there was ever anything to drop: most processes only write.
        self.is_used = False

    def __len__(self):
        return len(self._kept)

    def find(self, memory):
        """Return the identity that is kept in ``memory``, unless it is too old; ``None`` if there is none."""
        identity = memory.identity
        if identity is None or time.monotonic() - identity.since >= conf.IDENTITY_MAX_AGE:
            return None
        return identity

    def begin(self):
        """Return the ``Reading`` of a query that begins now. It ends with ``keep()`` or ``end()``."""
        reading = Reading(time.monotonic())
        with self._lock:
            self.is_used = True
            self._readings.add(reading)
        return reading

    def end(self, reading):
        """Keep nothing of what was read."""
        with self._lock:
            self._readings.discard(reading)

    def keep(self, memory, row, reading):
        """Keep ``row`` and return its ``Entry``; ``None`` if it was written while it was read, or cannot be copied."""
        try:
            identity = Entry(row, reading.since)
        except TypeError:
            return self.end(reading)
        with self._lock:
            self._readings.discard(reading)
            self._drop(memory)
            if identity.keys.isdisjoint(reading.written) and conf.IDENTITY_MAX_AGE:
                self._kept.add(memory)
                for key in identity.keys:
                    self._by_key.setdefault(key, set()).add(memory)
                memory.identity = identity
        self.sweep()
        return memory.identity

    def drop(self, keys):
        """Drop what depends on ``keys``, and what is being read of it: it was written."""
        with self._lock:
            for reading in self._readings:
                reading.written.update(keys)
            for key in keys:
                for memory in list(self._by_key.get(key, ())):
                    self._drop(memory)

    def drop_written(self, keys, using):
        """Drop what depends on ``keys``, which was written to the database ``using``, now and when that is committed."""
        if not self.is_used:
            return
        self.drop(keys)
        connection = connections[using]
        if not connection.in_atomic_block:
            return
        # Since Django 4.2 with a third part.
        last = connection.run_on_commit[-1] if connection.run_on_commit else (None, None)
        if isinstance(last[1], _Drop) and last[0] == set(connection.savepoint_ids):
            # A transaction may write a million rows.
            last[1].keys.update(keys)
        else:
            transaction.on_commit(_Drop(self, keys), using=using)

    def forget(self, memory, reading=None):
        """Drop what is kept in ``memory``, and keep nothing of ``reading``."""
        with self._lock:
            self._readings.discard(reading)
            self._drop(memory)

    def sweep(self):
        """Drop what is too old, every two seconds: connections that say nothing cost no memory for it."""
        now = time.monotonic()
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP_EVERY
        with self._lock:
            for memory in [memory for memory in self._kept if now - memory.identity.since >= conf.IDENTITY_MAX_AGE]:
                self._drop(memory)

    def _drop(self, memory):
        identity, memory.identity = memory.identity, None
        if identity is None:
            return
        self._kept.discard(memory)
        for key in identity.keys:
            others = self._by_key.get(key)
            if others is not None:
                others.discard(memory)
                if not others:
                    del self._by_key[key]


class _Drop:
    """What is run when a transaction is committed."""

    def __init__(self, cache, keys):
        self.cache = cache
        self.keys = set(keys)

    def __call__(self):
        self.cache.drop(self.keys)


cache = IdentityCache()


def is_in_transaction(using):
    """Whether what is read from the database ``using`` now may never be true for anybody else, or not yet."""
    connection = connections[using]
    return connection.in_atomic_block or not connection.get_autocommit()


def keys_of(instance):
    """Return the names of ``instance``, and of those of its parents, under which its identities are found."""
    keys = []
    for model in _tables(type(instance)):
        pk = model._meta.pk
        value = getattr(instance, pk.attname)
        try:
            value = pk.to_python(value)
        except ValidationError:
            pass
        keys.append((model._meta.label, value))
    return keys


@functools.lru_cache(maxsize=None)
def _tables(model):
    """Return the models whose tables an instance of ``model`` is written to: a proxy has none of its own."""
    return tuple(dict.fromkeys(parent._meta.concrete_model for parent in (model, *model._meta.get_parent_list())))


def install(row_model):
    """Listen to what writes users, sessions and rows of connections: those models, their parents, children and proxies."""
    from django.contrib.auth import get_user_model
    from django.contrib.sessions.models import Session

    known = {table for model in (get_user_model(), Session, row_model) for table in _tables(model)}
    for model in apps.get_models(include_auto_created=True):
        if known.isdisjoint(_tables(model)):
            continue
        pre_save.connect(_renew, sender=model, dispatch_uid='sockets.identity_cache')
        post_save.connect(_written, sender=model, dispatch_uid='sockets.identity_cache')
        # Who deletes a session deletes its rows. A receiver would have ``clearsessions`` read each one.
        if Session not in _tables(model):
            post_delete.connect(_written, sender=model, dispatch_uid='sockets.identity_cache')
    _listen_to_permissions(get_user_model())


def _listen_to_permissions(user_model):
    from django.contrib.auth.models import Group, Permission

    for model in (user_model, Group):
        for field in model._meta.many_to_many:
            if field.related_model in (Group, Permission):
                m2m_changed.connect(
                    _permissions_written, sender=field.remote_field.through, dispatch_uid='sockets.identity_cache'
                )
    for model in (Group, Permission):
        post_delete.connect(_permissions_written, sender=model, dispatch_uid='sockets.identity_cache')


def written(instances, using):
    """Drop the identities that are made of ``instances``, which were written to the database ``using``."""
    if cache.is_used:
        cache.drop_written([key for instance in instances for key in keys_of(instance)], using)


def _renew(instance, using, raw=False, update_fields=None, **kwargs):
    if not raw:
        copies.renew(instance, using, update_fields)


def _written(instance, using, **kwargs):
    written([instance], using)


def _permissions_written(using, **kwargs):
    cache.drop_written([PERMISSIONS], using)
