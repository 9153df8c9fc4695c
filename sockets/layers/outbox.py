"""Where a message is sent: to the memory of this process, or to the frames or queues in Redis."""

import logging

from .errors import AWAY, OutOfMemory
from .frame_sender import FrameSender
from .last_messages import LastMessages
from .local_servers import is_from_server
from .mailbox import queue_of
from .mailboxes import FRAMES
from .queue_sender import QueueSender
from .ring import NAMES_AT_ONCE

logger = logging.getLogger('sockets')


class Outbox:
    """Sends what the threads of this process send. The last message of a frame, one of ``claims``, may wait."""

    def __init__(self, ring, entries, servers, claims):
        self.servers = servers
        self.local = servers.local
        self.claims = claims
        self.frames = FrameSender(ring, entries, servers)
        self.queues = QueueSender(ring, entries, servers, claims)
        self.last_messages = LastMessages(ring, entries, self.send)

    def send(self, channel, message):
        """Send ``message``; ``ChannelFull`` if its connection, its server or its channel has too many waiting."""
        server = queue_of(channel)
        if server in self.servers.names:
            return self.local.send(channel, message)
        if self.servers.runs_workers and is_from_server(channel):
            return self.servers.send(channel, message)
        try:
            if channel in FRAMES and message.get('reply_channel'):
                refused = self.frames.send(channel, message)
            elif server != channel:
                refused = self.queues.send_to_connections(server, [channel], message)
            else:
                refused = self.queues.send_plain(channel, message)
        except (*AWAY, OutOfMemory) as error:
            if not is_from_server(channel):
                raise
            if isinstance(error, OutOfMemory):
                logger.error('Refused a message for %s: %s', channel, error)
            # As if there were no room: daphne answers with 503 and 1013, and the client comes back.
            refused = True
        if refused:
            raise self.local.ChannelFull(channel)

    def send_later(self, channel, message, on_failure):
        """Send ``message`` with the next thing that this thread asks of Redis, if it goes to Redis and may wait."""
        server = queue_of(channel)
        if not self.claims.has_one() or server == channel or server in self.servers.names or message.get('close'):
            return self.send(channel, message)
        self.last_messages.hold(server, channel, message, on_failure)

    def send_many(self, channel_names, message):
        """Send ``message`` to many channels; return the names that were full. An error names those it has cost."""
        by_server, refused, undelivered, failure = {}, [], [], None
        for channel in channel_names:
            by_server.setdefault(queue_of(channel), []).append(channel)
        for server in sorted(by_server, key=lambda server: server not in self.servers.names):
            names = by_server[server]
            if server in self.servers.names:
                if message.get('close') and not self.servers.runs_workers:
                    self.queues.close(names)
                refused += self.local.send_many(names, message)
                continue
            size = NAMES_AT_ONCE if server.endswith('!') else 1
            for start in range(0, len(names), size):
                part = names[start : start + size]
                try:
                    if (
                        self.queues.send_to_connections(server, part, message)
                        if size > 1
                        else self._is_refused(part[0], message)
                    ):
                        refused += part
                except (*AWAY, OutOfMemory) as error:
                    undelivered += part
                    failure = failure or error
        if failure is not None:
            failure.undelivered, failure.refused = undelivered, refused
            raise failure
        return refused

    def _is_refused(self, channel, message):
        try:
            self.send(channel, message)
        except self.local.ChannelFull:
            return True
        return False
