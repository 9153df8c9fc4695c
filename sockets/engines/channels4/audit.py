"""Whether each open connection of a server has its row, and each of its rows a connection; and what is done if not.

Every process that holds websockets looks for itself. Whatever went wrong before, and whoever forgot to tell whom, ends
here.
"""

import logging
import threading
import time

from django.db import connections

from ... import callbacks, databases, messages
from ...connection.memory import memories
from ...execution import thread_state
from ...models import Socket

logger = logging.getLogger('sockets')

# Seconds between two looks.
INTERVAL = 2

# Seconds that a connection or a row must have been without the other: what was seen between two steps is no fault.
PATIENCE = 5

# Seconds after which names are compared though the counts agree: one too many and one too few do.
NAMES_AFTER = 30

_NOT_KNOWN = messages.reconnect('This connection is not known any more. Come back.')


class Audit:
    """What is known of one ``server``: an object with a ``name``, the ``connections`` that it holds by their names, and
    ``send(names, message)`` for any thread.
    """

    def __init__(self, server):
        self.server = server
        self.names_due = 0
        # Since when names are known to be without their row, or their connection.
        self.without_row = {}
        self.without_connection = {}

    def look(self):
        """Compare the connections with the rows, and end what has been wrong for long: one count, and names only where
        that differs.
        """
        now = time.monotonic()
        held = dict(self.server.connections)
        # One that is being opened or closed may or may not have a row.
        open_ = {name for name, connection in held.items() if connection.accepted and not connection.has_ended}
        rows = Socket.objects.on_primary().filter(server=self.server.name)
        is_well = not (self.without_row or self.without_connection)
        if is_well and now < self.names_due and rows.count() == len(open_):
            return
        self.names_due = now + NAMES_AFTER
        named = set(rows.values_list('channel_name', flat=True))
        self.without_row = {name: self.without_row.get(name, now) for name in open_ - named}
        self.without_connection = {name: self.without_connection.get(name, now) for name in named - set(held)}
        silent = [name for name, since in self.without_row.items() if now - since >= PATIENCE]
        # One that floods us is never idle. Its row may have gone by other means than ours.
        memories.doubt(silent)
        # The row may be in the transaction of a function that is running.
        self.close([name for name in silent if held[name].busy_since is None], rows)
        self.end([name for name, since in self.without_connection.items() if now - since >= PATIENCE], rows)

    def close(self, names, rows):
        """Close connections without a row."""
        # Whoever was idle before this has no transaction that could still bring one.
        with_rows = {
            name
            for part in databases.parts(names)
            for name in rows.filter(channel_name__in=part).values_list('channel_name', flat=True)
        }
        names = sorted(set(names) - with_rows)
        if names:
            logger.error('Closing %d connections without a row: %s', len(names), ', '.join(names[:5]))
            self.server.send(names, {'text': messages.encode(_NOT_KNOWN), 'close': messages.CLOSE_RESTART})

    @staticmethod
    def end(names, rows):
        """Remove rows without a connection, and have their functions run."""
        removed = [
            row
            for part in databases.parts(names)
            for row in rows.filter(channel_name__in=part).remove(1006, None, is_shared=True)
        ]
        if removed:
            logger.error('Ending %d rows without a connection: %s', len(removed), ', '.join(sorted(names)[:5]))
            callbacks.end(removed, None, None)


class Auditor(threading.Thread):
    """Looks every two seconds, for all servers of this process."""

    # It removes rows, and other threads run the functions.
    waits_for_nobody = True

    def __init__(self):
        super().__init__(name='sockets-audit', daemon=True)
        self.audits = {}
        self.is_in_trouble = False

    def run(self):
        while True:
            time.sleep(INTERVAL)
            try:
                thread_state.close_stale()
                for audit in list(self.audits.values()):
                    audit.look()
                self.is_in_trouble = False
            except Exception as error:
                # Said once: the database is away, and everybody else says so, too.
                if not self.is_in_trouble:
                    logger.error('Comparing connections with their rows waits: %s: %s', type(error).__name__, error)
                self.is_in_trouble = True
                connections.close_all()


_lock = threading.Lock()
_auditor = None


def begin(server):
    """Have the connections of ``server`` compared with their rows from now on."""
    global _auditor
    with _lock:
        if _auditor is None or not _auditor.is_alive():
            _auditor = Auditor()
            _auditor.start()
        _auditor.audits[server.name] = Audit(server)


def end(server):
    """Look after ``server`` no more."""
    with _lock:
        if _auditor is not None:
            _auditor.audits.pop(server.name, None)
