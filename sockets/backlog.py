"""How much may wait for a client that does not read."""

# Bytes that may wait for it beside the longest frame, before it is cut off. Its fan-outs would fill our memory.
BACKLOG = 4 * 1024 * 1024


class Backlog:
    """What waits for one client since it began to lag.

    The longest of the frames that wait does not count: it may be longer than all that may wait, and its client reads.
    """

    __slots__ = ('size', 'longest', 'behind')

    def __init__(self):
        # Bytes of all frames since then, of the longest one that waits, and of those that came after that one.
        self.size = self.longest = self.behind = 0

    def add(self, size, waiting):
        """Note a frame of ``size`` bytes, with which ``waiting`` bytes wait; return whether that is too much."""
        self.size += size
        # Frames are sent in their order. This is what is left of it.
        left = max(0, min(self.longest, waiting - size - self.behind))
        if size >= left:
            left, self.longest, self.behind = size, size, 0
        else:
            self.behind += size
        return waiting - left > BACKLOG
