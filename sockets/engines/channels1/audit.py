"""Whether each open connection of a server has its row, and each of its rows a connection; and what is done if not.

Every process that holds websockets looks for itself. Whatever went wrong before, and whoever forgot to tell whom, ends
here.
"""

import logging
import threading
import time

from django.db import connections

from ... import fanout, messages
from ...connection.memory import memories
from ...execution import thread_state
from . import delivery, routing
from .channel_layer import adapted, channel_layer
from .rows import Rows

logger = logging.getLogger('sockets')

# Seconds between two looks.
INTERVAL = 2

# Seconds that a connection or a row must have been without the other: what was seen between two steps is no fault.
PATIENCE = 5

# The same where the layer cannot tell whether a frame is being handled, in whose transaction the row may be.
BLIND_PATIENCE = 60

# Seconds after which names are compared though the counts agree: one too many and one too few do.
NAMES_AFTER = 30

# Seconds between two notes in its rows that a server on an in-memory layer lives: not everybody can see its lease.
BEAT = 20

_lock = threading.Lock()
_begun = set()


def begin(factory):
    """Have the connections of ``factory``, daphne's, compared with the rows from now on. Asked with each connection."""
    if factory.send_channel in _begun:
        return
    with _lock:
        if factory.send_channel not in _begun:
            _begun.add(factory.send_channel)
            Auditor(factory).start()


def is_ours(protocol):
    """Return whether the frames of ``protocol`` go to a handler of ours."""
    if not hasattr(protocol, 'is_ours'):
        protocol.is_ours = routing.handler_at(protocol.request_info['path']) is not None
    return protocol.is_ours


class Auditor(threading.Thread):
    """Looks every two seconds: one count, and names only where it differs."""

    def __init__(self, factory):
        super().__init__(name='sockets-audit', daemon=True)
        self.server = factory.send_channel
        self.protocols = factory.reply_protocols
        self.rows = Rows(self.server)
        self.is_in_trouble = False
        self.names_due = 0
        self.beat_due = time.monotonic() + BEAT
        # Since when names are known to be without their row, or their connection.
        self.without_row = {}
        self.without_connection = {}

    def run(self):
        content = messages.reconnect('This server was taken for dead. Come back.')
        adapted().set_close_message({'text': messages.encode(content), 'close': messages.CLOSE_RESTART})
        while True:
            time.sleep(INTERVAL)
            try:
                thread_state.close_stale()
                self.look(self.connections())
                thread_state.close_stale()
                self.is_in_trouble = False
            except Exception as error:
                # Said once: the database or Redis is away, and everybody else says so, too.
                if not self.is_in_trouble:
                    logger.error('Comparing connections with their rows waits: %s: %s', type(error).__name__, error)
                self.is_in_trouble = True
                connections.close_all()

    def connections(self):
        """Return the names and protocols of all connections, as they are at one moment of Twisted's reactor."""
        from twisted.internet import reactor, threads

        return threads.blockingCallFromThread(reactor, lambda: list(self.protocols.items()))

    def look(self, protocols):
        """Compare ``protocols``, a list of names and protocols, with the rows, and end what has been wrong for long."""
        now = time.monotonic()
        known = {name for name, protocol in protocols if hasattr(protocol, 'serverClose')}
        # One that is being opened or closed may or may not have a row.
        open_ = {name for name, protocol in protocols if name in known and self.needs_row(protocol)}
        if now >= self.beat_due and channel_layer().local_only():
            self.beat_due = now + BEAT
            self.rows.ask('note_life')
        if (
            not (self.without_row or self.without_connection)
            and now < self.names_due
            and self.rows.ask('count') == len(open_)
        ):
            return
        self.names_due = now + NAMES_AFTER
        paths = self.rows.ask('paths')
        self.without_row = {name: self.without_row.get(name, now) for name in open_ - set(paths)}
        self.without_connection = {name: self.without_connection.get(name, now) for name in set(paths) - known}
        # One that floods us is never idle. Its row may have gone by other means than ours.
        memories.doubt([name for name, since in self.without_row.items() if now - since >= PATIENCE])
        self.close(self.due(self.without_row, now))
        self.end({name: paths[name] for name in self.due(self.without_connection, now)})

    @staticmethod
    def needs_row(protocol):
        """Whether ``protocol`` is open and its frames go to a handler of ours."""
        return protocol.state == protocol.STATE_OPEN and is_ours(protocol)

    @staticmethod
    def due(since, now):
        """Return the names that have been wrong for long enough and of which nobody is handling a frame."""
        names = [name for name, then in since.items() if now - then >= PATIENCE]
        idle = adapted().idle(names) if names else []
        # The row may be in the transaction of a function that is running.
        return [name for name in names if now - since[name] >= BLIND_PATIENCE] if idle is None else idle

    def close(self, names):
        """Close connections without a row."""
        # Whoever was idle before this has no transaction that could still bring one.
        names = sorted(set(names).difference(self._with_rows(names)))
        if not names:
            return
        logger.error('Closing %d connections without a row: %s', len(names), ', '.join(names[:5]))
        fanout.send_many(
            names,
            {
                'text': messages.encode(messages.reconnect('This connection is not known any more. Come back.')),
                'close': messages.CLOSE_RESTART,
            },
        )

    def end(self, paths):
        """Have the ends of connections handled that are not there and whose rows are: a dict of names and paths."""
        remain = self._with_rows(list(paths))
        if remain:
            logger.error('Ending %d rows without a connection: %s', len(remain), ', '.join(sorted(remain)[:5]))
        for name in remain:
            delivery.send_end(name, paths[name])
            # If it is still there after as long again, once more.
            del self.without_connection[name]

    def _with_rows(self, names):
        return self.rows.ask('among', names) if names else []
