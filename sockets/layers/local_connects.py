"""Connects of this process that one thread takes together, and whose handling it ends one after another."""

import threading
import time

from asgiref.base_layer import BaseChannelLayer

from .mailboxes import CONNECT


class LocalConnects:
    """The connects that wait in ``queues``. ``checked(channel, message)`` returns both, or ``(None, None)`` where the server of
    that connection may have been found dead.
    """

    def __init__(self, queues):
        self._queues = queues
        self._thread = threading.local()
        self.checked = lambda channel, message: (channel, message)

    def take(self, count):
        """Return up to ``count`` pairs of a connect and its claim, which ends with ``done()``. This thread has just received
        one.
        """
        queues, thread, found = self._queues, threading.current_thread(), []
        with queues.lock:
            now = time.monotonic()
            while len(found) < count:
                queued, claim = queues.mailboxes.take({CONNECT}, now, thread)
                if queued is None:
                    break
                found.append((queued.message, claim))
            if found:
                left = queues.mailboxes.count_ready(CONNECT)
                queues.admission.taken_with(len(found), left)
                self._thread.has_left_none = not left
        return found

    def hold(self):
        """Return the claim of what this thread has received last: it ends with ``done()``, and not when it asks for more."""
        return self._queues.hold()

    def take_over(self, claim):
        """Have this thread be the one that holds ``claim``: it lasts while that lives."""
        claim.owner = threading.current_thread()

    def done(self, claim):
        """End ``claim``: the next frame of its connection can be received."""
        self._queues.done(claim)

    def still_there(self, connections):
        """Return those of ``connections`` that have not ended, and whose server is not found dead, as far as is known."""
        with self._queues.lock:
            names = [name for name in connections if not self._queues.mailboxes.has_end(name)]
        return [name for name in names if self.checked(CONNECT, {'reply_channel': name})[0] is not None]

    def note(self, seconds, count):
        """Say that ``count`` connects, which were taken together, took some ``seconds``."""
        if vars(self._thread).pop('has_left_none', False):
            with self._queues.lock:
                self._queues.admission.served(seconds, count, time.monotonic())

    def nudge(self):
        """Have a thread that waits for a connect receive nothing, and see what else there is to do."""
        self._queues.nudge(CONNECT)


def too_many_connects(seconds):
    """Return the ``ChannelFull`` of a connect whose client is to come back after ``seconds``."""
    error = BaseChannelLayer.ChannelFull(f'Too many connects wait: come back in {seconds} s')
    error.retry_after = seconds
    return error
