"""Whether this process may go on serving: what others have made of its silence."""
import math
import time

from .scripts import DEAD, GONE, UNKNOWN

# Seconds between two waits of a frame for an answer.
_PATIENCE = 0.02


def uptime():
    """Return the seconds since this machine was started, those included in which it was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, 'CLOCK_BOOTTIME') else time.time()


class Standing:
    """What a process knows of how others see its servers.

    A process that was not at work for longer than ``lease`` seconds (stopped, or its machine suspended) may have been
    found dead. It is in doubt until a heartbeat that it sent after that has been answered.
    """

    def __init__(self, lease):
        self.lease = lease
        self.is_dead = False
        self.is_in_doubt = False
        # How often that was so.
        self.doubts = 0
        # When we last were at work; always, for a process that never says so.
        self.at_work = math.inf

    def note_work(self):
        """Say that this process is at work. For a thread that waits for nobody, often."""
        now = uptime()
        if self._is_stale(now):
            self.doubts += 1
            # Before the time: who looks meanwhile sees one or the other.
            self.is_in_doubt = True
        self.at_work = now

    def hear(self, answer, doubts):
        """Take the answer to a heartbeat that was sent when there had been so many ``doubts``."""
        if answer in (DEAD, GONE) or (answer == UNKNOWN and not self.is_certain()):
            self.is_dead = True
        if doubts == self.doubts:
            self.is_in_doubt = False

    def is_certain(self):
        """Whether this process was at work all the time."""
        return not (self._is_stale(uptime()) or self.is_in_doubt)

    def may_serve(self):
        """Whether a frame may be handled. Asked with each one."""
        return not (uptime() - self.at_work > self.lease or self.is_in_doubt or self.is_dead)

    def wait(self):
        """Wait until it is certain whether we are dead; return whether we live."""
        while not self.is_certain():
            time.sleep(_PATIENCE)
        return not self.is_dead

    def _is_stale(self, now):
        return now - self.at_work > self.lease
