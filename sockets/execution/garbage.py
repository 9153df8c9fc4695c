"""Full garbage collections of Python, which look at every object while all threads stand still."""

import gc
import time

# A server with 5,000 connections stands still for half a second at each, and has many while they connect.
# Those are put off that take longer than so many seconds, until so many times as long has gone by.
SHORT = 0.02
PAUSE = 100

# Not reached by any count of collections.
_NEVER = 2**31 - 1


class Spacing:
    """Puts off the next full collection for a hundred times as long as the last one took. Smaller ones are as they were.

    ``gc.collect()`` collects at any time, and who sets other thresholds meanwhile has them.
    """

    def __init__(self, clock=time.perf_counter):
        self._clock = clock
        self._began = self._until = None
        # Those of before, and those that put off.
        self._thresholds = self._now = None

    def __call__(self, phase, info):
        """Take what ``gc.callbacks`` are told."""
        if phase == 'start':
            self._began = self._clock()
        elif info['generation'] == 2:
            self._put_off(self._clock())
        elif self._now is not None and self._clock() > self._until:
            self.allow()

    def _put_off(self, now):
        took = now - self._began
        if took < SHORT:
            return self.allow()
        self._until = now + PAUSE * took
        if self._now is None:
            self._thresholds = gc.get_threshold()
            self._now = (*self._thresholds[:2], _NEVER)
            gc.set_threshold(*self._now)

    def allow(self):
        """Have full collections again as Python itself would."""
        if self._now is not None and gc.get_threshold() == self._now:
            gc.set_threshold(*self._thresholds)
        self._now = None


spacing = Spacing()


def space_out():
    """Have full collections take at most a hundredth of the time of this process, from now on."""
    if spacing not in gc.callbacks:
        gc.callbacks.append(spacing)


def leave_out_what_is_there():
    """Have no collection look at what there is now: the modules of a server that starts."""
    gc.collect()
    gc.freeze()
