"""How long messages are kept: those beyond that are removed in parts, by whoever looks after the rows."""

import logging
import math
import random
import time
from datetime import timedelta

from django.db import connections
from django.db.models import F, Max, Min, Q
from django.db.models.functions import Now
from django.utils import timezone

from .. import conf
from ..models import StreamMessage
from ..models.ends import in_seconds
from . import replays
from .positions import ALL
from .tables import database, heads, lock, make_head, short_transaction

logger = logging.getLogger('sockets')

# Messages that are removed in one transaction, which keeps the stream locked.
PART = 500

# Streams that are trimmed a part of in turn, and for how many seconds one look does so.
STREAMS, SECONDS = 200, 0.3

TRIES = 3

# Seconds between two looks for streams that keep more than the settings say now: those were others when it was chosen when to
# look at them.
LOOK_EVERY = 3600

_next_look = [0.0]


def limits(head):
    """Return how many messages the stream keeps, and for how many seconds; ``None`` for any number."""
    both = (head.max_messages, conf.STREAM_MAX_MESSAGES), (head.max_age, conf.STREAM_MAX_AGE)
    return tuple(setting if own is None else None if own == ALL else own for own, setting in both)


def slack(count):
    """Return how many messages there are beyond ``count`` when some are removed: not for each one."""
    return min(PART, max(1, count // 10))


def trim_at(head, added):
    """Return when to look for messages beyond the retention of ``head``, which the message ``added`` has moved."""
    count, age = limits(head)
    if count is not None and head.offset - head.trimmed > count + slack(count):
        return Now()
    if age is None:
        return head.trim_at
    seconds = seconds_left(added.created, age)
    # Another age may have been chosen since that was written.
    is_earlier = head.trim_at is None or head.trim_at > head.clock + timedelta(seconds=seconds + 1)
    return in_seconds(seconds) if is_earlier else head.trim_at


def seconds_left(created, age):
    """Return in how many seconds what was ``created`` then is older than ``age``.

    That is added to the clock of the database, with which it is compared: that may be in another time zone than what Python
    writes.
    """
    return max(0, math.ceil((created + timedelta(seconds=age) - timezone.now()).total_seconds()))


def trim():
    """Remove what is beyond the retention, a part of each stream in turn. What is left after some time is due again."""
    end = time.monotonic() + SECONDS
    tries_left = TRIES
    while tries_left:
        is_moving = is_held = False
        for key in list(heads().to_trim().order_by('trim_at').values_list('pk', flat=True)[:STREAMS]):
            removed = _trim_part(key)
            is_moving, is_held = is_moving or bool(removed), is_held or removed is None
            if time.monotonic() > end:
                return
        if is_moving:
            tries_left = TRIES
        elif is_held:
            # A stream that is numbered all the time is locked most of it.
            tries_left -= 1
            time.sleep(random.random() * 0.02)
        else:
            return


def look_at_settings():
    """Have streams trimmed soon for which the settings now say less than they did; some at a time, and not each time."""
    if time.monotonic() < _next_look[0]:
        return
    end = time.monotonic() + SECONDS
    using = database()
    keys = True
    while keys:
        if time.monotonic() > end:
            return
        keys = list(beyond_settings().values_list('pk', flat=True)[:STREAMS])
        with short_transaction(using):
            locked = list(lock(keys, using)) if keys else []
            heads().filter(pk__in=locked).update(trim_at=Now())
        if not locked:
            break
    _next_look[0] = time.monotonic() + LOOK_EVERY


def beyond_settings():
    """Return the streams that are not due, and would be if it was chosen now when to look at them."""
    count, age = conf.STREAM_MAX_MESSAGES, conf.STREAM_MAX_AGE
    found = Q(pk=None)
    if count is not None:
        found |= Q(max_messages=None, offset__gt=F('trimmed') + count + slack(count))
    if age is not None:
        found |= Q(max_age=None, trim_at__gt=in_seconds(age + 1))
        found |= Q(max_age=None, trim_at=None, offset__gt=F('trimmed'))
    return heads().filter(found).exclude(trim_at__isnull=False, trim_at__lte=Now())


def last_sent():
    """Return the largest primary key of messages that this transaction sees, 0 without any.

    What it sends after that has a larger one.
    """
    return StreamMessage.objects.using(database()).aggregate(last=Max('pk'))['last'] or 0


def clear(key, last=None):
    """Have all messages gone that the stream ``key`` has now, or those whose primary key is not beyond ``last``.

    Their rows are removed in parts, by the housekeeper, too. The transaction of the caller is committed: nothing is raised.
    """
    using = database()
    for tries_left in reversed(range(TRIES)):
        try:
            with short_transaction(using):
                _clear(key, last, using)
            replays.cache.forget(key)
            _trim_part(key)
            return
        except Exception as error:
            # SQLite is busy, two made the stream at once, or the database is away.
            if not tries_left or connections[using].in_atomic_block:
                logger.error('A stream could not be cleared: %s: %s', type(error).__name__, error)
                return
            logger.debug('Clearing again: %s', error)
            connections[using].close_if_unusable_or_obsolete()
            time.sleep(0.1)


def _clear(key, last, using):
    """Remove what has no number yet, and note up to where the rest is cleared. Nobody gives numbers meanwhile."""
    rows = StreamMessage.objects.using(using).filter(key=key)
    # This locks it.
    if not heads().filter(pk=key).update(trim_at=Now()):
        # It may have been made, and messages numbered, since: then this fails, and is tried again.
        found = rows.order_by('offset').first()
        if found is None:
            return
        make_head(key, found.name, using)
    cleared = rows.filter(offset=None)
    if last is not None:
        cleared = cleared.filter(pk__lte=last)
    # By primary key: MySQL would wait for those that others have not committed.
    pks = list(cleared.values_list('pk', flat=True))
    for begin in range(0, len(pks), PART):
        rows.filter(pk__in=pks[begin : begin + PART])._raw_delete(using)
    head = heads().get(pk=key)
    first = None
    if last is not None:
        first = rows.filter(offset__gt=head.trimmed, pk__gt=last).aggregate(first=Min('offset'))['first']
    heads().filter(pk=key).update(trimmed=head.offset if first is None else first - 1)


def _trim_part(key):
    """Remove a part of what is beyond the retention of the stream ``key``, unless another one has locked it.

    Return whether it has removed any, and ``None`` if that was so.
    """
    using = database()
    with short_transaction(using):
        head = lock([key], using).get(key)
        if head is None:
            return None
        rows = StreamMessage.objects.using(using).filter(key=key)
        # What was cleared.
        old = list(rows.filter(offset__lte=head.trimmed).order_by('offset').values_list('offset', flat=True)[:PART])
        if old:
            first, last, again = 0, old[-1], Now()
        else:
            first = head.trimmed
            last, again = beyond_retention(head)
        if last > first:
            rows.filter(offset__gt=first, offset__lte=last)._raw_delete(using)
        heads().filter(pk=key).update(trimmed=max(last, head.trimmed), trim_at=again)
    if last > head.trimmed:
        replays.cache.forget(key)
    return last > first


def beyond_retention(head):
    """Return up to which number the messages of ``head`` go now, ``PART`` of them at most, and when to look again."""
    count, age = limits(head)
    kept = StreamMessage.objects.using(database()).filter(key=head.key, offset__gt=head.trimmed)
    last = head.trimmed
    if count is not None:
        last = max(last, min(head.trimmed + PART, head.offset - count))
    if age is None:
        return last, Now() if count is not None and head.offset - last > count else None
    limit = timezone.now() - timedelta(seconds=age)
    for offset, created in (
        kept.filter(offset__lte=head.trimmed + PART).order_by('offset').values_list('offset', 'created')
    ):
        # Nearly in order: who is numbered first may have waited for its commit.
        if created > limit:
            break
        last = max(last, offset)
    oldest = kept.filter(offset=last + 1).values_list('created', flat=True).first()
    if oldest is None:
        return last, None
    too_many = count is not None and head.offset - last > count
    return last, Now() if too_many else in_seconds(seconds_left(oldest, age))
