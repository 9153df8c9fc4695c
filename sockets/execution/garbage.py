"""Full garbage collections of Python, which look at every object while all threads stand still."""

import gc
import math
import sys
import time

# A server with 5,000 connections stands still for half a second at each, and has many while they connect.
# Those are put off that take longer than so many seconds, until so many times as long has gone by.
SHORT = 0.02
PAUSE = 100

# Unless there is so many times as much as the last one has left: a project may make garbage faster than that.
GROWTH = 2

# Seconds between two looks how much there is, which take some tenths of a millisecond.
INTERVAL = 1

# Not reached by any count of collections.
_NEVER = 2**31 - 1


class Spacing:
    """Puts off the next full collection for a hundred times as long as the last one took, or until there is twice as much
    in memory. Smaller ones are as they were.

    ``gc.collect()`` collects at any time, and who sets other thresholds meanwhile has them. ``count`` says how much there is.
    """

    def __init__(self, clock=time.perf_counter, count=sys.getallocatedblocks):
        self._clock, self._count = clock, count
        # No start has been seen.
        self._began = math.inf
        # Until when, and until there is more than what; when that is looked at next.
        self._until = self._most = self._next_look = 0
        # The threshold of before. The one that puts off is known by its value: whoever has read it may set it again.
        self._usual = None

    def __call__(self, phase, info):
        """Take what ``gc.callbacks`` are told."""
        if phase == 'start':
            self._began = self._clock()
        elif info['generation'] == 2:
            self._put_off(self._clock())
        elif gc.get_threshold()[2] == _NEVER and self._is_due(self._clock()):
            self.allow()

    def _put_off(self, now):
        took = now - self._began
        if took < SHORT:
            return self.allow()
        self._until, self._most, self._next_look = now + PAUSE * took, GROWTH * self._count(), now + INTERVAL
        first, second, third = gc.get_threshold()
        if third != _NEVER:
            self._usual = third
            gc.set_threshold(first, second, _NEVER)

    def _is_due(self, now):
        if now > self._until:
            return True
        if now < self._next_look:
            return False
        self._next_look = now + INTERVAL
        return self._count() > self._most

    def allow(self):
        """Have full collections again as Python itself would."""
        first, second, third = gc.get_threshold()
        if third == _NEVER and self._usual is not None:
            gc.set_threshold(first, second, self._usual)


spacing = Spacing()


def space_out():
    """Have full collections take at most a hundredth of the time of this process, from now on, while it does not grow."""
    if spacing not in gc.callbacks:
        gc.callbacks.append(spacing)


def leave_out_what_is_there():
    """Have no collection look at what there is now: the modules of a server that starts."""
    gc.collect()
    gc.freeze()
