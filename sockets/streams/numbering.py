"""Messages that are committed get their numbers, in a short transaction of its own, and are pushed.

Writers insert their messages without numbers, and lock nothing that another one needs. Numbers are given under a lock of
the stream: when number n is visible, so is every one below it.
"""

import logging
import random
import threading
import time
from datetime import timedelta
from functools import partial

from django.db import DatabaseError, connections, transaction
from django.db.models import BigIntegerField, Case, Value, When
from django.utils import timezone
from django.utils.crypto import get_random_string

from ..execution import background
from ..models import StreamHead, StreamMessage
from ..models.ends import in_seconds
from . import pushes, replays, retention
from .tables import database

logger = logging.getLogger('sockets')

# Messages that are numbered in one transaction.
PART = 100

# Seconds after the last message when followers are told where the stream stands, should that message have been lost: the
# first time, and how much later the next ones. Who knows it already does nothing.
REMIND_AFTER = 1, 4, 16

# Seconds after which whoever has inserted a message should have numbered it.
LATE = 2

_TRIES = 6

_lock = threading.Lock()
# The streams that a thread of this process numbers now, and whether it is to look again.
_numbered_now = {}


def number_and_push(stream):
    """Number and push what is committed of ``stream``. What goes wrong is logged: the housekeeper tries it again."""
    with _lock:
        if stream.key in _numbered_now:
            # That thread does it: it looks once more. Nobody else waits for the lock.
            _numbered_now[stream.key] = True
            return
        _numbered_now[stream.key] = False
    if _once(stream):
        # Who has sent one message is not kept for those of all others.
        if connections[database()].in_atomic_block:
            _until_done(stream)
        else:
            background.run(partial(_until_done, stream), 'sockets-streams')


def _until_done(stream):
    while _once(stream):
        pass


def _once(stream):
    """Number and push a part; return whether there is more. If not, this thread is done with the stream."""
    has_failed, is_full, again = True, False, False
    try:
        numbered = number(stream)
        if numbered is not None:
            pushes.push(stream, *numbered)
            is_full = len(numbered[1]) == PART
        has_failed = False
    except Exception as error:
        logger.error('Messages of the stream %r wait to be numbered: %s: %s', stream.name, type(error).__name__, error)
    finally:
        with _lock:
            again = not has_failed and (is_full or _numbered_now[stream.key])
            if again:
                _numbered_now[stream.key] = False
            else:
                del _numbered_now[stream.key]
    return again


def number(stream):
    """Number a part of what is committed of ``stream``; return the epoch and those messages, ``None`` if there was none."""
    using = database()
    for tries_left in reversed(range(_TRIES)):
        try:
            with transaction.atomic(using=using):
                return _number(stream, using)
        except DatabaseError as error:
            # Two made the stream at once; a deadlock, a snapshot from before the lock, or SQLite that is busy.
            if not tries_left or connections[using].in_atomic_block:
                raise
            logger.debug('Numbering %r again: %s', stream.name, error)
            time.sleep(random.random() * 0.05 * (_TRIES - tries_left))


def _number(stream, using):
    heads = StreamHead.objects.using(using).filter(pk=stream.key)
    # The lock. SQLite must begin with a write, or it would fail when it comes to that.
    if not heads.update(remind_at=in_seconds(REMIND_AFTER[0]), reminders=0):
        StreamHead(key=stream.key, name=stream.name, epoch=get_random_string(8)).save(using=using, force_insert=True)
        heads.update(remind_at=in_seconds(REMIND_AFTER[0]))
    head = heads.get()
    waiting = StreamMessage.objects.using(using).filter(key=stream.key, offset=None)
    found = list(waiting.order_by('pk')[:PART])
    if not found:
        transaction.set_rollback(True, using=using)
        return None
    for offset, message in enumerate(found, head.offset + 1):
        message.offset = offset
    same = StreamMessage.objects.using(using).filter(pk__in=[message.pk for message in found])
    if len(found) == 1:
        same.update(offset=found[0].offset)
    else:
        cases = [When(pk=message.pk, then=Value(message.offset)) for message in found]
        same.update(offset=Case(*cases, output_field=BigIntegerField()))
    head.offset = found[-1].offset
    changes = {'offset': head.offset, 'moved': timezone.now(), **_limits_of(stream, head)}
    heads.update(trim_at=retention.trim_at(head, found[0]), **changes)
    replays.cache.forget(stream.key)
    return head.epoch, found


def _limits_of(stream, head):
    """Return what changes of the retention of ``stream``, and set it in ``head``."""
    changes = {}
    for name in ('max_messages', 'max_age'):
        value = getattr(stream, name)
        if value is not None and value != getattr(head, name):
            changes[name] = value
            setattr(head, name, value)
    return changes


def unnumbered():
    """Return the messages whose writers should have numbered them by now, and may have died."""
    return StreamMessage.objects.using(database()).filter(
        offset=None, created__lt=timezone.now() - timedelta(seconds=LATE)
    )


def number_left(make_stream):
    """Number and push what writers have left; ``make_stream`` makes a stream of its name."""
    for name in unnumbered().order_by().values_list('name', flat=True).distinct()[:PART]:
        number_and_push(make_stream(name))
