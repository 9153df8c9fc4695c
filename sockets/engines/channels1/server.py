"""One process that holds connections and runs their workers: daphne's server in the main thread, workers beside it."""

import logging
import os
import signal
import subprocess
import sys
import time

from channels.worker import Worker
from daphne.server import Server

from ...connection import overtime
from ...layers.mailboxes import CONNECT, FRAMES
from ...presence import start_housekeeper
from . import shutdown
from .channel_layer import adapted
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
        if not self.layer.deliver_to(self.send_channel, self.factory.dispatch_reply):
            super().backend_reader_twisted()

    def on_listener_error(self, failure):
        from twisted.internet import reactor

        error = failure.value
        self.failure = OSError(
            'Cannot listen on {}: {}'.format(', '.join(self.endpoints), getattr(error, 'socketError', error))
        )
        reactor.callWhenRunning(reactor.stop)


class Processes:
    """Several server processes behind one listening socket, each replaced when it dies."""

    def __init__(self, count, listening, arguments):
        self.count = count
        self.listening = listening
        self.arguments = arguments
        self.children = []
        self.terminated = []
        self.stopping = False

    def run(self):
        """Keep the processes running until SIGTERM or SIGINT, and return when the last one has ended."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)
        while True:
            while len(self.children) < self.count and not self.stopping:
                self.children.append(self.start())
            # A child may have been started while the signal came.
            for child in self.children if self.stopping else ():
                if child not in self.terminated and child.poll() is None:
                    self.terminated.append(child)
                    child.terminate()
            for child in [child for child in self.children if child.poll() is not None]:
                self.children.remove(child)
                if not self.stopping:
                    logger.error('Process %d ended with %d and is replaced', child.pid, child.returncode)
                    # So that a child which dies at once is not restarted without pause.
                    time.sleep(0.5)
            if self.stopping and not self.children:
                return
            time.sleep(0.1)

    def start(self):
        number = self.listening.fileno()
        return subprocess.Popen(
            [sys.executable, *self.arguments, '--fd', str(number), '--parent', str(os.getpid())], pass_fds=[number]
        )

    def stop(self, *args):
        self.stopping = True


def stop_with(parent):
    """Stop this process when the process ``parent`` has ended."""
    from twisted.internet import reactor

    if os.getppid() != parent:
        reactor.stop()
    else:
        reactor.callLater(1, stop_with, parent)
