"""Groups of channels within one process."""

import threading
import time


class LocalGroups:
    """Which channels are in which group; each membership ends after ``expiry`` seconds unless it is renewed."""

    def __init__(self, expiry):
        self.expiry = expiry
        self._groups = {}
        self._lock = threading.Lock()

    def add(self, group, channel):
        """Add ``channel`` to ``group``, or renew its membership."""
        with self._lock:
            self._groups.setdefault(group, {})[channel] = time.monotonic() + self.expiry

    def discard(self, group, channel):
        """Remove ``channel`` from ``group`` if it is in it."""
        with self._lock:
            self._members(group).pop(channel, None)
            self._members(group)

    def channels(self, group):
        """Return the names of the channels in ``group``."""
        with self._lock:
            return list(self._members(group))

    def clear(self):
        """Forget all groups."""
        with self._lock:
            self._groups = {}

    def _members(self, group):
        members = self._groups.get(group, {})
        for channel in [channel for channel, until in members.items() if until <= time.monotonic()]:
            del members[channel]
        if not members:
            self._groups.pop(group, None)
        return members
