"""Messages that are committed get their numbers, in a short transaction of its own, and are pushed.

Writers insert their messages without numbers, and lock nothing that another one needs. Numbers are given under a lock of
the stream: when number n is visible, so is every one below it.
"""

import logging
import os
import random
import threading
import time
from datetime import timedelta

from django.db import DatabaseError, connections, transaction
from django.db.models import F, Q
from django.utils import timezone
from django.utils.crypto import get_random_string

from ..execution import background
from ..models import StreamHead, StreamMessage
from ..models.ends import in_seconds
from . import pushes, replays, retention
from .positions import UNCHANGED
from .tables import database, lock, make_head, short_transaction

logger = logging.getLogger('sockets')

# Messages, and streams, that are numbered in one transaction.
PART = 100

# Seconds after the last message when followers are told where the stream stands, should that message have been lost: the
# first time, and how much later the next ones. Who knows it already does nothing.
REMIND_AFTER = 1, 4, 16

# Seconds after which whoever has inserted a message should have numbered it.
LATE = 2

_TRIES = 6

_lock = threading.Lock()
# The streams of this process that are to be looked at, and those that others have locked, with how often that was found.
_waiting, _held = {}, {}
# Whether a thread of this process does it. It does so for all.
_is_at_work = [False]


def _forget():
    """Have a process that was forked do its work itself: the thread that was at work is not in it."""
    global _lock
    _lock = threading.Lock()
    _waiting.clear()
    _held.clear()
    _is_at_work[0] = False


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_forget)


def number_and_push(*streams):
    """Number and push what is committed of ``streams``. What goes wrong is logged: the housekeeper tries it again."""
    with _lock:
        for stream in streams:
            _note(stream)
        if _is_at_work[0]:
            # Nobody else waits for a lock.
            return
        _is_at_work[0] = True
    if connections[database()].in_atomic_block:
        while _look():
            pass
    elif _look(is_last=False):
        # Who has sent one message is not kept for those of all others.
        try:
            background.run(_until_done, 'sockets-streams')
        except RuntimeError as error:
            # The process ends, or may have no more threads.
            _is_at_work[0] = False
            logger.error('Messages of streams wait to be numbered: %s', error)


def _note(stream):
    """Have ``stream`` looked at. One that says its retention is not forgotten for one that does not."""
    if stream.key not in _waiting or (stream.max_messages, stream.max_age) != (UNCHANGED, UNCHANGED):
        _waiting[stream.key] = stream


def _until_done():
    while _look():
        if _held:
            time.sleep(random.random() * 0.02)


def _look(is_last=True):
    """Number and push a part of what waits; return whether there is more. If not, this thread is done.

    If it is not ``is_last``, what goes wrong is tried again by the next one.
    """
    with _lock:
        streams = {key: _waiting.pop(key) for key in list(_waiting)[:PART]}
    again, is_over = (), True
    try:
        again = _number_and_push(streams, is_last)
        is_over = False
    finally:
        with _lock:
            for stream in again:
                if stream.key not in _waiting:
                    _waiting[stream.key] = stream
            is_over = is_over or not _waiting
            if is_over:
                _is_at_work[0] = False
    return not is_over


def _number_and_push(streams, is_last):
    """Number and push a part of what is committed of ``streams``, by key; return those that are to be looked at again."""
    try:
        numbered, again = number(streams, _TRIES if is_last else 1)
    except Exception as error:
        if not is_last:
            return list(streams.values())
        if len(streams) > 1:
            # One of them keeps no other from being numbered.
            return [again for key in streams for again in _number_and_push({key: streams[key]}, True)]
        for stream in streams.values():
            logger.error(
                'Messages of the stream %r wait to be numbered: %s: %s', stream.name, type(error).__name__, error
            )
        return []
    names = None
    for key, (epoch, messages) in numbered.items():
        try:
            names = pushes.followers(*numbered) if names is None else names
            pushes.push(streams[key], epoch, messages, names.get(key, {}))
        except Exception:
            logger.exception(
                'Messages of the stream %r were not pushed: its followers will ask for them', streams[key].name
            )
    return [streams[key] for key in again]


def number(streams, tries=_TRIES):
    """Number a part of what is committed of ``streams``, which are by key.

    Return the epoch and the messages that were numbered, by key, and the keys of streams of which there may be more.
    """
    using = database()
    for tries_left in reversed(range(tries)):
        try:
            with short_transaction(using):
                return _number(streams, using)
        except DatabaseError as error:
            # Two made the stream at once, or SQLite is busy.
            if not tries_left or connections[using].in_atomic_block:
                raise
            logger.debug('Numbering again: %s', error)
            time.sleep(random.random() * 0.05 * (tries - tries_left))


def _number(streams, using):
    heads = lock(streams, using)
    held = _make_missing(streams, heads, using)
    waiting = StreamMessage.objects.using(using).filter(key__in=list(heads), offset=None)
    # Not by the primary key alone: a database could come to think that reading all messages in that order is best.
    found = list(waiting.order_by('offset', 'pk')[:PART])
    numbered, changes = {}, {}
    for message in found:
        head = heads[message.key]
        head.offset += 1
        message.offset = head.offset
        numbered.setdefault(message.key, []).append(message)
    for key, head in heads.items():
        change = _limits_of(streams[key], head)
        if key in numbered:
            trim_at = retention.trim_at(head, numbered[key][0])
            if trim_at != head.trim_at:
                change['trim_at'] = trim_at
        if change or key in numbered:
            # Most of them have as many new ones as the others: one query.
            count = len(numbered.get(key, ()))
            changes.setdefault((count, key if change else ''), (change, []))[1].append(key)
    if not changes:
        transaction.set_rollback(True, using=using)
    if found:
        _write_numbers(found, using)
    for (count, _), (change, keys) in changes.items():
        if count:
            moved = {'offset': F('offset') + count, 'moved': timezone.now(), 'reminders': 0}
            change.update(moved, remind_at=in_seconds(REMIND_AFTER[0]))
        StreamHead.objects.using(using).filter(pk__in=keys).update(**change)
    for key in numbered:
        replays.cache.forget(key)
    again = held + (list(heads) if len(found) == PART else [])
    return {key: (heads[key].epoch, messages) for key, messages in numbered.items()}, again


def _make_missing(streams, heads, using):
    """Make the heads that are missing in ``heads``; return the keys of those that are not, but held by others."""
    missing = set(streams).difference(heads)
    present = StreamHead.objects.using(using).filter(pk__in=missing).values_list('pk', flat=True) if missing else ()
    held = []
    for key in present:
        _held[key] = _held.get(key, 0) + 1
        # Whoever holds it for that long numbers, or hangs, which is not waited for: the housekeeper looks again.
        if _held[key] < 20:
            held.append(key)
        else:
            del _held[key]
    for key in sorted(missing.difference(present)):
        if StreamMessage.objects.using(using).filter(key=key, offset=None).exists():
            heads[key] = make_head(key, streams[key].name, using)
    for key in heads:
        _held.pop(key, None)
    return held


def _write_numbers(messages, using):
    """Write the numbers of ``messages``, all by one query; whole numbers need no escapes."""
    quote = connections[using].ops.quote_name
    table, pk, offset = (quote(name) for name in (StreamMessage._meta.db_table, 'id', 'offset'))
    cases = ' '.join(f'WHEN {message.pk} THEN {message.offset}' for message in messages)
    pks = ', '.join(str(message.pk) for message in messages)
    with connections[using].cursor() as cursor:
        cursor.execute(f'UPDATE {table} SET {offset} = CASE {pk} {cases} END WHERE {pk} IN ({pks})')


def _limits_of(stream, head):
    """Return what changes of the retention of ``stream``, and set it in ``head``."""
    changes = {}
    for name in ('max_messages', 'max_age'):
        value = getattr(stream, name)
        if value is not UNCHANGED and value != getattr(head, name):
            changes[name] = value
            setattr(head, name, value)
    return changes


def begin_epochs():
    """Have all positions that anybody has be of another epoch than the streams are now; return how many these are.

    The messages and numbers stay. Followers are told: who has had any is told that it has ``lost`` some.
    """
    count = StreamHead.objects.using(database()).update(
        epoch=get_random_string(8), reminders=0, remind_at=in_seconds(REMIND_AFTER[0])
    )
    replays.cache.begin()
    return count


def unnumbered():
    """Return the messages whose writers should have numbered them by now, and may have died.

    Of one whose clock is ahead nobody can tell; to number its message is never wrong.
    """
    now, late = timezone.now(), timedelta(seconds=LATE)
    is_late = Q(created__lt=now - late) | Q(created__gt=now + late)
    return StreamMessage.objects.using(database()).filter(is_late, offset=None)


def number_left(make_stream):
    """Number and push what writers have left; ``make_stream`` makes a stream of its name."""
    number_and_push(*map(make_stream, unnumbered().order_by().values_list('name', flat=True).distinct()[:PART]))
