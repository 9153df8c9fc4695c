"""The servers in this process: which connections they hold, and whether they may go on."""
import contextlib
import logging
import time

from .errors import AWAY
from .mailbox import line_of
from .scripts import FINE, GONE, UNKNOWN
from .standing import Standing

logger = logging.getLogger('sockets')

# What no route hears while others may take this server for dead, and what opens and ends connections.
_HELD = frozenset(['websocket.connect', 'websocket.receive'])
_CONTROLS = frozenset(['websocket.connect', 'websocket.disconnect'])

# Seconds after which a connection that was told to close has ended, whether anybody has said so or not.
_CLOSE_TIMEOUT = 15


def is_from_server(channel):
    """Whether interface servers send on ``channel``."""
    return channel.startswith(('websocket.', 'http.')) and '?' not in channel


class LocalServers:
    """The servers whose messages this process reads, and their open connections.

    ``local`` is the layer in memory that brings them their messages. When others have found one of them dead, all
    connections end, and none is let in until nothing is left of those that were.
    """

    def __init__(self, local, leases):
        self.local = local
        self.leases = leases
        self.standing = Standing(leases.lease)
        # Prefixes of channel names.
        self.names = set()
        # Whether this process also handles the frames of its connections.
        self.runs_workers = False
        self.connections = set()
        # The last message to connections whose server was found dead and is not, and when it was sent to which of them.
        self.close_message = {'close': 1012}
        self._closing = {}

    def holds(self, connection):
        """Whether a server of this process holds ``connection``."""
        return line_of(connection) in self.names

    def receives(self, channels):
        """Whether all that comes on ``channels`` is in the memory of this process."""
        return self.names.issuperset(channels) or (self.runs_workers and all(map(is_from_server, channels)))

    def is_on_reactor(self):
        """Whether this thread is the reactor of a daphne, which must not wait."""
        if self.runs_workers or not self.names:
            return False
        from twisted.python.threadable import isInIOThread
        return isInIOThread()

    def send(self, channel, message):
        """Send what a server of this process says to the workers of this process."""
        if channel in _CONTROLS and message.get('reply_channel'):
            self.note(channel, message['reply_channel'])
        try:
            self.local.send(channel, message)
        except self.local.ChannelFull:
            # It says no more of this one.
            self.connections.discard(message.get('reply_channel'))
            raise

    def note(self, channel, connection):
        """Keep account of the open connections; ``ChannelFull`` for a new one while this server counts as dead."""
        if channel == 'websocket.disconnect':
            self.connections.discard(connection)
            self._closing.pop(connection, None)
        elif self.standing.is_dead:
            raise self.local.ChannelFull(channel)
        else:
            self.connections.add(connection)

    def judged(self, channel, message):
        """Return what was received when it is certain that this server is not taken for dead, and nothing if it is."""
        if channel not in _HELD or self.standing.may_serve():
            return channel, message
        # It may have been dead and live again by then: without those that were open before.
        if self.standing.wait() and message.get('reply_channel') in self.connections:
            return channel, message
        return None, None

    def send_heartbeats(self):
        """Say that the servers of this process live, and do what the answers ask for."""
        for server in list(self.leases.held):
            doubts = self.standing.doubts
            # The shard has said that it is away, and others may not be.
            with contextlib.suppress(*AWAY):
                self._hear(server, self.leases.renew(server), doubts)

    def _hear(self, server, answer, doubts):
        was_dead = self.standing.is_dead
        self.standing.hear(answer, doubts)
        if not self.standing.is_dead:
            return
        if not was_dead:
            logger.error('This server was found dead, or was not at work for too long to know: its connections are '
                         'closed with 1012')
        now = time.monotonic()
        new = self.connections.difference(self._closing)
        self._closing.update(dict.fromkeys(new, now))
        self.local.send_many(list(new), self.close_message)
        # Of some that are turned away, nobody says that they have ended.
        for connection in [name for name, since in list(self._closing.items()) if now - since > _CLOSE_TIMEOUT]:
            self.connections.discard(connection)
            self._closing.pop(connection, None)
        if self.connections or answer not in (FINE, UNKNOWN, GONE):
            return
        if answer == GONE:
            self.leases.unmark_dead(server)
        logger.warning('This server serves again')
        self.standing.is_dead = False
