"""A channel layer over Redis for many machines, on asgi_redis's hosts, sharding, encryption and names.

Each step is one of the scripts and one round trip: put, take (with the end of the frame before), end.
"""
import atexit
import collections
import contextlib
import hashlib
import itertools
import logging
import os
import threading
import time
import weakref

import asgi_redis
import msgpack
import redis
from django.core.exceptions import ImproperlyConfigured

from . import dropped
from .admission import PATIENCE
from .connections import AWAY, Bells, Late, Pipe, Reader, pause
from .inmemory import InMemoryChannelLayer
from .leases import SIGN_OF_LIFE, RedisLeases
from .mailboxes import CONNECT, FRAMES, end_of
from .posting import Poster
from .scripts import FINE, GONE, UNKNOWN, VERSION
from .shards import Down, Shard
from .standing import Standing

logger = logging.getLogger('sockets')

# Seconds that a blocking receive() waits, and after which a worker looks for leases that have ended.
_PATIENCE = 2
# Seconds between two looks for what has expired.
_TELL_EVERY = 3
# Names in one entry of send_many(): about 40 kB of them.
_NAMES_PER_ENTRY = 1000

# What no route hears while others may take this server for dead, and what opens and ends connections.
_HELD = frozenset(['websocket.connect', 'websocket.receive'])
_CONTROLS = frozenset(['websocket.connect', 'websocket.disconnect'])

# Seconds after which a connection that was told to close has ended, whether anybody has said so or not.
_LAST_WORDS = 15

# Seconds that a call may take. One Redis that hangs for a while is waited for: nothing goes on without it anyway. Where
# there are several, those that are well must not wait for the one that is not.
_TIMEOUT, _TIMEOUT_OF_SEVERAL = 10, 1.5

# What daphne is told, or tells itself, when there is no room for a page.
_UNAVAILABLE = {'status': 503, 'headers': [[b'Content-Type', b'text/plain'], [b'Retry-After', b'1']],
                'content': b'Service unavailable'}


class OutOfMemory(redis.exceptions.ResponseError):
    """Redis has reached its ``maxmemory`` and takes no messages: give it more, or find out what fills it."""


class _Ticket:
    """A frame that this thread is handling."""

    def __init__(self, index, connection, token):
        self.index = index
        self.connection = connection
        self.token = token
        self.thread = threading.current_thread()


class RedisChannelLayer(asgi_redis.RedisChannelLayer):
    """ASGI channel layer over Redis: drop-in for ``asgi_redis.RedisChannelLayer``, whose options it takes.

    ``capacity`` and ``channel_capacity`` count per connection and channel, ``server_capacity`` what may wait for all
    connections of one server together. Frames of a connection are received one at a time and in order, across all
    workers; ``lease`` is how many seconds a worker that died in the middle of one holds its connection up. ``timeout``
    is how many seconds a call to Redis may take; not given, it is 10, or 1.5 where there are several.

    A process that calls ``serve_locally`` keeps what belongs to its own connections to itself.
    """

    extensions = ['groups', 'flush', 'twisted']
    keeps_order = True
    # asgi_redis refuses a socket_timeout that is shorter: it would end its blocking commands, of which we have none.
    blpop_timeout = 0

    def __init__(self, expiry=60, hosts=None, prefix='sockets:', *args, server_capacity=10000, lease=10, timeout=None,
                 **kwargs):
        if 'services' in kwargs:
            raise ImproperlyConfigured(
                "sockets.layers.RedisChannelLayer does not ask a Redis Sentinel ('services'). Name the Redis itself in "
                "'hosts', or take the BACKEND 'asgi_redis.RedisSentinelChannelLayer'.")
        if timeout is None:
            timeout = _TIMEOUT_OF_SEVERAL if len(hosts or ()) > 1 else _TIMEOUT
        kwargs['connection_kwargs'] = {'socket_timeout': timeout, **(kwargs.get('connection_kwargs') or {})}
        # Whoever writes another version of what is in Redis, or writes as asgi_redis does, has other keys.
        super().__init__(expiry, hosts, '{}{}:'.format(prefix, VERSION), *args, **kwargs)
        # Who has another name hears nothing of our servers, nor we of theirs. A column holds it.
        self.name = self.prefix if len(self.prefix) <= 100 else hashlib.sha256(self.prefix.encode()).hexdigest()
        self.server_capacity = server_capacity
        self.lease = lease
        self._shards = [self._shard(index) for index in range(self.ring_size)]
        self._leases = RedisLeases(self._ask_of_servers, self.consistent_hash, self.ring_size, self.prefix)
        # It holds them for the servers that it delivers to.
        self._local = InMemoryChannelLayer(
            expiry=self.expiry, group_expiry=self.group_expiry, capacity=self.capacity,
            channel_capacity=dict(self.channel_capacity), server_capacity=max(server_capacity, 100000),
            leases=self._leases)
        self._serves_locally = False
        self._read_here = set()
        self._thread = threading.local()
        # Frames that are being handled, and those that are done, of which Redis has yet to hear.
        self._tickets = set()
        self._unended = collections.deque()
        self._tokens = itertools.count()
        self._renewed = self._tended = 0
        # Connections that we close because Redis took no frame of theirs, and ends that it could not be told of.
        self._stopped = set()
        # How many frames of each wait in our memory for Redis to take them.
        self._on_their_way = collections.Counter()
        self._untold = collections.deque()
        # Connections of the server in this process, and when we told those that end because it was found dead.
        self._open_here = set()
        self._told = {}
        self._farewell = {'close': 1012}
        self._standing = Standing(self._leases.lease)
        # Of entries for a server of this process, what is called when all that came before them has been delivered.
        self._marks = {}
        # What the reactor asks of Redis, by shard.
        self._posters = {}
        # What has expired here, which Redis does not know.
        self._expired = collections.Counter()
        self._renewer = None
        self._lock = threading.Lock()

    @property
    def is_served_locally(self):
        """Whether this process runs the workers of the connections that it holds."""
        return self._serves_locally

    def serve_locally(self):
        """Say that this process runs workers for the connections that it holds: their frames need not leave it."""
        self._serves_locally = True

    def spare_threads(self, patience):
        """Wake another thread for frames of this process only when one has waited ``patience`` seconds."""
        self._local.spare_threads(patience)

    def expect_handshakes_within(self, seconds):
        """Say that a client whose connect has waited ``seconds`` is gone; 5 if nobody says so."""
        self._local.expect_handshakes_within(seconds)

    def withdraw(self, connection):
        """Forget a connection of this process whose connect nobody has taken yet; return whether it is one."""
        return self._local.withdraw(connection)

    def is_idle(self, connection=None):
        """Whether no frame of ``connection``, or of any of this process, waits here or is being handled."""
        # That connections have ended is on its way.
        return self._local.is_idle(connection) and (
            connection is not None or not any(poster.waiting for poster in self._posters.values()))

    def connections_at_rest(self, server, names):
        """Return those of ``names``, connections of ``server``, which is in this process, of which no frame waits or is
        being handled, and what was sent to them has arrived. It may have to wait for Redis.
        """
        if self._serves_locally:
            return self._local.connections_at_rest(server, names)
        found = []
        for index in range(self.ring_size):
            here = [name for name in names if self.consistent_hash(name) == index]
            # Of a shard that is away, nobody knows. The others need not wait for that.
            with contextlib.suppress(*AWAY):
                for start in range(0, len(here), _NAMES_PER_ENTRY):
                    found += self._run('at_rest', index, [self.prefix, *here[start:start + _NAMES_PER_ENTRY]])
        # Whatever their functions have said is in front of this.
        mark, arrived = next(self._tokens), threading.Event()
        self._marks[mark] = arrived
        try:
            self._run('put', self.consistent_hash(server), [
                self.prefix, server, 0, int(self.expiry * 1000), self.serialize({'mark': mark}), 0,
                int(self.group_expiry * 1000)])
            return [name.decode() for name in found] if arrived.wait(_PATIENCE) else []
        finally:
            del self._marks[mark]

    def release(self):
        """Say that this thread is done with the frame that it received before, and asks for no more."""
        # What cannot be told now is told by those who tend the layer.
        with contextlib.suppress(redis.exceptions.RedisError):
            self._take_from_any([])
        for index in list(self._thread.__dict__.get('pipes', ())):
            with contextlib.suppress(*AWAY):
                self._on_pipe(index, Pipe.settle)
        self._account_for_failures()

    def idle(self, connections):
        """Return those of ``connections`` of which no frame waits or is being handled, here or anywhere."""
        idle = self._local.idle(connections)
        if self._serves_locally or not idle:
            return idle
        found = []
        for index, names in self._by_shard(idle).items():
            try:
                found += self._run('idle', index, [self.prefix, *names])
            except AWAY:
                # Of those on this shard, nobody knows.
                if self.ring_size == 1:
                    raise
        return [connection.decode() for connection in found]

    def say_farewell(self, message):
        """Have ``message``, which closes, be the last one of connections whose server was found dead and is not."""
        self._farewell = message

    # ASGI

    def send(self, channel, message):
        """Send ``message``; ``ChannelFull`` if its connection, its server or its channel has too many waiting."""
        self._check(channel, message)
        prefix = self.non_local_name(channel)
        if prefix in self._read_here:
            return self._local.send(channel, message)
        if self._serves_locally and _is_from_server(channel):
            return self._send_here(channel, message)
        try:
            if channel in FRAMES and message.get('reply_channel'):
                refused = self._send_frame(channel, message)
            elif prefix != channel:
                refused = self._send_entry(prefix, [channel], message)
            else:
                refused = self._send_plain(channel, message)
        except AWAY:
            if not _is_from_server(channel):
                raise
            # daphne knows what to do when there is no room: 503 and 1013, which ask the client to come back.
            refused = True
        except OutOfMemory as error:
            if not _is_from_server(channel):
                raise
            logger.error('Refused a message for %s: %s', channel, error)
            refused = True
        if refused:
            raise self.ChannelFull(channel)

    def send_later(self, channel, message, on_failure):
        """Send ``message`` with the next thing that this thread asks of Redis, at the latest when it receives again.

        For the last word of a consumer: it costs no round trip. ``on_failure`` is called, by ``receive``, with what
        ``send`` would have raised. Outside of a frame, and to close, it is sent at once and does raise.
        """
        prefix = self.non_local_name(channel)
        if (getattr(self._thread, 'ticket', None) is None or prefix == channel or prefix in self._read_here or
                message.get('close')):
            return self.send(channel, message)
        self._check(channel, message)
        failures = self._thread.__dict__.setdefault('failures', [])

        def on_reply(reply):
            if reply:
                failures.append((channel, message, reply, on_failure))
        index, args = self._entry(prefix, [channel], message)
        self._shards[index].check()
        self._on_pipe(index, lambda pipe: pipe.hold('put', args, on_reply))

    def send_many(self, channel_names, message):
        """Send ``message`` to many channels at the cost of one entry per server; return the names that were full.

        Connections of this process come first, and a shard that is away costs its own servers only. Then its error is
        raised, with the names that it has cost as ``undelivered`` and those that were full as ``refused``.
        """
        servers, refused, undelivered, failure = {}, [], [], None
        for channel in channel_names:
            self._check(channel, message)
            servers.setdefault(self.non_local_name(channel), []).append(channel)
        for prefix in sorted(servers, key=lambda prefix: prefix not in self._read_here):
            names = servers[prefix]
            if prefix in self._read_here:
                if message.get('close') and not self._serves_locally:
                    self._close(names)
                refused += self._local.send_many(names, message)
                continue
            size = _NAMES_PER_ENTRY if prefix.endswith('!') else 1
            for start in range(0, len(names), size):
                part = names[start:start + size]
                try:
                    if (self._send_entry(prefix, part, message) if size > 1 else self._is_refused(part[0], message)):
                        refused += part
                except (*AWAY, OutOfMemory) as error:
                    undelivered += part
                    failure = failure or error
        if failure is not None:
            failure.undelivered, failure.refused = undelivered, refused
            raise failure
        return refused

    def dead_servers(self, servers=None):
        """Return the servers, prefixes of channel names, that are gone: of all that were heard of, and ``servers``.

        ``servers`` are all that have rows; without them, ``has_forgotten`` says whether it is time to name them.
        """
        return self._leases.dead(servers)

    def has_forgotten(self):
        """Whether ``dead_servers`` has last met a Redis that was restarted and has not been told of all servers."""
        return self._leases.is_new

    def live_servers(self, servers=()):
        """Return the servers, prefixes of channel names, that have just said that they live."""
        return self._leases.alive(servers)

    def statistics(self):
        """Return how many messages wait, by channel, and how many were dropped, by server. For operators: it looks at
        every key of each Redis. What is left of dead servers, and nobody will take any more, does not wait.
        """
        local = self._local.statistics()
        waiting, lost = local['waiting'], dict(local['dropped'])
        for index in range(self.ring_size):
            client = self.connection(index)
            for kind in ('queue:', 'frames:'):
                start = len(self.prefix) + len(kind)
                for key in client.scan_iter(match=self.prefix + kind + '*', count=1000):
                    channel = key.decode()[start:] if kind == 'queue:' else 'frames of connections'
                    waiting[channel] = waiting.get(channel, 0) + client.llen(key)
            for server, count in client.hgetall(self.prefix + 'dropped').items():
                lost[server.decode()] = lost.get(server.decode(), 0) + int(count)
        gone = self._leases.gone(channel for channel in waiting if channel.endswith('!'))
        return {'waiting': {channel: count for channel, count in waiting.items() if count and channel not in gone},
                'dropped': lost}

    def note_dropped(self, servers):
        """Count messages that senders gave up: a dict of servers."""
        for server, count in servers.items():
            # If it cannot be noted: it has been logged by whoever dropped them.
            with contextlib.suppress(redis.exceptions.RedisError):
                self._run('note_dropped', self.consistent_hash(server), [self.prefix, server, count])

    def take_token(self, name, per_second, burst):
        """Take one of ``burst`` tokens of ``name``, which are refilled at ``per_second``. Return the seconds until there is
        one, 0 if it was taken.
        """
        key = hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()
        return float(self._run('take_token', self.consistent_hash(key), [self.prefix, key, per_second / 1000, burst]))

    def forget_server(self, server):
        """Forget a dead server, of which nothing is left."""
        self._leases.forget(server)

    def receive(self, channels, block=False):
        """Return the channel and content of a message, or ``(None, None)``; ``block`` waits for one.

        Asking for more says that this thread is done with the frame that it received before. Trouble with Redis is
        logged and waited out.
        """
        channels = list(channels)
        if self._read_here.issuperset(channels) or (self._serves_locally and all(map(_is_from_server, channels))):
            found = self._local.receive(channels, block)
            return found if found[0] not in _HELD or self._standing.may_serve() else self._judged(*found)
        assert all(self.valid_channel_name(channel, receive=True) for channel in channels), 'Channel name not valid'
        deadline = time.monotonic() + _PATIENCE
        try:
            while True:
                found = self._take_from_any(channels)
                self._account_for_failures()
                left = deadline - time.monotonic()
                if found is not None or not block or left <= 0:
                    self._thread.tries = 0
                    return found or (None, None)
                # No bell rings for a server's sockets: a server asks with receive_twisted().
                is_server = any(channel.endswith('!') for channel in channels)
                self._bells(channels).wait(min(left, 0.01) if is_server else left)
        except redis.exceptions.RedisError:
            # None of the shards could be asked.
            self._account_for_failures()
            tries = self._thread.tries = getattr(self._thread, 'tries', 0) + 1
            time.sleep(pause(tries))
            return None, None

    def receive_many(self, channels, block=False):
        """What Channels' worker calls: ``receive`` under its old name."""
        return self.receive(channels, block)

    def receive_twisted(self, channels):
        """Return a ``Deferred`` of what ``receive`` returns. For daphne, which receives what its connections get."""
        for prefix in channels:
            self._read(prefix)
        return self._local.receive_twisted(channels)

    def deliver_to(self, server, function):
        """Call ``function(channel, message)`` on Twisted's reactor with what is sent to connections of ``server``."""
        self._read(server)
        self._local.deliver_to(server, function)

    # Groups

    def send_group(self, group, message):
        """Send ``message`` to every channel of ``group`` that is not full."""
        assert self.valid_group_name(group), 'Group name not valid'
        self.send_many(self.group_channels(group), message)

    def flush(self):
        """Delete all messages and groups on all shards."""
        super().flush()
        self._local.flush()

    # Serialization: both msgpack 0.5 and 1.x understand this.

    def deserialize(self, message):
        """Return the content of the byte string ``message``."""
        if self.crypter:
            message = self.crypter.decrypt(message)
        return msgpack.unpackb(message, raw=False)

    # Sending

    def _send_here(self, channel, message):
        """Send what the server of this process says to its own workers."""
        if channel in _CONTROLS and message.get('reply_channel'):
            self._count(channel, message['reply_channel'])
        try:
            self._local.send(channel, message)
        except self.ChannelFull:
            # It says no more of this one.
            self._open_here.discard(message.get('reply_channel'))
            raise

    def _count(self, channel, connection):
        """Keep account of the open connections; ``ChannelFull`` for a new one while this server counts as dead."""
        if channel == 'websocket.disconnect':
            self._open_here.discard(connection)
            self._told.pop(connection, None)
        elif self._standing.is_dead:
            raise self.ChannelFull(channel)
        else:
            self._open_here.add(connection)

    def _send_frame(self, channel, message):
        connection = message['reply_channel']
        is_control = channel != 'websocket.receive'
        is_ours = self.non_local_name(connection) in self._read_here
        if is_ours and is_control:
            self._count(channel, connection)
        if channel == 'websocket.disconnect':
            self._stopped.discard(connection)
        elif connection in self._stopped:
            return False
        index, args = self.consistent_hash(connection), [
            self.prefix, connection, channel, 0 if is_control else self.get_capacity(channel),
            int(1000 * (self._local.connect_expiry if channel == CONNECT else 0 if is_control else self.expiry)),
            self.serialize(message), b'' if is_ours else self.serialize(end_of(message)), self.group_expiry]
        if not self._is_on_reactor():
            return self._admitted(connection, self._run('put_frame', index, args))
        home = self._shards[self.consistent_hash(self.non_local_name(connection))]
        if channel == 'websocket.connect' and (home.is_down or self._shards[index].is_down):
            # daphne answers 503 at once. A connection whose answers cannot arrive is none, and nobody tells its end.
            self._open_here.discard(connection)
            return True
        if channel == 'websocket.receive' and home.is_down:
            return self._stop(channel, message, Down('no answer could arrive, Redis{} is away'.format(home.name)))
        if channel == 'websocket.receive':
            if self._on_their_way[connection] >= self.get_capacity(channel):
                # Redis would say so, too, if it said anything.
                return self._stop(channel, message, 1)
            self._on_their_way[connection] += 1
        # The reactor waits for nobody.
        self._post('put_frame', index, args, lambda reply: self._hear_of_frame(channel, message, reply))

    def _admitted(self, connection, reply):
        """Return ``reply``; ``ChannelFull`` with the seconds after which its client is to come back, if it says so."""
        if not isinstance(reply, bytes):
            return reply
        raise self._local.too_many_connects(float(reply))

    def _hear_of_frame(self, channel, message, reply):
        if channel == 'websocket.receive':
            connection = message['reply_channel']
            self._on_their_way[connection] -= 1
            if not self._on_their_way[connection]:
                del self._on_their_way[connection]
        if reply:
            self._stop(channel, message, reply)
        if channel == 'websocket.disconnect':
            # That frames before it were not taken may have been heard since it was sent.
            self._stopped.discard(message['reply_channel'])

    def _stop(self, channel, message, reply):
        """End a connection of this server one of whose frames Redis did not take; ``reply`` is 1 or an exception."""
        if channel == 'websocket.disconnect':
            return self._untold.append(message)
        connection = message['reply_channel']
        is_new = channel == 'websocket.connect'
        if isinstance(reply, bytes):
            # It is turned away, and nobody tells its end.
            self._open_here.discard(connection)
            return self._local.send(connection, {'retry': float(reply)})
        if reply == 2:
            # Somebody has found this server dead.
            self._stopped.add(connection)
            self._local.send(connection, {'close': True} if is_new else self._farewell)
        elif connection not in self._stopped:
            logger.warning('%s %s: %s', 'Refusing' if is_new else 'Closing with 1013', connection,
                           _explained(reply) if isinstance(reply, Exception) else 'too many of its frames wait')
            self._stopped.add(connection)
            self._local.send(connection, {'close': True if is_new else 1013})

    def _send_entry(self, prefix, names, message):
        if message.get('close'):
            # First: a client that is told may say something before we are through.
            self._close(names)
        return self._run('put', *self._entry(prefix, names, message))

    def _close(self, connections):
        for index, names in self._by_shard(connections).items():
            # A shard that is away hands out no frame that would have to be held back, and keeps nobody connected.
            with contextlib.suppress(*AWAY):
                # Until its server has heard of it, or is found dead.
                self._run('close', index, [self.prefix, max(int(self.expiry), 60), *names])

    def _by_shard(self, names):
        by_shard = {}
        for name in names:
            by_shard.setdefault(self.consistent_hash(name), []).append(name)
        return by_shard

    def _entry(self, prefix, names, message):
        """Return on which shard, and with what arguments, 'put' brings ``message`` to the sockets ``names``."""
        is_control = bool(message.get('close') or message.get('accept'))
        return self.consistent_hash(prefix), [
            self.prefix, prefix, 0 if is_control else self.server_capacity,
            # A close is tried until it is done.
            0 if message.get('close') else int(self.expiry * 1000),
            self.serialize({'to': names, 'message': message}), 0,
            int(self.group_expiry * 1000)]

    def _send_plain(self, channel, message):
        args = [self.prefix, channel, self.get_capacity(channel), int(self.expiry * 1000), self.serialize(message), 1,
                int(self.group_expiry * 1000)]
        if '?' in channel:
            index = self.consistent_hash(channel)
            if not self._is_on_reactor():
                return self._run('put', index, args)
            # A worker has asked how far its page has come. It waits, the reactor does not.
            return self._post('put', index, args, lambda reply: reply and self._turn_down(channel, message, reply))
        failure = None
        for _ in range(self.ring_size):
            # Workers read it on every shard.
            index = next(self._send_index_generator)
            try:
                self._shards[index].check()
                if not self._is_on_reactor():
                    return self._run('put', index, args)
                return self._post('put', index, args, lambda reply: reply and self._turn_down(channel, message, reply))
            except AWAY as error:
                failure = error
        raise failure

    def _turn_down(self, channel, message, reply):
        """Send what Redis did not take elsewhere, or answer a page with 503; ``reply`` is 1 or an exception."""
        if isinstance(reply, (redis.exceptions.TimeoutError, Late, Down)) and '?' not in channel:
            # It has not been done there, and will not be.
            try:
                return self._send_plain(channel, message)
            except AWAY as error:
                reply = error
        logger.warning('Redis did not take a message for %s: %s', channel,
                       _explained(reply) if isinstance(reply, Exception) else 'too many wait')
        if channel == 'http.request' and message.get('reply_channel'):
            self._local.send(message['reply_channel'], _UNAVAILABLE)

    def _is_refused(self, channel, message):
        try:
            self.send(channel, message)
        except self.ChannelFull:
            return True
        return False

    # Redis

    def _shard(self, index):
        pool = self.connection(index).connection_pool
        where = pool.connection_kwargs
        name = ' (shard {} of {}, {})'.format(
            index + 1, self.ring_size, where.get('path') or '{}:{}'.format(where.get('host'), where.get('port')))
        return Shard(pool, where['socket_timeout'] or _TIMEOUT, name if self.ring_size > 1 else '')

    def _run(self, name, index, args):
        """Run a script on a shard and return its reply."""
        shard = self._shards[index]
        try:
            shard.check()
        except AWAY as error:
            # Nobody else tells those whose commands this thread has held for it.
            pipe = self._thread.__dict__.get('pipes', {}).pop(index, None)
            if pipe is not None:
                pipe.fail(error)
            raise
        try:
            try:
                return self._on_pipe(index, lambda pipe: pipe.run(name, args))
            except redis.exceptions.ConnectionError:
                # As redis-py does: it may be that only our old connection is gone.
                shard.check()
                return self._on_pipe(index, lambda pipe: pipe.run(name, args))
        except AWAY as error:
            shard.failed(error)
            raise

    def _ask_of_servers(self, name, index, args):
        """Run a script of the leases. Nobody is dead, or alive, just because we cannot ask."""
        try:
            return self._run(name, index, args)
        except AWAY:
            if name not in ('dead', 'living', 'mark_dead') or (name == 'living' and self.ring_size == 1):
                raise
            return []

    def _post(self, name, index, args, on_reply):
        """Have a script run on a shard; ``on_reply`` gets its reply, or an exception, on the reactor."""
        shard = self._shards[index]
        try:
            shard.check()
        except AWAY as error:
            return on_reply(error)
        if index not in self._posters:
            self._posters[index] = Poster(shard)
        self._posters[index].post(name, args, on_reply)

    def _is_on_reactor(self):
        """Whether this thread is the reactor of a daphne, which must not wait."""
        if self._serves_locally or not self._read_here:
            return False
        from twisted.python.threadable import isInIOThread
        return isInIOThread()

    def _on_pipe(self, index, function):
        pipes = self._thread.__dict__.setdefault('pipes', {})
        pipe = pipes.get(index)
        if pipe is None or pipe.pid != os.getpid():
            pipe = pipes[index] = Pipe(self._shards[index])
        try:
            return function(pipe)
        except AWAY as error:
            del pipes[index]
            pipe.fail(error)
            raise
        except redis.exceptions.ResponseError as error:
            raise _explained(error)

    def _let_go(self):
        """Send what is held for a shard that we may not get to."""
        for index in list(self._thread.__dict__.get('pipes', ())):
            # What is lost with a connection comes back to who held it.
            with contextlib.suppress(*AWAY):
                self._on_pipe(index, Pipe.let_go)

    # Receiving

    def _take_from_any(self, channels):
        """Take from the shards in turn, beginning with another one each time."""
        servers = [channel for channel in channels if channel.endswith('!')]
        if servers:
            # An entry for many sockets has been opened before.
            channel, message = self._local.receive(servers)
            if channel is not None:
                return channel, message
        if self.ring_size > 1:
            self._let_go()
        done, self._thread.ticket = getattr(self._thread, 'ticket', None), None
        if done is not None:
            self._tickets.discard(done)
        first = next(self._receive_index_generator) if self.ring_size > 1 else 0
        if done is not None and done.index != first:
            # First: whatever comes of the others, its connection goes on.
            self._end(done)
            done = None
        failure, is_any_up = None, False
        for step in range(self.ring_size):
            index = (first + step) % self.ring_size
            here = [channel for channel in channels if self._is_on(channel, index)]
            own = done if step == 0 else None
            if own is None and not here:
                continue
            token = '{}.{}'.format(self.client_prefix, next(self._tokens))
            try:
                reply = self._run('take', index, [
                    self.prefix, own.connection if own else '', own.token if own else '', token, int(self.lease * 1000),
                    *self._rotated(here)])
            except redis.exceptions.RedisError as error:
                if own is not None:
                    self._unended.append(own)
                if not isinstance(error, AWAY):
                    self._shards[index].refused(error)
                failure = error
                continue
            is_any_up = True
            if reply:
                return self._open(index, token, *reply)
        if not is_any_up and failure is not None:
            raise failure
        return None

    def _end(self, ticket):
        """Tell Redis that a frame has been handled, now or as soon as it is there."""
        try:
            self._run('end', ticket.index, [self.prefix, ticket.connection, ticket.token])
        except redis.exceptions.RedisError:
            self._unended.append(ticket)

    def _account_for_failures(self):
        """Send again what was to be sent later and met a lost connection or script; say why the rest was not sent."""
        failures = self._thread.__dict__.get('failures')
        while failures:
            channel, message, reply, on_failure = failures.pop(0)
            try:
                if not isinstance(reply, Exception):
                    raise self.ChannelFull(channel)
                if not isinstance(reply, (*AWAY, Late, redis.exceptions.NoScriptError)):
                    raise _explained(reply)
                self.send(channel, message)
            except Exception as error:
                try:
                    on_failure(error)
                except Exception:
                    # A frame may have been taken already, and is not to be lost with this.
                    logger.exception('The last message of a frame of %s was lost', channel)

    def _open(self, index, token, entry, connection=None):
        channel, _, payload = entry.split(b'|', 2)
        if connection is not None:
            ticket = self._thread.ticket = _Ticket(index, connection, token)
            self._tickets.add(ticket)
            self._renew_from_now_on()
        if channel == CONNECT.encode():
            self._thread.connected = time.monotonic()
        message = self.deserialize(payload)
        if b'!' in channel:
            name, *others = message['to']
            self._local.send_many(others, message['message'])
            return name, message['message']
        return channel.decode(), message

    def _end_all(self):
        """Let go of the connections of a process that ends in good order, and asks for no more."""
        self._let_go()
        for ticket in [*self._tickets, *self._unended]:
            self._end(ticket)

    def _is_on(self, channel, index):
        # Frames and plain channels are on every shard, the others where their name leads.
        return not ('!' in channel or '?' in channel) or self.consistent_hash(channel) == index

    def _rotated(self, channels):
        # The first channel must not starve the others. Connects are the last, as frames of those who are in come first,
        # unless this thread has taken none for long.
        turn = self._thread.turn = getattr(self._thread, 'turn', 0) + 1
        turn %= len(channels) or 1
        channels = channels[turn:] + channels[:turn]
        if CONNECT in channels:
            is_late = time.monotonic() - getattr(self._thread, 'connected', 0) >= PATIENCE
            channels.remove(CONNECT)
            channels.insert(0 if is_late else len(channels), CONNECT)
        return channels

    def _bells(self, channels):
        bells = self._thread.__dict__.setdefault('bells', {})
        key = tuple(sorted(channels))
        if key not in bells:
            bells[key] = Bells([
                (self._shards[index],
                 [self.prefix + 'bell:' + channel for channel in key if self._is_on(channel, index)])
                for index in range(self.ring_size)])
        return bells[key]

    def _renew_from_now_on(self):
        if self._renewer is None or not self._renewer.is_alive():
            with self._lock:
                if self._renewer is None or not self._renewer.is_alive():
                    self._renewer = threading.Thread(
                        target=_keep_leases, args=(weakref.ref(self),), daemon=True, name='sockets-leases')
                    self._renewer.start()
                    atexit.register(_let_go, weakref.ref(self))

    def _renew(self):
        """Say that the servers of this process live, and that its threads are at work on the frames that they took."""
        for server in list(self._leases.held):
            doubts = self._standing.doubts
            # The shard has said that it is away, and others may not be.
            with contextlib.suppress(*AWAY):
                self._take_answer(server, self._leases.renew(server), doubts)
        now = time.monotonic()
        if now - self._renewed < self.lease / 3:
            return
        self._renewed = now
        for index in range(self.ring_size):
            at_work = [part for ticket in list(self._tickets) if ticket.index == index
                       for part in (ticket.connection, ticket.token)]
            with contextlib.suppress(*AWAY):
                if at_work:
                    self._run('renew', index, [self.prefix, int(self.lease * 1000), *at_work])

    def _tend(self):
        """Do what nobody waits for: end the frames of threads that died, and tell of what has expired."""
        for ticket in list(self._tickets):
            if not ticket.thread.is_alive():
                logger.error('The thread %s ended with a frame of %s in its hands', ticket.thread.name,
                             ticket.connection.decode())
                self._tickets.discard(ticket)
                self._end(ticket)
        for _ in range(len(self._unended)):
            self._end(self._unended.popleft())
        if self._untold:
            from twisted.internet import reactor
            reactor.callFromThread(self._tell_untold)
        now = time.monotonic()
        if now - self._tended < _TELL_EVERY:
            return
        self._tended = now
        with self._lock:
            expired, self._expired = self._expired, collections.Counter()
        self.note_dropped(expired)
        for index in range(self.ring_size):
            with contextlib.suppress(redis.exceptions.RedisError):
                reply = self._run('tell_expired', index, [self.prefix])
                expired.update({name.decode(): int(count) for name, count in zip(reply[::2], reply[1::2])})
        if expired:
            dropped.tell(expired)

    # What others make of us

    def _take_answer(self, server, answer, doubts):
        """Do what the answer to a sign of life asks for."""
        was_dead = self._standing.is_dead
        self._standing.hear(answer, doubts)
        if not self._standing.is_dead:
            return
        if not was_dead:
            logger.error('This server was found dead, or was not at work for too long to know: its connections are '
                         'closed with 1012')
        now = time.monotonic()
        new = self._open_here.difference(self._told)
        self._told.update(dict.fromkeys(new, now))
        self._local.send_many(list(new), self._farewell)
        # Of some that are turned away, nobody says that they have ended.
        for connection in [name for name, since in list(self._told.items()) if now - since > _LAST_WORDS]:
            self._open_here.discard(connection)
            self._told.pop(connection, None)
        if self._open_here or answer not in (FINE, UNKNOWN, GONE):
            return
        if answer == GONE:
            self._leases.unmark_dead(server)
        logger.warning('This server serves again')
        self._standing.is_dead = False

    def _judged(self, channel, message):
        """Return a frame when it is certain that this server is not taken for dead, and nothing if it is."""
        # It may have been dead and live again by then: without those that were open before.
        if self._standing.wait() and message.get('reply_channel') in self._open_here:
            return channel, message
        return None, None

    # Reading for a server

    def _read(self, prefix):
        """Bring what other processes send to the connections of this one."""
        if prefix not in self._read_here:
            self._read_here.add(prefix)
            self._renew_from_now_on()
            if self._serves_locally:
                threading.Thread(target=_note_work, args=(weakref.ref(self._standing),), daemon=True,
                                 name='sockets-standing').start()
            shard = self._shards[self.consistent_hash(prefix)]
            Reader(shard, self.prefix + 'queue:' + prefix, lambda entry: self._deliver(entry, shard.clock.now()),
                   self._tell_untold, _PATIENCE).start()

    def _tell_untold(self):
        """Say again which connections have ended: Redis may be there to hear it."""
        for _ in range(len(self._untold)):
            self.send('websocket.disconnect', self._untold.popleft())

    def _deliver(self, entry, now):
        try:
            _, expires, payload = entry.split(b'|', 2)
            content = self.deserialize(payload)
            if 'mark' in content:
                # Whoever asked may wait no more.
                return self._marks.get(content['mark'], threading.Event()).set()
            # By Redis's clock, which has also said until when it is good.
            if 0 < int(expires) <= now * 1000:
                with self._lock:
                    self._expired[self.non_local_name(content['to'][0])] += len(content['to'])
                return
            full = self._local.send_many(content['to'], content['message'])
        except Exception:
            logger.exception('A message for the connections of this server could not be read')
        else:
            if full:
                logger.error('Dropped a message for %d connections that take none: %s', len(full), ', '.join(full[:5]))

    def _check(self, channel, message):
        assert isinstance(message, dict), 'message is not a dict'
        assert channel in FRAMES or self.valid_channel_name(channel), 'Channel name not valid'


def _keep_leases(layer):
    """Renew the leases of the layer that the weak reference ``layer`` leads to, for as long as it is there."""
    wait = SIGN_OF_LIFE
    while True:
        time.sleep(wait)
        alive = layer()
        if alive is None:
            return
        wait = min(SIGN_OF_LIFE, alive.lease / 3)
        try:
            alive._renew()
            alive._tend()
        except Exception:
            # Without a sign of life, this process would be taken for dead.
            logger.exception('Could not renew the leases')
        del alive


def _note_work(standing):
    """Say that this process is at work, whatever Redis does, while the weak reference ``standing`` leads anywhere."""
    while True:
        alive = standing()
        if alive is None:
            return
        alive.note_work()
        del alive
        time.sleep(SIGN_OF_LIFE)


def _let_go(layer):
    alive = layer()
    if alive is not None:
        alive._end_all()


def _is_from_server(channel):
    """Whether interface servers send on ``channel``."""
    return channel.startswith(('websocket.', 'http.')) and '?' not in channel


def _explained(error):
    if 'OOM' in str(error):
        return OutOfMemory('Redis takes no more messages, it has reached its maxmemory: {}'.format(error))
    return error
