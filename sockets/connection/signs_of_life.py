"""Signs of life: which clients have sent a frame of which their rows do not know yet. A server writes them together."""

import atexit
import collections
import contextlib
import logging
import os
import random
import threading
import time
from datetime import timedelta

from django.db import OperationalError, connections, models, transaction
from django.utils import timezone

from .. import conf, databases
from ..execution import thread_state
from . import identity_cache
from .identity_entries import tables
from .memory import memories

logger = logging.getLogger('sockets')

# How often rows are tried again at once that others are writing in another order.
_TRIES = 5

# Seconds after which a database that was away is tried again, and rows that somebody else had locked.
_TRY_AGAIN_AFTER = 1


class SignsOfLife:
    """The signs of life that wait to be written. For several threads.

    They are written every third of ``SOCKETS['LAST_PING_RESOLUTION']``, where a thread does that. A row needs to be told of a
    frame if it knows of none in the two thirds before that. So it is never behind by more than the whole.
    """

    def __init__(self):
        self._lock = threading.Lock()
        # By memory: the name of the connection, and whether its row must be there.
        self._waiting = {}
        self._is_open = False
        self._pid = os.getpid()
        # What went wrong, and has been said; and whether somebody else has kept rows locked.
        self._trouble = None
        self._has_held = False

    def __len__(self):
        return len(self._waiting)

    def open(self):
        """Have a thread of this process write them from now on."""
        with self._lock:
            if self._is_open:
                return
            self._is_open, self._pid = True, os.getpid()
        atexit.register(self._write_last)
        threading.Thread(target=self._run, name='sockets-life', daemon=True).start()

    def resolution(self):
        """Return after how many seconds a row is told again."""
        return conf.LAST_PING_RESOLUTION * 2 / 3 if self._is_open else conf.LAST_PING_RESOLUTION

    def take(self, connection, memory):
        """Return whether the sign that ``memory`` has noted of ``connection`` will be written; if not, nobody does that."""
        if not self._is_open or not conf.LAST_PING_RESOLUTION:
            return False
        with self._lock:
            self._waiting[memory] = connection.name, connection.keeps_order
            memory.is_unwritten = True
        return True

    def write(self):
        """Write those that wait. What cannot be written waits on, and the error is raised."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        # Those whose connections have ended meanwhile have no rows. When the others were heard is read once: they go on.
        left = [
            _Sign(memory.heard, memory, *about) for memory, about in waiting.items() if memories.knows(about[0], memory)
        ]
        left.sort(key=_Sign.when)
        held = []
        try:
            while left:
                part = _part(left)
                held += _write(part)
                del left[: len(part)]
        finally:
            self._has_held = bool(held)
            with self._lock:
                for sign in left + held:
                    self._waiting.setdefault(sign.memory, (sign.name, sign.must_be))
                for memory in waiting:
                    memory.is_unwritten = memory in self._waiting

    def _run(self):
        while True:
            pause = conf.LAST_PING_RESOLUTION / 3
            if self._has_held or self._trouble is not None:
                pause = min(pause, _TRY_AGAIN_AFTER)
            time.sleep(max(0.05, pause))
            if self._waiting:
                thread_state.begin()
                self._try_to_write()

    def _try_to_write(self):
        try:
            self.write()
            self._trouble = None
        except Exception as error:
            text = f'{type(error).__name__}: {error}'
            if text != self._trouble:
                logger.error('%d signs of life wait to be written: %s', len(self), text)
            self._trouble = text

    def _write_last(self):
        # Who waits for a database that is away does not end. Those of a parent are for it to write.
        if self._waiting and self._trouble is None and self._pid == os.getpid():
            self._try_to_write()


signs = SignsOfLife()


def tell(row, memory):
    """Have ``row``, which was read, say of the sign of ``memory`` what will be written."""
    if memory.is_unwritten:
        heard = _time_of(memory.heard)
        if row.last_ping < heard:
            row.last_ping, row.active = heard, True


def _time_of(moment):
    """Return what the time was at ``moment``, one of ``time.monotonic()``."""
    return timezone.now() - timedelta(seconds=time.monotonic() - moment)


def _moment_of(moment):
    """Return what ``time.monotonic()`` was at the time ``moment``."""
    return time.monotonic() - (timezone.now() - moment).total_seconds()


class _Sign(collections.namedtuple('_Sign', 'heard memory name must_be')):
    """A connection that was heard at ``heard``; whether its row ``must_be`` there."""

    __slots__ = ()

    def when(self):
        return self.heard


def _part(signs):
    """Return the first of ``signs`` that can be written together: they are of one third of the resolution."""
    until = signs[0].heard + conf.LAST_PING_RESOLUTION / 3
    return [sign for sign in signs[: databases.IN_ONE_QUERY] if sign.heard <= until]


def _write(part):
    """Write the signs ``part``, which are in the order in which they came; return those whose rows others have locked."""
    from ..models import Socket

    rows = Socket.objects.on_primary()
    # One time for all. None was heard before it, nor a third of the resolution after it.
    first, last = part[0].heard, part[-1].heard
    since = _time_of(last) - timedelta(seconds=conf.LAST_PING_RESOLUTION * 2 / 3)
    found = {
        name: (key, said)
        for name, key, said in rows.filter(channel_name__in=[sign.name for sign in part]).values_list(
            'channel_name', 'pk', 'last_ping'
        )
    }
    keys = sorted(key for key, _ in found.values())
    for tries in range(1, _TRIES + 1):
        try:
            written = _update(rows, keys, _time_of(first), since)
            break
        except OperationalError as error:
            # The other one of two that wait for each other goes on. Or the database was restarted.
            connections[rows.db].close_if_unusable_or_obsolete()
            if tries == _TRIES:
                raise
            logger.info('Writing %d signs of life again: %s', len(part), error)
            time.sleep(random.random() * 0.02 * tries)
    # What is kept of a row does not say so.
    identity_cache.cache.drop({(model._meta.label, key) for model in tables(Socket) for key in keys})
    held = []
    for sign in part:
        key, said = found.get(sign.name, (None, None))
        if key is None:
            sign.memory.is_in_doubt |= sign.must_be
        elif key not in written:
            held.append(sign)
            continue
        # Another process may have told the row of a frame before, and it is left alone.
        sign.memory.noted = first if said is None or said <= since else min(first, _moment_of(said))
    return held


def _update(rows, keys, heard, since):
    """Have those of ``rows`` with ``keys`` say that they were ``heard``, unless they say that of a time after ``since``.

    Return the keys without those of rows that somebody else has locked, where a database can tell which these are.
    """
    features = connections[rows.db].features
    written = set(keys)
    # Who was asked for a sign since then has yet to give one. First: MariaDB compares with what it has set before.
    values = {
        'active': models.Case(
            models.When(active=False, modified__gt=heard, then=models.Value(False)),
            default=models.Value(True),
            output_field=models.BooleanField(),
        ),
        'last_ping': heard,
        'modified': timezone.now(),
    }
    with contextlib.ExitStack() as stack:
        if features.has_select_for_update:
            stack.enter_context(transaction.atomic(using=rows.db))
            # One transaction that takes long must not keep the signs of all others waiting.
            how = {'skip_locked': features.has_select_for_update_skip_locked}
            if getattr(features, 'has_select_for_no_key_update', False):
                # Who refers to a row in a transaction of his own has not locked it.
                how['no_key'] = True
            # In one order, or two processes would wait for each other. SQLite has one lock for all.
            found = rows.filter(pk__in=keys).order_by('pk').select_for_update(**how)
            written = set(found.values_list('pk', flat=True))
        is_due = models.Q(active=False) | models.Q(last_ping__lte=since)
        rows.filter(is_due, pk__in=sorted(written)).update(**values)
    return written
