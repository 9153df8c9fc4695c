"""Whether this process may go on serving, or others have found it dead."""

import math
import time

from .scripts import DEAD, GONE, UNKNOWN

# Seconds between two looks whether the answer to a heartbeat has come.
_PATIENCE = 0.02


def uptime():
    """Return the seconds since this machine was started, including those in which it was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, 'CLOCK_BOOTTIME') else time.time()


class Liveness:
    """Whether the servers of this process count as alive.

    A process that was not at work for longer than ``lease`` seconds (stopped, or its machine suspended) may have been
    found dead. That is uncertain until a heartbeat that it sent afterwards has been answered.
    """

    def __init__(self, lease):
        self.lease = lease
        self.is_dead = False
        self.is_uncertain = False
        # How often the process was not at work.
        self.interruptions = 0
        # When this process was last at work; infinity if it never calls note_work().
        self.at_work = math.inf

    def note_work(self):
        """Note that this process is at work. To be called often, by a thread that waits for nothing else."""
        now = uptime()
        if self._is_stale(now):
            self.interruptions += 1
            # Before the time is set, so that other threads see at least one of the two.
            self.is_uncertain = True
        self.at_work = now

    def take_answer(self, answer, interruptions):
        """Handle the answer to a heartbeat that was sent after so many ``interruptions``."""
        if answer in (DEAD, GONE) or (answer == UNKNOWN and not self.is_certain()):
            self.is_dead = True
        if interruptions == self.interruptions:
            self.is_uncertain = False

    def is_certain(self):
        """Whether this process was at work all the time."""
        return not (self._is_stale(uptime()) or self.is_uncertain)

    def may_serve(self):
        """Whether a frame may be handled. Called for each one."""
        return not (uptime() - self.at_work > self.lease or self.is_uncertain or self.is_dead)

    def wait(self):
        """Wait until it is certain whether this process counts as dead; return whether it does not."""
        while not self.is_certain():
            time.sleep(_PATIENCE)
        return not self.is_dead

    def _is_stale(self, now):
        return now - self.at_work > self.lease
