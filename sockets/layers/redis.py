"""A channel layer over Redis for many machines, on asgi_redis's hosts, sharding, encryption and names.

Each step is one of the scripts and one round trip: put, take (with the end of the frame before), end.
"""
import atexit
import collections
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

from .connections import AWAY, Bells, Pipe, Reader, pause
from .inmemory import InMemoryChannelLayer
from .leases import SIGN_OF_LIFE, RedisLeases
from .mailboxes import FRAMES, end_of
from .scripts import FINE, GONE, UNKNOWN, VERSION
from .standing import Standing

logger = logging.getLogger('sockets')

# Seconds that a blocking receive() waits, and after which a worker looks for leases that have ended.
_PATIENCE = 2
# Names in one entry of send_many(): about 40 kB of them.
_NAMES_PER_ENTRY = 1000

# What no route hears while others may take this server for dead, and what opens and ends connections.
_HELD = frozenset(['websocket.connect', 'websocket.receive'])
_CONTROLS = frozenset(['websocket.connect', 'websocket.disconnect'])

# Seconds that a daphne which stops waits for its clients to answer a close.
_FAREWELL = 3


class OutOfMemory(redis.exceptions.ResponseError):
    """Redis has reached its ``maxmemory`` and takes no messages: give it more, or find out what fills it."""


class _Ticket:
    """A frame that this thread is handling."""

    def __init__(self, index, connection, token):
        self.index = index
        self.connection = connection
        self.token = token


class RedisChannelLayer(asgi_redis.RedisChannelLayer):
    """ASGI channel layer over Redis: drop-in for ``asgi_redis.RedisChannelLayer``, whose options it takes.

    ``capacity`` and ``channel_capacity`` count per connection and channel, ``server_capacity`` what may wait for all
    connections of one server together. Frames of a connection are received one at a time and in order, across all
    workers; ``lease`` is how many seconds a worker that died in the middle of one holds its connection up.

    A process that calls ``serve_locally`` keeps what belongs to its own connections to itself.
    """

    extensions = ['groups', 'flush', 'twisted']
    keeps_order = True

    def __init__(self, expiry=60, hosts=None, prefix='sockets:', *args, server_capacity=10000, lease=10, **kwargs):
        if 'services' in kwargs:
            raise ImproperlyConfigured(
                "sockets.layers.RedisChannelLayer does not ask a Redis Sentinel ('services'). Name the Redis itself in "
                "'hosts', or take the BACKEND 'asgi_redis.RedisSentinelChannelLayer'.")
        # Whoever writes another version of what is in Redis, or writes as asgi_redis does, has other keys.
        super().__init__(expiry, hosts, '{}{}:'.format(prefix, VERSION), *args, **kwargs)
        self.server_capacity = server_capacity
        self.lease = lease
        self._leases = RedisLeases(self._run, self._attempt, self.consistent_hash, self.ring_size, self.prefix)
        # It holds them for the servers that it delivers to.
        self._local = InMemoryChannelLayer(
            expiry=self.expiry, group_expiry=self.group_expiry, capacity=self.capacity,
            channel_capacity=dict(self.channel_capacity), server_capacity=max(server_capacity, 100000),
            leases=self._leases)
        self._serves_locally = False
        self._read_here = set()
        self._thread = threading.local()
        self._tickets = set()
        self._tokens = itertools.count()
        self._renewed = 0
        # Connections that we close because Redis took no frame of theirs, and ends that it could not be told of.
        self._stopped = set()
        self._untold = collections.deque()
        # Connections of the server in this process, and those of them that were told why they end.
        self._open_here = set()
        self._told = set()
        self._farewell = {'close': 1012}
        self._standing = Standing(self._leases.lease)
        self._renewer = None
        self._lock = threading.Lock()
        self._trouble = _Trouble()

    def serve_locally(self):
        """Say that this process runs workers for the connections that it holds: their frames need not leave it."""
        self._serves_locally = True

    def spare_threads(self, patience):
        """Wake another thread for frames of this process only when one has waited ``patience`` seconds."""
        self._local.spare_threads(patience)

    def is_idle(self, connection=None):
        """Whether no frame of ``connection``, or of any of this process, waits here or is being handled."""
        return self._local.is_idle(connection)

    def idle(self, connections):
        """Return those of ``connections`` of which no frame waits or is being handled, here or anywhere."""
        idle = self._local.idle(connections)
        if self._serves_locally or not idle:
            return idle
        return [connection.decode() for index, names in self._by_shard(idle).items()
                for connection in self._run('idle', index, [self.prefix, *names])]

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
        except AWAY as error:
            if not _is_from_server(channel):
                raise
            # daphne knows what to do when there is no room: 503 and 1013, which ask the client to come back.
            self._trouble.begins(error)
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
        self._on_pipe(index, lambda pipe: pipe.hold('put', args, on_reply))

    def send_many(self, channel_names, message):
        """Send ``message`` to many channels at the cost of one entry per server; return the names that were full."""
        servers, refused = {}, []
        for channel in channel_names:
            self._check(channel, message)
            servers.setdefault(self.non_local_name(channel), []).append(channel)
        for prefix, names in servers.items():
            if prefix in self._read_here:
                if message.get('close') and not self._serves_locally:
                    self._close(names)
                refused += self._local.send_many(names, message)
            elif not prefix.endswith('!'):
                refused += [name for name in names if self._is_refused(name, message)]
            else:
                for start in range(0, len(names), _NAMES_PER_ENTRY):
                    part = names[start:start + _NAMES_PER_ENTRY]
                    if self._send_entry(prefix, part, message):
                        refused += part
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
        every key of each Redis.
        """
        waiting, dropped = self._local.statistics()['waiting'], {}
        for index in range(self.ring_size):
            client = self.connection(index)
            for kind in ('queue:', 'frames:'):
                start = len(self.prefix) + len(kind)
                for key in client.scan_iter(match=self.prefix + kind + '*', count=1000):
                    channel = key.decode()[start:] if kind == 'queue:' else 'frames of connections'
                    waiting[channel] = waiting.get(channel, 0) + client.llen(key)
            for server, count in client.hgetall(self.prefix + 'dropped').items():
                dropped[server.decode()] = dropped.get(server.decode(), 0) + int(count)
        return {'waiting': {channel: count for channel, count in waiting.items() if count}, 'dropped': dropped}

    def note_dropped(self, servers):
        """Count messages that senders gave up: a dict of servers."""
        try:
            for server, count in servers.items():
                client = self.connection(self.consistent_hash(server))
                client.hincrby(self.prefix + 'dropped', server, count)
                client.expire(self.prefix + 'dropped', 86400)
        except redis.exceptions.RedisError as error:
            # It has been logged by whoever dropped them.
            self._trouble.begins(error)

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
                    self._trouble.is_over()
                    return found or (None, None)
                # No bell rings for a server's sockets: a server asks with receive_twisted().
                is_server = any(channel.endswith('!') for channel in channels)
                self._bells(channels).wait(min(left, 0.01) if is_server else left)
        except redis.exceptions.RedisError as error:
            self._thread.__dict__.pop('bells', None)
            self._trouble.begins(error)
            self._trouble.pause()
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
            self._told.discard(connection)
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
            0 if is_control else int(self.expiry * 1000), self.serialize(message),
            b'' if is_ours else self.serialize(end_of(message)), self.group_expiry]
        if not is_ours or channel == 'websocket.connect':
            try:
                refused = self._run('put_frame', index, args)
            except redis.exceptions.RedisError:
                self._open_here.discard(connection)
                raise
            if refused:
                self._open_here.discard(connection)
            return refused
        # The reactor waits for nobody: what Redis answers is read when it next has something to do with Redis.
        self._post('put_frame', index, args, lambda reply: reply and self._stop(channel, message, reply))

    def _stop(self, channel, message, reply):
        """End a connection of this server one of whose frames Redis did not take; ``reply`` is 1 or an exception."""
        if channel == 'websocket.disconnect':
            return self._untold.append(message)
        connection = message['reply_channel']
        if reply == 2:
            # Somebody has found this server dead.
            self._stopped.add(connection)
            self._local.send(connection, self._farewell)
        elif connection not in self._stopped:
            logger.warning('Closing %s with 1013: %s', connection,
                           _explained(reply) if isinstance(reply, Exception) else 'too many of its frames wait')
            self._stopped.add(connection)
            self._local.send(connection, {'close': 1013})

    def _send_entry(self, prefix, names, message):
        if message.get('close'):
            # First: a client that is told may say something before we are through.
            self._close(names)
        return self._run('put', *self._entry(prefix, names, message))

    def _close(self, connections):
        for index, names in self._by_shard(connections).items():
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
        index = self.consistent_hash(channel) if '?' in channel else next(self._send_index_generator)
        return self._run('put', index, [self.prefix, channel, self.get_capacity(channel), int(self.expiry * 1000),
                                        self.serialize(message), 1, int(self.group_expiry * 1000)])

    def _is_refused(self, channel, message):
        try:
            self.send(channel, message)
        except self.ChannelFull:
            return True
        return False

    # Redis

    def _run(self, name, index, args):
        """Run a script on a shard and return its reply."""
        try:
            return self._on_pipe(index, lambda pipe: pipe.run(name, args))
        except redis.exceptions.ConnectionError:
            # As redis-py does: it may be that only our old connection is gone.
            return self._on_pipe(index, lambda pipe: pipe.run(name, args))

    def _attempt(self, name, index, args):
        """Run a script on a shard and return its reply, or ``None`` if that is away."""
        try:
            return self._run(name, index, args)
        except AWAY as error:
            self._trouble.begins(error)

    def _post(self, name, index, args, on_reply):
        """Have a script run on a shard; ``on_reply`` gets its reply, or an exception, some time."""
        self._collect(index)
        try:
            self._on_pipe(index, lambda pipe: pipe.post(name, args, on_reply))
        except AWAY as error:
            self._trouble.begins(error)

    def _collect(self, index):
        """Read the replies that are there to what was posted."""
        try:
            self._on_pipe(index, Pipe.read)
        except AWAY as error:
            self._trouble.begins(error)

    def _on_pipe(self, index, function):
        pipes = self._thread.__dict__.setdefault('pipes', {})
        pipe = pipes.get(index)
        if pipe is None or pipe.pid != os.getpid():
            pipe = pipes[index] = Pipe(self.connection(index).connection_pool)
        try:
            return function(pipe)
        except AWAY as error:
            del pipes[index]
            pipe.fail(error)
            raise
        except redis.exceptions.ResponseError as error:
            raise _explained(error)

    def _on_all_pipes(self, function):
        for index in list(self._thread.__dict__.get('pipes', ())):
            self._on_pipe(index, function)

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
            # What is held may be for a shard that we do not get to.
            self._on_all_pipes(Pipe.let_go)
        done, self._thread.ticket = getattr(self._thread, 'ticket', None), None
        if done is not None:
            self._tickets.discard(done)
        first = next(self._receive_index_generator) if self.ring_size > 1 else 0
        for step in range(self.ring_size):
            index = (first + step) % self.ring_size
            here = [channel for channel in channels if self._is_on(channel, index)]
            own = done if done is not None and done.index == index else None
            if own is None and not here:
                continue
            token = '{}.{}'.format(self.client_prefix, next(self._tokens))
            reply = self._run('take', index, [
                self.prefix, own.connection if own else '', own.token if own else '', token, int(self.lease * 1000),
                *self._rotated(here)])
            if own is not None:
                done = None
            if reply:
                if done is not None:
                    self._run('end', done.index, [self.prefix, done.connection, done.token])
                return self._open(index, token, *reply)
        return None

    def _account_for_failures(self):
        """Send again what was to be sent later and met a lost connection or script; say why the rest was not sent."""
        failures = self._thread.__dict__.get('failures')
        while failures:
            channel, message, reply, on_failure = failures.pop(0)
            try:
                if not isinstance(reply, Exception):
                    raise self.ChannelFull(channel)
                if not isinstance(reply, (redis.exceptions.ConnectionError, redis.exceptions.NoScriptError)):
                    raise _explained(reply)
                self.send(channel, message)
            except Exception as error:
                on_failure(error)

    def _open(self, index, token, entry, connection=None):
        channel, _, payload = entry.split(b'|', 2)
        if connection is not None:
            ticket = self._thread.ticket = _Ticket(index, connection, token)
            self._tickets.add(ticket)
            self._renew_from_now_on()
        message = self.deserialize(payload)
        if b'!' in channel:
            name, *others = message['to']
            self._local.send_many(others, message['message'])
            return name, message['message']
        return channel.decode(), message

    def _end_all(self):
        """Let go of the connections of a process that ends in good order, and asks for no more."""
        try:
            self._on_all_pipes(Pipe.let_go)
            for ticket in list(self._tickets):
                self._run('end', ticket.index, [self.prefix, ticket.connection, ticket.token])
        except redis.exceptions.RedisError as error:
            self._trouble.begins(error)

    def _is_on(self, channel, index):
        # Frames and plain channels are on every shard, the others where their name leads.
        return not ('!' in channel or '?' in channel) or self.consistent_hash(channel) == index

    def _rotated(self, channels):
        # The first channel must not starve the others.
        turn = self._thread.turn = getattr(self._thread, 'turn', 0) + 1
        turn %= len(channels) or 1
        return channels[turn:] + channels[:turn]

    def _bells(self, channels):
        bells = self._thread.__dict__.setdefault('bells', {})
        key = tuple(sorted(channels))
        if key not in bells:
            bells[key] = Bells([
                (self.connection(index).connection_pool,
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
        try:
            for server in list(self._leases.held):
                doubts = self._standing.doubts
                self._take_answer(server, self._leases.renew(server), doubts)
        except redis.exceptions.RedisError as error:
            self._trouble.begins(error)
        now = time.monotonic()
        if now - self._renewed < self.lease / 3:
            return
        self._renewed = now
        for index in range(self.ring_size):
            at_work = [part for ticket in list(self._tickets) if ticket.index == index
                       for part in (ticket.connection, ticket.token)]
            try:
                if at_work:
                    self._run('renew', index, [self.prefix, int(self.lease * 1000), *at_work])
            except redis.exceptions.RedisError as error:
                self._trouble.begins(error)

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
        new = self._open_here - self._told
        self._told |= new
        self._local.send_many(list(new), self._farewell)
        if self._open_here or answer not in (FINE, UNKNOWN, GONE):
            return
        if answer == GONE:
            self._leases.dig_out(server)
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
            from twisted.internet import reactor
            if not self._serves_locally:
                reactor.addSystemEventTrigger('before', 'shutdown', self._leave)
            self._read_here.add(prefix)
            self._renew_from_now_on()
            if self._serves_locally:
                threading.Thread(target=_note_work, args=(weakref.ref(self._standing),), daemon=True,
                                 name='sockets-standing').start()
            Reader(self.connection(self.consistent_hash(prefix)).connection_pool, self.prefix + 'queue:' + prefix,
                   self._deliver, self._catch_up, self._trouble.begins, _PATIENCE).start()

    def _leave(self):
        """Close the connections of a daphne that stops, with 1012, and wait until it has said that they ended."""
        from twisted.internet import defer, reactor
        left = defer.Deferred()
        deadline = time.monotonic() + _FAREWELL
        for connection in list(self._open_here):
            self._local.send(connection, {'close': 1012})

        def look():
            if not self._open_here or time.monotonic() > deadline:
                left.callback(None)
            else:
                reactor.callLater(0.02, look)
        look()
        return left

    def _catch_up(self):
        """Do what has waited for Redis to answer."""
        self._trouble.is_over()
        for index in list(self._thread.__dict__.get('pipes', ())):
            self._collect(index)
        for _ in range(len(self._untold)):
            self.send('websocket.disconnect', self._untold.popleft())

    def _deliver(self, entry):
        try:
            _, expires, payload = entry.split(b'|', 2)
            if 0 < int(expires) <= time.time() * 1000:
                return
            content = self.deserialize(payload)
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
        alive._renew()
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


class _Trouble:
    """Says once that Redis is away, and once that it is back, whichever threads notice."""

    def __init__(self):
        self.since = None
        self.tries = 0
        self.lock = threading.Lock()

    def begins(self, error):
        with self.lock:
            is_news, self.since = self.since is None, self.since or time.monotonic()
        if is_news:
            logger.error('Redis is away, trying again: %s', error)

    def is_over(self):
        # Asked with each message; nearly always there is none.
        if self.since is None:
            return
        with self.lock:
            since, self.since, self.tries = self.since, None, 0
        if since is not None:
            logger.warning('Redis is back after %.1f s', time.monotonic() - since)

    def pause(self):
        self.tries += 1
        time.sleep(pause(self.tries))


def _is_from_server(channel):
    """Whether interface servers send on ``channel``."""
    return channel.startswith(('websocket.', 'http.')) and '?' not in channel


def _explained(error):
    if 'OOM' in str(error):
        return OutOfMemory('Redis takes no more messages, it has reached its maxmemory: {}'.format(error))
    return error
