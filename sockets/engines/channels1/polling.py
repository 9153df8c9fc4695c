"""The websockets whose frames are read by the threads that handle them, and when the reactor reads them after all.

To hand a frame from the reactor to another thread costs as much as all the rest of a short function. So the thread that waits
for frames polls the sockets itself. While it is at work for longer than a moment, the reactor polls them, and what comes in
waits in the channel layer.
"""

import collections
import contextlib
import logging
import os
import select
import threading
import time

from . import direct

logger = logging.getLogger('sockets')

# Seconds between two looks at the thread that polls, and looks without a frame until they end.
_INTERVAL, _IDLE = 0.01, 100

# The reactor takes over if that thread was at work on one frame at two looks, or has taken so few between them though more were
# there, so many times in a row (once may be a query for all): its functions wait for something, and several threads get on
# better. Then so many looks pass before threads poll again.
_FEW, _IN_A_ROW = 8, 3
_REST, _LONG_REST = 3, 60

# Threads that do what is left in the layer get on, too. But if none has begun to wait or to read for so many looks, the reactor
# takes over: they may never be done with what comes from clients that it reads anyway, such as those of TLS.
_UNREAD = 50

# Sockets that are asked for at a time.
_AT_ONCE = 64


class WakeUp:
    """Something to read from ``set()`` to ``clear()``."""

    def __init__(self):
        self._end, self._other_end = os.pipe()
        for descriptor in (self._end, self._other_end):
            os.set_blocking(descriptor, False)

    def fileno(self):
        return self._end

    def set(self):
        with contextlib.suppress(BlockingIOError):
            os.write(self._other_end, b'.')

    def clear(self):
        with contextlib.suppress(BlockingIOError):
            os.read(self._end, 4096)


class Poll:
    """The sockets of open connections, and who polls them: one thread at a time of those that handle frames, or the reactor.

    A transport enters and leaves as it begins and stops to read (``direct.Direct``).
    """

    def __init__(self, reactor):
        self.reactor = reactor
        # By descriptor.
        self.transports = {}
        # Whether threads may poll, and whether that is over for good.
        self.is_open, self.is_over = True, False
        # Held by a thread while it reads, and by the reactor when it takes over.
        self._lock = threading.Lock()
        self._epoll = select.epoll()
        # The descriptors that have something to read, as the thread that polls was told.
        self._ready = collections.deque()
        # Whether a thread waits for more, how often one has begun or ended to wait or to read, and how many have taken anything.
        self._is_waiting, self._turns, self._taken = False, 0, 0
        # Whether the reactor looks, and what of these it saw last.
        self._is_watched, self._seen, self._slow_looks, self._unread = False, (0, 0), 0, 0
        self._wake_up = WakeUp()
        self._epoll.register(self._wake_up, select.EPOLLIN)

    # Which transports are in it: called under their locks

    def enter(self, transport):
        """Have threads read ``transport``; return whether that can be."""
        if self.is_over:
            return False
        descriptor = transport.fileno()
        try:
            self._epoll.register(descriptor, select.EPOLLIN)
        except OSError as error:
            # Later: nothing is logged under the lock of a transport.
            self.reactor.callFromThread(logger.warning, 'A websocket is read by the reactor: %s', error)
            return False
        self.transports[descriptor] = transport
        return True

    def leave(self, transport):
        """Have nobody read ``transport``."""
        descriptor = transport.fileno()
        del self.transports[descriptor]
        self._epoll.unregister(descriptor)

    # What the layer asks

    def begin(self, find_thread, relieve, longest_at_work):
        """Note what the layer does for us: ``LocalPolling``."""
        self._find_thread, self._relieve, self._longest_at_work = find_thread, relieve, longest_at_work

    def has_ready(self):
        """Whether a thread has something to read without waiting."""
        return bool(self._ready)

    def next(self, seconds, take):
        """Read the next frame and return what ``take(message, refuse)`` returns for it; ``refuse()`` closes its connection.

        ``None`` if there was none for ``seconds``, if ``wake()`` was called, or if the reactor polls now.
        """
        deadline = time.monotonic() + seconds if seconds else None
        while True:
            with self._lock:
                self._turns += 1
                while self.is_open and self._ready:
                    # Under the lock: the reactor must not read the next frame of this connection before it is taken.
                    is_frame, found = self._read(self._ready.popleft(), take)
                    if is_frame:
                        return found
                left = 0 if deadline is None else deadline - time.monotonic()
                if not self.is_open or left <= 0:
                    return None
                self._is_waiting = True
            try:
                ready = [descriptor for descriptor, _ in self._epoll.poll(left, _AT_ONCE)]
            finally:
                self._is_waiting = False
                self._turns += 1
            # Never the wake-up: the reactor may forget them at any time.
            self._ready.extend([descriptor for descriptor in ready if descriptor != self._wake_up.fileno()])
            if self._wake_up.fileno() in ready:
                self._wake_up.clear()
                return None

    def wake(self):
        """Have ``next()`` return, also if it is called only after this."""
        self._wake_up.set()

    def watch(self):
        """Have the reactor look now and then whether threads get on. One has taken something."""
        self._taken += 1
        if not self._is_watched:
            with self._lock:
                if not self._is_watched:
                    self.reactor.callFromThread(self._look_later, _IDLE)
                self._is_watched = True

    def _read(self, descriptor, take):
        """Return whether there was a frame, and what ``take`` returned for it."""
        transport = self.transports.get(descriptor)
        # A transport that has just ended has none.
        protocol = getattr(transport, 'protocol', None)
        if protocol is None:
            return False, None
        try:
            # The end of the connection waits for it, too: its disconnect must not come before the frame.
            with direct.lock_of(transport):
                message = protocol.read_now()
                if message is None:
                    return False, None
                return True, take(message, protocol.refuse_later)
        except Exception:
            logger.exception('Cutting off a websocket that could not be read')
            transport.stopReading()
            self.reactor.callFromThread(transport.abortConnection)
            return False, None

    # Of the reactor

    def _look_later(self, left):
        self._seen = self._turns, self._taken
        self.reactor.callLater(_INTERVAL, self._look, left)

    def _look(self, left):
        """Look how the thread that polls gets on. So many looks are left until they end, or until threads poll again."""
        if self.is_over:
            return
        is_same = self._seen == (self._turns, self._taken)
        self._slow_looks = self._slow_looks + 1 if self._ready and self._taken - self._seen[1] < _FEW else 0
        self._unread = self._unread + 1 if self.is_open and not self._is_waiting and self._turns == self._seen[0] else 0
        if not self.is_open:
            left -= 1
            if left <= 0 and self._longest_at_work() < _INTERVAL:
                left = _IDLE
                self.reactor.removeReader(self)
                self._epoll.register(self._wake_up, select.EPOLLIN)
                self.is_open = True
                self._find_thread()
        elif is_same and not self._is_waiting:
            left = _REST
            self._take_over()
        elif self._slow_looks >= _IN_A_ROW or self._unread >= _UNREAD:
            left = _LONG_REST
            self._take_over()
        elif not is_same:
            left = _IDLE
        else:
            left -= 1
            if left <= 0:
                with self._lock:
                    self._is_watched = False
                    # A thread may have begun before that, and have found that we look.
                    self._is_watched = self._seen != (self._turns, self._taken)
                if not self._is_watched:
                    return
        self._look_later(left)

    def _take_over(self):
        with self._lock:
            if self._is_waiting:
                # It has just come back.
                return
            self.is_open = False
            self._ready.clear()
            # Nobody waits now, and the reactor would be told of each that was woken.
            self._epoll.unregister(self._wake_up)
        self.reactor.addReader(self)
        self.doRead()
        self._relieve()

    def fileno(self):
        return self._epoll.fileno()

    def logPrefix(self):
        return 'sockets'

    def doRead(self):
        """Read what is there as the reactor reads, while threads do not."""
        for descriptor, _ in self._epoll.poll(0, _AT_ONCE):
            transport = self.transports.get(descriptor)
            try:
                if transport is not None and transport.doRead() is not None:
                    # It is over.
                    transport.leave_poll()
            except Exception:
                logger.exception('Cutting off a websocket that could not be read')
                transport.abortConnection()

    def connectionLost(self, reason):
        """The reactor has ended."""

    def end(self):
        """Have the reactor read all connections from now on."""
        with self._lock:
            self.is_open, self.is_over = False, True
            self._ready.clear()
        self.reactor.removeReader(self)
        for transport in list(self.transports.values()):
            transport.leave_poll()
