"""The frames that this process is handling: until one is done, no worker gets the next one of its connection."""

import collections
import contextlib
import logging
import threading
import time

import redis

from .errors import AWAY

logger = logging.getLogger('sockets')


class Claim:
    """A frame that this thread is handling: of which connection, on which shard, and under which token."""

    def __init__(self, index, connection, token):
        self.index = index
        self.connection = connection
        self.token = token
        self.thread = threading.current_thread()


class Claims:
    """The claims of all threads of this process, at most one each.

    In Redis, a claim ends after ``lease`` seconds unless it is renewed.
    """

    def __init__(self, ring, lease):
        self.ring = ring
        self.lease = lease
        self.held = set()
        # Claims that are done and that Redis has yet to be told of.
        self._unended = collections.deque()
        self._renewed = 0
        self._thread = threading.local()

    def add(self, index, connection, token):
        """Note that this thread has taken a frame."""
        claim = self._thread.claim = Claim(index, connection, token)
        self.held.add(claim)

    def has_one(self):
        """Whether this thread is handling a frame."""
        return getattr(self._thread, 'claim', None) is not None

    def pop(self):
        """Return the claim of this thread, which is done with it, or ``None``. Redis has yet to be told."""
        claim, self._thread.claim = getattr(self._thread, 'claim', None), None
        if claim is not None:
            self.held.discard(claim)
        return claim

    def end(self, claim):
        """Tell Redis that a frame has been handled, now or as soon as it is there."""
        try:
            self.ring.run('end', claim.index, [claim.connection, claim.token])
        except redis.exceptions.RedisError:
            self.end_later(claim)

    def end_later(self, claim):
        """Have ``clean_up`` tell Redis that a frame has been handled."""
        self._unended.append(claim)

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
            with contextlib.suppress(*AWAY):
                if at_work:
                    self.ring.run('renew', index, [int(self.lease * 1000), *at_work])

    def clean_up(self):
        """End the claims of threads that died, and those that Redis could not be told of."""
        for claim in list(self.held):
            if not claim.thread.is_alive():
                logger.error(
                    'The thread %s ended while it handled a frame of %s', claim.thread.name, claim.connection.decode()
                )
                self.held.discard(claim)
                self.end(claim)
        for _ in range(len(self._unended)):
            self.end(self._unended.popleft())

    def end_all(self):
        """End the claims of a process that ends cleanly and asks for no more."""
        self.ring.let_go()
        for claim in [*self.held, *self._unended]:
            self.end(claim)
