"""Which clients may connect now, and when the others are to come back: a queue that is bounded by how long it takes.

It only counts: all times are seconds of the caller's clock, and the caller says how many wait. The script
``put_frame`` does the same for all servers of a Redis.
"""

# Seconds that a connect may have to wait. daphne's handshake time-out, which resets the client, is 5.
BUDGET = 2

# Seconds without a connect after which one goes before the frames that wait. Frames of open connections come first.
PATIENCE = 0.5

# Connects that may wait, however fast they are.
LONGEST_QUEUE = 1000

# Clients are told to come back when the queue is down to LEAD seconds, and a little faster than connects were served,
# so that the server is never idle. Beyond NEAR seconds, where it may be faster by then, much earlier. Clients that come
# too early are told again, and a handshake costs something: with a HASTE of 1.5, 5,000 clients took 38 s and not 34.
LEAD = 1
HASTE = 1.1
NEAR, FAR = 8, 0.6

# The mean time between two connects. GAP: the seconds that are assumed until it is measured, with the weight of ASSUMED
# samples. MEASURED: the most samples in the mean. LEAST_GAP: its smallest value. A sample counts at most as MOST times
# the mean, or as PART times the number of samples if that is more. GOOD_FOR: seconds after which the mean is outdated.
GAP, ASSUMED, MEASURED, LEAST_GAP = 0.02, 4, 64, 0.0001
MOST, PART = 3, 0.25
GOOD_FOR = 60

# The fewest seconds after which clients are told to come back when no connects are served at all, and the most. Instead
# of more, it is a time in the second half of LATEST.
EARLIEST = 1
LATEST = 300


class Admission:
    """A queue of connects: ``ask`` for each that comes, ``taken`` for each that is being served, alone or with others."""

    def __init__(self):
        self.gap = GAP
        self._measured = 0
        self._samples = ASSUMED
        # When the last one was taken while others waited.
        self._taken = None
        # How many were taken together with it, itself included.
        self._together = 1
        # How many have been told to come back and are not due yet.
        self._promised = 0
        self._promised_at = 0

    def ask(self, now, waiting, oldest):
        """Return ``None`` if a connect may be queued, or the seconds after which its client is to come back.

        ``waiting`` connects are in the queue, the first for ``oldest`` seconds.
        """
        if now - self._measured > GOOD_FOR:
            self.gap, self._samples = GAP, ASSUMED
        if waiting * self.gap <= BUDGET and waiting < LONGEST_QUEUE and oldest <= BUDGET:
            return None
        each = self.gap / HASTE
        self._promised = max(0, self._promised - (now - self._promised_at) / each) + 1
        self._promised_at = now
        seconds = waiting * self.gap + self._promised * each - LEAD
        if seconds > NEAR:
            seconds = NEAR + (seconds - NEAR) * FAR
        if self._samples == ASSUMED:
            # Nothing has been measured yet. By the time that most of these clients are back, it has.
            seconds = EARLIEST + self._promised * 0.618 % 1 * BUDGET
        elif seconds > LATEST:
            seconds = LATEST / 2 + self._promised % (LATEST / 2)
        return round(max(seconds, EARLIEST if oldest > BUDGET else 0.1), 1)

    def taken(self, now, waiting):
        """Note that one was taken from the queue, in which ``waiting`` are left."""
        if self._taken is not None:
            self._note((now - self._taken) / self._together, self._together, now)
        self._taken, self._together = (now if waiting else None), 1

    def taken_with(self, count, waiting):
        """Note that ``count`` more were taken together with the last one, and that ``waiting`` are left."""
        self._together += count
        if not waiting:
            self._taken = None

    def served(self, seconds, count, now):
        """Note that ``count`` which were taken together, and left none, took some ``seconds``."""
        self._note(seconds / count, count, now)

    def _note(self, each, count, now):
        for _ in range(count):
            # The very first connects take long, and one may hang.
            took = min(each, self.gap * max(self._samples * PART, MOST))
            self._samples = min(self._samples + 1, MEASURED)
            self.gap = max(self.gap + (took - self.gap) / self._samples, LEAST_GAP)
        self._measured = now
