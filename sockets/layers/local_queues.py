"""The messages within one process, for many threads: a sender puts one, a receiver takes one or waits for it."""

import collections
import threading
import time

from asgiref.base_layer import BaseChannelLayer

from . import dropped
from .admission import Admission
from .local_connects import too_many_connects
from .local_polling import LocalPolling
from .mailbox import queue_of
from .mailboxes import BUSY_FIRST, CONNECT, FRAMES, Full, group_of
from .receivers import Delivery, Waiter

# Seconds that a blocking receive() waits before it returns nothing: how often a worker checks whether it has been told
# to stop. asgi_redis waits as long (BaseRedisChannelLayer.blpop_timeout).
_PATIENCE = 5


class LocalQueues:
    """Mailboxes under one lock, ``lock``. A sender hands its message to the thread or server that waits for it."""

    def __init__(self, mailboxes):
        self.mailboxes = mailboxes
        self.lock = threading.Lock()
        # How many messages have expired or were dropped by their senders, by server or channel.
        self.dropped = collections.Counter()
        self.admission = Admission()
        self._next_sweep = 0
        self.waiters = []
        self._deliveries = {}
        self._patience = None
        self._relief_is_due = False
        # What the reactor is to be told to call, for tell_reactor().
        self._calls = []
        self._thread = threading.local()
        self.polling = LocalPolling(self)

    def put(self, channel, message):
        """Put ``message`` where a receiver of ``channel`` finds it; ``ChannelFull`` if there is no room."""
        try:
            with self.lock:
                self._put(channel, message)
        finally:
            self.tell_reactor()

    def take(self, channels, block):
        """Return the next ``QueuedMessage`` for this thread, or ``None``; the frame that it took before is done."""
        until = time.monotonic() + _PATIENCE
        while True:
            queued, claim, is_all = self._take_or_wait(channels, block)
            if queued is not None or is_all or time.monotonic() >= until:
                break
        if queued is not None and self.polling.is_for(channels):
            self.polling.poll.watch()
        self._thread.claim = claim
        return queued

    def hold(self):
        """Return the claim of what this thread has taken last, which ends with ``done()`` and not with what it takes next."""
        return vars(self._thread).pop('claim', None)

    def done(self, claim):
        """End the handling of the frame that ``claim`` is of."""
        with self.lock:
            self.wake(self.mailboxes.done(claim))
        self.tell_reactor()

    def nudge(self, channel):
        """Have a thread that waits for ``channel``, if there is one, get nothing, so that it looks for other work."""
        with self.lock:
            # Not the one that polls: it would not notice, and get nothing any more until it has read a frame.
            others = [other for other in self.waiters if other.owner and other is not self.polling.waiter]
            for waiter in [other for other in others if channel in other.channels][:1]:
                self.waiters.remove(waiter)
                waiter.hand_over(None, None)

    def take_or_call(self, channels, function):
        """Return the ``QueuedMessage`` that is next, or have ``function(queued, claim)`` called when there is one."""
        with self.lock:
            queued, _ = self._take(channels, None)
            if queued is None:
                waiter = Waiter(channels, None)
                waiter.hand_over = function
                self.waiters.append(waiter)
        self.tell_reactor()
        return queued

    def write(self, channel, text):
        """Have this thread write ``text`` to the connection ``channel``; return whether it could be, and has been."""
        delivery = self._deliveries.get(queue_of(channel))
        return delivery is not None and delivery.send_now(channel, text)

    def deliver_to(self, server, function, write=None):
        """Hand what is sent to connections of ``server`` to a ``Delivery``, on Twisted's reactor."""
        with self.lock:
            self._deliveries[server] = Delivery(server, function, write)
            self.wake(server)
        self.tell_reactor()

    def wake_threads_after(self, patience):
        """Leave frames to the threads that are at work; wake another one for a frame that has waited ``patience`` s."""
        self._patience = patience

    # To be called under the lock

    def _put(self, channel, message):
        reply_channel = message.get('reply_channel') if channel in FRAMES else None
        is_control = channel in ('websocket.connect', 'websocket.disconnect') or bool(
            message.get('close') or message.get('accept')
        )
        now = time.monotonic()
        self._sweep(now)
        if channel == CONNECT and reply_channel is not None:
            self._admit(now)
        try:
            queue = self.mailboxes.put(channel, message, now, reply_channel, is_control)
        except Full:
            if reply_channel is not None:
                self.wake(self.mailboxes.put_end(message, now))
            raise BaseChannelLayer.ChannelFull(channel)
        if message.get('close'):
            self.mailboxes.close(channel, now)
        self.wake(queue)

    def _admit(self, now):
        seconds = self.admission.ask(now, self.mailboxes.count_ready(CONNECT), self.mailboxes.waited([CONNECT], now))
        if seconds is not None:
            raise too_many_connects(seconds)

    def _sweep(self, now):
        if now >= self._next_sweep:
            self.mailboxes.sweep(now)
            self._next_sweep = now + self.mailboxes.expiry
        if self.mailboxes.expired:
            expired, self.mailboxes.expired = self.mailboxes.expired, collections.Counter()
            self.dropped.update(expired)
            # In another thread: this one holds the lock, and a log handler may send something through this layer.
            threading.Thread(target=dropped.report, args=(expired,), daemon=True, name='sockets-expired').start()

    def _take(self, channels, owner):
        now = time.monotonic()
        self._sweep(now)
        for claim in self.mailboxes.overdue(now):
            if claim.owner.is_alive():
                self.mailboxes.renew(claim, now)
            else:
                self.wake(self.mailboxes.done(claim))
        return self._take_one(channels, now, owner)

    def _take_one(self, channels, now, owner):
        queued, claim = self.mailboxes.take(channels, now, owner)
        if queued is not None and queued.channel == CONNECT:
            self.admission.taken(now, self.mailboxes.count_ready(CONNECT))
        return queued, claim

    def _finish(self):
        claim, self._thread.claim = getattr(self._thread, 'claim', None), None
        return None if claim is None else self.mailboxes.done(claim)

    def wake(self, queue):
        """Hand what is ready in ``queue`` to the receiver that began to wait for it last."""
        if queue is None:
            return
        delivery = self._deliveries.get(queue)
        if delivery is not None:
            if not delivery.is_due:
                delivery.is_due = True
                self._calls.append((self._deliver, delivery))
            return
        if self._patience is not None and queue in BUSY_FIRST and self.mailboxes.at_work(BUSY_FIRST[queue]):
            self._relieve_later()
        else:
            self.hand_over([queue])

    def hand_over(self, channels):
        for index in range(len(self.waiters) - 1, -1, -1):
            waiter = self.waiters[index]
            if not waiter.channels.isdisjoint(channels):
                queued, claim = self._take_one(channels, time.monotonic(), waiter.owner)
                if queued is not None:
                    del self.waiters[index]
                    waiter.hand_over(queued, claim)
                    self.polling.note(waiter)
                return

    def _is_spare(self, channels):
        """Whether a thread that asks for ``channels`` is not needed beside those that are at work."""
        group = group_of(channels)
        if self._patience is None or not self.mailboxes.at_work(group):
            return False
        # A thread is woken when a frame has waited for ``patience``. With half of that here, it is not spare at once.
        if self.mailboxes.waited(group, time.monotonic()) >= self._patience / 2:
            return False
        self._relieve_later()
        return True

    def _relieve_later(self):
        if not self._relief_is_due:
            from twisted.internet import reactor

            self._relief_is_due = True
            self._calls.append((reactor.callLater, self._patience, self._relieve))

    # To be called without it

    def tell_reactor(self):
        """Have the reactor call what it is to call.

        To wake it takes a system call, in which other threads run: under the lock, they would meet it and wait.
        """
        self.polling.wake()
        if self._calls:
            from twisted.internet import reactor

            with self.lock:
                calls, self._calls = self._calls, []
            for call in calls:
                reactor.callFromThread(*call)

    def _relieve(self):
        with self.lock:
            self._relief_is_due = False
            for group in set(BUSY_FIRST.values()):
                if self.mailboxes.waited(group, time.monotonic()) >= self._patience:
                    self.hand_over(group)
                if self.mailboxes.waited(group, time.monotonic()):
                    self._relieve_later()
        self.tell_reactor()

    def _deliver(self, delivery):
        with self.lock:
            delivery.begin()
            messages = self.mailboxes.take_all(delivery.server, time.monotonic())
        delivery.deliver(messages)

    def _take_or_wait(self, channels, block):
        """Return what is next for this thread and its claim, and whether there is no more to try if that is nothing."""
        thread, polling = threading.current_thread(), self.polling
        waiter = polls = None
        with self.lock:
            queue = self._finish()
            is_spare = block and self._is_spare(channels)
            queued, claim = (None, None) if is_spare else self._take(channels, thread)
            # This thread takes first, so that few threads are kept busy.
            self.wake(queue)
            if queued is None and block:
                waiter, polls = polling.begin_to_wait(channels, not is_spare)
        self.tell_reactor()
        if polls:
            return (*polling.read(waiter), False)
        if waiter is None:
            return queued, claim, True
        queued, claim = self._wait(waiter)
        # Somebody may have been needed to poll.
        return queued, claim, waiter.found is None or not polling.is_for(channels)

    def _wait(self, waiter):
        try:
            waiter.arrived.acquire(timeout=_PATIENCE)
        finally:
            with self.lock:
                if waiter.found is None:
                    self.waiters.remove(waiter)
        return waiter.found or (None, None)
