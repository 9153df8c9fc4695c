"""The messages within one process, for many threads: who sends puts them, who receives takes one or waits for it."""
import collections
import logging
import threading
import time

from asgiref.base_layer import BaseChannelLayer

from . import dropped
from .admission import Admission
from .mailboxes import CONNECT, FRAMES, Full, end_of

logger = logging.getLogger('sockets')

# Seconds that a blocking receive() waits before it says that there was nothing: how often a worker looks whether it
# has been told to stop. asgi_redis waits as long (BaseRedisChannelLayer.blpop_timeout).
_PATIENCE = 5

# Frames that are left to the threads at work.
_SPARING = FRAMES - {CONNECT}


class _Waiter:
    """Somebody who waits for a message of some channels. ``found`` is what the sender handed over, once it has."""

    def __init__(self, channels, owner):
        self.channels = channels
        self.owner = owner
        self.found = None
        self.arrived = threading.Lock()
        self.arrived.acquire()

    def hand_over(self, letter, ticket):
        self.found = letter, ticket
        self.arrived.release()


class _Delivery:
    """A server that has its messages brought. ``is_due``: the reactor has been woken for them."""

    def __init__(self, server, function):
        self.server = server
        self.function = function
        self.is_due = False


class LocalQueues:
    """Mailboxes under one lock, ``lock``. A sender hands its message to the thread or server that waits for it."""

    def __init__(self, mailboxes):
        self.mailboxes = mailboxes
        self.lock = threading.Lock()
        # How many messages have expired or were given up, by server or channel.
        self.dropped = collections.Counter()
        self._admission = Admission()
        self._next_sweep = 0
        self._waiters = []
        self._deliveries = {}
        self._patience = None
        self._relief_is_due = False
        self._thread = threading.local()

    def put(self, channel, message):
        """Put ``message`` where whoever receives ``channel`` finds it; ``ChannelFull`` if there is no room."""
        with self.lock:
            self._put(channel, message)

    def take(self, channels, block):
        """Return the ``Letter`` that is next for this thread, or ``None``; the frame that it took before is done."""
        thread = threading.current_thread()
        with self.lock:
            line = self._finish()
            letter, ticket = (None, None) if block and self._is_spare(channels) else self._take(channels, thread)
            # We take first: of many threads, few are kept busy.
            self._wake(line)
            if letter is None and block:
                waiter = _Waiter(channels, thread)
                self._waiters.append(waiter)
        if letter is None and block:
            letter, ticket = self._wait(waiter)
        self._thread.ticket = ticket
        return letter

    def take_or_call(self, channels, function):
        """Return the ``Letter`` that is next, or have ``function(letter, ticket)`` called when there is one."""
        with self.lock:
            letter, _ = self._take(channels, None)
            if letter is None:
                waiter = _Waiter(channels, None)
                waiter.hand_over = function
                self._waiters.append(waiter)
        return letter

    def deliver_to(self, server, function):
        """Call ``function(channel, message)`` on Twisted's reactor with what is sent to connections of ``server``."""
        with self.lock:
            self._deliveries[server] = _Delivery(server, function)
            self._wake(server)

    def spare_threads(self, patience):
        """Leave frames to the threads that are at work, and wake another one when a frame has waited ``patience`` s."""
        self._patience = patience

    # What needs the lock

    def _put(self, channel, message):
        reply_channel = message.get('reply_channel') if channel in FRAMES else None
        is_control = (channel in ('websocket.connect', 'websocket.disconnect') or
                      bool(message.get('close') or message.get('accept')))
        now = time.monotonic()
        self._sweep(now)
        if channel == CONNECT and reply_channel is not None:
            self._admit(now)
        try:
            line = self.mailboxes.put(channel, message, now, reply_channel, is_control)
        except Full:
            if reply_channel is not None:
                self._wake(self.mailboxes.put('websocket.disconnect', end_of(message), now, reply_channel,
                                              is_control=True))
            raise BaseChannelLayer.ChannelFull(channel)
        if message.get('close'):
            self.mailboxes.close(channel, now)
        self._wake(line)

    def _admit(self, now):
        seconds = self._admission.ask(now, self.mailboxes.in_line(CONNECT), self.mailboxes.waited([CONNECT], now))
        if seconds is not None:
            raise too_many_connects(seconds)

    def _sweep(self, now):
        if now >= self._next_sweep:
            self.mailboxes.sweep(now)
            self._next_sweep = now + self.mailboxes.expiry
        if self.mailboxes.expired:
            expired, self.mailboxes.expired = self.mailboxes.expired, collections.Counter()
            self.dropped.update(expired)
            # Others wait for our lock, and whoever reads the log may send something through us.
            threading.Thread(target=dropped.tell, args=(expired,), daemon=True, name='sockets-expired').start()

    def _take(self, channels, owner):
        now = time.monotonic()
        self._sweep(now)
        for ticket in self.mailboxes.overdue(now):
            if ticket.owner.is_alive():
                self.mailboxes.renew(ticket, now)
            else:
                self._wake(self.mailboxes.done(ticket))
        return self._take_letter(channels, now, owner)

    def _take_letter(self, channels, now, owner):
        letter, ticket = self.mailboxes.take(channels, now, owner)
        if letter is not None and letter.channel == CONNECT:
            self._admission.taken(now, self.mailboxes.in_line(CONNECT))
        return letter, ticket

    def _finish(self):
        ticket, self._thread.ticket = getattr(self._thread, 'ticket', None), None
        return None if ticket is None else self.mailboxes.done(ticket)

    def _wake(self, line):
        """Hand what can be taken from ``line`` to whoever came last to wait for it."""
        if line is None:
            return
        delivery = self._deliveries.get(line)
        if delivery is not None:
            if not delivery.is_due:
                from twisted.internet import reactor
                delivery.is_due = True
                reactor.callFromThread(self._deliver, delivery)
            return
        if self._patience is not None and line in _SPARING and self.mailboxes.at_work(_SPARING):
            self._relieve_later()
        else:
            self._hand_over([line])

    def _hand_over(self, channels):
        for index in range(len(self._waiters) - 1, -1, -1):
            waiter = self._waiters[index]
            if not waiter.channels.isdisjoint(channels):
                letter, ticket = self._take_letter(channels, time.monotonic(), waiter.owner)
                if letter is not None:
                    del self._waiters[index]
                    waiter.hand_over(letter, ticket)
                return

    def _is_spare(self, channels):
        """Whether a thread that asks for ``channels`` would only take turns with those that are at work."""
        if self._patience is None or channels.isdisjoint(_SPARING) or not self.mailboxes.at_work(_SPARING):
            return False
        # It was woken when a frame had waited that long; half of it, and it is not woken again at once.
        if self.mailboxes.waited(_SPARING, time.monotonic()) >= self._patience / 2:
            return False
        self._relieve_later()
        return True

    def _relieve_later(self):
        if not self._relief_is_due:
            from twisted.internet import reactor
            self._relief_is_due = True
            reactor.callFromThread(reactor.callLater, self._patience, self._relieve)

    # What does not

    def _relieve(self):
        with self.lock:
            self._relief_is_due = False
            if self.mailboxes.waited(_SPARING, time.monotonic()) >= self._patience:
                self._hand_over(_SPARING)
            if self.mailboxes.waited(_SPARING, time.monotonic()):
                self._relieve_later()

    def _deliver(self, delivery):
        with self.lock:
            delivery.is_due = False
            letters = self.mailboxes.take_all(delivery.server, time.monotonic())
        for letter in letters:
            try:
                delivery.function(letter.channel, letter.message)
            except Exception:
                logger.exception('A message for %s could not be delivered', letter.channel)

    def _wait(self, waiter):
        try:
            waiter.arrived.acquire(timeout=_PATIENCE)
        finally:
            with self.lock:
                if waiter.found is None:
                    self._waiters.remove(waiter)
        return waiter.found or (None, None)


def too_many_connects(seconds):
    """Return the ``ChannelFull`` of a connect whose client is to come back after ``seconds``."""
    error = BaseChannelLayer.ChannelFull('Too many connects wait: come back in {} s'.format(seconds))
    error.retry_after = seconds
    return error
