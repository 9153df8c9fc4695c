"""What somebody has missed of a stream, read for all that wait for the same."""

import collections
import json
import os
import threading
import time

from .. import messages
from ..exceptions import FrameError
from ..models import StreamMessage
from . import following
from .positions import check_limit, check_position, is_lost, is_position, position_of
from .tables import database, heads, key_of, printable

# How many messages one RESUMED has, of how many characters of JSON; a longer message comes alone.
MAX_MESSAGES = 300
MAX_SIZE = 1024 * 1024

# How many messages are read first, before it is known how long they are.
FIRST = 8

# How many streams one RESUME may ask for.
MAX_STREAMS = 100

# Seconds for which others get what one has read. What is sent meanwhile is pushed to them; should that be lost, they are
# reminded later than that.
SHARED_FOR = 1
# How much of it is kept, in bytes: the text, and about what each of them and each message takes besides.
_AT_MOST = 32 * MAX_SIZE
_EACH, _EACH_MESSAGE = 8 * 1024, 1024

# ``rows``: messages without gaps, from the first that was missed; ``has_more``: whether there are others after them.
Replay = collections.namedtuple('Replay', 'head is_lost rows has_more')


class ReplayCache:
    """What was read lately. For several threads, of which one reads for all that ask for the same meanwhile."""

    def __init__(self):
        self.begin()

    def begin(self):
        """Forget all. In a process that was forked, whoever was reading is not there."""
        self._lock = threading.Lock()
        self._shared = {}
        self._size = 0

    def read(self, key, epoch, offset):
        """Return the ``Replay`` of the stream ``key`` for somebody who has read up to ``offset`` of ``epoch``."""
        now = time.monotonic()
        with self._lock:
            self._drop_old(now)
            shared = self._shared.get((key, epoch, offset))
            if shared is None:
                shared = self._shared[key, epoch, offset] = _Shared(now)
                self._size += shared.size
        with shared.lock:
            if shared.replay is None:
                shared.replay = read(key, epoch, offset)
                self._weigh((key, epoch, offset), shared)
        return shared.replay

    def forget(self, key):
        """Drop what was read of the stream ``key``."""
        with self._lock:
            for other in [other for other in self._shared if other[0] == key]:
                self._drop(other)

    def sweep(self):
        """Drop what is too old."""
        with self._lock:
            self._drop_old(time.monotonic())

    def _weigh(self, name, shared):
        added = sum(len(row.text) + _EACH_MESSAGE for row in shared.replay.rows)
        with self._lock:
            if self._shared.get(name) is shared:
                shared.size += added
                self._size += added

    def _drop(self, name):
        self._size -= self._shared.pop(name).size

    def _drop_old(self, now):
        # In the order in which they were read.
        while self._shared:
            name, shared = next(iter(self._shared.items()))
            if now - shared.since < SHARED_FOR and self._size <= _AT_MOST:
                break
            self._drop(name)


class _Shared:
    __slots__ = ('since', 'lock', 'replay', 'size')

    def __init__(self, since):
        self.since = since
        self.lock = threading.Lock()
        self.replay = None
        self.size = _EACH


cache = ReplayCache()

if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=lambda: cache.begin())


def read(key, epoch, offset, limit=MAX_MESSAGES):
    """Return the ``Replay`` for somebody who has read up to ``offset`` of ``epoch``."""
    using = database()
    head = heads().filter(pk=key).first()
    unread = _unread(head, epoch, offset)
    if not unread.has_more:
        return unread
    rows = _read_part(StreamMessage.objects.using(using).filter(key=key).order_by('offset'), offset, limit)
    if [row.offset for row in rows] != list(range(offset + 1, offset + 1 + len(rows))) or not rows:
        # Some were trimmed since the head was read.
        return Replay(heads().filter(pk=key).first(), True, (), False)
    return Replay(head, False, rows, rows[-1].offset < head.offset)


def _read_part(kept, offset, limit):
    """Return the messages of ``kept`` after ``offset``: ``limit`` of them and ``MAX_SIZE`` at most, or a longer one.

    A few at first, and then as many as there is room for: all that were missed may be hundreds of megabytes.
    """
    rows, size, page = [], 0, FIRST
    while len(rows) < limit:
        page = min(page, limit - len(rows))
        found = list(kept.filter(offset__gt=offset)[:page])
        for row in found:
            size += len(row.text)
            if rows and size > MAX_SIZE:
                return rows
            rows.append(row)
            offset = row.offset
        if len(found) < page:
            break
        page = max(1, (MAX_SIZE - size) * len(rows) // size)
    return rows


def history(stream, since, limit):
    """Return what ``Stream.history()`` does."""
    check_limit('limit', limit)
    if since is not None:
        check_position(since, stream.name)
    using = database()
    head = heads().filter(pk=stream.key).first()
    if head is None:
        return []
    rows = StreamMessage.objects.using(using).filter(key=stream.key, offset__gt=head.trimmed)
    if since is None or is_lost(head, **_epoch_and_offset(since)):
        found = list(reversed(rows.order_by('-offset')[:limit]))
    else:
        found = list(rows.filter(offset__gt=since['offset']).order_by('offset')[:limit])
    return [content_of(stream.name, head.epoch, row) for row in found]


def content_of(name, epoch, row):
    """Return the content of a message, with its place in the stream ``name``."""
    kept = {'stream': name, 'epoch': epoch, 'offset': row.offset}
    return {**json.loads(row.text), messages.KEPT: kept}


def resume(handler, content):
    """Return the ``RESUMED`` that answers the ``RESUME`` of a client: what it has missed of streams that it follows."""
    asked = content.get('streams')
    if not isinstance(asked, dict) or not all(is_position(position) for position in asked.values()):
        raise FrameError(
            messages.INVALID_CONTENT,
            'A RESUME has streams and where you are in them: {"streams": {"room:tea": {"epoch": "k3f9", "offset": 12}}}.',
        )
    if len(asked) > MAX_STREAMS:
        raise FrameError(messages.INVALID_CONTENT, f'A RESUME asks for at most {MAX_STREAMS} streams.')
    answers, left, size = {}, MAX_MESSAGES, MAX_SIZE
    followed = list(following.followed(handler, asked))
    while followed:
        name = followed.pop(0)
        replay = cache.read(key_of(name), **_epoch_and_offset(asked[name]))
        rows = []
        for row in replay.rows[:left]:
            # One comes, however long it is.
            if len(row.text) > size and left < MAX_MESSAGES:
                break
            left, size = left - 1, size - len(row.text)
            rows.append(row)
        answers[name] = _answer(name, asked[name], replay, rows)
        if answers[name]['more']:
            # It is full: of the others, only where they stand is read.
            break
    found = heads().in_bulk([key_of(name) for name in followed]) if followed else {}
    for name in followed:
        replay = _unread(found.get(key_of(name)), **_epoch_and_offset(asked[name]))
        answers[name] = _answer(name, asked[name], replay, ())
    return {messages.TYPE: messages.RESUMED, 'streams': answers}


def _unread(head, epoch, offset):
    """Return a ``Replay`` without messages: there are some, or all of them are lost, or none was missed."""
    lost = is_lost(head, epoch, offset)
    return Replay(head, lost, (), not lost and head is not None and offset != head.offset)


def _answer(name, position, replay, rows):
    offset = None if replay.is_lost else rows[-1].offset if rows else position['offset']
    at = position_of(printable(name), replay.head, offset)
    return {
        'epoch': at['epoch'],
        'offset': at['offset'],
        'lost': replay.is_lost,
        'more': replay.has_more or len(rows) < len(replay.rows),
        'messages': [content_of(at['stream'], at['epoch'], row) for row in rows],
    }


def _epoch_and_offset(position):
    return {'epoch': position['epoch'], 'offset': position['offset']}
