"""Who may connect now, and when the others are to come back: a queue that is bounded by how long it takes.

It does nothing but count: all times are seconds of the caller's clock, and whoever asks says how many wait. The script
``put_frame`` does the same for all servers of a Redis.
"""

# Seconds that a connect may have to wait. daphne's handshake time-out, which resets the client, is 5.
BUDGET = 2

# Seconds without a connect after which one goes before the frames that wait. Those of who is in come first.
PATIENCE = 0.5

# Connects that may wait, however fast they are.
LONGEST_QUEUE = 1000

# Whoever is told to come back does so when the queue is down to this many seconds, and a little faster than connects were
# served: the server has something to do all the time. Beyond NEAR seconds, where it may be faster by then, much earlier.
# Those that come too early are told again, and a handshake has its price: with a HASTE of 1.5, 5,000 clients took 38 s
# and not 34.
LEAD = 1
HASTE = 1.1
NEAR, FAR = 8, 0.6

# Seconds between two connects until it has been measured, for how many measured ones that counts, of how many the mean
# is taken, how many times the mean one counts at most, or how large a part of all, the least that is believed of the
# mean, and for how many seconds it is good.
GAP, ASSUMED, MEASURED, LEAST_GAP = 0.02, 4, 64, 0.0001
MOST, PART = 3, 0.25
GOOD_FOR = 60

# Seconds after which somebody is told to come back: at the earliest when nobody serves connects at all, and at the
# latest. Beyond that, anywhere in its second half.
EARLIEST = 1
LATEST = 300


class Admission:
    """A queue of connects: ``ask`` for each that comes, ``taken`` for each that is being served."""

    def __init__(self):
        self.gap = GAP
        self._measured = 0
        self._samples = ASSUMED
        # When the last one was taken while others waited.
        self._taken = None
        # How many have been told to come back at a time that is still to come.
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
            # Nobody knows yet how long it will be. Most of those that are told so come back to somebody who does.
            seconds = EARLIEST + self._promised * 0.618 % 1 * BUDGET
        elif seconds > LATEST:
            seconds = LATEST / 2 + self._promised % (LATEST / 2)
        return round(max(seconds, EARLIEST if oldest > BUDGET else 0.1), 1)

    def taken(self, now, waiting):
        """Note that one was taken from the queue, in which ``waiting`` are left."""
        if self._taken is not None:
            # The first of all take long, and one may hang.
            took = min(now - self._taken, self.gap * max(self._samples * PART, MOST))
            self._samples = min(self._samples + 1, MEASURED)
            self.gap = max(self.gap + (took - self.gap) / self._samples, LEAST_GAP)
            self._measured = now
        self._taken = now if waiting else None
