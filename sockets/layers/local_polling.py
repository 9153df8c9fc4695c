"""How a thread that waits for messages of its process polls sockets for frames meanwhile, and which thread does."""

import contextlib
import threading
import time

from .mailbox import QueuedMessage
from .mailboxes import RECEIVE, Full
from .receivers import Waiter

# Seconds after which a thread that polls returns without a message, to look whether it has been told to stop.
_PATIENCE = 60


class LocalPolling:
    """The polling of one process; ``queues`` are its ``LocalQueues``.

    One thread at a time polls. What it reads it handles itself, unless something else has been handed to it meanwhile, or a
    frame of the same connection comes first: then what it has read waits in the mailbox of its connection.
    """

    def __init__(self, queues):
        self.queues = queues
        # What the engine polls, once it has said so.
        self.poll = None
        # Held by the thread that polls, and what it waits with.
        self._turn = threading.Lock()
        self.waiter = None
        self._must_wake = False

    def begin(self, poll):
        """Have threads poll ``poll`` from now on, while it is open."""
        poll.begin(self.find_thread, self.relieve, self.longest_at_work)
        self.poll = poll
        self.find_thread()

    def is_for(self, channels):
        """Whether a thread that takes from ``channels`` may poll."""
        return self.poll is not None and self.poll.is_open and RECEIVE in channels

    def begin_to_wait(self, channels, may_poll):
        """Return the ``Waiter`` of this thread, and whether it is its turn to poll, by ``read()``. Under the lock.

        It gets no ``Waiter`` if it has something to read at once.
        """
        polls = may_poll and self.is_for(channels) and self._turn.acquire(blocking=False)
        if polls and self.poll.has_ready():
            return None, True
        waiter = Waiter(channels, threading.current_thread())
        self.queues.waiters.append(waiter)
        if polls:
            self.waiter = waiter
        return waiter, polls

    def read(self, waiter):
        """Return the next frame and its claim, or what has been handed over to ``waiter``, who waits in ``queues``.

        Without a waiter, only sockets that are known to have something are read. ``None, None`` if there is nothing.
        """
        thread = threading.current_thread()
        try:
            found = self.poll.next(
                0 if waiter is None else _PATIENCE,
                lambda message, refuse: self._take(waiter, thread, message, refuse),
            )
        finally:
            if waiter is not None:
                with self.queues.lock:
                    self.waiter = None
                    self._withdraw(waiter)
            self._turn.release()
        # What it has read may have been left to others.
        self.queues.tell_reactor()
        return found or waiter is not None and waiter.found or (None, None)

    def note(self, waiter):
        """Have the thread that polls woken if it is the one that something was handed over to. Under the lock."""
        if waiter is self.waiter:
            self._must_wake = True

    def wake(self):
        """Wake the thread that polls, if that is due. Not under the lock."""
        if self._must_wake:
            self._must_wake = False
            self.poll.wake()

    # What the engine's poll asks

    def find_thread(self):
        """Have a thread that waits for messages poll, if there is one."""
        if self.waiter is None:
            self.queues.nudge(RECEIVE)

    def relieve(self):
        """Have a thread that waits take a frame that another one would not take soon."""
        with self.queues.lock:
            self.queues.hand_over([RECEIVE])
        self.queues.tell_reactor()

    def longest_at_work(self):
        """Return for how many seconds the oldest frame that is being handled has been; 0 if there is none."""
        with self.queues.lock:
            return self.queues.mailboxes.longest_at_work(RECEIVE, time.monotonic())

    def _take(self, waiter, thread, message, refuse):
        """Return a frame that was read and its claim; ``None`` if it has to wait, or is one too many."""
        queues, now, connection = self.queues, time.monotonic(), message['reply_channel']
        with queues.lock:
            if waiter is None or self._withdraw(waiter):
                claim = queues.mailboxes.claim(RECEIVE, connection, now, thread)
                if claim is not None:
                    return QueuedMessage(RECEIVE, message, now, now), claim
            try:
                queues.wake(queues.mailboxes.put(RECEIVE, message, now, connection))
                return None
            except Full:
                queues.wake(queues.mailboxes.put_end(message, now))
        refuse()
        return None

    def _withdraw(self, waiter):
        """Take ``waiter`` out of those to whom something is handed over; return whether it was there. Under the lock."""
        if waiter.found is None:
            with contextlib.suppress(ValueError):
                self.queues.waiters.remove(waiter)
                return True
        return False
