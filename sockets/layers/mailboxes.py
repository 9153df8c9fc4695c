"""Which message is received next: queues, order and capacity, without threads, sockets or a clock of its own.

Messages wait in a mailbox: one for each connection's frames, one for each other channel. A mailbox whose frames must
keep their order is *busy* from the moment that one of them is taken until that one is done; until then, the next frame
is not handed out. All times are seconds of the caller's clock.
"""

import collections
import functools
import math

from .admission import PATIENCE
from .mailbox import Claim, Limits, Mailbox, QueuedMessage, ReadyQueues, queue_of

# The channels whose messages are the frames of a connection, named by their reply channel.
CONNECT = 'websocket.connect'
RECEIVE = 'websocket.receive'
FRAMES = frozenset([CONNECT, RECEIVE, 'websocket.disconnect'])

# Channels whose messages are left to the threads that are at work on them, if there are any.
BUSY_FIRST = {channel: group for group in (FRAMES - {CONNECT}, frozenset([CONNECT])) for channel in group}

# Seconds that a close waits for its server: as long as daphne keeps a connection open.
CLOSE_EXPIRY = 86400


class Full(Exception):
    """A mailbox is full; nothing was put into it."""


class Mailboxes:
    """All mailboxes of a process.

    ``capacity(channel)`` is how many messages may wait for one connection or channel; ``server_capacity`` how many for
    all connections of one server together. ``expiry`` is how long a message waits, ``connect_expiry`` how long a
    connect does, ``lease`` how long a connection is held up by a frame whose handling does not end.
    """

    def __init__(self, capacity, server_capacity, expiry, lease, connect_expiry=math.inf):
        self._limits = Limits(capacity, server_capacity)
        self.expiry = expiry
        self.lease = lease
        self.connect_expiry = connect_expiry
        self._boxes = {}
        self._ready = ReadyQueues()
        self._claims = collections.OrderedDict()
        self._at_work = dict.fromkeys(FRAMES, 0)
        # When a connect was last taken.
        self._connected = 0
        # Connections that have been told to close, and until when we remember it.
        self._closed = {}
        # How many messages have expired, by server or channel. The caller takes it and puts an empty one here.
        self.expired = collections.Counter()

    def put(self, channel, message, now, reply_channel=None, is_control=False):
        """Put ``message`` into its mailbox and return the channel under which it can be taken now, or ``None``.

        ``reply_channel`` makes it a frame of that connection. ``Full`` if there is no room; a control message
        (connect, disconnect, close) always has room. The disconnect of a connection whose connect nobody has taken
        removes that, and is not kept either.
        """
        is_frame = reply_channel is not None and channel in FRAMES
        key = reply_channel if is_frame else queue_of(channel)
        if is_frame and key in self._closed:
            if not is_control:
                return None
            del self._closed[key]
        box = self._boxes.get((is_frame, key))
        if box is None:
            box = self._boxes[is_frame, key] = Mailbox((is_frame, key), is_frame)
        elif not is_control:
            self._expire(box, now)
            if self._limits.is_full(box, channel):
                self._settle(box)
                raise Full(channel)
        if channel == 'websocket.disconnect' and is_frame and self._withdraw(box):
            return None
        # A disconnect never expires, and a close hardly ever. A client that wanted to connect does not wait for ever.
        expires = now + (
            self.connect_expiry
            if channel == CONNECT and is_frame
            else self.expiry
            if not is_control
            else math.inf
            if is_frame
            else max(self.expiry, CLOSE_EXPIRY)
        )
        queued = QueuedMessage(channel, message, now, expires)
        box.messages.append(queued)
        if box.is_shared:
            self._limits.count_in(queued)
        return self._settle(box)

    def put_end(self, message, now):
        """Put the disconnect of a connection whose frame ``message`` is one too many; return what ``put`` does."""
        return self.put('websocket.disconnect', end_of(message), now, message['reply_channel'], is_control=True)

    def close(self, connection, now):
        """Take no more frames of ``connection`` but its disconnect, and drop its frames that wait."""
        self._closed[connection] = now + self.expiry
        box = self._boxes.get((True, connection))
        if box is not None:
            box.messages = collections.deque(queued for queued in box.messages if queued.channel != 'websocket.receive')
            if box.claim is None:
                self._ready.leave(box)
            self._settle(box)

    def take(self, channels, now, owner=None):
        """Return the ``QueuedMessage`` that has been ready longest for one of ``channels``, and its ``Claim``.

        Connects come last, unless none was taken for ``PATIENCE`` seconds. Both are ``None`` if there is no message;
        the claim is ``None`` where no order is kept.
        """
        while True:
            box = self._ready.next_of(channels, CONNECT if now - self._connected < PATIENCE else None)
            if box is None:
                return None, None
            self._ready.leave(box)
            if box.messages[0].expires <= now:
                self._expire(box, now)
            if not box.messages or box.queue_of_first() not in channels:
                self._settle(box)
                continue
            queued = box.messages.popleft()
            if box.is_shared:
                self._limits.count_out(queued)
            if queued.channel == CONNECT:
                self._connected = now
            claim = None
            if box.keeps_order:
                claim = box.claim = Claim(box, queued.channel, owner, now + self.lease)
                self._claims[claim] = None
                self._at_work[queued.channel] += 1
            self._settle(box)
            return queued, claim

    def take_all(self, server, now):
        """Return each ``QueuedMessage`` for connections of ``server``, oldest first, as ``take`` would."""
        box = self._boxes.pop((False, server), None)
        if box is None:
            return []
        self._ready.leave(box)
        for queued in box.messages if box.is_shared else ():
            self._limits.count_out(queued)
        messages = [queued for queued in box.messages if queued.expires > now]
        if len(messages) < len(box.messages):
            self.expired[server] += len(box.messages) - len(messages)
        return messages

    def claim(self, channel, connection, now, owner):
        """Return the ``Claim`` of a frame that need not wait; ``None`` if another one of ``connection`` comes first."""
        key = True, connection
        if key in self._boxes or connection in self._closed:
            return None
        box = self._boxes[key] = Mailbox(key, True)
        claim = box.claim = Claim(box, channel, owner, now + self.lease)
        self._claims[claim] = None
        self._at_work[channel] += 1
        return claim

    def done(self, claim):
        """End the handling of a frame; return the channel of the connection's next one, if it can be taken now.

        ``None`` also for a claim whose lease has ended.
        """
        if self._claims.pop(claim, self) is self:
            return None
        self._at_work[claim.channel] -= 1
        claim.mailbox.claim = None
        return self._settle(claim.mailbox)

    def longest_at_work(self, channel, now):
        """Return for how many seconds the oldest frame of ``channel`` that is being handled has been; 0 if there is none."""
        return max([now - claim.until + self.lease for claim in self._claims if claim.channel == channel], default=0)

    def overdue(self, now):
        """Return the claims whose lease has ended, for ``done`` or ``renew``."""
        return [claim for claim in self._claims if claim.until <= now]

    def renew(self, claim, now):
        """Give the owner of ``claim``, who is known to be at work, another lease."""
        if claim in self._claims:
            claim.until = now + self.lease

    def sweep(self, now):
        """Drop what has expired, also in mailboxes that nobody receives from."""
        for box in list(self._boxes.values()):
            self._expire(box, now)
            self._settle(box)
        self._closed = {name: until for name, until in self._closed.items() if until > now}

    def clear(self):
        """Forget everything."""
        self.__init__(self._limits.capacity, self._limits.server_capacity, self.expiry, self.lease, self.connect_expiry)

    def withdraw(self, connection):
        """Forget a connection whose connect nobody has taken; return whether it is one."""
        box = self._boxes.get((True, connection))
        return box is not None and self._withdraw(box)

    def at_work(self, channels):
        """Return how many frames of ``channels`` are being handled."""
        return sum(map(self._at_work.__getitem__, channels))

    def count_ready(self, channel):
        """Return how many connections or channels have a message of ``channel`` that can be taken."""
        return self._ready.length(channel)

    def first_of(self, channel, count):
        """Return ``count`` of the messages of ``channel`` that can be taken, the next ones first."""
        return [box.messages[0].message for box in self._ready.first(channel, count)]

    def waited(self, channels, now):
        """Return how many seconds the message has waited that ``take`` would return; 0 if there is none."""
        return max([now - box.messages[0].since for box in self._ready.heads(channels).values()], default=0)

    def has_frames(self, connection=None):
        """Whether a frame of ``connection``, or of any, waits or is being handled."""
        if connection is not None:
            return (True, connection) in self._boxes
        return bool(self._claims) or any(box.keeps_order for box in self._boxes.values())

    def has_end(self, connection):
        """Whether the disconnect of ``connection`` waits."""
        box = self._boxes.get((True, connection))
        return box is not None and any(queued.channel == 'websocket.disconnect' for queued in box.messages)

    def waiting(self):
        """Return how many messages wait, by the channel that they wait for."""
        return dict(
            collections.Counter(queue_of(queued.channel) for box in self._boxes.values() for queued in box.messages)
        )

    def __len__(self):
        return sum(len(box.messages) for box in self._boxes.values())

    def _settle(self, box):
        """Put ``box`` into its ready queue, or out of it, or remove it if empty. Return the channel of that queue."""
        if box.claim is not None:
            return None
        if not box.messages:
            self._ready.leave(box)
            self._boxes.pop(box.key, None)
            return None
        queue = box.queue_of_first()
        self._ready.enter(box, queue)
        return queue

    def _withdraw(self, box):
        if box.claim is not None or not box.messages or box.messages[0].channel != CONNECT:
            return False
        box.messages.clear()
        self._settle(box)
        return True

    def _expire(self, box, now):
        while box.messages and box.messages[0].expires <= now:
            queued = box.messages.popleft()
            if box.is_shared:
                self._limits.count_out(queued)
            # The server that holds the client tells it.
            if queued.channel != CONNECT:
                self.expired[queue_of(box.key[1])] += 1


def end_of(message):
    """Return the disconnect of a connection that daphne closes with 1013, for which it sends none itself."""
    return {
        'reply_channel': message['reply_channel'],
        'path': message.get('path'),
        'code': 1013,
        'order': message.get('order'),
    }


@functools.lru_cache(maxsize=None)
def group_of(channels):
    """Return the channels of ``BUSY_FIRST`` that a thread which takes from ``channels`` is there for."""
    # Of who takes both, the frames.
    return BUSY_FIRST.get(max(BUSY_FIRST.keys() & channels, default=None), frozenset())
