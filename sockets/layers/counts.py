"""How many messages wait in Redis and how many were lost, for operators."""

import collections
import contextlib
import threading
import time

import redis

from . import dropped

# Seconds between two reports of what has expired.
_REPORT_EVERY = 3


class Counts:
    """Messages that wait, were dropped or have expired, by channel or server."""

    def __init__(self, ring, leases):
        self.ring = ring
        self.leases = leases
        # What has expired in this process, which Redis does not know.
        self._expired = collections.Counter()
        self._reported = 0
        self._lock = threading.Lock()

    def note_dropped(self, servers):
        """Count messages that senders have dropped: a dict of numbers by server."""
        for server, count in servers.items():
            # If it cannot be noted: the sender has logged it.
            with contextlib.suppress(redis.exceptions.RedisError):
                self.ring.run('note_dropped', self.ring.shard_of(server), [server, count])

    def note_expired(self, server, count):
        """Count messages that have expired before this process read them."""
        with self._lock:
            self._expired[server] += count

    def report_expired(self):
        """Report, every few seconds, what has expired here and in Redis, once for all processes."""
        now = time.monotonic()
        if now - self._reported < _REPORT_EVERY:
            return
        self._reported = now
        with self._lock:
            expired, self._expired = self._expired, collections.Counter()
        self.note_dropped(expired)
        for index in range(self.ring.size):
            with contextlib.suppress(redis.exceptions.RedisError):
                reply = self.ring.run('report_expired', index, [])
                expired.update({name.decode(): int(count) for name, count in zip(reply[::2], reply[1::2])})
        if expired:
            dropped.report(expired)

    def statistics(self, local, clients):
        """Return ``local``, the statistics of this process, together with those of the Redis servers of ``clients``."""
        waiting, lost = local['waiting'], dict(local['dropped'])
        for client in clients:
            for kind in ('queue:', 'frames:'):
                start = len(self.ring.prefix) + len(kind)
                for key in client.scan_iter(match=self.ring.prefix + kind + '*', count=1000):
                    channel = key.decode()[start:] if kind == 'queue:' else 'frames of connections'
                    waiting[channel] = waiting.get(channel, 0) + client.llen(key)
            for server, count in client.hgetall(self.ring.prefix + 'dropped').items():
                lost[server.decode()] = lost.get(server.decode(), 0) + int(count)
        # Messages for dead servers do not wait: nobody takes them any more.
        gone = self.leases.gone(channel for channel in waiting if channel.endswith('!'))
        return {
            'waiting': {channel: count for channel, count in waiting.items() if count and channel not in gone},
            'dropped': lost,
        }
