"""A channel layer within one process. It does not poll: the thread that sends a message hands it to one that waits.

The module is called ``inmemory`` because Channels looks for that word, and refuses ``runworker`` such a layer.
"""

import random
import re
import string
from typing import Any, Dict, Optional

from asgiref.base_layer import BaseChannelLayer

from .leases import FileLeases
from .local_connects import LocalConnects, too_many_connects
from .local_groups import LocalGroups
from .local_queues import LocalQueues
from .mailboxes import CONNECT, FRAMES, Mailboxes

# Seconds that a handshake may take before daphne resets the client, and seconds that daphne has to tell us of it.
_HANDSHAKE_TIMEOUT = 5
_LATE = 1

# The name of a connection, as nearly all are. What asgiref does to find that out takes longer.
_is_connection = re.compile(r'[a-zA-Z\d\-_.]+![\w\-.]+\Z').match


class InMemoryChannelLayer(BaseChannelLayer):
    """ASGI channel layer for one process: ``runserver``, tests, a small site.

    ``capacity`` and ``channel_capacity`` count per connection or channel; ``server_capacity`` is how many messages may
    wait for all connections of one server together. Frames of a connection are received one at a time, in order of
    arrival: the next one when the thread that received the last asks for more. A thread that died delays its
    connection for at most ``lease`` seconds.
    """

    extensions = ['groups', 'flush', 'twisted']
    keeps_order = True
    # What rows of servers on such layers say. The leases tell which of them are alive.
    name = 'memory:'

    def __init__(
        self,
        expiry: int = 60,
        group_expiry: int = 86400,
        capacity: int = 100,
        channel_capacity: Optional[Dict[Any, int]] = None,
        server_capacity: int = 100000,
        lease: float = 5,
        leases: Any = None,
    ) -> None:
        super().__init__(expiry=expiry, group_expiry=group_expiry, capacity=capacity, channel_capacity=channel_capacity)
        self._mailboxes = Mailboxes(self.get_capacity, server_capacity, expiry, lease, _HANDSHAKE_TIMEOUT + _LATE)
        self._queues = LocalQueues(self._mailboxes)
        # What a thread asks that handles several connects together.
        self.connects = LocalConnects(self._queues)
        self._groups = LocalGroups(group_expiry)
        self._leases = FileLeases() if leases is None else leases
        self._asked = {}

    # ASGI

    def send(self, channel, message):
        """Send ``message``; ``ChannelFull`` if its connection, its server or its channel has too many waiting."""
        # Nearly every answer. A name that a server knows is valid.
        if (
            type(message) is dict
            and len(message) == 1
            and type(message.get('text')) is str
            and self._queues.write(channel, message['text'])
        ):
            return
        self._check(channel, message)
        self._queues.put(channel, _copy(message))

    def send_many(self, channel_names, message):
        """Send ``message``, copied once, to many channels; return the names of those that were full."""
        for channel in channel_names:
            self._check(channel, message)
        message = _copy(message)
        refused = []
        for channel in channel_names:
            try:
                # A copy for each receiver, which may add to it.
                self._queues.put(channel, dict(message))
            except self.ChannelFull:
                refused.append(channel)
        return refused

    def receive(self, channels, block=False):
        """Return the channel and content of a message, or ``(None, None)``; ``block`` waits for one.

        A thread that asks for more is done with the frame that it received before.
        """
        queued = self._queues.take(self._checked(channels), block)
        return (None, None) if queued is None else (queued.channel, queued.message)

    def receive_many(self, channels, block=False):
        """What Channels' worker calls: ``receive`` under its old name."""
        return self.receive(channels, block)

    def receive_twisted(self, channels):
        """Return a ``Deferred`` of what ``receive`` returns. For daphne, which receives no frames."""
        from twisted.internet import defer, reactor

        for server in channels:
            self._leases.hold(server)
        deferred = defer.Deferred()

        def hand_over(queued, claim):
            reactor.callFromThread(deferred.callback, (queued.channel, queued.message))

        queued = self._queues.take_or_call(self._checked(channels), hand_over)
        if queued is not None:
            deferred.callback((queued.channel, queued.message))
        return deferred

    def deliver_to(self, server, function, write=None):
        """Call ``function(channel, message)`` on Twisted's reactor with what is sent to the connections of ``server``.

        What ``receive_twisted`` does for a daphne that does not know us, at a fraction of its cost: the reactor is
        woken once for all messages that wait. While none does, ``write(channel, text)`` is called with a text by the
        thread that sends it, and returns whether its connection has got it.
        """
        self._leases.hold(server)
        self._queues.deliver_to(server, function, write)

    def wake_threads_after(self, patience):
        """Leave frames to the threads that are at work; wake another one when a frame has waited ``patience`` seconds.

        Only one thread of a process runs at a time: to wake one for each frame costs more than it brings, unless those
        at work wait for something. Needs Twisted's reactor.
        """
        self._queues.wake_threads_after(patience)

    def poll_with_threads(self, poll):
        """Have a thread that waits for frames ask ``poll`` for some meanwhile: ``runsockets`` reads its sockets so.

        ``poll`` has ``begin(find_thread, relieve, longest_at_work)``, ``is_open``, ``has_ready()``, ``next(seconds, take)``,
        ``watch()`` and ``wake()``.
        """
        self._queues.polling.begin(poll)

    def expect_handshakes_within(self, seconds):
        """Drop connects that have waited ``seconds``: their clients are gone by then. The default is 5."""
        self._mailboxes.connect_expiry = seconds + _LATE

    @property
    def connect_expiry(self):
        """Seconds that a connect waits."""
        return self._mailboxes.connect_expiry

    def too_many_connects(self, seconds):
        """Return the ``ChannelFull`` of a connect whose client is to come back after ``seconds``."""
        return too_many_connects(seconds)

    def withdraw(self, connection):
        """Forget a connection if nobody has taken its connect yet; return whether that was so."""
        with self._queues.lock:
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

    def forget_server(self, server):
        """Forget a dead server, of which nothing is left."""
        self._leases.forget(server)

    def statistics(self):
        """Return how many messages wait, by channel, and how many were dropped, by server."""
        with self._queues.lock:
            return {'waiting': self._mailboxes.waiting(), 'dropped': dict(self._queues.dropped)}

    def note_dropped(self, servers):
        """Count messages that senders have dropped: a dict of numbers by server."""
        with self._queues.lock:
            self._queues.dropped.update(servers)

    def waiting_connects(self, count):
        """Return ``count`` of the connects that nobody has taken yet, the next ones first."""
        with self._queues.lock:
            return self._mailboxes.first_of(CONNECT, count)

    def is_idle(self, connection=None):
        """Whether no frame of ``connection``, or of any, waits or is being handled."""
        with self._queues.lock:
            return not self._mailboxes.has_frames(connection)

    def idle(self, connections):
        """Return those of ``connections`` of which no frame waits or is being handled."""
        return [connection for connection in connections if self.is_idle(connection)]

    def drained_connections(self, server, names):
        """Return those of ``names``, connections of ``server``, of which no frame waits or is being handled."""
        with self._queues.lock:
            return [name for name in names if not self._mailboxes.has_frames(name)]

    # ASGI groups

    def group_add(self, group, channel):
        """Add ``channel`` to ``group`` for ``group_expiry`` seconds."""
        self.valid_group_name(group), self.valid_channel_name(channel)
        self._groups.add(group, channel)

    def group_discard(self, group, channel):
        """Remove ``channel`` from ``group`` if it is in it."""
        self.valid_group_name(group), self.valid_channel_name(channel)
        self._groups.discard(group, channel)

    def group_channels(self, group):
        """Return the names of the channels in ``group``."""
        return self._groups.channels(group)

    def send_group(self, group, message):
        """Send ``message`` to every channel of ``group`` that is not full."""
        self.valid_group_name(group)
        self.send_many(self.group_channels(group), message)

    # ASGI flush

    def flush(self):
        """Forget all messages and groups."""
        with self._queues.lock:
            self._mailboxes.clear()
        self._groups.clear()

    # Internal

    def _check(self, channel, message):
        assert isinstance(message, dict), 'message is not a dict'
        assert (
            channel in FRAMES or (_is_connection(channel) and len(channel) < 100) or self.valid_channel_name(channel)
        ), 'Channel name not valid'

    def _checked(self, channels):
        # Workers ask for the same ones all the time.
        checked = self._asked.get(tuple(channels))
        if checked is None:
            assert all(self.valid_channel_name(channel, receive=True) for channel in channels), 'Channel name not valid'
            checked = self._asked[tuple(channels)] = frozenset(channels)
        return checked


_ATOMS = {str, bytes, int, float, bool, type(None)}


def _copy(value):
    """Return a copy that shares nothing that can be changed; messages are made of plain data."""
    kind = type(value)
    if kind is dict:
        # As nearly all messages are.
        if _ATOMS.issuperset(map(type, value.values())):
            return value.copy()
        return {key: entry if type(entry) in _ATOMS else _copy(entry) for key, entry in value.items()}
    if kind is list:
        return [_copy(entry) for entry in value]
    # Headers are pairs that nobody can change.
    if kind is tuple and not _ATOMS.issuperset(map(type, value)):
        return tuple([_copy(entry) for entry in value])
    return value
