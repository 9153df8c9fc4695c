"""How a worker thread gets its messages from Redis: from each shard in turn, woken when there is something."""

import contextlib
import itertools
import threading
import time

import redis

from .admission import PATIENCE
from .connections import pause
from .entries import addressed
from .errors import AWAY
from .mailboxes import CONNECT
from .wakeups import WakeUps

# Seconds that a blocking receive() waits, and after which a worker looks for claims that have ended.
_PATIENCE = 2

# Only frames of open connections are taken several at a time.
FRAME = 'websocket.receive'


class Receiver:
    """Takes messages for the threads of this process.

    Frames that are taken are added to ``claims``, which ``upkeep`` renews, and ``relief`` looks after if there are
    several. ``last_messages`` are settled when Redis has answered. ``local`` is the layer in memory, for what else an
    entry holds. ``name`` is one that no other process has.
    """

    def __init__(self, ring, entries, claims, upkeep, relief, last_messages, local, name):
        self.ring = ring
        self.entries = entries
        self.claims = claims
        self.upkeep = upkeep
        self.relief = relief
        self.last_messages = last_messages
        self.local = local
        self.name = name
        # Both are safe for threads.
        self._numbers = itertools.count()
        self._shards = itertools.cycle(range(ring.size))
        self._thread = threading.local()

    def receive(self, channels, block):
        """Return the channel and content of a message, or ``(None, None)``; ``block`` waits for one."""
        self.claims.finish()
        if self.claims.hand.taken:
            if FRAME in channels:
                entry = self.claims.begin()
                if entry is not None:
                    return self._read(entry)
            else:
                self.claims.give_back(self.claims.hand)
        deadline = time.monotonic() + _PATIENCE
        try:
            while True:
                found = self._take(channels)
                self.last_messages.settle()
                left = deadline - time.monotonic()
                if found is not None or not block or left <= 0:
                    self._thread.tries = 0
                    return found or (None, None)
                # There are no wake-ups for a server's connections: a server asks with receive_twisted().
                is_server = any(channel.endswith('!') for channel in channels)
                self._wake_ups(channels).wait(min(left, 0.01) if is_server else left)
        except redis.exceptions.RedisError:
            # None of the shards could be asked.
            self.last_messages.settle()
            tries = self._thread.tries = getattr(self._thread, 'tries', 0) + 1
            time.sleep(pause(tries))
            return None, None

    def release(self):
        """End the claim of this thread, which is done with the frame that it received before and asks for no more."""
        self.claims.finish()
        self.claims.give_back(self.claims.hand)
        # If Redis is away, upkeep ends the claim later.
        with contextlib.suppress(redis.exceptions.RedisError):
            self._take([])
        self.ring.settle()
        self.last_messages.settle()

    def _take(self, channels):
        """Take from the shards in turn, beginning with another one each time."""
        servers = [channel for channel in channels if channel.endswith('!')]
        if servers:
            # The rest of an entry for many connections that was read before.
            channel, message = self.local.receive(servers)
            if channel is not None:
                return channel, message
        if self.ring.size > 1:
            self.ring.let_go()
        done = self.claims.pop_done()
        first = next(self._shards) if self.ring.size > 1 else 0
        if done and done[0].index != first:
            # First: their connections must go on whatever happens on the other shards.
            self.claims.end(done)
            done = []
        failure, is_any_up = None, False
        for step in range(self.ring.size):
            index = (first + step) % self.ring.size
            here = [channel for channel in channels if self._is_on(channel, index)]
            own = done if step == 0 else []
            if not own and not here:
                continue
            token = f'{self.name}.{next(self._numbers)}'
            try:
                reply = self.ring.run(
                    'take',
                    index,
                    [
                        token,
                        int(self.claims.lease * 1000),
                        self.claims.most(),
                        self.claims.kept,
                        len(own),
                        *(part for claim in own for part in (claim.connection, claim.token)),
                        *self._rotated(here),
                    ],
                )
            except redis.exceptions.RedisError as error:
                self.claims.end_later(own)
                if not isinstance(error, AWAY):
                    self.ring.shards[index].refused(error)
                failure = error
                continue
            is_any_up = True
            if reply:
                return self._open(index, token, reply)
        if not is_any_up and failure is not None:
            raise failure
        return None

    def _open(self, index, token, reply):
        hand = self.claims.hand
        hand.has_several = False
        if len(reply) == 1:
            return self._read(reply[0])
        entry = self.claims.take(index, token, reply)
        self.upkeep.start()
        if hand.has_several:
            self.relief.watch(hand)
        return self._read(entry)

    def _read(self, entry):
        channel, _, message = self.entries.read(entry)
        if channel == CONNECT:
            self._thread.connected = time.monotonic()
        if '!' in channel:
            ((name, *others), first), *rest = addressed(message)
            self.local.send_many(others, first)
            for names, another in rest:
                self.local.send_many(names, another)
            return name, first
        return channel, message

    def _is_on(self, channel, index):
        # Frames and plain channels are on every shard, the others where their name leads.
        return not ('!' in channel or '?' in channel) or self.ring.shard_of(channel) == index

    def _rotated(self, channels):
        # The first channel must not starve the others. Connects are the last, so that frames of open connections come
        # first, unless this thread has taken none for long.
        turn = self._thread.turn = getattr(self._thread, 'turn', 0) + 1
        turn %= len(channels) or 1
        channels = channels[turn:] + channels[:turn]
        if CONNECT in channels:
            is_late = time.monotonic() - getattr(self._thread, 'connected', 0) >= PATIENCE
            channels.remove(CONNECT)
            channels.insert(0 if is_late else len(channels), CONNECT)
        return channels

    def _wake_ups(self, channels):
        wake_ups = self._thread.__dict__.setdefault('wake_ups', {})
        key = tuple(sorted(channels))
        if key not in wake_ups:
            wake_ups[key] = WakeUps(
                [
                    (shard, [self.ring.prefix + 'bell:' + channel for channel in key if self._is_on(channel, index)])
                    for index, shard in enumerate(self.ring.shards)
                ]
            )
        return wake_ups[key]
