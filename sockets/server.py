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

from . import conf
from .layers.mailboxes import FRAMES
from .presence import keep_house

logger = logging.getLogger('sockets')

# Frames and pages have threads of their own: a slow page delays no frame.
PAGES = ('http.request',)

# Seconds that a frame may wait for the threads that are at work before another one is woken. Several that do nothing
# but compute are slower than one: 5600 echoes a second with four of them against 9000 (benchmarks/echo.py).
THREAD_PATIENCE = 0.01

# Bytes that may wait for a client that does not read, before it is cut off. Its fan-outs would fill our memory.
BACKLOG = 4 * 1024 * 1024

# Seconds that a client has to answer a close. Whatever it has not read by then, the close included, is lost to it, and
# one that is still sending reads late; autobahn gives it one.
CLOSE_TIMEOUT = 5

# Seconds that connections and the functions that are running have to come to an end after SIGTERM.
DRAIN_TIMEOUT = 10


class WorkerThread(threading.Thread):
    """A Channels worker for some channels. If it ends with an exception, that is logged and it begins anew."""

    def __init__(self, layer, channels):
        super().__init__(name='sockets-' + min(channels), daemon=True)
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


class Unmasker:
    """What takes the mask of RFC 6455, section 5.3, off a frame: autobahn's without its loop over each byte."""

    def __init__(self, mask):
        self.mask = mask
        self.done = 0

    def pointer(self):
        return self.done

    def process(self, data):
        size, start = len(data), self.done % 4
        self.done += size
        key = ((self.mask[start:] + self.mask[:start]) * (size // 4 + 1))[:size]
        return (int.from_bytes(data, 'little') ^ int.from_bytes(key, 'little')).to_bytes(size, 'little')


class SocketProtocol(WebSocketProtocol):
    """daphne's protocol, at less cost for each frame.

    A text that goes to many connections one after another is framed once for all. What comes in is unmasked and checked
    to be UTF-8 at once, not byte by byte. What goes out is written at once, not in the reactor's next round.

    Whoever is silent is pinged, also if something is sent to it all the time: that proves nothing. Whoever does not
    read is cut off.
    """

    # What was sent since the client has stopped reading; None while it reads.
    backlog = None

    def onOpen(self):
        super().onOpen()
        # Instead of the HTTP channel that this connection came through.
        self.transport.unregisterProducer()
        self.transport.registerProducer(self, True)

    # What the transport calls (twisted.internet.interfaces.IPushProducer)

    def pauseProducing(self):
        # The transport says so at each write.
        if self.backlog is None:
            self.backlog = 0

    def resumeProducing(self):
        self.backlog = None

    def stopProducing(self):
        pass

    # autobahn describes all that it reads and writes to a log that daphne throws away.

    def dataReceived(self, data):
        self._dataReceived(data)

    def sendData(self, data, sync=False, chopsize=None):
        if sync or chopsize or self.send_queue:
            super().sendData(data, sync, chopsize)
        else:
            self.transport.write(data)

    def onFrameBegin(self):
        if self.current_frame.mask:
            self.current_frame_masker = Unmasker(self.current_frame.mask)
        super().onFrameBegin()

    def onMessageEnd(self):
        # autobahn tells listeners besides, of which there are none.
        if not self.failedByMe:
            self.onMessage(b''.join(self.message_data), self.message_is_binary)
        self.message_data = None

    def onMessage(self, payload, isBinary):
        if self.muted:
            return
        self.packets_received += 1
        self.last_data = time.time()
        message = {'reply_channel': self.reply_channel, 'path': self.request_info['path'],
                   'order': self.packets_received}
        try:
            message.update({'bytes': payload} if isBinary else {'text': payload.decode('utf-8')})
        except UnicodeDecodeError:
            self.sendCloseFrame(code=self.CLOSE_STATUS_CODE_INVALID_PAYLOAD, isReply=False)
            return
        try:
            self.channel_layer.send('websocket.receive', message)
        except self.channel_layer.ChannelFull:
            # As daphne does.
            self.muted = True
            logger.warning('Closing %s with 1013: too many of its frames wait', self.reply_channel)
            self.sendCloseFrame(code=1013, isReply=False)

    def serverSend(self, content, binary=False):
        if self.state == self.STATE_CONNECTING:
            self.serverAccept()
        if self.state != self.STATE_OPEN:
            return
        # The same object: a fan-out's connections share one message.
        if getattr(self.factory, 'framed', None) is not content:
            payload = content if binary else content.encode('utf8')
            self.factory.framed, self.factory.frame = content, self.factory.prepareMessage(payload, binary)
        frame = self.factory.frame
        if self.backlog is not None:
            self.backlog += len(frame.payload)
            if self.backlog > BACKLOG:
                logger.warning('Cutting off %s, which does not read: %d bytes wait', self.reply_channel, self.backlog)
                return self.transport.abortConnection()
        self.sendPreparedMessage(frame)
        # TLS has none.
        write_now = getattr(self.transport, 'doWrite', None)
        if write_now is not None and self.backlog is None:
            write_now()


class SocketServer(Server):
    """daphne's server, which tells its clients before it goes away and waits until their ends have been handled."""

    def __init__(self, channel_layer, threads, page_threads, listening=None, **kwargs):
        super().__init__(channel_layer, **kwargs)
        # A socket that we inherited. daphne's own endpoint for those speaks IPv4 only.
        self.listening = listening
        if listening is not None:
            self.endpoints = []
        self.failure = None
        # Stock layers do not know local from distant: their frames go where they always go.
        serve_locally = getattr(channel_layer.channel_layer, 'serve_locally', None)
        if serve_locally is not None:
            serve_locally()
        spare_threads = getattr(channel_layer.channel_layer, 'spare_threads', None)
        if spare_threads is not None:
            spare_threads(THREAD_PATIENCE)
        self.workers = [WorkerThread(channel_layer, FRAMES) for _ in range(threads)]
        self.workers += [WorkerThread(channel_layer, PAGES) for _ in range(page_threads)]
        # What a project sends to consumers of its own, as to a queue of jobs.
        others = set(channel_layer.router.channels).difference(FRAMES, PAGES)
        if others:
            self.workers.append(WorkerThread(channel_layer, sorted(others)))

    def run(self):
        """Serve until SIGTERM or SIGINT. ``OSError`` if there is nothing to listen on."""
        from twisted.internet import reactor
        Worker(self.channel_layer, signal_handlers=False).ready()
        for worker in self.workers:
            worker.start()
        keep_house()
        reactor.callWhenRunning(self.begin)
        reactor.addSystemEventTrigger('before', 'shutdown', self.drain)
        super().run()
        if self.failure is not None:
            raise self.failure

    def begin(self):
        # daphne makes its factory when it runs.
        from twisted.internet import defer, reactor
        self.factory.ws_factory.protocol = SocketProtocol
        # A frame over the limit gets an ERROR, one far over it is not even read: autobahn closes with 1009.
        self.factory.ws_factory.setProtocolOptions(
            utf8validateIncoming=False, maxMessagePayloadSize=4 * conf.MAX_MESSAGE_SIZE, failByDrop=False,
            closeHandshakeTimeout=CLOSE_TIMEOUT)
        if self.listening is not None:
            # A blocking accept() would stop the reactor.
            self.listening.setblocking(False)
            self.listeners.append(defer.succeed(
                reactor.adoptStreamPort(self.listening.fileno(), self.listening.family, self.factory)))

    def backend_reader_twisted(self):
        deliver_to = getattr(self.channel_layer, 'deliver_to', None)
        if deliver_to is None:
            return super().backend_reader_twisted()
        deliver_to(self.send_channel, self.factory.dispatch_reply)

    def on_listener_error(self, failure):
        from twisted.internet import reactor
        error = failure.value
        self.failure = OSError('Cannot listen on {}: {}'.format(
            ', '.join(self.endpoints), getattr(error, 'socketError', error)))
        reactor.callWhenRunning(reactor.stop)

    def drain(self):
        """Take no more connections, close each with 1012 when its frames have been handled, and wait for the pages."""
        from twisted.internet import defer, reactor
        for listener in self.listeners:
            port = getattr(listener, 'result', None)
            if hasattr(port, 'stopListening'):
                port.stopListening()
        drained = defer.Deferred()
        deadline = time.monotonic() + DRAIN_TIMEOUT
        # A stock layer does not know.
        is_idle = getattr(self.channel_layer, 'is_idle', lambda connection=None: True)
        told = set()

        def look():
            is_over = time.monotonic() > deadline
            for name, protocol in list(self.factory.reply_protocols.items()):
                if name not in told and hasattr(protocol, 'serverClose') and (is_over or is_idle(name)):
                    told.add(name)
                    protocol.serverClose(1012) if protocol.state == protocol.STATE_OPEN else protocol.serverReject()
            if is_over or (not self.factory.reply_protocols and is_idle()):
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
        self.told = []
        self.stopping = False

    def run(self):
        """Keep the processes running until SIGTERM or SIGINT, and return when the last one has ended."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)
        while True:
            while len(self.children) < self.count and not self.stopping:
                self.children.append(self.start())
            # A child may have been born while we were told.
            for child in self.children if self.stopping else ():
                if child not in self.told and child.poll() is None:
                    self.told.append(child)
                    child.terminate()
            for child in [child for child in self.children if child.poll() is not None]:
                self.children.remove(child)
                if not self.stopping:
                    logger.error('Process %d ended with %d; here is the next one', child.pid, child.returncode)
                    # Not as fast as they can die.
                    time.sleep(0.5)
            if self.stopping and not self.children:
                return
            time.sleep(0.1)

    def start(self):
        number = self.listening.fileno()
        return subprocess.Popen([sys.executable, *self.arguments, '--fd', str(number), '--parent', str(os.getpid())],
                                pass_fds=[number])

    def stop(self, *args):
        self.stopping = True


def stop_with(parent):
    """Stop this process when the process ``parent`` is gone."""
    from twisted.internet import reactor
    if os.getppid() != parent:
        reactor.stop()
    else:
        reactor.callLater(1, stop_with, parent)
