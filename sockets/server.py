"""One process that holds connections and runs their workers: daphne's server in the main thread, workers beside it."""
import logging
import os
import signal
import subprocess
import sys
import threading
import time

from channels.worker import Worker
from daphne.server import Server
from daphne.ws_protocol import WebSocketProtocol

logger = logging.getLogger('sockets')

# Frames and pages have threads of their own: a slow page delays no frame.
FRAMES = ('websocket.connect', 'websocket.receive', 'websocket.disconnect')
PAGES = ('http.request',)

# Seconds that connections and the functions that are running have to come to an end after SIGTERM.
DRAIN_TIMEOUT = 10


class WorkerThread(threading.Thread):
    """A Channels worker for some channels. If it ends with an exception, that is logged and it begins anew."""

    def __init__(self, layer, channels):
        super().__init__(name='sockets-' + channels[0], daemon=True)
        self.layer = layer
        self.channels = channels

    def run(self):
        while True:
            try:
                Worker(self.layer, signal_handlers=False, only_channels=self.channels).run()
            except BaseException:
                logger.exception('The worker of %s died; here is the next one', self.name)
                # Not as fast as it can die.
                time.sleep(0.1)


class SocketProtocol(WebSocketProtocol):
    """daphne's protocol, but a text that goes to many connections one after another is framed once for all."""

    def serverSend(self, content, binary=False):
        if self.state == self.STATE_CONNECTING:
            self.serverAccept()
        if self.state != self.STATE_OPEN:
            return
        self.last_data = time.time()
        # The same object: a fan-out's connections share one message.
        if getattr(self.factory, 'framed', None) is not content:
            payload = content if binary else content.encode('utf8')
            self.factory.framed, self.factory.frame = content, self.factory.prepareMessage(payload, binary)
        self.sendPreparedMessage(self.factory.frame)


class SocketServer(Server):
    """daphne's server, which tells its clients before it goes away and waits until their ends have been handled."""

    def __init__(self, channel_layer, threads, page_threads, **kwargs):
        super().__init__(channel_layer, **kwargs)
        # Stock layers do not know local from distant: their frames go where they always go.
        serve_locally = getattr(channel_layer.channel_layer, 'serve_locally', None)
        if serve_locally is not None:
            serve_locally()
        self.workers = [WorkerThread(channel_layer, FRAMES) for _ in range(threads)]
        self.workers += [WorkerThread(channel_layer, PAGES) for _ in range(page_threads)]

    def run(self):
        from twisted.internet import reactor
        Worker(self.channel_layer, signal_handlers=False).ready()
        for worker in self.workers:
            worker.start()
        reactor.callWhenRunning(self.use_our_protocol)
        reactor.addSystemEventTrigger('before', 'shutdown', self.drain)
        super().run()

    def use_our_protocol(self):
        # daphne makes its factory when it runs.
        self.factory.ws_factory.protocol = SocketProtocol

    def drain(self):
        """Take no more connections, close the open ones with 1012, and wait for what is at work."""
        from twisted.internet import defer, reactor
        for listener in self.listeners:
            port = getattr(listener, 'result', None)
            if hasattr(port, 'stopListening'):
                port.stopListening()
        for protocol in list(self.factory.reply_protocols.values()):
            if hasattr(protocol, 'serverClose'):
                protocol.serverClose(1012) if protocol.state == protocol.STATE_OPEN else protocol.serverReject()
        drained = defer.Deferred()
        deadline = time.monotonic() + DRAIN_TIMEOUT
        is_idle = getattr(self.channel_layer, 'is_idle', lambda: True)

        def look():
            if (not self.factory.reply_protocols and is_idle()) or time.monotonic() > deadline:
                drained.callback(None)
            else:
                reactor.callLater(0.02, look)
        look()
        return drained


class Processes:
    """Several server processes behind one listening socket, each replaced when it dies."""

    def __init__(self, count, listening, arguments):
        self.count = count
        self.listening = listening
        self.arguments = arguments
        self.children = []
        self.stopping = False

    def run(self):
        """Keep the processes running until SIGTERM or SIGINT, and return when the last one has ended."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)
        self.children = [self.start() for _ in range(self.count)]
        while self.children:
            time.sleep(0.2)
            for index, child in reversed(list(enumerate(self.children))):
                if child.poll() is None:
                    continue
                del self.children[index]
                if not self.stopping:
                    logger.error('Process %d ended with %d; here is the next one', child.pid, child.returncode)
                    time.sleep(0.5)
                    self.children.append(self.start())

    def start(self):
        number = self.listening.fileno()
        return subprocess.Popen([sys.executable, *self.arguments, '--fd', str(number), '--parent', str(os.getpid())],
                                pass_fds=[number])

    def stop(self, *args):
        self.stopping = True
        for child in self.children:
            if child.poll() is None:
                child.terminate()


def stop_with(parent):
    """Stop this process when the process ``parent`` is gone."""
    from twisted.internet import reactor
    if os.getppid() != parent:
        reactor.stop()
    else:
        reactor.callLater(1, stop_with, parent)
