"""The messages of other processes for the connections of this one, read from Redis on the reactor."""

import itertools
import logging
import threading

from .connections import Reader
from .entries import addressed
from .mailbox import queue_of
from .upkeep import keep_noting_work

logger = logging.getLogger('sockets')

# Seconds after which Redis answers that there is nothing, and that has_read() waits for its mark.
_PATIENCE = 2


class Inbox:
    """Reads the queues of ``servers`` (``LocalServers``) and delivers what is in them to their connections.

    ``counts`` is told what has expired on its way.
    """

    def __init__(self, ring, entries, servers, upkeep, counts):
        self.ring = ring
        self.entries = entries
        self.servers = servers
        self.upkeep = upkeep
        self.counts = counts
        # Events by mark: each is set when all entries before its mark have been delivered.
        self._marks = {}
        self._numbers = itertools.count()

    def read(self, server, on_reply):
        """Read the queue of ``server`` from now on; ``on_reply`` is called on the reactor whenever Redis answers."""
        if server in self.servers.names:
            return
        self.servers.names.add(server)
        self.upkeep.start()
        if self.servers.runs_workers:
            keep_noting_work(self.servers.liveness)
        shard = self.ring.shards[self.ring.shard_of(server)]
        Reader(
            shard,
            self.ring.prefix + 'queue:' + server,
            lambda entry: self._deliver(entry, shard.clock.now()),
            on_reply,
            _PATIENCE,
        ).start()

    def has_read(self, server, send_mark):
        """Wait until all has been delivered that is in the queue of ``server`` now; return whether it was in time."""
        mark, arrived = next(self._numbers), threading.Event()
        self._marks[mark] = arrived
        try:
            send_mark(server, mark)
            return arrived.wait(_PATIENCE)
        finally:
            del self._marks[mark]

    def _deliver(self, entry, now):
        try:
            _, expires, content = self.entries.read(entry)
            if 'mark' in content:
                # has_read() may have stopped waiting.
                return self._marks.get(content['mark'], threading.Event()).set()
            # By Redis's clock, which the expiry is counted by.
            messages = addressed(content)
            if 0 < expires <= now * 1000:
                return self.counts.note_expired(queue_of(messages[0][0][0]), sum(len(names) for names, _ in messages))
            full = [name for names, message in messages for name in self.servers.local.send_many(names, message)]
        except Exception:
            logger.exception('A message for the connections of this server could not be read')
        else:
            if full:
                logger.error('Dropped a message for %d connections that take none: %s', len(full), ', '.join(full[:5]))
