"""Rows that tell the truth: who is gone without a word, and who must go. Looked after in passing, or by a server."""
import collections
import logging
import threading
import time
from datetime import timedelta
from functools import partial

from django.db import connections
from django.db.models import Q
from django.utils import timezone

from . import callbacks, conf, engine, fanout
from .access import auth
from .connection import identity_cache
from .execution import background, thread_state
from .models import Membership, Socket

logger = logging.getLogger('sockets')

# Rows that may be removed in one look in passing.
IN_PASSING = 50

# Seconds between two looks at what is told to nobody: servers that no layer has heard of, users that were switched
# off by an update().
LOOK_CLOSER_AFTER = 30

# Seconds after which a server on an in-memory layer is lost that has neither a lease on this machine nor noted in its rows
# that it lives, as it does every 20 (sockets.engines.channels1.audit.BEAT).
LOST_AFTER = 90

_lock = threading.Lock()
_looking = threading.Lock()
_next_look = [None]
_unfinished = collections.deque()


def purge_if_due():
    """Have somebody look for dead servers if it is time to, as ``PURGE_INTERVAL`` says. Nobody waits for it."""
    interval = conf.PURGE_INTERVAL
    if interval is None:
        return
    now = time.monotonic()
    with _lock:
        # The first look is not the first thing that a process does.
        due = _next_look[0] is not None and now >= _next_look[0]
        if due or _next_look[0] is None:
            _next_look[0] = now + interval
    if not due or _keeps_house():
        return
    database = connections[Socket.objects.on_primary().db]
    # In a transaction, which may be a test's: another thread would not see what it sees.
    if database.in_atomic_block:
        return
    if database.vendor == 'sqlite' and database.is_in_memory_db():
        # No other thread sees it.
        _look_in_passing()
    else:
        background.run(_look_in_passing, 'sockets-look')


def _look_in_passing():
    """Remove a few rows of dead servers, unless that is being done; raise nothing."""
    if not _looking.acquire(blocking=False):
        return
    try:
        Socket.objects.purge_dead(at_most=IN_PASSING)
    except Exception:
        logger.exception('Could not look for dead servers')
    finally:
        _looking.release()


def purge():
    """Remove what is known to be gone or to have lost its right, and ask who has been silent for a while.

    Return how many rows were removed. A step that fails keeps no other one from running; the first failure is raised
    when all have run.
    """
    counts, failures = [], []
    for step in (Socket.objects.purge_dead, purge_lost, revoke_expired, revoke_inactive, purge_silent_here,
                 remove_left_rooms):
        try:
            counts.append(step())
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


def lost():
    """Return the rows of servers on in-memory layers that died and left no lease, such as those of another container."""
    in_memory = Q(layer__startswith='memory:')
    if engine.current().is_local():
        # A stock one has no name.
        in_memory |= Q(layer=engine.current().layer_name())
    rows = Socket.objects.on_primary().filter(
        in_memory, modified__lt=timezone.now() - timedelta(seconds=LOST_AFTER))
    # One that was stopped for a while, as a laptop is, may hold its lease.
    alive = engine.current().live_servers(servers_of(rows))
    return rows.exclude(server__in=alive) if alive else rows


def purge_lost():
    """Remove the rows that are ``lost()``; return how many those were."""
    removed = lost().remove()
    callbacks.end(removed, 'The server of this connection is gone.', None)
    return len(removed)


def purge_silent_here():
    """Ask the connections that a question of ours can reach, as ``purge_silent`` does."""
    rows = Socket.objects.on_primary().filter(Q(layer=engine.current().layer_name()) | Q(layer=None))
    elsewhere = fanout.servers_elsewhere(servers_of(rows))
    return purge_silent(rows.exclude(server__in=elsewhere) if elsewhere else rows)


def remove_left_rooms():
    """Remove what processes left that died between removing a row and leaving its rooms; return 0, as those are no rows.
    """
    rows = Socket.objects.on_primary()
    Membership.objects.using(rows.db).exclude(socket_id__in=rows.values('pk')).delete()
    return 0


def purge_silent(rows):
    """Ask who has been silent for two minutes, and remove who still is after five; return how many that were."""
    silent = rows.filter(last_ping__lt=timezone.now() - timedelta(minutes=2))
    count = silent.purge_inactive()
    silent.filter(active=True).cleanup_stale()
    return count


def revoke_expired():
    """Close the connections whose session has expired; return how many that were."""
    return Socket.objects.on_primary().filter(session__expire_date__lte=timezone.now()).revoke(
        'Your session has expired.')


def revoke_inactive():
    """Close the connections of users that are not active; return how many that were.

    Where that is no column of the user model, nobody is found here: each frame asks the user itself.
    """
    if not auth.has_active_column():
        return 0
    return Socket.objects.on_primary().filter(user__isnull=False, user__is_active=False).revoke(
        'Your account is not active.')


def keep_house():
    """Have this process, a server or a worker, look after the rows from now on."""
    with _lock:
        if not _keeps_house():
            Housekeeper().start()


def _keeps_house():
    """Whether somebody in this process looks after the rows all the time."""
    return any(isinstance(thread, Housekeeper) for thread in threading.enumerate())


def try_again(end):
    """Have ``end``, a function that ends connections, called again: the database or Redis was not there to be told."""
    _unfinished.append(end)
    keep_house()


class Housekeeper(threading.Thread):
    """Looks every second, in servers and workers, so that a site needs no timer for its rows to be true."""

    def __init__(self):
        super().__init__(name='sockets-housekeeper', daemon=True)
        self.looks_closer = 0
        # What went wrong, and has been said.
        self.troubles = set()
        self.is_replaced = False

    def replace(self):
        """Have another one look from now on: a disconnect function hangs that this one runs."""
        self.is_replaced = True
        Housekeeper().start()

    def run(self):
        while not self.is_replaced:
            time.sleep(1)
            thread_state.begin()
            try:
                self.look()
            except Exception as error:
                self.note_trouble(error)

    def look(self):
        """Take every step that is due; what goes wrong in one keeps no other one from being taken."""
        now = time.monotonic()
        closer = now >= self.looks_closer
        if closer:
            self.looks_closer = now + LOOK_CLOSER_AFTER
        identity_cache.cache.sweep()
        # An end that fails again comes to the end.
        steps = [_unfinished.popleft() for _ in range(len(_unfinished))]
        if closer:
            steps.append(revoke_inactive)
        steps.append(partial(self.look_for_the_dead, closer))
        if closer:
            steps += [purge_lost, look_for_the_old]
        steps.append(revoke_expired)
        went_well = [self.attempt(step) for step in steps]
        if all(went_well):
            self.troubles.clear()

    def attempt(self, step):
        """Take a step; return whether nothing went wrong."""
        try:
            step()
        except Exception as error:
            self.note_trouble(error)
            return False
        return True

    def note_trouble(self, error):
        # Said once: the database or Redis is away, each step meets that, and everybody else says so, too.
        text = '{}: {}'.format(type(error).__name__, error)
        if text not in self.troubles:
            logger.error('Housekeeping waits: %s', text)
        self.troubles.add(text)
        connections[Socket.objects.on_primary().db].close()

    @staticmethod
    def look_for_the_dead(closer):
        """Remove the rows of dead servers, if there are any."""
        if closer or engine.current().dead_servers() or engine.current().has_forgotten():
            Socket.objects.purge_dead()


def look_for_the_old():
    """Ask the silent among what an older version of this package made: nobody else looks whether their servers live."""
    if engine.current().layer_name():
        rows = Socket.objects.on_primary().filter(layer=None)
        if rows.exists():
            purge_silent(rows)
