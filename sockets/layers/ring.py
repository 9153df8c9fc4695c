"""All Redis servers of a layer: how scripts are run on them, by a thread that waits and by a reactor that does not."""

import contextlib
import os
import threading
import weakref

import redis

from .connections import Pipe
from .errors import AWAY, explained
from .posting import Poster
from .shards import TIMEOUT, Shard

# Names in one entry or call: about 40 kB of them.
NAMES_AT_ONCE = 1000


class Ring:
    """The Redis servers (shards) over which a layer spreads its keys, and each thread's connections to them.

    ``shard_of(name)`` is the index of the shard on which a name is kept. ``prefix`` is the first argument of every
    script.
    """

    def __init__(self, pools, shard_of, prefix):
        self.size = len(pools)
        self.shards = [_shard(pool, index, self.size) for index, pool in enumerate(pools)]
        self.shard_of = shard_of
        self.prefix = prefix
        # The reactor's connections, by shard.
        self.posters = {}
        # The connections of all threads.
        self._pipes = weakref.WeakSet()
        self._lock = threading.Lock()
        self._thread = threading.local()

    def run(self, name, index, args):
        """Run a script on a shard and return its reply."""
        shard = self.shards[index]
        try:
            shard.check()
        except AWAY as error:
            # Commands that this thread has held for it fail as well.
            pipe = self._thread.__dict__.get('pipes', {}).pop(index, None)
            if pipe is not None:
                pipe.fail(error)
            raise
        args = [self.prefix, *args]
        try:
            try:
                return self._on_pipe(index, lambda pipe: pipe.run(name, args))
            except redis.exceptions.ConnectionError:
                # As redis-py does: perhaps only the old connection was lost.
                shard.check()
                return self._on_pipe(index, lambda pipe: pipe.run(name, args))
        except AWAY as error:
            shard.failed(error)
            raise

    def hold(self, name, index, make_args, on_reply):
        """Run a script with the next command of this thread; ``on_reply`` gets its reply, or an exception.

        ``make_args()`` returns its arguments when it is sent.
        """
        self.shards[index].check()
        self._on_pipe(index, lambda pipe: pipe.hold(name, lambda: [self.prefix, *make_args()], on_reply))

    def send_held(self, since):
        """Send what any thread has held since then or longer."""
        with self._lock:
            pipes = list(self._pipes)
        for pipe in pipes:
            if pipe.pid == os.getpid():
                pipe.send_held(since)

    def let_go(self):
        """Send what this thread holds, to shards that it may not ask for anything else."""
        self._on_every_pipe(Pipe.let_go)

    def settle(self):
        """Send what this thread holds, and read the replies."""
        self._on_every_pipe(Pipe.settle)

    def post(self, name, index, args, on_reply):
        """Run a script without waiting for it; ``on_reply`` gets its reply, or an exception, on the reactor."""
        shard = self.shards[index]
        try:
            shard.check()
        except AWAY as error:
            return on_reply(error)
        self._poster(index).post(name, [self.prefix, *args], on_reply)

    def post_frame(self, index, kept, args, on_reply):
        """Put a frame, of the arguments ``args``, without waiting for it, as ``post`` does, perhaps with others."""
        try:
            self.shards[index].check()
        except AWAY as error:
            return on_reply(error)
        self._poster(index).post_frame([self.prefix, kept], args, on_reply)

    def is_posting(self):
        """Whether anything that was posted has not been answered yet."""
        return any(poster.waiting or poster.frames for poster in self.posters.values())

    def by_shard(self, names):
        """Return a dict of the ``names`` by the index of their shard."""
        by_shard = {}
        for name in names:
            by_shard.setdefault(self.shard_of(name), []).append(name)
        return by_shard

    def select(self, script, names):
        """Return those of ``names`` that a script returns; none of a shard that is away, unless it is the only one."""
        found = []
        for index, here in self.by_shard(names).items():
            try:
                for start in range(0, len(here), NAMES_AT_ONCE):
                    found += self.run(script, index, here[start : start + NAMES_AT_ONCE])
            except AWAY:
                if self.size == 1:
                    raise
        return [name.decode() for name in found]

    def _poster(self, index):
        if index not in self.posters:
            self.posters[index] = Poster(self.shards[index])
        return self.posters[index]

    def _on_every_pipe(self, function):
        for index in list(self._thread.__dict__.get('pipes', ())):
            # What is lost with a connection is reported to its ``on_reply``.
            with contextlib.suppress(*AWAY):
                self._on_pipe(index, function)

    def _on_pipe(self, index, function):
        pipes = self._thread.__dict__.setdefault('pipes', {})
        pipe = pipes.get(index)
        if pipe is None or pipe.pid != os.getpid():
            pipe = pipes[index] = Pipe(self.shards[index])
            with self._lock:
                self._pipes.add(pipe)
        try:
            return function(pipe)
        except AWAY as error:
            del pipes[index]
            pipe.fail(error)
            raise
        except redis.exceptions.ResponseError as error:
            raise explained(error)


def _shard(pool, index, count):
    where = pool.connection_kwargs
    name = ' (shard {} of {}, {})'.format(
        index + 1, count, where.get('path') or '{}:{}'.format(where.get('host'), where.get('port'))
    )
    return Shard(pool, where['socket_timeout'] or TIMEOUT, name if count > 1 else '')
