"""What threads have done for an event loop: it comes back to the loop in one wake-up for many."""

import collections
import logging
import time

logger = logging.getLogger('sockets')

# Seconds for which the loop handles what comes back from threads before it does anything else.
AT_ONCE = 0.005


class Outcomes:
    """The outcomes on their way to ``loop``, in the order in which they were put."""

    def __init__(self, loop):
        self._loop = loop
        self._done = collections.deque()
        self._is_due = False

    def put(self, outcome):
        """Have the loop take ``outcome``: a future, its result or exception, and ``None``; or ``None``, a function that it is to
        call, and the arguments. On any thread; ``RuntimeError`` once the loop is closed.
        """
        self._done.append(outcome)
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon_threadsafe(self._take)

    def _take(self):
        # Set first: what is appended from here on is either seen below or asks for another call.
        self._is_due = False
        done = self._done
        until = time.monotonic() + AT_ONCE
        while done:
            future, outcome, args = done.popleft()
            if future is None:
                try:
                    outcome(*args)
                except Exception:
                    logger.exception('%r failed', outcome)
            elif not future.done():
                if isinstance(outcome, BaseException):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)
            if done and time.monotonic() > until:
                # A function that sends without end would keep all others from being served.
                self._is_due = True
                self._loop.call_soon(self._take)
                return
