"""What this process remembers of a connection between its frames. Standard library only; all times are seconds."""

import time

from .. import rates


class Memory:
    """A connection as this process knows it: when its row last said that it is alive, and how it behaves."""

    __slots__ = (
        'since',
        'noted',
        'heard',
        'is_unwritten',
        'buckets',
        'bad_frames',
        'user',
        'identity',
        'session_key',
        'row',
        'until',
        'follows',
        'is_served_here',
        'is_kept',
        'is_in_doubt',
    )

    def __init__(self, now):
        self.since = now
        # When its client has sent a frame of which its row knows, or is to know, and when the last one. Never, as far as we
        # know.
        self.noted = self.heard = None
        # Whether the row has yet to be told.
        self.is_unwritten = False
        # Per route, or None for all others: tokens, and when they were counted. Made when a rate is first asked: most
        # connections are idle or have none.
        self.buckets = None
        self.bad_frames = 0
        # The primary key of its user, as text, empty for a stranger; None until a rate has asked.
        self.user = None
        # Its row and user, as they were when they were last read: see identity_cache. And the key of its session, where no
        # row says it.
        self.identity = None
        self.session_key = None
        # The primary key of its row, where this process has made it.
        self.row = None
        # Until when its authentication holds, a time of time.time(), as far as is known here.
        self.until = None
        # The keys of memberships of streams that it surely follows, where this process handles all of its frames. The table
        # says what else it follows.
        self.follows = None
        # Whether this process handles all of its frames, and one after another; None until that has been asked.
        self.is_served_here = self.is_kept = None
        # Whether its row seems to have gone: the next frame looks.
        self.is_in_doubt = False

    def is_due(self, now, resolution):
        """Note that its client has sent a frame; return whether its row should be told. Then it will be due again after
        ``resolution``.
        """
        self.heard = now
        if self.noted is not None and now - self.noted < resolution:
            return False
        self.noted = now
        return True

    def is_doubtful(self):
        """Whether the next frame has to look whether the right to this connection holds."""
        return self.is_in_doubt or self.until is not None and self.until <= time.time()

    def wait(self, now, per_second, burst, route=None):
        """Take a token of the bucket of ``route``; return the seconds until there is one, 0 if it was taken."""
        if self.buckets is None:
            self.buckets = {}
        self.buckets[route], seconds = rates.take(self.buckets.get(route, (burst, now)), now, per_second, burst)
        return seconds


class Memories:
    """The connections that this process has heard of, by channel name. It forgets those that were silent for long."""

    # Some handle the disconnect of a connection whose frames they never saw, and some the other way round.
    forget_after = 3600

    def __init__(self):
        self._memories = {}
        self._next_sweep = 0

    def __len__(self):
        return len(self._memories)

    def __contains__(self, channel_name):
        return channel_name in self._memories

    def get(self, channel_name, now=None):
        """Return the ``Memory`` of that name, a new one if it is not known."""
        memory = self._memories.get(channel_name)
        if memory is None:
            now = time.monotonic() if now is None else now
            if now >= self._next_sweep:
                self._next_sweep = now + self.forget_after / 10
                self._sweep(now)
            # Two threads may come here at once.
            memory = self._memories.setdefault(channel_name, Memory(now))
        return memory

    def knows(self, channel_name, memory):
        """Return whether ``memory`` is that of the connection of that name, which has not ended as far as is known here."""
        return self._memories.get(channel_name) is memory

    def take(self, channel_name):
        """Forget a connection that has ended, and return its ``Memory``."""
        return self._memories.pop(channel_name, None) or Memory(time.monotonic())

    def forget(self, channel_name):
        """Forget a connection that has ended."""
        self._memories.pop(channel_name, None)

    def doubt(self, channel_names):
        """Have the next frame of each of those that are known look for its row."""
        for name in channel_names:
            memory = self._memories.get(name)
            if memory is not None:
                memory.is_in_doubt = True

    def _sweep(self, now):
        for name, memory in list(self._memories.items()):
            # Nobody else could say whose session it is. Where there is such a key, this process is told of the end.
            if memory.session_key is None and now - max(memory.heard or 0, memory.since) > self.forget_after:
                self._memories.pop(name, None)


memories = Memories()
