"""Keeping the rows true: who is gone without a close, and who must go. A housekeeper in each server and worker does it."""

import collections
import logging
import threading
import time
from datetime import timedelta
from functools import partial

from django.db import connections
from django.db.models import Q
from django.utils import timezone

from . import callbacks, conf, databases, engine, fanout
from .access import auth
from .connection import claims, identity_cache
from .connection.signs_of_life import signs
from .execution import background, thread_state
from .models import Membership, Server, Socket
from .models.servers import HEARTBEATS
from .streams import housekeeping

logger = logging.getLogger('sockets')

# Rows that ``purge_if_due`` may remove, in a process that has no housekeeper.
AT_MOST_WHILE_SERVING = 50

# Seconds between two looks at what no signal and no layer tells: servers that no layer has heard of, users that an
# update() has deactivated, rooms of connections that are gone.
THOROUGH_INTERVAL = 30

# Seconds for which a process that has just started leaves people the time to come back.
TIME_TO_RETURN = 10

# Seconds after which a server on an in-memory layer is lost that has neither a lease on this machine nor noted in its rows
# that it lives, as it does every 20 (sockets.engines.channels1.audit.BEAT).
LOST_AFTER = 90

_lock = threading.Lock()
_purging = threading.Lock()
_next_purge = [None]
_unfinished = collections.deque()


def purge_if_due():
    """Have somebody look for dead servers if it is time to, as ``PURGE_INTERVAL`` says. Nobody waits for it."""
    interval = conf.PURGE_INTERVAL
    if interval is None:
        return
    now = time.monotonic()
    with _lock:
        # The first look is not the first thing that a process does.
        due = _next_purge[0] is not None and now >= _next_purge[0]
        if due or _next_purge[0] is None:
            _next_purge[0] = now + interval
    if not due or _has_housekeeper():
        return
    database = connections[Socket.objects.on_primary().db]
    if database.in_atomic_block:  # Perhaps a test's: another thread would not see what it sees.
        return
    if database.vendor == 'sqlite' and database.is_in_memory_db():
        # No other thread sees it.
        _purge_some()
    else:
        background.run(_purge_some, 'sockets-purge')


def _purge_some():
    """Remove a few rows of dead servers, unless that is being done; raise nothing."""
    if not _purging.acquire(blocking=False):
        return
    try:
        Socket.objects.purge_dead(at_most=AT_MOST_WHILE_SERVING)
    except Exception:
        logger.exception('Could not look for dead servers')
    finally:
        _purging.release()


def purge():
    """Remove what is known to be gone or to have lost its right, and ask who has been silent for a while.

    Return how many rows were removed. A step that fails keeps no other one from running; the first failure is raised
    when all have run. Who has just begun to look who lives needs some seconds.
    """
    counts, failures = [], []
    removals = Socket.objects.purge_dead, purge_lost, revoke_expired, revoke_inactive, purge_silent_here
    rest = remove_left_rooms, claims.run_due
    for step in (lambda: engine.current().watch_servers(servers_of(own_rows())), *removals, *rest):
        try:
            counts.append(step() or 0)
        except Exception as error:
            failures.append(error)
    for error in failures[1:]:
        logger.error('Housekeeping: %s: %s', type(error).__name__, error)
    if failures:
        raise failures[0]
    return sum(counts)


def servers_of(rows):
    """Return the servers of ``rows``, as a list."""
    return list(rows.order_by().values_list('server', flat=True).distinct())


def own_rows():
    """Return the rows of this engine: those of servers with heartbeats, or all others. Neither reaches the other's."""
    rows, has_heartbeats = Socket.objects.on_primary(), engine.current().layer_name() == HEARTBEATS
    return rows.filter(layer=HEARTBEATS) if has_heartbeats else rows.exclude(layer=HEARTBEATS)


def lost():
    """Return the rows of servers on in-memory layers that died and left no lease, such as those of another container."""
    in_memory = Q(layer__startswith='memory:')
    if engine.current().is_local() and not engine.current().layer_name():
        # A stock one has no name.
        in_memory |= Q(layer='')
    rows = own_rows().filter(in_memory, modified__lt=timezone.now() - timedelta(seconds=LOST_AFTER))
    # One that was stopped for a while, as a laptop is, may hold its lease.
    alive = engine.current().live_servers(servers_of(rows))
    return rows.exclude(server__in=alive) if alive else rows


def purge_lost():
    """Remove the rows that are ``lost()``; return how many those were."""
    details = 'The server of this connection is gone.'
    removed = lost().remove(None, details, is_shared=True)
    callbacks.end(removed, details, None)
    return len(removed)


def purge_silent_here():
    """Do what ``purge_silent`` does for the connections that a message of this process can reach."""
    rows = own_rows().filter(Q(layer=engine.current().layer_name()) | Q(layer=None))
    elsewhere = fanout.servers_elsewhere(servers_of(rows))
    return purge_silent(rows.exclude(server__in=elsewhere) if elsewhere else rows)


def remove_left_rooms():
    """Remove what processes left that died between removing a row and leaving its rooms."""
    rows = Socket.objects.on_primary()
    Membership.objects.using(rows.db).exclude(socket_id__in=rows.values('pk')).delete()


def purge_silent(rows):
    """Ping who has been silent for two minutes, and remove who still is after five; return how many that were."""
    silent = rows.filter(last_ping__lt=timezone.now() - timedelta(minutes=2))
    count = silent.purge_inactive()
    silent.filter(active=True).cleanup_stale()
    return count


def expired():
    """Return the rows whose session has expired."""
    return own_rows().filter(session__expire_date__lte=timezone.now())


def expired_otherwise():
    """Return the rows whose authentication without a session has expired."""
    return own_rows().filter(authenticated_until__lte=timezone.now())


def revoke_expired():
    """Close the connections whose session or authentication has expired; return how many that were."""
    return expired().revoke('Your session has expired.') + expired_otherwise().revoke(auth.EXPIRED)


def revoke_inactive():
    """Close the connections of users that are not active; return how many that were.

    Where that is no column of the user model, nobody is found here: each frame asks the user itself.
    """
    if not auth.has_active_column():
        return 0
    return own_rows().filter(user__isnull=False, user__is_active=False).revoke('Your account is not active.')


def start_housekeeper():
    """Have this process, a server or a worker, look after the rows from now on."""
    signs.open()
    with _lock:
        if not _has_housekeeper():
            Housekeeper().start()


def _has_housekeeper():
    """Whether somebody in this process looks after the rows all the time."""
    return any(isinstance(thread, Housekeeper) for thread in threading.enumerate())


def try_again(end):
    """Have ``end``, a function that ends connections, called again: the database or Redis was not there to be told."""
    _unfinished.append(end)
    start_housekeeper()


class Housekeeper(threading.Thread):
    """Looks every second, in servers and workers, so that a site needs no timer for its rows to be true."""

    # It removes rows, and other threads run the functions.
    waits_for_nobody = True

    def __init__(self, began=None):
        super().__init__(name='sockets-housekeeper', daemon=True)
        self.began = began
        # Which questions have found something, if the engine has asked them.
        self.found = None
        self.next_thorough = 0
        # What went wrong, and has been said.
        self.troubles = set()
        self.is_replaced = False

    def replace(self):
        """Have another one look from now on: a disconnect function hangs that this one runs."""
        self.is_replaced = True
        Housekeeper(self.began).start()

    def run(self):
        while not self.is_replaced:
            self.found = engine.current().next_look(self.questions)
            if self.found is None:
                time.sleep(1)
            thread_state.begin()
            try:
                self.look()
            except Exception as error:
                self.note_trouble(error)

    def questions(self):
        """Return what is asked every second in one query, as querysets by name."""
        return {
            'ended': claims.due(self.is_late()),
            'expired': expired(),
            # A query of its own, for an index of its own: OR would read every row.
            'expired_otherwise': expired_otherwise(),
            **housekeeping.questions(),
        }

    def is_late(self):
        """Whether people have had the time to come back."""
        return self.began is not None and time.monotonic() - self.began >= TIME_TO_RETURN

    def look(self):
        """Take every step that is due; what goes wrong in one keeps no other one from being taken."""
        now = time.monotonic()
        self.began = now if self.began is None else self.began
        asked_well = self.found is not None or self.attempt(self.ask)
        found, self.found = self.found, None
        thorough = now >= self.next_thorough
        if thorough:
            self.next_thorough = now + THOROUGH_INTERVAL
        identity_cache.cache.sweep()
        self.attempt(housekeeping.look_here)
        # An end that fails again comes to the end.
        steps = [_unfinished.popleft() for _ in range(len(_unfinished))]
        steps += [revoke_inactive] if thorough else []
        steps.append(partial(self.purge_dead, thorough))
        steps += [purge_lost, ask_the_old, remove_left_rooms, housekeeping.look_at_settings] if thorough else []
        steps += [revoke_expired] if found.intersection(('expired', 'expired_otherwise')) else []
        steps += [step for about, step in housekeeping.STEPS.items() if about in found]
        if 'ended' in found or claims.has_tasks():
            steps.append(partial(claims.run_due, late=self.is_late(), waits=False))
        if all([asked_well, *map(self.attempt, steps)]):
            self.troubles.clear()

    def ask(self):
        """Ask the ``questions``."""
        self.found = set(self.questions())
        self.found, _ = Server.objects.using(Socket.objects.on_primary().db).look(self.questions())

    def attempt(self, step):
        """Take a step; return whether nothing went wrong."""
        try:
            step()
        except Exception as error:
            self.note_trouble(error)
            return False
        return True

    def note_trouble(self, error):
        # Said once: the database or Redis is away, and each step meets that.
        about, text = databases.trouble(error)
        if about not in self.troubles:
            logger.error('Housekeeping waits: %s', text)
        self.troubles.add(about)
        connections[Socket.objects.on_primary().db].close()

    @staticmethod
    def purge_dead(thorough):
        """Remove the rows of dead servers, if there are any."""
        if thorough or engine.current().dead_servers() or engine.current().has_forgotten():
            Socket.objects.purge_dead()


def ask_the_old():
    """Ping the silent connections whose rows an older version of this package made: nobody judges their servers."""
    if engine.current().layer_name():
        rows = own_rows().filter(layer=None)
        if rows.exists():
            purge_silent(rows)
