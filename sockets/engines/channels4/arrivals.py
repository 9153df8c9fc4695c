"""The threads that open connections: of those that wait, several at a time, whose rows one statement inserts."""

import collections
import inspect
import threading
import time

from ...access import limits
from ...connection import connect
from ...execution import steps as work_steps
from ...execution import thread_state
from ...models import insertion
from . import steps
from .pool import Pool

# How many are opened together at most, and seconds after which no more are taken.
BATCH = 64
AT_ONCE = 0.05

# Seconds after that, when the thread hangs in one of them, as where its user is looked up elsewhere: the others go on.
LATE = 0.2

# Seconds for which a thread may be at work on those that have their rows: who looks at the table takes them for open.
AHEAD = 0.1

# The part of a new sample in the mean of what one of them takes, and the least that this is.
WEIGHT, LEAST = 0.2, 0.0005


class Arrivals(Pool):
    """A pool whose threads find the users of connections that wait, one after another, and insert their rows together. Then any
    thread goes on with each of them.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # Those that have their rows.
        self._inserted = collections.deque()
        # By thread, those that wait for the others of theirs, and from when on not any more.
        self._gathered = {}
        # Seconds that a thread is at work on one of them.
        self._pace = AHEAD / 8

    def next(self):
        try:
            return self._inserted.popleft()
        except IndexError:
            pass
        for waiting in self._late():
            try:
                job, _ = waiting.popleft()
            except IndexError:
                continue
            return _with_row(job)
        return super().next()

    def has_jobs(self):
        return bool(self._inserted or self._jobs or any(self._late()))

    def is_late(self):
        if self._inserted or any(self._late()):
            return True
        is_late = super().is_late()
        return False if is_late is None and self._gathered else is_late

    def _late(self):
        if not self._gathered:
            return ()
        now = time.monotonic()
        return [waiting for waiting, until in list(self._gathered.values()) if now > until]

    def do(self, job):
        count = min(BATCH, int(AHEAD / self._pace))
        # Where there are limits, each has to count the rows of those before it.
        if count < 2 or not self._jobs or limits.limits_connections() or not _can_wait(job):
            return self._do_alone(job)
        until, waiting = time.monotonic() + AT_ONCE, collections.deque()
        self._gathered[threading.get_ident()] = waiting, until + LATE
        connects = job[-1][0].server.connects
        note = connects.taken
        while job is not None:
            note()
            job[-1][0].gathered = ()
            outcome = self.outcome_of(job)
            if type(outcome) is insertion.Insertion:
                waiting.append((job, outcome))
            else:
                self.report(job, outcome)
            note = connects.taken_with
            job = self._next_that_can_wait() if len(waiting) < count and time.monotonic() < until else None
        # Nothing else is held while this goes on.
        outcome = None
        del self._gathered[threading.get_ident()]
        self._insert(_all_of(waiting))

    def _do_alone(self, job):
        began = time.monotonic()
        super().do(job)
        if job[-2] in (steps.go_on, _go_on):
            self._pace += (max(time.monotonic() - began, LEAST) - self._pace) * WEIGHT

    def _next_that_can_wait(self):
        try:
            job = self._jobs.popleft()
        except IndexError:
            return None
        if _can_wait(job):
            return job
        self._jobs.appendleft(job)
        return None

    def _insert(self, waiting):
        """Insert the rows of those jobs of ``waiting`` whose clients are still there, and have threads go on with these."""
        here = []
        for job, row in waiting:
            connection, work = job[-1][0], job[-1][-1]
            if connection.has_ended or connection.incoming.has_left():
                work_steps.abandon(work)
                self.report(job, steps.DONE)
            else:
                here.append((job, row))
        if not here:
            return
        connection, handler, root_path, _ = here[0][0][-1]
        try:
            thread_state.begin()
            steps.on_thread(handler, root_path, insertion.insert, [row for _, row in here])
        except BaseException:
            # Each is told of it when it goes on.
            pass
        thread_state.end_transactions()
        self._inserted.extend([_with_row(job) for job, _ in here])
        if len(here) > 1:
            # Should their functions be slow; and then one after another.
            self.wake_another()
            self.loop.call_soon_threadsafe(self._relieve_later)


def _all_of(waiting):
    """Take all that is left in ``waiting``, from which others may take as well."""
    found = []
    while True:
        try:
            found.append(waiting.popleft())
        except IndexError:
            return found


def _with_row(job):
    """Return what is to be done of ``job`` when its row has been inserted, or is to be inserted alone."""
    return (*job[:3], _go_on, job[-1])


def _go_on(connection, handler, root_path, work):
    """Go on with ``work``, which waited for its row, unless its connection has ended since."""
    if connection.has_ended or connection.incoming.has_left():
        # Whoever has removed the row, as with its user, has run the functions of its end.
        work_steps.abandon(work)
        return steps.DONE
    return steps.go_on(connection, handler, root_path, work)


def _can_wait(job):
    """Whether ``job`` is a connect with which nobody has begun, and before whose row nothing of the project's runs."""
    function, args = job[-2:]
    if function is not steps.go_on or inspect.getgeneratorstate(args[-1]) != inspect.GEN_CREATED:
        return False
    try:
        return connect.may_gather(type(args[1]))
    except Exception:
        # Of what is configured. Its client is told where it is asked for again.
        return False
