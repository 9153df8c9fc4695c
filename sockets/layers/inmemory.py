"""A channel layer within one process. Nobody polls: who waits is handed the message by the thread that sends it.

It is called ``inmemory`` because Channels looks for that word to refuse ``runworker`` a layer that it cannot share.
"""
import collections
import logging
import random
import string
import threading
import time

from asgiref.base_layer import BaseChannelLayer

from . import dropped
from .admission import Admission
from .leases import FileLeases
from .mailboxes import CONNECT, FRAMES, Full, Mailboxes, end_of

logger = logging.getLogger('sockets')

# Seconds that a blocking receive() waits before it says that there was nothing: how often a worker looks whether it
# has been told to stop. asgi_redis waits as long (BaseRedisChannelLayer.blpop_timeout).
_PATIENCE = 5

# Seconds that a handshake may take before daphne resets the client, and those that we leave it to say so.
_HANDSHAKE_TIMEOUT = 5
_LATE = 1

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


class InMemoryChannelLayer(BaseChannelLayer):
    """ASGI channel layer for one process: ``runserver``, tests, a small site.

    ``capacity`` and ``channel_capacity`` count per connection or channel; ``server_capacity`` is how many messages may
    wait for all connections of one server together. Frames of a connection are received one at a time, in order of
    arrival: the next one when the thread that received the last asks for more. A thread that died holds its connection
    up for at most ``lease`` seconds.
    """

    extensions = ['groups', 'flush', 'twisted']
    keeps_order = True
    # What rows of servers on such layers say. Who lives is known by their names.
    name = 'memory:'

    def __init__(self, expiry=60, group_expiry=86400, capacity=100, channel_capacity=None, server_capacity=100000,
                 lease=5, leases=None):
        super().__init__(expiry=expiry, group_expiry=group_expiry, capacity=capacity,
                         channel_capacity=channel_capacity)
        self._lock = threading.Lock()
        self._mailboxes = Mailboxes(self.get_capacity, server_capacity, expiry, lease, _HANDSHAKE_TIMEOUT + _LATE)
        self._admission = Admission()
        self._next_sweep = 0
        self._waiters = []
        self._deliveries = {}
        self._leases = FileLeases() if leases is None else leases
        self._patience = None
        self._relief_is_due = False
        self._asked = {}
        self._groups = {}
        self._dropped = collections.Counter()
        self._thread = threading.local()

    # ASGI

    def send(self, channel, message):
        """Send ``message``; ``ChannelFull`` if its connection, its server or its channel has too many waiting."""
        self._check(channel, message)
        with self._lock:
            self._put(channel, _copy(message))

    def send_many(self, channel_names, message):
        """Send ``message``, copied once, to many channels; return the names of those that were full."""
        for channel in channel_names:
            self._check(channel, message)
        message = _copy(message)
        refused = []
        for channel in channel_names:
            with self._lock:
                try:
                    # Whoever receives it may add to it.
                    self._put(channel, dict(message))
                except self.ChannelFull:
                    refused.append(channel)
        return refused

    def receive(self, channels, block=False):
        """Return the channel and content of a message, or ``(None, None)``; ``block`` waits for one.

        Asking for more says that this thread is done with the frame that it received before.
        """
        channels = self._lines(channels)
        thread = threading.current_thread()
        with self._lock:
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
        return (None, None) if letter is None else (letter.channel, letter.message)

    def receive_many(self, channels, block=False):
        """What Channels' worker calls: ``receive`` under its old name."""
        return self.receive(channels, block)

    def receive_twisted(self, channels):
        """Return a ``Deferred`` of what ``receive`` returns. For daphne, which receives no frames."""
        from twisted.internet import defer, reactor
        for server in channels:
            self._leases.hold(server)
        channels = self._lines(channels)
        deferred = defer.Deferred()

        def hand_over(letter, ticket):
            reactor.callFromThread(deferred.callback, (letter.channel, letter.message))

        with self._lock:
            letter, _ = self._take(channels, None)
            if letter is None:
                waiter = _Waiter(channels, None)
                waiter.hand_over = hand_over
                self._waiters.append(waiter)
        if letter is not None:
            deferred.callback((letter.channel, letter.message))
        return deferred

    def deliver_to(self, server, function):
        """Call ``function(channel, message)`` on Twisted's reactor with what is sent to the connections of ``server``.

        What ``receive_twisted`` does for a daphne that does not know us, at a fraction of its cost: the reactor is
        woken once for all messages that wait.
        """
        self._leases.hold(server)
        with self._lock:
            self._deliveries[server] = _Delivery(server, function)
            self._wake(server)

    def spare_threads(self, patience):
        """Leave frames to the threads that are at work, and wake another one when a frame has waited ``patience`` s.

        Threads of one process take turns: waking one for each frame costs more than it brings, unless those at work
        are waiting for something. Needs Twisted's reactor.
        """
        self._patience = patience

    def expect_handshakes_within(self, seconds):
        """Say that a client whose connect has waited ``seconds`` is gone; 5 if nobody says so."""
        self._mailboxes.connect_expiry = seconds + _LATE

    @property
    def connect_expiry(self):
        """Seconds that a connect waits."""
        return self._mailboxes.connect_expiry

    def too_many_connects(self, seconds):
        """Return the ``ChannelFull`` of a connect whose client is to come back after ``seconds``."""
        error = self.ChannelFull('Too many connects wait: come back in {} s'.format(seconds))
        error.retry_after = seconds
        return error

    def withdraw(self, connection):
        """Forget a connection whose connect nobody has taken yet; return whether it is one."""
        with self._lock:
            return self._mailboxes.withdraw(connection)

    def new_channel(self, pattern):
        """Return a channel name that nobody uses, made from ``pattern``, which ends with ``?``."""
        assert isinstance(pattern, str) and pattern.endswith('?'), 'New channel pattern must end with ?'
        return pattern + ''.join(random.choice(string.ascii_letters) for _ in range(12))

    def dead_servers(self, servers=None):
        """Return which of ``servers``, prefixes of channel names, were processes of this machine that are gone."""
        return self._leases.dead(servers)

    def live_servers(self, servers):
        """Return which of ``servers``, prefixes of channel names, are processes of this machine."""
        return self._leases.alive(servers)

    def servers_elsewhere(self, servers):
        """Return which of ``servers`` are other processes of this machine: no message of ours reaches them."""
        return self._leases.elsewhere(servers)

    def forget_server(self, server):
        """Forget a dead server, of which nothing is left."""
        self._leases.forget(server)

    def statistics(self):
        """Return how many messages wait, by channel, and how many were dropped, by server."""
        with self._lock:
            return {'waiting': self._mailboxes.waiting(), 'dropped': dict(self._dropped)}

    def note_dropped(self, servers):
        """Count messages that senders gave up: a dict of servers."""
        with self._lock:
            self._dropped.update(servers)

    def is_idle(self, connection=None):
        """Whether no frame of ``connection``, or of any, waits or is being handled."""
        with self._lock:
            return not self._mailboxes.has_frames(connection)

    def idle(self, connections):
        """Return those of ``connections`` of which no frame waits or is being handled."""
        return [connection for connection in connections if self.is_idle(connection)]

    def connections_at_rest(self, server, names):
        """Return those of ``names``, connections of ``server``, of which no frame waits or is being handled."""
        with self._lock:
            return [name for name in names if not self._mailboxes.has_frames(name)]

    # ASGI groups

    def group_add(self, group, channel):
        """Add ``channel`` to ``group`` for ``group_expiry`` seconds."""
        self.valid_group_name(group), self.valid_channel_name(channel)
        with self._lock:
            self._groups.setdefault(group, {})[channel] = time.monotonic() + self.group_expiry

    def group_discard(self, group, channel):
        """Remove ``channel`` from ``group`` if it is in it."""
        self.valid_group_name(group), self.valid_channel_name(channel)
        with self._lock:
            self._members(group).pop(channel, None)
            self._members(group)

    def group_channels(self, group):
        """Return the names of the channels in ``group``."""
        with self._lock:
            return list(self._members(group))

    def send_group(self, group, message):
        """Send ``message`` to every channel of ``group`` that is not full."""
        self.valid_group_name(group)
        self.send_many(self.group_channels(group), message)

    # ASGI flush

    def flush(self):
        """Forget all messages and groups."""
        with self._lock:
            self._mailboxes.clear()
            self._groups = {}

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
            line = self._mailboxes.put(channel, message, now, reply_channel, is_control)
        except Full:
            if reply_channel is not None:
                self._wake(self._mailboxes.put('websocket.disconnect', end_of(message), now, reply_channel,
                                               is_control=True))
            raise self.ChannelFull(channel)
        if message.get('close'):
            self._mailboxes.close(channel, now)
        self._wake(line)

    def _admit(self, now):
        seconds = self._admission.ask(now, self._mailboxes.in_line(CONNECT), self._mailboxes.waited([CONNECT], now))
        if seconds is not None:
            raise self.too_many_connects(seconds)

    def _sweep(self, now):
        if now >= self._next_sweep:
            self._mailboxes.sweep(now)
            self._next_sweep = now + self.expiry
        if self._mailboxes.expired:
            expired, self._mailboxes.expired = self._mailboxes.expired, collections.Counter()
            self._dropped.update(expired)
            # Others wait for our lock, and whoever reads the log may send something through us.
            threading.Thread(target=dropped.tell, args=(expired,), daemon=True, name='sockets-expired').start()

    def _take(self, channels, owner):
        now = time.monotonic()
        self._sweep(now)
        for ticket in self._mailboxes.overdue(now):
            if ticket.owner.is_alive():
                self._mailboxes.renew(ticket, now)
            else:
                self._wake(self._mailboxes.done(ticket))
        return self._take_letter(channels, now, owner)

    def _take_letter(self, channels, now, owner):
        letter, ticket = self._mailboxes.take(channels, now, owner)
        if letter is not None and letter.channel == CONNECT:
            self._admission.taken(now, self._mailboxes.in_line(CONNECT))
        return letter, ticket

    def _finish(self):
        ticket, self._thread.ticket = getattr(self._thread, 'ticket', None), None
        return None if ticket is None else self._mailboxes.done(ticket)

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
        if self._patience is not None and line in _SPARING and self._mailboxes.at_work(_SPARING):
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
        if self._patience is None or channels.isdisjoint(_SPARING) or not self._mailboxes.at_work(_SPARING):
            return False
        # It was woken when a frame had waited that long; half of it, and it is not woken again at once.
        if self._mailboxes.waited(_SPARING, time.monotonic()) >= self._patience / 2:
            return False
        self._relieve_later()
        return True

    def _relieve_later(self):
        if not self._relief_is_due:
            from twisted.internet import reactor
            self._relief_is_due = True
            reactor.callFromThread(reactor.callLater, self._patience, self._relieve)

    def _members(self, group):
        members = self._groups.get(group, {})
        for channel in [channel for channel, until in members.items() if until <= time.monotonic()]:
            del members[channel]
        if not members:
            self._groups.pop(group, None)
        return members

    # What does not

    def _relieve(self):
        with self._lock:
            self._relief_is_due = False
            if self._mailboxes.waited(_SPARING, time.monotonic()) >= self._patience:
                self._hand_over(_SPARING)
            if self._mailboxes.waited(_SPARING, time.monotonic()):
                self._relieve_later()

    def _deliver(self, delivery):
        with self._lock:
            delivery.is_due = False
            letters = self._mailboxes.take_all(delivery.server, time.monotonic())
        for letter in letters:
            try:
                delivery.function(letter.channel, letter.message)
            except Exception:
                logger.exception('A message for %s could not be delivered', letter.channel)

    def _wait(self, waiter):
        try:
            waiter.arrived.acquire(timeout=_PATIENCE)
        finally:
            with self._lock:
                if waiter.found is None:
                    self._waiters.remove(waiter)
        return waiter.found or (None, None)

    def _check(self, channel, message):
        assert isinstance(message, dict), 'message is not a dict'
        assert channel in FRAMES or self.valid_channel_name(channel), 'Channel name not valid'

    def _lines(self, channels):
        # Workers ask for the same ones all the time.
        lines = self._asked.get(tuple(channels))
        if lines is None:
            assert all(self.valid_channel_name(channel, receive=True) for channel in channels), 'Channel name not valid'
            lines = self._asked[tuple(channels)] = frozenset(channels)
        return lines


_ATOMS = {str, bytes, int, float, bool, type(None)}


def _copy(value):
    """Return a copy that shares nothing that can be changed; messages are made of plain data."""
    kind = type(value)
    if kind is dict:
        return {key: entry if type(entry) in _ATOMS else _copy(entry) for key, entry in value.items()}
    if kind is list:
        return [_copy(entry) for entry in value]
    if kind is tuple:
        return tuple(_copy(entry) for entry in value)
    return value
