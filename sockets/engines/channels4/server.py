"""The connections of one event loop, the threads that serve them, and where other processes send what is for them."""

import asyncio
import atexit
import functools
import logging
import os
import random
import string
import sys
import threading
import time
from functools import partial

from ... import conf, messages, presence
from ...execution import background, garbage
from . import answers, audit, django_thread, overtime
from .admission import Connects
from .arrivals import Arrivals
from .heartbeats import heartbeats
from .layer import channel_layer, unpack
from .pool import Pool

logger = logging.getLogger('sockets')

# Seconds that a server has to stop after SIGTERM, and those of them that functions and their replies have.
DRAIN_TIMEOUT = 10
_PATIENCE = 8

# Seconds that the interpreter has to end when all has been closed.
EXIT_TIMEOUT = 5

# Threads for clients that connect or have left, unless a server says another number.
CONNECT_THREADS = 2

# Seconds for which a frame is handled before its connection is read on.
READ_ON_AFTER = 1

# Whether a task can be taken as far as it comes at once, and not in the loop's next round.
_EAGER = sys.version_info >= (3, 12)

_LETTERS = string.ascii_letters + string.digits

# By event loop. Each has its own connections.
servers = {}


class Server:
    """What an event loop of this process holds. ``name`` begins the names of its connections."""

    def __init__(self, loop, threads=None, connect_threads=CONNECT_THREADS):
        self.loop = loop
        self.name = self._listener = None
        self.connections = {}
        self.pool = Pool(loop, threads or conf.THREADS)
        # A thousand connects are not to delay a frame.
        self.connect_pool = Arrivals(loop, connect_threads, beside=self.pool)
        self.connects = Connects(self.connect_pool)
        self.pool.start()
        self.connect_pool.start()
        self.thread = threading.get_ident()
        self.is_stopping = False
        # Whether others have found it dead, and its connections are still open.
        self.is_lost = False
        self.tasks = set()
        # When a coroutine that sends has last let others be served, as time.monotonic() has it.
        self.gave_way = 0
        # Futures of ends that are handled.
        self._ends = set()
        self._begin()
        self.start_task(self._watch())
        presence.start_housekeeper()
        # When the loop was last seen at work, as time.monotonic() has it.
        self.ticked = time.monotonic()
        overtime.keep_watch(self)
        garbage.space_out()
        _close_at_exit()

    def is_here(self):
        """Whether this is the thread of the loop."""
        return threading.get_ident() == self.thread

    def new_name(self):
        """Return a name for a connection."""
        return self.name + _random(10)

    def start_task(self, coroutine):
        """Run ``coroutine`` beside all others; return the task. On the loop's thread."""
        task = self.loop.create_task(coroutine)
        self._keep(task)
        return task

    def _keep(self, task):
        # The loop itself keeps no reference.
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def begin_task(self, coroutine):
        """Run ``coroutine``, which may have nothing to wait for, beside all others. On the loop's thread."""
        if _EAGER:
            task = asyncio.Task(coroutine, loop=self.loop, eager_start=True)
            if not task.done():
                self._keep(task)
        else:
            self.start_task(coroutine)

    def end(self, function, pool=None):
        """Have ``function`` handle the end of a connection; return its future, which ``stop()`` waits for."""
        end = (pool or self.connect_pool).submit(function)
        self._ends.add(end)
        end.add_done_callback(self._ends.discard)
        return end

    def deliver(self, names, message):
        """Send ``message`` to those of the connections ``names`` that there are. On the loop's thread."""
        for name in names:
            connection = self.connections.get(name)
            if connection is not None:
                connection.push(message)

    def send(self, names, message):
        """Send ``message`` to those of the connections ``names`` that there are. On any thread."""
        self.pool.call_on_loop(self.deliver, names, message)

    def may_serve(self):
        """Whether nobody can have found this server dead, as far as is known now. On any thread."""
        # In this order: it is lost before it may serve again.
        return heartbeats.may_serve() and not self.is_lost

    async def certainty(self):
        """Wait until this server knows whether it was found dead while it was stopped."""
        while not self.may_serve():
            await asyncio.sleep(0.02)

    def begin_anew(self):
        """Close all connections, as this server was found dead: their rows are gone. On the loop's thread."""
        if self.is_stopping:
            self.is_lost = False
            return
        audit.end(self)
        self._listener.cancel()
        message = messages.reconnect('This server was taken for dead. Come back.')
        for connection in list(self.connections.values()):
            connection.has_ended = True
            if connection.accepted:
                connection.push({'text': messages.encode(message), 'close': messages.CLOSE_RESTART})
            else:
                connection.push({'close': messages.CLOSE_RESTART})
        # Not before: a thread that has waited for this would serve them.
        self.is_lost = False
        self._begin()

    def _begin(self):
        # Under a name of its own: others may still be removing what it had.
        self.name = f'sockets.{os.getpid()}.{_random(10)}!'
        self._listener = self.start_task(self._listen())
        self._keep_account()

    def _keep_account(self):
        heartbeats.hold(self.name, self._lost)
        audit.begin(self)

    def _lost(self, name):
        self.is_lost = True
        try:
            self.loop.call_soon_threadsafe(self.begin_anew)
        except RuntimeError:
            # The loop is closed.
            audit.end(self)

    async def stop(self, code, patience=_PATIENCE):
        """Close all connections with ``code``, each when its frames that are here have been handled; refuse new ones.

        After ``patience`` seconds, what is still handled is left to itself.
        """
        self.is_stopping = True
        deadline = self.loop.time() + patience
        while self.connections and self.loop.time() < deadline + 1:
            # One that has just begun may not be among them yet.
            await asyncio.gather(*(connection.stop(code, deadline) for connection in list(self.connections.values())))
        if self._ends:
            await asyncio.wait(self._ends, timeout=max(1, deadline - self.loop.time()))
        audit.end(self)
        await self.pool.submit(heartbeats.release, self.name)

    async def _listen(self):
        """Deliver what other processes send."""
        trouble = None
        while True:
            try:
                layer = channel_layer()
                if layer is None:
                    return
                content = await layer.receive(self.name[:-1])
                if trouble is not None:
                    logger.info('The channel layer is back')
                trouble = None
                if content['type'] == answers.ASK:
                    self.start_task(answers.answer(self, content))
                    continue
                names, message = unpack(content)
                self.deliver([self.name + name for name in names], message)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                if type(error).__name__ == 'TimeoutError' and type(error).__module__.startswith('redis.'):
                    # redis-py 8 waits no longer than channels_redis asks Redis to: nothing was there.
                    continue
                text = f'{type(error).__name__}: {error}'
                if text != trouble:
                    logger.error('Nothing comes from other processes, the channel layer is away: %s', text)
                trouble = text
                await asyncio.sleep(0.5)

    async def _watch(self):
        while True:
            await asyncio.sleep(READ_ON_AFTER)
            self.ticked = time.monotonic()
            django_thread.look_after()
            now = self.loop.time()
            since = now - READ_ON_AFTER
            for connection in list(self.connections.values()):
                connection.check_backlog()
                if connection.busy_since is not None and connection.busy_since <= since:
                    connection.incoming.read_ahead()
                    overtime.look(connection, now)


def server(*args):
    """Return the ``Server`` of the running event loop, made with ``args`` if there is none yet."""
    loop = asyncio.get_running_loop()
    found = servers.get(loop)
    if found is None:
        for other in [other for other in servers if other.is_closed()]:
            background.run(partial(heartbeats.release, servers.pop(other).name), 'sockets-heartbeats')
        found = servers[loop] = Server(loop, *args)
    return found


@functools.lru_cache(maxsize=None)
def _close_at_exit():
    atexit.register(_exit)


def _exit():
    """Close the connections of servers that did not: runserver ends, and starts again, with its server in mid-run."""
    for found in list(servers.values()):
        if found.loop.is_running() and not found.is_stopping and not found.is_here():
            try:
                asyncio.run_coroutine_threadsafe(found.stop(messages.CLOSE_RESTART, 1), found.loop).result(3)
            except Exception:
                logger.warning('Not all of %d connections could be closed', len(found.connections))


def _random(length):
    return ''.join(random.choices(_LETTERS, k=length))
