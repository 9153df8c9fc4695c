"""A channel layer over Redis for many machines, on asgi_redis's hosts, sharding, encryption and names.

Each step is one of the scripts and one round trip: put, take (with the end of the frame before), end.
"""

import hashlib
from typing import Any, Optional, Sequence

from .claims import Claims
from .counts import Counts
from .entries import Entries
from .errors import OutOfMemory
from .hosts import RedisHosts
from .inbox import Inbox
from .inmemory import InMemoryChannelLayer
from .local_servers import LocalServers
from .mailboxes import FRAMES
from .outbox import Outbox
from .receiver import Receiver
from .redis_leases import RedisLeases
from .relief import Relief
from .ring import Ring
from .scripts import VERSION
from .upkeep import Upkeep

__all__ = ['OutOfMemory', 'RedisChannelLayer']


class RedisChannelLayer(RedisHosts):
    """ASGI channel layer over Redis: drop-in for ``asgi_redis.RedisChannelLayer``, whose options it takes.

    ``capacity`` and ``channel_capacity`` count per connection and channel, ``server_capacity`` what may wait for all
    connections of one server together. Frames of a connection are received one at a time and in order, across all
    workers; a worker that died in the middle of one delays its connection for ``lease`` seconds. ``timeout``
    is how many seconds a call to Redis may take; not given, it is 10, or 1.5 where there are several.

    A process that calls ``serve_locally`` keeps what belongs to its own connections to itself.
    """

    extensions = ['groups', 'flush', 'twisted']
    keeps_order = True

    def __init__(
        self,
        expiry: int = 60,
        hosts: Optional[Sequence[Any]] = None,
        prefix: str = 'sockets:',
        *args: Any,
        server_capacity: int = 10000,
        lease: float = 10,
        timeout: Optional[float] = None,
        **kwargs: Any,
    ) -> None:
        # Other versions of the format, and asgi_redis, must have other keys.
        super().__init__(expiry, hosts, f'{prefix}{VERSION}:', *args, timeout=timeout, **kwargs)
        # Layers with different names know nothing of each other's servers. A column of the rows holds it.
        self.name = self.prefix if len(self.prefix) <= 100 else hashlib.sha256(self.prefix.encode()).hexdigest()
        self.server_capacity = server_capacity
        self.lease = lease
        ring = self._ring = Ring([client.connection_pool for client in self.clients], self.consistent_hash, self.prefix)
        entries = Entries(
            self.serialize, self.deserialize, self.get_capacity, server_capacity, self.expiry, self.group_expiry
        )
        self._leases = RedisLeases(ring)
        self._counts = Counts(ring, self._leases)
        # It takes the leases for the servers that it delivers to.
        self._local = InMemoryChannelLayer(
            expiry=self.expiry,
            group_expiry=self.group_expiry,
            capacity=self.capacity,
            channel_capacity=dict(self.channel_capacity),
            server_capacity=max(server_capacity, 100000),
            leases=self._leases,
        )
        self._servers = LocalServers(self._local, self._leases)
        # Those of this process.
        self.connects = self._local.connects
        self.connects.checked = self._servers.checked
        self._claims = Claims(ring, lease, self.group_expiry)
        self._outbox = Outbox(ring, entries, self._servers, self._claims)
        self._upkeep = Upkeep(
            lease,
            at_exit=self._claims.end_all,
            jobs=[
                self._servers.send_heartbeats,
                self._claims.renew,
                self._claims.clean_up,
                self._outbox.frames.report_ends_later,
                self._counts.report_expired,
            ],
        )
        self._inbox = Inbox(ring, entries, self._servers, self._upkeep, self._counts)
        self._receiver = Receiver(
            ring,
            entries,
            self._claims,
            self._upkeep,
            Relief(self._claims, ring),
            self._outbox.last_messages,
            self._local,
            self.client_prefix,
        )

    # ASGI: sending

    def send(self, channel, message):
        """Send ``message``; ``ChannelFull`` if its connection, its server or its channel has too many waiting."""
        _check(self, channel, message)
        self._outbox.send(channel, message)

    def send_later(self, channel, message, on_failure):
        """Send ``message`` with the next thing that this thread asks of Redis, at the latest when it receives again.

        For the last message of a consumer: it costs no round trip. ``on_failure`` is called, by ``receive``, with what
        ``send`` would have raised. Outside of a frame, and to close, it is sent at once and does raise.
        """
        _check(self, channel, message)
        self._outbox.send_later(channel, message, on_failure)

    def send_many(self, channel_names, message):
        """Send ``message`` to many channels at the cost of one entry per server; return the names that were full.

        Connections of this process come first, and a shard that is away costs its own servers only. Then its error is
        raised, with the names that it has cost as ``undelivered`` and those that were full as ``refused``.
        """
        channel_names = list(channel_names)
        for channel in channel_names:
            _check(self, channel, message)
        return self._outbox.send_many(channel_names, message)

    def send_group(self, group, message):
        """Send ``message`` to every channel of ``group`` that is not full."""
        assert self.valid_group_name(group), 'Group name not valid'
        self.send_many(self.group_channels(group), message)

    # ASGI: receiving

    def receive(self, channels, block=False):
        """Return the channel and content of a message, or ``(None, None)``; ``block`` waits for one.

        A thread that asks for more is done with the frame that it received before. If Redis is away, that is logged,
        and this waits.
        """
        channels = list(channels)
        if self._servers.receives(channels):
            return self._servers.checked(*self._local.receive(channels, block))
        assert all(self.valid_channel_name(channel, receive=True) for channel in channels), 'Channel name not valid'
        return self._receiver.receive(channels, block)

    def receive_many(self, channels, block=False):
        """What Channels' worker calls: ``receive`` under its old name."""
        return self.receive(channels, block)

    def receive_twisted(self, channels):
        """Return a ``Deferred`` of what ``receive`` returns. For daphne, which receives what its connections get."""
        for server in channels:
            self._inbox.read(server, self._outbox.frames.report_ends)
        return self._local.receive_twisted(channels)

    def deliver_to(self, server, function, write=None):
        """Call ``function(channel, message)`` on Twisted's reactor with what is sent to connections of ``server``.

        While nothing waits for them, ``write(channel, text)`` is called with a text by the thread that sends it.
        """
        self._inbox.read(server, self._outbox.frames.report_ends)
        self._local.deliver_to(server, function, write)

    def release(self):
        """End the claim of this thread, which is done with the frame that it received before and asks for no more."""
        self._receiver.release()

    def flush(self):
        """Delete all messages and groups on all shards."""
        super().flush()
        self._local.flush()

    # Connections of this process

    @property
    def is_served_locally(self):
        """Whether this process runs the workers of the connections that it holds."""
        return self._servers.runs_workers

    def serve_locally(self):
        """Keep the frames of connections of this process in its memory: it runs the workers for them."""
        self._servers.runs_workers = True

    def wake_threads_after(self, patience):
        """Wake another thread for frames of this process only when one has waited ``patience`` seconds."""
        self._local.wake_threads_after(patience)

    def poll_with_threads(self, poll):
        """Have a thread of this process that waits for frames ask ``poll`` for some meanwhile."""
        self._local.poll_with_threads(poll)

    def expect_handshakes_within(self, seconds):
        """Drop connects that have waited ``seconds``: their clients are gone by then. The default is 5."""
        self._local.expect_handshakes_within(seconds)

    def withdraw(self, connection):
        """Forget a connection of this process if nobody has taken its connect yet; return whether that was so."""
        return self._local.withdraw(connection)

    def waiting_connects(self, count):
        """Return ``count`` of the connects of this process that nobody has taken yet, the next ones first."""
        return self._local.waiting_connects(count)

    def is_idle(self, connection=None):
        """Whether no frame of ``connection``, or of any of this process, waits here or is being handled."""
        # What is being posted includes disconnects.
        return self._local.is_idle(connection) and (connection is not None or not self._ring.is_posting())

    def drained_connections(self, server, names):
        """Return those of ``names``, connections of ``server``, which is in this process, of which no frame waits or is
        being handled, and what was sent to them has arrived. It may have to wait for Redis.
        """
        if self._servers.runs_workers:
            return self._local.drained_connections(server, names)
        found = self._ring.select('drained', names)
        # Whatever their functions have sent is in front of this.
        return found if self._inbox.has_read(server, self._outbox.queues.send_mark) else []

    def idle(self, connections):
        """Return those of ``connections`` of which no frame waits or is being handled, here or anywhere."""
        idle = self._local.idle(connections)
        return idle if self._servers.runs_workers else self._ring.select('idle', idle)

    def set_close_message(self, message):
        """Have ``message``, which closes, sent to the connections of a server that was found dead and is not."""
        self._servers.close_message = message

    # Servers of all processes

    def dead_servers(self, servers=None):
        """Return the servers, prefixes of channel names, that are dead: of all that Redis knows, and of ``servers``.

        ``servers`` are all that have rows. Without them, ``has_forgotten`` tells whether they are to be given.
        """
        return self._leases.dead(servers)

    def has_forgotten(self):
        """Whether ``dead_servers`` has last found a Redis that was restarted and does not know all servers."""
        return self._leases.is_new

    def live_servers(self, servers=()):
        """Return the servers, prefixes of channel names, whose last heartbeat is recent."""
        return self._leases.alive(servers)

    def forget_server(self, server):
        """Forget a dead server, of which nothing is left."""
        self._leases.forget(server)

    def statistics(self):
        """Return how many messages wait, by channel, and how many were dropped, by server. For operators: it reads
        every key of each Redis. Messages for dead servers are not counted.
        """
        return self._counts.statistics(self._local.statistics(), self.clients)

    def note_dropped(self, servers):
        """Count messages that senders have dropped: a dict of numbers by server."""
        self._counts.note_dropped(servers)

    def take_token(self, name, per_second, burst):
        """Take one of ``burst`` tokens of ``name``, which are refilled at ``per_second``. Return the seconds until
        there is one, 0 if it was taken.
        """
        key = hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()
        return float(self._ring.run('take_token', self._ring.shard_of(key), [key, per_second / 1000, burst]))


def _check(layer, channel, message):
    assert isinstance(message, dict), 'message is not a dict'
    assert channel in FRAMES or layer.valid_channel_name(channel), 'Channel name not valid'
