"""How all other messages get to Redis: for connections of other processes, and for channels without a connection."""

import contextlib
import itertools
import logging

import redis

from .errors import AWAY, Down, Late, explained

logger = logging.getLogger('sockets')

# The response if there is no room for the request of a page.
_UNAVAILABLE = {
    'status': 503,
    'headers': [[b'Content-Type', b'text/plain'], [b'Retry-After', b'1']],
    'content': b'Service unavailable',
}


class QueueSender:
    """Puts messages into queues in Redis; it does not block if ``servers`` says that this thread is a reactor."""

    def __init__(self, ring, entries, servers, claims):
        self.ring = ring
        self.entries = entries
        self.servers = servers
        self.claims = claims
        self._turns = itertools.cycle(range(ring.size))

    def send_to_connections(self, server, names, message):
        """Send ``message`` to the connections ``names`` of ``server``; return whether it was refused."""
        if message.get('close'):
            # First: the client may send a frame before this is done.
            self.close(names)
        return self.ring.run('put', self.ring.shard_of(server), self.entries.for_connections(server, names, message))

    def close(self, connections):
        """Let workers take no more frames of ``connections`` but their disconnects."""
        self.claims.drop(connections)
        for index, names in self.ring.by_shard(connections).items():
            # A shard that is away hands out no frames anyway.
            with contextlib.suppress(*AWAY):
                # Long enough for its server to read it, or to be found dead.
                self.ring.run('close', index, [max(int(self.entries.expiry), 60), *names])

    def send_mark(self, server, mark):
        """Send ``mark`` to ``server``, which reads it when it has read all that came before."""
        self.ring.run('put', self.ring.shard_of(server), self.entries.mark(server, mark))

    def send_plain(self, channel, message):
        """Send ``message`` to a channel of no connection; return whether it was refused, if that is known at once."""
        args = self.entries.plain(channel, message)

        def on_reply(reply):
            if reply:
                self._refused(channel, message, reply)

        if '?' in channel:
            index = self.ring.shard_of(channel)
            if not self.servers.is_on_reactor():
                return self.ring.run('put', index, args)
            # The answer for a worker that sends a page. The worker waits; the reactor does not.
            return self.ring.post('put', index, args, on_reply)
        failure = None
        for _ in range(self.ring.size):
            # Workers read it on every shard.
            index = next(self._turns)
            try:
                self.ring.shards[index].check()
                if not self.servers.is_on_reactor():
                    return self.ring.run('put', index, args)
                return self.ring.post('put', index, args, on_reply)
            except AWAY as error:
                failure = error
        raise failure

    def _refused(self, channel, message, reply):
        """Send a message that one Redis did not take to another, or answer a page with 503."""
        if isinstance(reply, (redis.exceptions.TimeoutError, Late, Down)) and '?' not in channel:
            # It was not done there, and will not be.
            try:
                return self.send_plain(channel, message)
            except AWAY as error:
                reply = error
        logger.warning(
            'Redis did not take a message for %s: %s',
            channel,
            explained(reply) if isinstance(reply, Exception) else 'too many wait',
        )
        if channel == 'http.request' and message.get('reply_channel'):
            self.servers.local.send(message['reply_channel'], _UNAVAILABLE)
