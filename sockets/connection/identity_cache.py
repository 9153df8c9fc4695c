"""Whose a connection is: its row and its user, kept where one process handles all of its frames.

They are read again once they are ``SOCKETS['IDENTITY_MAX_AGE']`` seconds old, and as soon as this process has written
the row, the user or the session. Each frame gets copies.
"""

import itertools
import threading
import time

from django.apps import apps
from django.db import connections, transaction
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_save

from .. import conf
from . import copies
from .identity_entries import PERMISSIONS, Entry, keys_of, tables
from .memory import memories

# How many identities are read by one query, and how many are looked at to find them.
BATCH, LOOKS = 32, 64

# Of how many new connections it is known that nobody has read theirs, so that their first frames do not read each its own.
NEW = 256

# Seconds between two looks for identities that nobody has asked for lately.
SWEEP_EVERY = 2


class Reading:
    """A query that is under way, and since it began, the keys of what was written, and the memories that were forgotten."""

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
        # In the order in which they were read: the oldest comes first.
        self._kept = {}
        self._by_key = {}
        # The channel names of connections whose identities were never read, in the order in which they were opened.
        self._new = {}
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
        identity.is_used = True
        return identity

    def expect(self, memory, channel_name):
        """Note that the connection of that name, whose ``memory`` is given, is open, and that its frames are to come."""
        with self._lock:
            self._new[memory] = channel_name
            if len(self._new) > NEW:
                del self._new[next(iter(self._new))]

    def companions(self, memory, deferred):
        """Return other memories whose identities may be read together with that of ``memory``: by their channel names, each
        with what is kept there.

        They were asked for since they were read, without the columns ``deferred``, and are at half of their age; or they are of
        new connections and were never read.
        """
        until = time.monotonic() - conf.IDENTITY_MAX_AGE / 2
        found = {}
        with self._lock:
            for other in itertools.islice(self._kept, LOOKS):
                identity = other.identity
                if identity.since > until or len(found) == BATCH - 1:
                    break
                if identity.is_used and identity.deferred == deferred and other is not memory:
                    found[identity.channel_name] = other, identity
            self._new.pop(memory, None)
            while self._new and len(found) < BATCH - 1:
                # Once: most of them may never be asked for.
                other = next(iter(self._new))
                channel_name = self._new.pop(other)
                # Else it has ended.
                if memories.knows(channel_name, other):
                    found[channel_name] = other, None
        return found

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

    def keep(self, memory, row, reading, deferred=(), others=()):
        """Keep ``row`` and return its ``Entry``; ``None`` if it was written while it was read, or cannot be copied.

        ``others`` are triples of a memory, what was kept there before the query, ``None`` for nothing, and the row, ``None`` to
        drop that.
        """
        users = {}
        made = [(memory, None, _entry(row, reading, deferred, users))]
        made += [(other, before, _entry(row, reading, deferred, users)) for other, before, row in others]
        with self._lock:
            self._readings.discard(reading)
            for other, before, identity in made:
                if other is not memory and other.identity is not before:
                    # It was forgotten meanwhile, or read again.
                    continue
                self._drop(other)
                if identity is None or other in reading.written or not conf.IDENTITY_MAX_AGE:
                    continue
                if identity.keys.isdisjoint(reading.written):
                    self._kept[other] = None
                    for key in identity.keys:
                        self._by_key.setdefault(key, set()).add(other)
                    other.identity = identity
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
            for other in self._readings:
                # Which read it together with others, before whatever is the reason for this.
                other.written.add(memory)
            self._new.pop(memory, None)
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
        self._kept.pop(memory, None)
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


def _entry(row, reading, deferred, users):
    try:
        return None if row is None else Entry(row, reading.since, deferred, users)
    except TypeError:
        return None


cache = IdentityCache()


def is_in_transaction(using):
    """Whether what is read from the database ``using`` now may never be true for anybody else, or not yet."""
    connection = connections[using]
    return connection.in_atomic_block or not connection.get_autocommit()


def install(row_model):
    """Listen to what writes users, sessions and rows of connections: those models, their parents, children and proxies."""
    from django.contrib.auth import get_user_model
    from django.contrib.sessions.models import Session

    known = {table for model in (get_user_model(), Session, row_model) for table in tables(model)}
    for model in apps.get_models(include_auto_created=True):
        if known.isdisjoint(tables(model)):
            continue
        pre_save.connect(_renew, sender=model, dispatch_uid='sockets.identity_cache')
        post_save.connect(_written, sender=model, dispatch_uid='sockets.identity_cache')
        # Who deletes a session deletes its rows. A receiver would have ``clearsessions`` read each one.
        if Session not in tables(model):
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
