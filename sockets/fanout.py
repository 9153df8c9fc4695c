"""One message to many connections: whom it can reach, how long a full mailbox is waited for, and what became of it."""

import builtins
import collections
import logging
import time

from . import conf, engine
from .connection import envelopes
from .engine import server_of
from .exceptions import DeliveryFailed
from .signals import announce, messages_dropped

logger = logging.getLogger('sockets')

# Seconds between two tries at a full mailbox. A stock daphne looks into its own every 0.05 s when idle and
# empties it without pause once it has looked (daphne.server.Server.backend_reader_sync).
_RETRY_INTERVAL = 0.01

# The servers whose rows this process has made: where only one process is reached, its own. ``None`` in a test, where
# every connection is.
local_servers = set()
# Those of other processes of which the log has been told.
_logged = set()


def message(text=None, bytes=None):
    """Return the message with a frame of one of the two; ``TypeError`` for anything else."""
    if isinstance(text, str) and bytes is None:
        return {'text': text}
    if isinstance(bytes, builtins.bytes) and text is None:
        return {'bytes': envelopes.wrap(bytes)}
    raise TypeError(f"A frame is text='...' or bytes=b'...', not text={text!r:.40}, bytes={bytes!r:.40}.")


def send_many(names, message, stuck=None):
    """Hand ``message`` to many connections now and return how many took it.

    The others belong to servers that took nothing for ``SEND_TIMEOUT`` seconds: they are logged, not raised. If the
    layer cannot reach some, the others are served, and then ``DeliveryFailed`` says how many that were. Connections of
    another process are sent nothing over an in-memory layer.

    ``stuck`` is a set of servers for which some have waited in vain: nobody waits again until they take something. They
    are noted in it.
    """
    away = unreachable(names)
    if away:
        reached = [name for name in names if server_of(name) not in away]
        if not away <= _logged:
            _logged.update(away)
            logger.warning(
                '%d of %d connections get nothing: they are of another process (%s), or one that has ended, '
                'and the channel layer in memory reaches this one only. %s',
                len(names) - len(reached),
                len(names),
                ', '.join(sorted(away)),
                reach_all(),
            )
        names = reached
    return hand_over(engine.current(), names, message, stuck)


def reach_all():
    """Return what to do about connections that an in-memory layer does not reach."""
    return engine.current().remedies['reach'] + ', or do this in a view of the server itself.'


def unreachable(names):
    """Return the servers of the connections ``names`` that cannot be reached from this process."""
    if local_servers is None or not engine.current().is_local():
        return set()
    return {server_of(name) for name in names} - local_servers


def servers_elsewhere(names):
    """Return those of the ``unreachable`` servers that are known to live: they look after their own connections."""
    away = unreachable(names)
    return away.intersection(engine.current().live_servers(list(away)) or ()) if away else away


def hand_over(way, names, message, stuck=None):
    """Hand ``message`` to the connections ``names`` by ``way``, an engine or a layer of its; as ``send_many``."""
    waiting = list(names)
    deadlines = {}
    dropped = collections.Counter()
    # Of servers that are known to be stuck.
    refused = collections.Counter()
    stuck = set() if stuck is None else stuck
    failure, undelivered = None, 0
    while True:
        before = collections.Counter(map(server_of, waiting))
        try:
            waiting = way.hand_over(waiting, message)
        except Exception as error:
            if not hasattr(error, 'undelivered'):
                raise
            failure = failure or error
            undelivered += len(error.undelivered)
            waiting = error.refused
        left_of = collections.Counter(map(server_of, waiting))
        stuck.difference_update([server for server in before if left_of[server] < before[server]])
        if not waiting:
            break
        # A server that took something since we last asked has not had its time yet.
        now = time.monotonic()
        for server, left in left_of.items():
            if server in stuck:
                refused[server] = left
            elif left < before[server] or server not in deadlines:
                deadlines[server] = now + conf.SEND_TIMEOUT
            elif now >= deadlines[server]:
                dropped[server] = left
                stuck.add(server)
        waiting = [name for name in waiting if server_of(name) not in dropped and server_of(name) not in refused]
        if waiting:
            time.sleep(_RETRY_INTERVAL)
    if dropped:
        give_up(way, dropped)
    if refused:
        _announce(way, refused)
    delivered = len(names) - sum(dropped.values()) - sum(refused.values()) - undelivered
    if failure is not None:
        raise DeliveryFailed(delivered, len(names), failure) from failure
    return delivered


def give_up(way, dropped):
    """Tell that messages were given up: a dict of servers and numbers."""
    logger.error(
        'Gave up %d messages: the mailbox took none for %s s of %s',
        sum(dropped.values()),
        conf.SEND_TIMEOUT,
        ', '.join('{} ({})'.format(*item) for item in dropped.items()),
    )
    _announce(way, dropped)


def _announce(way, dropped):
    way.note_dropped(dropped)
    announce(messages_dropped, sender=None, servers=dict(dropped))
