"""How long messages are kept: those beyond that are removed in parts, by whoever looks after the rows."""

import logging
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
from .tables import database, heads, lock, make_head, short_transaction

logger = logging.getLogger('sockets')

# Messages that are removed in one transaction, which keeps the stream locked.
PART = 500

# Streams that one look trims a part of, if that takes no longer than so many seconds.
STREAMS, SECONDS = 200, 0.5

TRIES = 3

# Seconds between two looks for streams that keep more than the settings say now: those were others when it was chosen when to
# look at them.
LOOK_EVERY = 3600

_next_look = [0.0]


def limits(head):
    """Return how many messages the stream keeps, and for how many seconds; ``None`` for any number."""
    return (
        conf.STREAM_MAX_MESSAGES if head.max_messages is None else head.max_messages,
        conf.STREAM_MAX_AGE if head.max_age is None else head.max_age,
    )


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
    due = added.created + timedelta(seconds=age)
    # Another one may have been chosen since that was written.
    return due if head.trim_at is None else min(head.trim_at, due)


def trim():
    """Remove a part of what is beyond the retention, of each of some streams. Who has more of it is due again."""
    end = time.monotonic() + SECONDS
    for key in list(heads().to_trim().order_by('trim_at').values_list('pk', flat=True)[:STREAMS]):
        _trim_part(key)
        if time.monotonic() > end:
            break


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
            return _trim_part(key)
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
    """Remove a part of what is beyond the retention of the stream ``key``, unless another one has locked it."""
    using = database()
    with short_transaction(using):
        head = lock([key], using).get(key)
        if head is None:
            return
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
    return last, Now() if too_many else oldest + timedelta(seconds=age)
