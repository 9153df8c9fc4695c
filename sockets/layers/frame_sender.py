"""How frames of connections get to Redis, and what happens to a connection if Redis does not take one."""

import collections
import logging

from .errors import Down, explained
from .mailbox import queue_of

logger = logging.getLogger('sockets')


class FrameSender:
    """Sends frames of connections: on the reactor of their server without waiting for the reply, elsewhere with.

    ``servers`` are those of this process (``LocalServers``), whose connections it closes.
    """

    def __init__(self, ring, entries, servers):
        self.ring = ring
        self.entries = entries
        self.servers = servers
        self.local = servers.local
        # How many frames of each connection wait in our memory for Redis to take them.
        self.in_flight = collections.Counter()
        # Connections that we close because Redis did not take a frame, and disconnects that it did not take.
        self.stopped = set()
        self._unreported = collections.deque()

    def send(self, channel, message):
        """Send a frame; return whether it was refused, as far as that is known at once."""
        connection = message['reply_channel']
        is_ours = self.servers.holds(connection)
        if is_ours and channel != 'websocket.receive':
            self.servers.note(channel, connection)
        if channel == 'websocket.disconnect':
            self.stopped.discard(connection)
        elif connection in self.stopped:
            return False
        index = self.ring.shard_of(connection)
        args = self.entries.frame(channel, message, self.local.connect_expiry, has_end=not is_ours)
        if self.servers.is_on_reactor():
            return self._post(channel, message, index, args)
        (reply,) = self.ring.run('put_frames', index, [self.entries.group_expiry, *args])
        if isinstance(reply, bytes):
            raise self.local.too_many_connects(float(reply))
        return reply

    def report_ends(self):
        """Send again the disconnects that Redis did not take. To be called on the reactor."""
        for _ in range(len(self._unreported)):
            self.send('websocket.disconnect', self._unreported.popleft())

    def report_ends_later(self):
        """Have the reactor send again the disconnects that Redis did not take."""
        if self._unreported:
            from twisted.internet import reactor

            reactor.callFromThread(self.report_ends)

    def _post(self, channel, message, index, args):
        """Send a frame without waiting for Redis; return whether it was refused at once."""
        connection = message['reply_channel']
        server_shard = self.ring.shards[self.ring.shard_of(queue_of(connection))]
        if channel == 'websocket.connect' and (server_shard.is_down or self.ring.shards[index].is_down):
            # daphne answers 503 at once, and sends no disconnect.
            self.servers.connections.discard(connection)
            return True
        if channel == 'websocket.receive':
            if server_shard.is_down:
                return self._stop(channel, message, Down(f'no answer could arrive, Redis{server_shard.name} is away'))
            if self.in_flight[connection] >= self.entries.capacity_of(channel):
                # Redis would refuse it as well, if it answered.
                return self._stop(channel, message, 1)
            self.in_flight[connection] += 1
        self.ring.post_frame(
            index, self.entries.group_expiry, args, lambda reply: self._take_reply(channel, message, reply)
        )

    def _take_reply(self, channel, message, reply):
        if channel == 'websocket.receive':
            connection = message['reply_channel']
            self.in_flight[connection] -= 1
            if not self.in_flight[connection]:
                del self.in_flight[connection]
        if reply:
            self._stop(channel, message, reply)
        if channel == 'websocket.disconnect':
            # The refusal of a frame before it may have come after it was sent.
            self.stopped.discard(message['reply_channel'])

    def _stop(self, channel, message, reply):
        """End a connection of this server one of whose frames Redis did not take; ``reply`` is 1 or an exception."""
        if channel == 'websocket.disconnect':
            return self._unreported.append(message)
        connection = message['reply_channel']
        is_new = channel == 'websocket.connect'
        if isinstance(reply, bytes):
            # It is turned away, and no disconnect comes.
            self.servers.connections.discard(connection)
            return self.local.send(connection, {'retry': float(reply)})
        if reply == 2:
            # Another process has found this server dead.
            self.stopped.add(connection)
            self.local.send(connection, {'close': 1013} if is_new else self.servers.close_message)
        elif connection not in self.stopped:
            logger.warning(
                '%s %s: %s',
                'Refusing' if is_new else 'Closing with 1013',
                connection,
                explained(reply) if isinstance(reply, Exception) else 'too many of its frames wait',
            )
            self.stopped.add(connection)
            # To who is not accepted yet, this is a 503: he comes back.
            self.local.send(connection, {'close': 1013})
