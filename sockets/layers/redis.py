"""A channel layer over Redis for many machines, on asgi_redis's hosts, sharding, encryption and names.

Redis holds, per shard, under the layer's prefix:

- ``frames:<connection>``  a list of the frames of one connection that wait, oldest first
- ``queue:<channel>``      a list of the messages of any other channel; a server's sockets share one
- ``ready:<channel>``      a list of connections that wait for a worker, their first frame being of that channel
- ``busy``, ``leases``     who handles a frame of which connection (hash), and until when at most (sorted set)
- ``bell:<channel>``       a list that workers block on: there may be something to take. Only a hint: a worker that
                           dies with it in its hand costs a pause, not a frame

Each step is one script and one round trip: put, take (with the end of the frame before), end.
"""
import collections
import hashlib
import itertools
import logging
import os
import select
import threading
import time

import asgi_redis
import msgpack
import redis

from .inmemory import InMemoryChannelLayer
from .mailboxes import FRAMES

logger = logging.getLogger('sockets')

# Seconds that a blocking receive() waits, and after which a worker looks for leases that have ended.
_PATIENCE = 2
# Names in one entry of send_many(): about 40 kB of them.
_NAMES_PER_ENTRY = 1000
# Entries that a server takes from Redis in one go.
_ENTRIES_PER_READ = 500

# What the scripts share. An entry is "<channel>|<expires, ms>|<payload>"; 0 expires never.
_NOW = """
local function now()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""
_RING = """
local function ring(prefix, channel)
    local bell = prefix .. 'bell:' .. channel
    if redis.call('LLEN', bell) < 100 then
        redis.call('RPUSH', bell, 1)
        redis.call('EXPIRE', bell, 60)
    end
end
"""
_HEAD = """
local function head(key, at)
    while true do
        local entry = redis.call('LINDEX', key, 0)
        if not entry then return nil end
        local channel, expires = string.match(entry, '^([^|]*)|(%d+)|')
        if expires == '0' or tonumber(expires) > at then return channel, entry end
        redis.call('LPOP', key)
    end
end
"""
_FINISH = _NOW + _RING + _HEAD + """
local function settle(prefix, connection, at)
    local channel = head(prefix .. 'frames:' .. connection, at)
    if channel then
        redis.call('RPUSH', prefix .. 'ready:' .. channel, connection)
        ring(prefix, channel)
    end
end
local function finish(prefix, connection, token, at)
    if redis.call('HGET', prefix .. 'busy', connection) == token then
        redis.call('HDEL', prefix .. 'busy', connection)
        redis.call('ZREM', prefix .. 'leases', connection)
        settle(prefix, connection, at)
    end
end
"""

# ARGV: prefix, connection, channel, capacity (0: any number), milliseconds it is worth something (0: forever), payload,
# payload of the disconnect that follows a refusal (or nothing), seconds that a mailbox is kept.
_PUT_FRAME = _NOW + _RING + """
local prefix, connection, channel = ARGV[1], ARGV[2], ARGV[3]
local key, at = prefix .. 'frames:' .. connection, now()
local waiting, refused = redis.call('LLEN', key), 0
local entry
if tonumber(ARGV[4]) > 0 and waiting >= tonumber(ARGV[4]) then
    if ARGV[7] == '' then return 1 end
    refused, channel = 1, 'websocket.disconnect'
    entry = channel .. '|0|' .. ARGV[7]
else
    local expires = ARGV[5] == '0' and '0' or string.format('%d', at + ARGV[5])
    entry = channel .. '|' .. expires .. '|' .. ARGV[6]
end
redis.call('RPUSH', key, entry)
redis.call('EXPIRE', key, ARGV[8])
if waiting == 0 and redis.call('HEXISTS', prefix .. 'busy', connection) == 0 then
    redis.call('RPUSH', prefix .. 'ready:' .. channel, connection)
    ring(prefix, channel)
end
return refused
"""

# ARGV: prefix, channel, capacity (0: any number), milliseconds it is worth something, payload, whether workers read it.
_PUT = _NOW + _RING + _HEAD + """
local prefix, channel = ARGV[1], ARGV[2]
local key = prefix .. 'queue:' .. channel
if tonumber(ARGV[3]) > 0 and redis.call('LLEN', key) >= tonumber(ARGV[3]) and
        (not head(key, now()) or redis.call('LLEN', key) >= tonumber(ARGV[3])) then
    return 1
end
redis.call('RPUSH', key, channel .. '|' .. string.format('%d', now() + ARGV[4]) .. '|' .. ARGV[5])
redis.call('PEXPIRE', key, ARGV[4] + 1000)
if ARGV[6] == '1' then ring(prefix, channel) end
return 0
"""

# ARGV: prefix, connection and token of the frame that is done, token of the next one, lease in ms, channels ...
_TAKE = _FINISH + """
local prefix, at = ARGV[1], now()
if ARGV[2] ~= '' then finish(prefix, ARGV[2], ARGV[3], at) end
for _, connection in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'leases', 0, at, 'LIMIT', 0, 100)) do
    finish(prefix, connection, redis.call('HGET', prefix .. 'busy', connection), at)
end
for index = 6, #ARGV do
    local channel = ARGV[index]
    while true do
        local connection = redis.call('LPOP', prefix .. 'ready:' .. channel)
        if not connection then break end
        if redis.call('HEXISTS', prefix .. 'busy', connection) == 0 then
            local key = prefix .. 'frames:' .. connection
            local first, entry = head(key, at)
            if first == channel then
                redis.call('LPOP', key)
                redis.call('HSET', prefix .. 'busy', connection, ARGV[4])
                redis.call('ZADD', prefix .. 'leases', at + ARGV[5], connection)
                return {entry, connection}
            elseif first then
                settle(prefix, connection, at)
            end
        end
    end
    local _, entry = head(prefix .. 'queue:' .. channel, at)
    if entry then
        redis.call('LPOP', prefix .. 'queue:' .. channel)
        return {entry}
    end
    redis.call('DEL', prefix .. 'bell:' .. channel)
end
return {}
"""

# ARGV: prefix, connection, token.
_END = _FINISH + "finish(ARGV[1], ARGV[2], ARGV[3], now())"

# ARGV: prefix, lease in ms, then connection and token of each frame that is being handled.
_RENEW = _NOW + """
for index = 3, #ARGV, 2 do
    if redis.call('HGET', ARGV[1] .. 'busy', ARGV[index]) == ARGV[index + 1] then
        redis.call('ZADD', ARGV[1] .. 'leases', now() + ARGV[2], ARGV[index])
    end
end
"""


_SCRIPTS = {name: (hashlib.sha1(text.encode()).hexdigest(), text) for name, text in (
    ('put_frame', _PUT_FRAME), ('put', _PUT), ('take', _TAKE), ('end', _END), ('renew', _RENEW))}


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

    def __init__(self, *args, server_capacity=10000, lease=10, **kwargs):
        super().__init__(*args, **kwargs)
        self.server_capacity = server_capacity
        self.lease = lease
        self._local = InMemoryChannelLayer(
            expiry=self.expiry, group_expiry=self.group_expiry, capacity=self.capacity,
            channel_capacity=dict(self.channel_capacity), server_capacity=max(server_capacity, 100000))
        self._serves_locally = False
        self._read_here = set()
        self._thread = threading.local()
        self._tickets = set()
        self._tokens = itertools.count()
        # Connections that sent more than there was room for, and ends that Redis could not be told of.
        self._flooding = set()
        self._untold = collections.deque()
        self._renewer = None
        self._lock = threading.Lock()
        self._trouble = _Trouble()

    def serve_locally(self):
        """Say that this process runs workers for the connections that it holds: their frames need not leave it."""
        self._serves_locally = True

    def is_idle(self):
        """Whether no frame of a connection of this process waits here and none is being handled."""
        return self._local.is_idle()

    # ASGI

    def send(self, channel, message):
        """Send ``message``; ``ChannelFull`` if its connection, its server or its channel has too many waiting."""
        self._check(channel, message)
        prefix = self.non_local_name(channel)
        if prefix in self._read_here or (self._serves_locally and _is_from_server(channel)):
            return self._local.send(channel, message)
        try:
            if channel in FRAMES and message.get('reply_channel'):
                refused = self._send_frame(channel, message)
            elif prefix != channel:
                refused = self._send_entry(prefix, [channel], message, waits=not self._is_handling)
            else:
                refused = self._send_plain(channel, message)
        except redis.exceptions.ConnectionError as error:
            if not _is_from_server(channel):
                raise
            # daphne knows what to do when there is no room: 503 and 1013, which ask the client to come back.
            self._trouble.begins(error)
            if channel in ('websocket.receive', 'websocket.disconnect'):
                self._untold.append(message if channel == 'websocket.disconnect' else _end_of(message))
            refused = channel != 'websocket.disconnect'
        except redis.exceptions.ResponseError as error:
            raise _explained(error)
        if refused:
            raise self.ChannelFull(channel)

    def send_many(self, channel_names, message):
        """Send ``message`` to many channels at the cost of one entry per server; return the names that were full."""
        servers, refused = {}, []
        for channel in channel_names:
            self._check(channel, message)
            servers.setdefault(self.non_local_name(channel), []).append(channel)
        for prefix, names in servers.items():
            if prefix in self._read_here:
                refused += self._local.send_many(names, message)
            elif not prefix.endswith('!'):
                refused += [name for name in names if self._is_refused(name, message)]
            else:
                for start in range(0, len(names), _NAMES_PER_ENTRY):
                    part = names[start:start + _NAMES_PER_ENTRY]
                    try:
                        if self._send_entry(prefix, part, message):
                            refused += part
                    except redis.exceptions.ResponseError as error:
                        raise _explained(error)
        return refused

    def receive(self, channels, block=False):
        """Return the channel and content of a message, or ``(None, None)``; ``block`` waits for one.

        Asking for more says that this thread is done with the frame that it received before. Trouble with Redis is
        logged and waited out.
        """
        channels = list(channels)
        if self._serves_locally or self._read_here.issuperset(channels):
            return self._local.receive(channels, block)
        assert all(self.valid_channel_name(channel, receive=True) for channel in channels), 'Channel name not valid'
        deadline = time.monotonic() + _PATIENCE
        try:
            while True:
                found = self._take_from_any(channels)
                left = deadline - time.monotonic()
                if found is not None or not block or left <= 0:
                    self._trouble.is_over()
                    return found or (None, None)
                # No bell rings for a server's sockets: a server asks with receive_twisted().
                is_server = any(channel.endswith('!') for channel in channels)
                self._bells(channels).wait(min(left, 0.01) if is_server else left)
        except redis.exceptions.ConnectionError as error:
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

    def _send_frame(self, channel, message):
        connection = message['reply_channel']
        is_control = channel != 'websocket.receive'
        # The reactor waits for nobody: what Redis answers is read before the next frame is sent.
        waits = self.non_local_name(connection) not in self._read_here
        if channel == 'websocket.disconnect':
            self._flooding.discard(connection)
        elif connection in self._flooding:
            return False
        return self._run('put_frame', self.consistent_hash(connection), [
            self.prefix, connection, channel, 0 if is_control else self.get_capacity(channel),
            0 if is_control else int(self.expiry * 1000), self.serialize(message),
            self.serialize(_end_of(message)) if waits else b'', self.group_expiry,
        ], None if waits else lambda refused: refused and self._stop_flood(connection))

    def _stop_flood(self, connection):
        self._flooding.add(connection)
        self._local.send(connection, {'close': 1013})

    def _send_entry(self, prefix, names, message, waits=True):
        is_control = bool(message.get('close') or message.get('accept'))
        args = [self.prefix, prefix, 0 if is_control else self.server_capacity, int(self.expiry * 1000),
                self.serialize({'to': names, 'message': message}), 0]
        index = self.consistent_hash(prefix)
        return self._run('put', index, args, None if waits else lambda refused: refused and self._insist(index, args))

    def _insist(self, index, args):
        """Try again to send what a handler sent some time ago, when it was not told that there was no room."""
        deadline = time.monotonic() + _PATIENCE
        while self._run('put', index, args):
            if time.monotonic() > deadline:
                logger.error('Gave up a message: the mailbox of %s takes none', args[1])
                return
            time.sleep(0.01)

    def _send_plain(self, channel, message):
        index = self.consistent_hash(channel) if '?' in channel else next(self._send_index_generator)
        return self._run('put', index, [self.prefix, channel, self.get_capacity(channel), int(self.expiry * 1000),
                                        self.serialize(message), 1])

    def _is_refused(self, channel, message):
        try:
            self.send(channel, message)
        except self.ChannelFull:
            return True
        return False

    # Redis

    @property
    def _is_handling(self):
        return getattr(self._thread, 'ticket', None) is not None

    def _run(self, name, index, args, on_reply=None):
        """Run a script on a shard and return its reply; with ``on_reply``, do not wait for it."""
        pipes = self._thread.__dict__.setdefault('pipes', {})
        pipe = pipes.get(index)
        if pipe is None or pipe.pid != os.getpid():
            pipe = pipes[index] = _Pipe(self.connection(index).connection_pool)
        try:
            pipe.post(name, args, on_reply)
            return None if on_reply is not None else pipe.reply()
        except redis.exceptions.ConnectionError:
            del pipes[index]
            raise

    # Receiving

    def _take_from_any(self, channels):
        """Take from the shards in turn, beginning with another one each time."""
        servers = [channel for channel in channels if channel.endswith('!')]
        if servers:
            # An entry for many sockets has been opened before.
            channel, message = self._local.receive(servers)
            if channel is not None:
                return channel, message
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
            bells[key] = _Bells([
                (self.connection(index).connection_pool,
                 [self.prefix + 'bell:' + channel for channel in key if self._is_on(channel, index)])
                for index in range(self.ring_size)])
        return bells[key]

    def _renew_from_now_on(self):
        if self._renewer is None or not self._renewer.is_alive():
            with self._lock:
                if self._renewer is None or not self._renewer.is_alive():
                    self._renewer = threading.Thread(target=self._keep_leases, daemon=True, name='sockets-leases')
                    self._renewer.start()

    def _keep_leases(self):
        """Renew the leases of the frames that threads of this process are at work on, while it lives."""
        while True:
            time.sleep(self.lease / 3)
            for index in range(self.ring_size):
                at_work = [part for ticket in list(self._tickets) if ticket.index == index
                           for part in (ticket.connection, ticket.token)]
                try:
                    if at_work:
                        self._run('renew', index, [self.prefix, int(self.lease * 1000), *at_work])
                except redis.exceptions.RedisError as error:
                    self._trouble.begins(error)

    # Reading for a server

    def _read(self, prefix):
        if prefix not in self._read_here:
            self._read_here.add(prefix)
            threading.Thread(target=self._keep_reading, args=(prefix, os.getpid()), daemon=True,
                             name='sockets-' + prefix).start()

    def _keep_reading(self, prefix, pid):
        """Bring what other processes send to the connections of this one."""
        key = self.prefix + 'queue:' + prefix
        client = self.connection(self.consistent_hash(prefix))
        while os.getpid() == pid:
            try:
                first = client.blpop(key, timeout=_PATIENCE)
                self._trouble.is_over()
                while self._untold:
                    self.send('websocket.disconnect', self._untold.popleft())
                if first is None:
                    continue
                with client.pipeline() as pipeline:
                    pipeline.lrange(key, 0, _ENTRIES_PER_READ - 1).ltrim(key, _ENTRIES_PER_READ, -1)
                    entries = [first[1]] + pipeline.execute()[0]
            except redis.exceptions.RedisError as error:
                self._trouble.begins(error)
                self._trouble.pause()
                continue
            for entry in entries:
                try:
                    self._deliver(entry)
                except Exception:
                    logger.exception('A message for %s could not be read', prefix)

    def _deliver(self, entry):
        _, expires, payload = entry.split(b'|', 2)
        if int(expires) <= time.time() * 1000:
            return
        content = self.deserialize(payload)
        full = self._local.send_many(content['to'], content['message'])
        if full:
            logger.error('Dropped a message for %d connections that take none: %s', len(full), ', '.join(full[:5]))

    def _check(self, channel, message):
        assert isinstance(message, dict), 'message is not a dict'
        assert self.valid_channel_name(channel), 'Channel name not valid'


class _Pipe:
    """A connection of one thread to one shard. Replies come in the order of the commands, and may be read later."""

    # Replies that may wait to be read.
    patience = 500

    def __init__(self, pool):
        self.pid = os.getpid()
        self.connection = pool.connection_class(**pool.connection_kwargs)
        self.waiting = collections.deque()

    def post(self, name, args, on_reply):
        """Send the command now. ``on_reply`` is called with its reply when that is read."""
        if self.waiting:
            self._read(blocks=len(self.waiting) >= self.patience)
        # Nobody may be there in time to hear that Redis has forgotten the script: it comes along.
        command = ('EVALSHA', _SCRIPTS[name][0]) if on_reply is None else ('EVAL', _SCRIPTS[name][1])
        self.connection.send_command(*command, 0, *args)
        self.waiting.append((name, args, on_reply))

    def reply(self):
        """Return the reply to the last command, after those to all before it."""
        name, args, _ = self.waiting[-1]
        reply = self._read(blocks=True)
        if isinstance(reply, redis.exceptions.NoScriptError):
            self.connection.send_command('EVAL', _SCRIPTS[name][1], 0, *args)
            reply = self._response()
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _read(self, blocks):
        """Read replies, all or those that are there, and return the last one."""
        reply, due = None, []
        while self.waiting and (blocks or self.connection.can_read()):
            _, _, on_reply = self.waiting.popleft()
            reply = self._response()
            if on_reply is not None:
                due.append((on_reply, reply))
        for on_reply, earlier in due:
            if isinstance(earlier, Exception):
                logger.error('Redis took no message: %s', _explained(earlier))
            else:
                on_reply(earlier)
        return reply

    def _response(self):
        try:
            return self.connection.read_response()
        except redis.exceptions.ResponseError as error:
            return error


class _Bells:
    """Blocks until something can be taken on any shard. One connection per shard, whose BLPOP may outlast a wait."""

    def __init__(self, shards):
        self.bells = []
        for pool, keys in shards:
            if keys:
                connection = pool.connection_class(**pool.connection_kwargs)
                self.bells.append([connection, keys, False])

    def wait(self, seconds):
        """Return when a bell has rung, or after ``seconds``."""
        for bell in self.bells:
            connection, keys, is_waiting = bell
            if not is_waiting:
                connection.send_command('BLPOP', *keys, 0)
                bell[2] = True
        ready, _, _ = select.select([connection._sock for connection, _, _ in self.bells], [], [], seconds)
        for bell in self.bells:
            if bell[0]._sock in ready:
                bell[0].read_response()
                bell[2] = False


class _Trouble:
    """Says once that Redis is away, and once that it is back."""

    def __init__(self):
        self.since = None
        self.tries = 0

    def begins(self, error):
        if self.since is None:
            self.since = time.monotonic()
            logger.error('Redis is away, trying again: %s', error)

    def is_over(self):
        if self.since is not None:
            logger.warning('Redis is back after %.1f s', time.monotonic() - self.since)
            self.since, self.tries = None, 0

    def pause(self):
        self.tries += 1
        time.sleep(min(0.05 * 2 ** min(self.tries, 5), 1))


def _is_from_server(channel):
    """Whether interface servers send on ``channel``."""
    return channel.startswith(('websocket.', 'http.')) and '?' not in channel


def _end_of(message):
    """Return the disconnect of a connection that daphne closes with 1013, and of which it says nothing more."""
    return {'reply_channel': message['reply_channel'], 'path': message.get('path'), 'code': 1013,
            'order': message.get('order')}


def _explained(error):
    if 'OOM' in str(error):
        return OutOfMemory('Redis takes no more messages, it has reached its maxmemory: {}'.format(error))
    return error
