"""Threads that run what may wait, for an event loop, which may not."""

import asyncio
import collections
import logging
import threading
import time

from ...execution import coroutines, thread_state
from .outcomes import Outcomes

logger = logging.getLogger('sockets')

# Seconds that a job may wait for the threads that are at work before another one is woken: threads that only compute
# fight for the interpreter's lock.
PATIENCE = 0.01

# Threads of a process that may hang and be replaced. Whatever makes them hang would make the next ones hang as well, and
# each keeps its memory and its database connection.
MOST_HUNG = 10

# Frames that may come one by one, each handled at once, before it is looked again whether they do.
LOOK_AGAIN = 16


class Pool:
    """Threads of the event loop ``loop``, at most ``size``, woken when what they are given has to wait.

    What they have done comes back to the loop in one wake-up for many. Pools ``beside`` each other share it: all comes back
    in the order in which it was done.
    """

    def __init__(self, loop, size, beside=None):
        self.loop = loop
        self.size = size
        self.threads = []
        # How many of them wait for a coroutine, which may in turn need one.
        self._lent = 0
        self._jobs = collections.deque()
        self._idle = []
        self._outcomes = Outcomes(loop) if beside is None else beside._outcomes
        self._is_relief_due = self._is_wake_due = False
        # Jobs that came since the last wake-up was asked for, and how many more are taken to come alone.
        self._came = self._alone = 0
        self._is_stopped = False

    def submit(self, function, *args):
        """Have a thread call ``function``; return a future of its result. On the loop's thread."""
        future = self.loop.create_future()
        self._jobs.append((time.monotonic(), future, None, function, args))
        self._wake_if_idle()
        return future

    def call(self, then, function, *args):
        """Have a thread call ``function(*args)``, and the loop call ``then`` with what it returns, or the exception that it
        raises, and ``args``. On the loop's thread.
        """
        self._jobs.append((time.monotonic(), None, then, function, args))
        self._came += 1
        if self._is_wake_due:
            return
        if self._alone and len(self._jobs) == 1:
            self._alone -= 1
            return self._wake_if_idle()
        # A thread that is woken for the first of many frames is done with that before the loop has read the next one, and
        # would be woken for each.
        self._is_wake_due, self._came = True, 1
        self.loop.call_soon(self._wake_for_all)

    @property
    def waiting(self):
        """How many jobs no thread has taken yet."""
        return len(self._jobs)

    def waited(self, now):
        """Return for how many seconds the first of them has waited."""
        try:
            return now - self._jobs[0][0]
        except IndexError:
            return 0

    def call_on_loop(self, function, *args):
        """Have the loop call ``function`` soon, in the order of calls. On any thread; ``RuntimeError`` once it is closed."""
        self._outcomes.put((None, function, args))

    def start(self):
        """Start a thread now: when the interpreter ends, none can be started any more."""
        self._wake()

    def stop(self):
        """Let the threads end when they have done what they were given."""
        self._is_stopped = True
        for lock in list(self._idle):
            lock.release()

    def replace(self, thread):
        """Have another thread started in the place of ``thread``, which hangs in a function."""
        hung = sum(getattr(other, 'is_replaced', False) for other in threading.enumerate())
        if hung >= MOST_HUNG:
            logger.critical(
                'The functions of %d threads hang: %s is not replaced. Restart this process.', hung + 1, thread.name
            )
        elif thread in self.threads:
            self.threads.remove(thread)
            thread.is_replaced = True
            self.wake_another()

    def _wake_for_all(self):
        self._is_wake_due = False
        self._alone = LOOK_AGAIN if self._came == 1 else 0
        if self._jobs:
            self._wake_if_idle()

    def _wake_if_idle(self):
        if len(self._idle) == len(self.threads) - self._lent:
            self._wake()
        else:
            self._relieve_later()

    def _relieve_later(self):
        if not self._is_relief_due:
            self._is_relief_due = True
            self.loop.call_later(PATIENCE, self._relieve)

    def _wake(self):
        try:
            self._idle.pop().release()
        except IndexError:
            if len(self.threads) < self.size + self._lent:
                thread = PoolThread(self)
                try:
                    thread.start()
                except RuntimeError:
                    # The interpreter ends: those that there are have to do.
                    return
                self.threads.append(thread)

    def _relieve(self):
        self._is_relief_due = False
        is_late = self.is_late()
        if is_late:
            self._wake()
        if is_late is not None:
            self._relieve_later()

    def work(self, thread):
        """What ``thread`` does: job after job."""
        lock = threading.Lock()
        lock.acquire()
        coroutines.run_by(self._await)
        while not thread.is_replaced:
            try:
                job = self.next()
            except IndexError:
                if self._is_stopped:
                    return
                if len(self.threads) > self.size + self._lent:
                    self.threads.remove(thread)
                    return
                self._idle.append(lock)
                if self.has_jobs() or self._is_stopped:
                    # It came in between: take it, unless somebody has woken us for it.
                    try:
                        self._idle.remove(lock)
                        continue
                    except ValueError:
                        pass
                lock.acquire()
                continue
            try:
                self.do(job)
            except RuntimeError:
                # The loop is closed.
                return
            # What the job held is not held until the next one.
            job = None

    def next(self):
        """Take the next job and return it; ``IndexError`` if there is none."""
        return self._jobs.popleft()

    def has_jobs(self):
        """Whether there is one."""
        return bool(self._jobs)

    def is_late(self):
        """Whether the first one has waited for too long for the threads that are at work; ``None`` if there is none."""
        return self.waited(time.monotonic()) >= PATIENCE if self._jobs else None

    def do(self, job):
        """Do ``job``, and have the loop told. ``RuntimeError`` once that is closed."""
        self.report(job, self.outcome_of(job))

    def outcome_of(self, job):
        """Call the function of ``job``; return what it returns, or the exception that it raises."""
        _, _, _, function, args = job
        try:
            thread_state.begin()
            outcome = function(*args)
        except BaseException as error:
            outcome = error
        thread_state.end_transactions()
        return outcome

    def report(self, job, outcome):
        """Have the loop told what became of ``job``. ``RuntimeError`` once it is closed."""
        _, future, then, _, args = job
        self._outcomes.put((future, outcome, None) if then is None else (None, then, (outcome, *args)))

    def wake_another(self):
        """Wake a thread, if one waits. On any thread; ``RuntimeError`` once the loop is closed."""
        self.loop.call_soon_threadsafe(self._wake)

    def _await(self, awaitable):
        """Return the result of ``awaitable``, which the loop awaits."""

        async def wait():
            self._lent += 1
            try:
                return await awaitable
            finally:
                self._lent -= 1

        return asyncio.run_coroutine_threadsafe(wait(), self.loop).result()


class PoolThread(threading.Thread):
    """A thread of a pool."""

    def __init__(self, pool):
        super().__init__(name='sockets-frames', daemon=True)
        self.pool = pool
        self.is_replaced = False

    def run(self):
        from django.db import connections

        try:
            self.pool.work(self)
        finally:
            connections.close_all()

    def replace(self):
        """Have another thread do its work from now on: a function hangs in this one."""
        self.pool.replace(self)
