"""The frames that this process has: until one is done, no worker gets the next one of its connection."""

import collections
import logging
import os
import threading
import time

import redis

from .errors import AWAY

logger = logging.getLogger('sockets')

# A thread takes as many frames at once as it handles in BATCH_SECONDS, MOST at most. START is what a frame is supposed to
# take until it is known, and WEIGHT that of the last one in the mean.
BATCH_SECONDS, MOST, START, WEIGHT = 0.004, 8, 1, 1 / 8


class Claim:
    """A frame that a thread has: of which connection, on which shard, under which token; and its entry until it begins."""

    def __init__(self, index, connection, token, entry):
        self.index = index
        self.connection = connection
        self.token = token
        self.entry = entry
        self.is_done = False
        # Whether it could not be given back, and is not begun either.
        self.is_stranded = False
        self.thread = threading.current_thread()


class Hand:
    """What a thread has: the claim of the frame that it handles, those that it will handle next, and those that are done
    and that Redis has yet to be told of. All are of one shard.
    """

    def __init__(self):
        self.pid = os.getpid()
        # Another thread may give back what has been taken.
        self.lock = threading.Lock()
        self.claim = None
        self.taken = collections.deque()
        self.done = []
        # When it took its last ones, when it began the one that it handles, and what a frame takes, in seconds.
        self.since = self.began = 0
        self.mean = START
        # Whether it has had several since it last asked Redis, of which one may still wait for another.
        self.has_several = False

    def rest(self, since):
        """Note that nothing waits for the frame that it handles, if that has begun before ``since`` and was the last."""
        with self.lock:
            if not self.taken and self.began < since:
                self.has_several = False


def _by_shard(claims):
    return [(index, [claim for claim in claims if claim.index == index]) for index in {claim.index for claim in claims}]


class Claims:
    """The claims of all threads of this process. In Redis, a claim ends after ``lease`` seconds unless it is renewed.

    Frames that are given back are kept there for ``kept`` seconds.
    """

    def __init__(self, ring, lease, kept):
        self.ring = ring
        self.lease = lease
        self.kept = kept
        self.held = set()
        self._pid = os.getpid()
        # Claims that are done and that Redis has yet to be told of.
        self._unended = collections.deque()
        self._renewed = 0
        self._thread = threading.local()

    @property
    def hand(self):
        """The hand of this thread."""
        hand = getattr(self._thread, 'hand', None)
        if hand is None or hand.pid != os.getpid():
            # A process that was forked has nothing of its parent's.
            if self._pid != os.getpid():
                self._pid, self.held, self._unended = os.getpid(), set(), collections.deque()
            hand = self._thread.hand = Hand()
        return hand

    def has_one(self):
        """Whether this thread is handling a frame."""
        return self.hand.claim is not None

    def most(self):
        """Return how many frames this thread should take at once."""
        return max(1, min(MOST, int(BATCH_SECONDS / self.hand.mean)))

    def take(self, index, token, reply):
        """Note what this thread has taken, entries and connections by turns, and begin the first."""
        hand = self.hand
        claims = [Claim(index, connection, token, entry) for entry, connection in zip(reply[::2], reply[1::2])]
        self.held.update(claims)
        with hand.lock:
            hand.since = hand.began = time.monotonic()
            hand.has_several = len(claims) > 1
            hand.taken.extend(claims)
        return self.begin()

    def begin(self):
        """Begin the next of the frames that this thread has taken, and return its entry; ``None`` if it has none."""
        hand = self.hand
        if time.monotonic() - hand.since > self.lease / 2:
            # This process stood still. Others may have them by now.
            self.give_back(hand)
        while True:
            with hand.lock:
                if not hand.taken:
                    return None
                claim = hand.taken.popleft()
            entry, claim.entry = claim.entry, None
            if not claim.is_done:
                hand.claim, hand.began = claim, time.monotonic()
                return entry
            hand.done.append(claim)

    def finish(self):
        """Note that this thread is done with the frame that it handled."""
        hand = self.hand
        claim, hand.claim = hand.claim, None
        if claim is not None:
            hand.mean += (time.monotonic() - hand.began - hand.mean) * WEIGHT
            claim.is_done = True
            hand.done.append(claim)

    def drop(self, connections):
        """Let no frame of ``connections``, which are being closed, begin that a thread of this process has taken."""
        names = {name.encode() for name in connections}
        for claim in list(self.held):
            if claim.entry is not None and claim.connection in names:
                claim.is_done = True

    def pop_done(self):
        """Return the claims that this thread is done with; Redis has yet to be told."""
        hand = self.hand
        done, hand.done = hand.done, []
        self.held.difference_update(done)
        return done

    def end(self, claims):
        """Tell Redis that frames have been handled, now or as soon as it is there."""
        for index, here in _by_shard(claims):
            try:
                self.ring.run('end', index, [part for claim in here for part in (claim.connection, claim.token)])
            except redis.exceptions.RedisError:
                self.end_later(here)

    def end_later(self, claims):
        """Have ``clean_up`` tell Redis that frames have been handled."""
        self._unended.extend(claims)

    def give_back(self, hand):
        """Let other workers have the frames that ``hand`` has taken and not begun."""
        with hand.lock:
            claims = list(hand.taken)
            hand.taken.clear()
        self._give_back(claims)

    def _give_back(self, claims):
        for index, here in _by_shard(claims):
            parts = [part for claim in here for part in (claim.connection, claim.token, claim.entry)]
            try:
                lost = self.ring.run('give_back', index, [self.kept, *parts])
            except redis.exceptions.RedisError as error:
                if not here[0].is_stranded:
                    logger.error('%d frames wait to be given back to Redis: %s', len(here), error)
                for claim in here:
                    claim.is_stranded = True
            else:
                self.held.difference_update(here)
                if lost:
                    logger.error('Lost %d frames: this process stood still for too long, or Redis was away', lost)

    def renew(self):
        """Renew, each third of a lease, the claims of the threads of this process."""
        now = time.monotonic()
        if now - self._renewed < self.lease / 3:
            return
        self._renewed = now
        for index in range(self.ring.size):
            at_work = [
                part for claim in list(self.held) if claim.index == index for part in (claim.connection, claim.token)
            ]
            try:
                if at_work:
                    self.ring.run('renew', index, [int(self.lease * 1000), *at_work])
            except redis.exceptions.RedisError as error:
                # One that is away or full must not end the claims on the others.
                if not isinstance(error, AWAY):
                    self.ring.shards[index].refused(error)

    def clean_up(self):
        """End the claims of threads that died, and give back and end what Redis could not be told of."""
        left = [claim for claim in list(self.held) if claim.is_stranded or not claim.thread.is_alive()]
        self._give_back([claim for claim in left if claim.entry is not None])
        for claim in left:
            if claim.entry is None and not claim.is_done:
                logger.error(
                    'The thread %s ended while it handled a frame of %s', claim.thread.name, claim.connection.decode()
                )
        begun = [claim for claim in left if claim.entry is None]
        self.held.difference_update(begun)
        unended = [self._unended.popleft() for _ in range(len(self._unended))]
        self.end(begun + unended)

    def end_all(self):
        """End the claims of a process that ends cleanly and asks for no more."""
        self.ring.let_go()
        if self._pid != os.getpid():
            # They are of the process that this one was forked from.
            return
        held = list(self.held)
        self._give_back([claim for claim in held if claim.entry is not None])
        self.end([claim for claim in held if claim.entry is None] + list(self._unended))
