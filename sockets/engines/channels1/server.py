"""One process that holds connections and runs their workers: daphne's server in the main thread, workers beside it."""

import logging
import os
import select

from channels.worker import Worker
from daphne.server import Server

from ...connection import overtime
from ...execution import garbage
from ...layers.mailboxes import CONNECT, FRAMES
from ...presence import start_housekeeper
from . import shutdown
from .channel_layer import adapted
from .polling import Poll
from .workers import WorkerThread, at_work, finish

logger = logging.getLogger('sockets')

# Connects, the other frames and pages have threads of their own: neither a slow page nor a thousand connects delay a
# frame.
CONNECTS = (CONNECT,)
PAGES = ('http.request',)

# Seconds that a frame may wait for the threads that are at work before another one is woken. Several threads that only
# compute are slower than one: 5600 echoes a second with four of them against 9000 (benchmarks/echo.py).
THREAD_PATIENCE = 0.01


class SocketServer(Server):
    """daphne's server, with the workers of its connections."""

    # When everything has to be over after SIGTERM.
    deadline = 0

    def __init__(self, channel_layer, threads, page_threads, listening=None, connect_threads=2, **kwargs):
        super().__init__(channel_layer, **kwargs)
        # A socket that we inherited. daphne's own endpoint for those speaks IPv4 only.
        self.listening = listening
        if listening is not None:
            self.endpoints = []
        self.failure = None
        self.layer = adapted(channel_layer)
        self.layer.serve_locally()
        self.layer.wake_threads_after(THREAD_PATIENCE)
        # It completes the routing.
        Worker(channel_layer, signal_handlers=False).ready()
        self.workers = [WorkerThread(channel_layer, FRAMES.difference(CONNECTS)) for _ in range(threads)]
        self.workers += [WorkerThread(channel_layer, CONNECTS) for _ in range(connect_threads)]
        self.workers += [WorkerThread(channel_layer, PAGES) for _ in range(page_threads)]
        # The channels of a project's own consumers, such as a queue of jobs, and of the doctor.
        others = set(channel_layer.router.channels).difference(FRAMES, PAGES)
        self.remote_readers = []
        if others:
            self.workers.append(WorkerThread(channel_layer, sorted(others)))
            if not channel_layer.local_only():
                self.remote_readers.append(self.workers[-1])

    def run(self):
        """Serve until SIGTERM or SIGINT. ``OSError`` if there is nothing to listen on."""
        from twisted.internet import reactor

        for worker in self.workers:
            worker.start()
        start_housekeeper()
        overtime.keep_watch()
        garbage.space_out()
        garbage.leave_out_what_is_there()
        reactor.callWhenRunning(self.begin)
        shutdown.prepare(self)
        super().run()
        # Those that read from other processes may get a message at any time.
        finish(at_work() + self.remote_readers, self.deadline)
        if self.failure is not None:
            raise self.failure

    def begin(self):
        from twisted.internet import defer, reactor

        if self.listening is not None:
            # A blocking accept() would stop the reactor.
            self.listening.setblocking(False)
            self.listeners.append(
                defer.succeed(reactor.adoptStreamPort(self.listening.fileno(), self.listening.family, self.factory))
            )

    def backend_reader_twisted(self):
        if not self.layer.deliver_to(self.send_channel, self.factory.dispatch_reply, self.factory.write_now):
            super().backend_reader_twisted()
        # Of Linux.
        elif hasattr(select, 'epoll'):
            poll = Poll(self.factory.reactor)
            if self.layer.poll_with_threads(poll):
                self.factory.poll = poll

    def on_listener_error(self, failure):
        from twisted.internet import reactor

        error = failure.value
        self.failure = OSError(
            'Cannot listen on {}: {}'.format(', '.join(self.endpoints), getattr(error, 'socketError', error))
        )
        reactor.callWhenRunning(reactor.stop)


def stop_with(parent):
    """Stop this process when the process ``parent`` has ended."""
    from twisted.internet import reactor

    if os.getppid() != parent:
        reactor.stop()
    else:
        reactor.callLater(1, stop_with, parent)
