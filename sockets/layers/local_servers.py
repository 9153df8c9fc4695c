"""The servers in this process: which connections they hold, and whether they may go on serving."""

import contextlib
import logging
import time

from .errors import AWAY
from .liveness import Liveness
from .mailbox import queue_of
from .scripts import FINE, GONE, UNKNOWN

logger = logging.getLogger('sockets')

# Channels whose messages are held back while this server may count as dead, and those that open and end connections.
_HELD = frozenset(['websocket.connect', 'websocket.receive'])
_CONTROLS = frozenset(['websocket.connect', 'websocket.disconnect'])

# Seconds after which a connection that was told to close counts as closed, without a disconnect.
_CLOSE_TIMEOUT = 15


def is_from_server(channel):
    """Whether interface servers send on ``channel``."""
    return channel.startswith(('websocket.', 'http.')) and '?' not in channel


class LocalServers:
    """The servers whose messages this process reads, and their open connections.

    ``local`` is the layer in memory that delivers their messages. When others have found one of them dead, all
    connections are closed, and no new one is accepted before that is done.
    """

    def __init__(self, local, leases):
        self.local = local
        self.leases = leases
        self.liveness = Liveness(leases.lease)
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
        return queue_of(connection) in self.names

    def receives(self, channels):
        """Whether all messages of ``channels`` are in the memory of this process."""
        return self.names.issuperset(channels) or (self.runs_workers and all(map(is_from_server, channels)))

    def is_on_reactor(self):
        """Whether this thread is the reactor of a daphne, which must not wait."""
        if self.runs_workers or not self.names:
            return False
        from twisted.python.threadable import isInIOThread

        return isInIOThread()

    def send(self, channel, message):
        """Send a message of a server of this process to the workers of this process."""
        if channel in _CONTROLS and message.get('reply_channel'):
            self.note(channel, message['reply_channel'])
        try:
            self.local.send(channel, message)
        except self.local.ChannelFull:
            # The server sends no disconnect for this one.
            self.connections.discard(message.get('reply_channel'))
            raise

    def note(self, channel, connection):
        """Keep account of the open connections; ``ChannelFull`` for a new one while this server counts as dead."""
        if channel == 'websocket.disconnect':
            self.connections.discard(connection)
            self._closing.pop(connection, None)
        elif self.liveness.is_dead:
            raise self.local.ChannelFull(channel)
        else:
            self.connections.add(connection)

    def checked(self, channel, message):
        """Return what was received if this server is certainly not found dead, and nothing if it is."""
        if channel not in _HELD or self.liveness.may_serve():
            return channel, message
        # It may have been dead meanwhile and serve again; the connections from before are closed then.
        if self.liveness.wait() and message.get('reply_channel') in self.connections:
            return channel, message
        return None, None

    def send_heartbeats(self):
        """Send the heartbeats of the servers of this process, and handle the answers."""
        for server in list(self.leases.held):
            interruptions = self.liveness.interruptions
            # The shard has logged that it is away; others may not be.
            with contextlib.suppress(*AWAY):
                self._take_answer(server, self.leases.renew(server), interruptions)

    def _take_answer(self, server, answer, interruptions):
        was_dead = self.liveness.is_dead
        self.liveness.take_answer(answer, interruptions)
        if not self.liveness.is_dead:
            return
        if not was_dead:
            logger.error(
                'This server was found dead, or was not at work for too long to know: its connections are '
                'closed with 1012'
            )
        now = time.monotonic()
        new = self.connections.difference(self._closing)
        self._closing.update(dict.fromkeys(new, now))
        self.local.send_many(list(new), self.close_message)
        # For some that were turned away, no disconnect comes.
        for connection in [name for name, since in list(self._closing.items()) if now - since > _CLOSE_TIMEOUT]:
            self.connections.discard(connection)
            self._closing.pop(connection, None)
        if self.connections or answer not in (FINE, UNKNOWN, GONE):
            return
        if answer == GONE:
            self.leases.unmark_dead(server)
        logger.warning('This server serves again')
        self.liveness.is_dead = False
