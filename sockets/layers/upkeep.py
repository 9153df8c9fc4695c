"""What a process does regularly while its layer is in use, on threads of its own."""

import atexit
import logging
import threading
import time
import weakref

logger = logging.getLogger('sockets')

# Seconds between two heartbeats of a server; see redis_leases.py for how many may be missed.
HEARTBEAT_EVERY = 0.5


class Upkeep:
    """Calls ``jobs`` one after another each half second, or each third of ``lease`` seconds if that is less.

    Once started, it goes on until the object is collected, and calls ``at_exit`` when the process ends cleanly.
    """

    def __init__(self, lease, jobs, at_exit):
        self.lease = lease
        self.jobs = jobs
        self.at_exit = at_exit
        self._runner = None
        self._lock = threading.Lock()

    def start(self):
        """Call the jobs from now on, if that is not done already."""
        # A process that was forked has no threads of its parent.
        if self._runner is None or not self._runner.is_alive():
            with self._lock:
                if self._runner is None or not self._runner.is_alive():
                    self._runner = threading.Thread(
                        target=_run, args=(weakref.ref(self),), daemon=True, name='sockets-leases'
                    )
                    self._runner.start()
                    atexit.register(_end, weakref.ref(self))


def keep_noting_work(liveness):
    """Note regularly that this process is at work, whatever Redis does, while ``liveness`` is in use."""
    threading.Thread(target=_note_work, args=(weakref.ref(liveness),), daemon=True, name='sockets-liveness').start()


def _run(upkeep):
    wait = HEARTBEAT_EVERY
    while True:
        time.sleep(wait)
        alive = upkeep()
        if alive is None:
            return
        wait = min(HEARTBEAT_EVERY, alive.lease / 3)
        for job in alive.jobs:
            try:
                job()
            except Exception:
                # Go on: without heartbeats, this process would be found dead, and without the others, its frames lost.
                logger.exception('Could not renew the leases')
        # A local name keeps its object alive.
        del alive
        job = None


def _note_work(liveness):
    while True:
        alive = liveness()
        if alive is None:
            return
        alive.note_work()
        del alive
        time.sleep(HEARTBEAT_EVERY)


def _end(upkeep):
    alive = upkeep()
    if alive is not None:
        alive.at_exit()
