"""How long messages are kept: those beyond that are removed in parts, by whoever looks after the rows."""

from datetime import timedelta

from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from .. import conf
from ..models import StreamHead, StreamMessage
from . import replays
from .tables import database

# Messages that are removed in one transaction, which keeps the stream locked.
PART = 500

# Streams that one look trims a part of.
STREAMS = 20


def heads():
    """Return all streams."""
    return StreamHead.objects.using(database())


def limits(head):
    """Return how many messages the stream keeps, and for how many seconds; ``None`` for any number."""
    return (
        conf.STREAM_MAX_MESSAGES if head.max_messages is None else head.max_messages,
        conf.STREAM_MAX_AGE if head.max_age is None else head.max_age,
    )


def trim_at(head, added):
    """Return when to look for messages beyond the retention of ``head``, which the message ``added`` has moved."""
    count, age = limits(head)
    # Not for each one that is too many.
    if count is not None and head.offset - head.trimmed > count + min(PART, max(1, count // 10)):
        return Now()
    if age is None:
        return None
    if head.trim_at is not None and head.trimmed < added.offset - 1:
        return head.trim_at
    return added.created + timedelta(seconds=age)


def trim():
    """Remove a part of what is beyond the retention, of each of some streams. Who has more of it is due again."""
    for key in list(heads().to_trim().order_by('trim_at').values_list('pk', flat=True)[:STREAMS]):
        _trim_part(key, beyond_retention)


def clear(key):
    """Remove all messages that the stream ``key`` has now."""
    head = heads().filter(pk=key).first()
    while head is not None and _trim_part(key, lambda now: (min(head.offset, now.trimmed + PART), now.trim_at)):
        pass


def _trim_part(key, upto):
    """Remove what ``upto``, called with the head, says: up to which number, and when to look again.

    Return whether as many were removed as there may be at a time.
    """
    using = database()
    same = heads().filter(pk=key)
    with transaction.atomic(using=using):
        # The lock, and for SQLite a write.
        if not same.update(trim_at=None):
            return False
        head = same.get()
        last, again = upto(head)
        count = last - head.trimmed
        if count > 0:
            gone = StreamMessage.objects.using(using).filter(key=key, offset__gt=head.trimmed, offset__lte=last)
            gone._raw_delete(using)
        same.update(trimmed=max(last, head.trimmed), trim_at=again)
    if count > 0:
        replays.cache.forget(key)
    return count >= PART


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
