"""Each Redis of a layer: whether it answers, and what its clock says."""

import logging
import threading
import time
import weakref

from .connections import connect
from .errors import Down

logger = logging.getLogger('sockets')

# Seconds that a call may take. A single Redis that hangs is waited for: nothing works without it anyway. Of several,
# one that hangs must not delay the others.
TIMEOUT, TIMEOUT_OF_SEVERAL = 10, 1.5

# Seconds between two tries to reach a shard that is down, and that one try may take.
_PROBE_EVERY = 0.25
_PROBE_TIMEOUT = 1

# Seconds after which the difference between Redis's clock and ours is measured again.
_CLOCK_IS_GOOD = 60

# A script, because Redis answers other commands while it loads its data or another script runs for too long. It changes
# nothing, which a replica refuses. One that is full is there.
_PROBE = """
local reply = redis.pcall('SETRANGE', 'sockets:room', 0, '')
if type(reply) == 'table' and string.find(reply.err or '', 'READONLY') then return redis.error_reply(reply.err) end
return redis.call('TIME')
"""

# It goes on while the machine is suspended, where there is such a clock.
_CLOCK = getattr(time, 'CLOCK_BOOTTIME', None)


def local_time():
    """Return the seconds of a clock of this machine that nobody sets."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class Clock:
    """The time of a Redis, from its answers to ``TIME``: never ahead of it."""

    def __init__(self):
        self.offset = None
        self.measured = None

    def is_known(self):
        """Whether Redis has ever been asked."""
        return self.offset is not None

    def is_due(self):
        """Whether Redis should be asked again."""
        return self.offset is None or local_time() - self.measured > _CLOCK_IS_GOOD

    def doubt(self):
        """Have the difference measured again."""
        self.measured = local_time() - _CLOCK_IS_GOOD

    def set(self, reply):
        """Set the difference from an answer to ``TIME`` that has just come."""
        seconds, microseconds = reply
        # It may have taken long to arrive, so the time is at least this.
        self.measured = local_time()
        self.offset = int(seconds) + int(microseconds) / 1e6 - self.measured

    def now(self):
        """Return Redis's time in seconds; the time of this machine while it is not known."""
        return time.time() if self.offset is None else local_time() + self.offset


class Shard:
    """One Redis of a layer.

    A thread that cannot reach it calls ``failed``. From then on calls fail at once, until a thread that probes it now
    and then has got an answer. ``timeout`` is how many seconds a call may take.
    """

    def __init__(self, pool, timeout, name=''):
        self.pool = pool
        self.timeout = timeout
        # What the log calls it, where there are several.
        self.name = name
        self.clock = Clock()
        self.is_down = False
        self._since = None
        self._refusal = None
        self._is_up = threading.Event()
        self._is_up.set()
        self._lock = threading.Lock()
        self._watcher = None

    def check(self):
        """Raise ``Down`` if it has not answered lately."""
        if self.is_down:
            # A process that was forked has no threads of its parent.
            self._watch()
            raise Down(f'Redis{self.name} is away')

    def failed(self, error):
        """Note that it could not be reached; logged once."""
        with self._lock:
            is_news, self.is_down = not self.is_down, True
            if is_news:
                self._since = time.monotonic()
                self._is_up.clear()
        if is_news:
            logger.error('Redis is away%s, trying again: %s', self.name, error)
        self._watch()

    def answered(self):
        """Note that it has answered."""
        if not self.is_down:
            return
        with self._lock:
            is_news, self.is_down = self.is_down, False
            self._is_up.set()
        if is_news:
            logger.warning('Redis is back%s after %.1f s', self.name, time.monotonic() - self._since)

    def refused(self, error):
        """Log, once for each reason, that it refuses a command."""
        if str(error) != self._refusal:
            self._refusal = str(error)
            logger.error('Redis refuses a command%s: %s', self.name, error)

    def wait(self, seconds):
        """Return when it has answered, or after ``seconds``."""
        self._is_up.wait(seconds)

    def deadline(self):
        """Return until when a script that is sent now may begin, in milliseconds of its own clock."""
        return int((self.clock.now() + self.timeout) * 1000)

    def connect(self, timeout=None):
        """Return a connection that waits a little longer than a script may take to begin."""
        connection = connect(self.pool)
        connection.socket_timeout = connection.socket_connect_timeout = (timeout or self.timeout) + 0.25
        return connection

    def open(self):
        """Return a connection for Twisted's reactor: it is open, knows Redis's time and does not block."""
        connection = self.connect()
        connection.connect()
        connection.send_command('TIME')
        self.clock.set(connection.read_response())
        connection._sock.setblocking(False)
        return connection

    def probe(self):
        """Ask it for its time; raise if that fails."""
        connection = self.connect(_PROBE_TIMEOUT)
        try:
            connection.send_command('EVAL', _PROBE, 0)
            self.clock.set(connection.read_response())
        finally:
            connection.disconnect()

    def _watch(self):
        with self._lock:
            if self.is_down and (self._watcher is None or not self._watcher.is_alive()):
                self._watcher = threading.Thread(
                    target=_watch, args=(weakref.ref(self),), daemon=True, name='sockets-shard'
                )
                self._watcher.start()


def _watch(reference):
    """Probe the shard of a weak reference until it answers, or is not needed any more."""
    while True:
        time.sleep(_PROBE_EVERY)
        shard = reference()
        if shard is None:
            return
        try:
            shard.probe()
        except Exception:
            del shard
        else:
            return shard.answered()
