"""Ends that are noted: whoever claims one runs its functions, once, and again only if that process has died in it."""

import collections
import json
import logging
import random
import threading
import time
from functools import partial

from django.db import Error, connections

from .. import callbacks
from ..execution import background
from ..models import Ending, Socket, removal
from ..models.ends import in_seconds
from . import disconnect, visits

logger = logging.getLogger('sockets')

# Threads of a process that run such functions at a time. In a test there are none.
THREADS = 10

# Ends that a thread claims at a time.
_PART = 5

_lock = threading.Lock()
# How many ends of each claim this process has yet to handle.
_held = collections.Counter()
_helpers = set()
# What this process has claimed and not begun with. A function that hangs keeps only itself from being run.
_tasks = collections.deque()
_is_renewing = []


def run_claimed(claims):
    """Run what this process has claimed as it noted it, and return when that is done."""
    tasks = collections.deque()
    for claim in claims:
        tasks.extend((claim.name, row, end) for row, end in _still_claimed(claim))
    _hold(task[0] for task in tasks)
    helpers = [
        background.run(partial(_run_all, tasks), 'sockets-ends') for _ in range(min(_threads_allowed(), len(tasks)) - 1)
    ]
    _run_all(tasks)
    for helper in helpers:
        helper.join()


def due(late=False):
    """Return what is noted and claimed by nobody; ``late`` also what waits whether somebody comes back."""
    return _ends().due(late)


def has_tasks():
    """Return whether this process has claimed what it has not begun with."""
    return bool(_tasks)


def run_due(late=False, waits=True):
    """Run what is ``due``. Without ``waits``, threads do that."""
    count = len(_tasks) + len(due(late).values_list('pk', flat=True)[: THREADS * _PART or 1])
    allowed = _threads_allowed()
    helpers = []
    with _lock:
        for _ in range(min(-(-count // _PART), allowed - len(_helpers)) - (waits or not allowed)):
            helpers.append(Helper(late))
            _helpers.add(helpers[-1])
    for helper in helpers:
        helper.start()
    if count and (waits or not allowed):
        Helper(late).work()
        for helper in helpers:
            helper.join()


class Helper(threading.Thread):
    """Claims and runs what is noted until nothing is left."""

    # What it removes is for the others to handle.
    waits_for_nobody = True

    def __init__(self, late):
        super().__init__(name='sockets-ends', daemon=True)
        self.late = late
        self.is_replaced = False

    def replace(self):
        """Have another thread go on: a function hangs that this one runs."""
        self.is_replaced = True
        other = Helper(self.late)
        with _lock:
            _helpers.discard(self)
            _helpers.add(other)
        other.start()

    def run(self):
        try:
            self.work()
        except Exception as error:
            logger.error('Ends of connections wait: %s: %s', type(error).__name__, error)
        finally:
            with _lock:
                _helpers.discard(self)
            connections.close_all()

    def work(self):
        """Do so in the thread that calls this."""
        _run_all(_tasks)
        while not self.is_replaced and claim(self.late, _tasks):
            _run_all(_tasks)


def claim(late, tasks):
    """Claim some of what is due and add it to ``tasks``; return whether something was due."""
    keys = list(due(late).order_by('noted', 'pk').values_list('pk', flat=True)[: max(1, THREADS) * _PART])
    if not keys:
        return False
    if THREADS:
        # Others look at the same ones.
        keys = random.sample(keys, min(len(keys), _PART))
    name = removal.Claim().name
    if due(late).filter(pk__in=keys).update(claimed_by=name, claimed_until=in_seconds(removal.LEASE)):
        found = list(_ends().filter(pk__in=keys, claimed_by=name).select_related('user').order_by('noted', 'pk'))
        from django.contrib.sessions.models import Session

        sessions = Session.objects.using(_ends().db).in_bulk({end.session_key for end in found if end.session_key})
        _hold(name for _ in found)
        tasks.extend((name, _row_of(end, sessions), end) for end in found)
    return True


def _run_all(tasks):
    """Handle ``tasks``, of which other threads may take some."""
    while True:
        try:
            name, row, end = tasks.popleft()
        except IndexError:
            return
        try:
            if end.due is None:
                disconnect.end(row, end.code, end.reason)
            else:
                visits.leave(row, end)
        except BaseException as error:
            # It is tried again when the claim has ended.
            _let_go(name)
            if not isinstance(error, Exception):
                raise
            logger.error('Whether somebody has left %r is not known yet: %s', end.path, error)
        else:
            _finish(name, end.pk)


def _finish(name, pk):
    """Note that an end has been handled; until the database hears of that, nobody else is to handle it."""
    try:
        done = _ends().filter(pk=pk)
        done._raw_delete(done.db)
    except Error as error:
        logger.error('The database could not be told that an end was handled, and will be told again: %s', error)
        callbacks.try_again(partial(_finish, name, pk))
        return
    _let_go(name)


def _let_go(name):
    with _lock:
        _held[name] -= 1
        if _held[name] <= 0:
            del _held[name]


def _row_of(end, sessions):
    """Return what the row of the connection was, as far as its functions may ask for it."""
    row = Socket(
        pk=end.socket_pk,
        channel_name=end.channel_name,
        server=end.server,
        layer=end.layer,
        path=end.path,
        user=end.user if end.user_id is not None and _is_there(end) else None,
        session=sessions.get(end.session_key),
        authentication=end.authentication,
        user_ip=end.user_ip,
        handshake=end.handshake,
        last_ping=end.last_ping,
        created=end.opened,
        modified=end.noted,
    )
    row._state.adding, row._state.db = False, end._state.db
    row.rooms_left = json.loads(end.rooms)
    return row


def _is_there(end):
    try:
        return end.user is not None
    except type(end)._meta.get_field('user').related_model.DoesNotExist:
        return False


def _still_claimed(claim):
    """Return those ends of ``claim`` that nobody else has taken because their transaction took long."""
    if time.monotonic() - claim.since < removal.LEASE / 2:
        return claim.ends
    try:
        mine = _ends().filter(claimed_by=claim.name)
        mine.update(claimed_until=in_seconds(removal.LEASE))
        left = set(mine.values_list('pk', flat=True))
    except Error as error:
        logger.error('Ends of connections are left to whoever looks next: %s', error)
        return []
    return [(row, end) for row, end in claim.ends if end.pk in left]


def _hold(names):
    with _lock:
        _held.update(names)
        if _is_renewing or not _held or not _threads_allowed():
            return
        _is_renewing.append(True)
    background.run(_renew, 'sockets-claims')


def _renew():
    """Keep what this process has claimed from being claimed by others, for as long as there is any."""
    while True:
        time.sleep(removal.LEASE / 4)
        with _lock:
            names = list(_held)
            if not names:
                _is_renewing.clear()
                return
        try:
            _ends().filter(claimed_by__in=names).update(claimed_until=in_seconds(removal.LEASE))
        except Error as error:
            logger.error('Claims could not be renewed: %s', error)
            connections.close_all()


def _ends():
    return Ending.objects.using(Socket.objects.on_primary().db)


def _threads_allowed():
    database = connections[_ends().db]
    # Another thread does not see what a transaction has done, nor a database in memory.
    if database.in_atomic_block or database.vendor == 'sqlite' and database.is_in_memory_db():
        return 0
    return THREADS
