"""daphne 4: what its end of a websocket lacks, how it stops, and the server of ``runsockets`` where there is no uvicorn."""

import asyncio
import collections
import inspect
import logging
import os
import sys
import time

from daphne.access import AccessLogGenerator
from daphne.endpoints import build_endpoint_description_strings
from daphne.server import Server
from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol
from django.utils.version import get_version
from twisted.internet import defer, reactor

from ... import conf, messages
from ...backlog import Backlog
from .incoming import CAPACITY, MAX_WAITING
from .server import DRAIN_TIMEOUT, server, servers

logger = logging.getLogger('sockets')

# Seconds that clients have to answer a close, before they are cut off.
_ANSWERS = 1


class SocketProtocol(WebSocketProtocol):
    """daphne's protocol, which closes with any code, drops no empty text, and bounds what waits for our handlers and clients.

    Consumers of others are served as daphne does it.
    """

    # Options of autobahn's: a client that sends too much is told so, and has some seconds to answer a close.
    failByDrop = False
    closeHandshakeTimeout = 5

    # A ``Backlog`` of what was sent since the transport is full; None while it is not.
    backlog = None

    # How a connection is refused, if not with 403.
    refusal = None

    # Bytes of frames that no handler has taken yet.
    waiting = 0

    def is_ours(self):
        """Whether a handler of ours is at the other end of the queue."""
        return getattr(self.application_queue, 'is_ours', False)

    def onOpen(self):
        super().onOpen()
        if self.is_ours():
            self.sizes = collections.deque()
            # A frame over the limit gets an ERROR, one far over it is not even read.
            self.maxMessagePayloadSize = self.maxFramePayloadSize = 4 * max(
                conf.MAX_MESSAGE_SIZE, conf.MAX_BINARY_SIZE or 0
            )
            # It replaces the HTTP channel that this connection came through.
            self.transport.unregisterProducer()
            self.transport.registerProducer(self, True)

    def onMessage(self, payload, isBinary):
        if self.state != self.STATE_OPEN:
            return
        try:
            super().onMessage(payload, isBinary)
        except UnicodeDecodeError:
            return self.sendCloseFrame(code=1007, isReply=False)
        if self.is_ours():
            self.check_waiting(len(payload))

    def check_waiting(self, size):
        """Close a connection whose client sends faster than its frames are handled."""
        count = self.application_queue.qsize()
        self.sizes.append(size)
        self.waiting += size
        while len(self.sizes) > count:
            self.waiting -= self.sizes.popleft()
        if count > CAPACITY or (count > 1 and self.waiting > MAX_WAITING):
            logger.warning('Closing %r with 1013: %d of its frames wait', self, count)
            self.sendCloseFrame(code=messages.CLOSE_TRY_AGAIN_LATER, isReply=False)

    def handle_reply(self, message):
        if message['type'] == 'websocket.send' and self.state != self.STATE_CONNECTING:
            text = message.get('text')
            self.serverSend(message['bytes'] if text is None else text, text is None)
        elif message['type'] == 'websocket.close' and self.state != self.STATE_CONNECTING:
            self.serverClose(message.get('code'), message.get('reason'))
        else:
            if message['type'] == 'websocket.close':
                self.refusal = messages.refusal(message.get('code'))
            super().handle_reply(message)

    def failHandshake(self, reason, code=400, responseHeaders=None):
        # daphne knows no other answer than 403.
        if self.refusal is not None and code == 403:
            code, reason, responseHeaders = self.refusal
        super().failHandshake(reason, code, responseHeaders)

    def serverSend(self, content, binary=False):
        if self.state not in (self.STATE_CONNECTING, self.STATE_OPEN):
            return
        super().serverSend(content, binary)

    def sendData(self, data, sync=False, chopsize=None):
        # The answers to pings, too.
        super().sendData(data, sync, chopsize)
        if self.backlog is not None:
            self.check_backlog(len(data))

    def serverClose(self, code=None, reason=None):
        if self.state == self.STATE_OPEN and code is not None and 1000 < code < 3000:
            # autobahn's sendClose() refuses these with an exception, and the connection would stay open.
            self.sendCloseFrame(code=code, reasonUtf8=reason.encode() if reason else None, isReply=False)
        else:
            super().serverClose(code)

    # The transport calls these three.

    def pauseProducing(self):
        if self.backlog is None:
            self.backlog = Backlog()

    def resumeProducing(self):
        self.backlog = None

    def stopProducing(self):
        pass

    def check_backlog(self, size):
        """Cut off a client that does not read."""
        try:
            transport = self.transport
            waiting = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
        except AttributeError:
            # TLS keeps its own.
            waiting = self.backlog.size + size
        if self.backlog.add(size, waiting):
            logger.warning('Cutting off %r, which does not read: %d bytes wait', self, waiting)
            self.dropConnection(abort=True)


def patch_server():
    """Have daphne serve websockets with our protocol, and stop in order."""
    WebSocketFactory.protocol = SocketProtocol
    Server.kill_all_applications = _stop


def begin_with_daphne():
    """Have the server of this process begin as daphne does, which has no lifespan.

    Its first connection may be long in coming, and rows that a server before it has left would be wrong until then.
    """
    # A moment later: ``run`` makes one with options.
    reactor.callWhenRunning(reactor.callLater, 0, server)


def _stop(self):
    # daphne cancels all applications at once, and none at all when one of them has ended before its connection.
    return defer.Deferred.fromFuture(asyncio.ensure_future(_drain(self)))


async def _drain(daphne):
    """Let functions and pages of ``daphne``, a server, finish, and close its connections."""
    deadline = time.monotonic() + DRAIN_TIMEOUT
    for listener in daphne.listeners:
        port = getattr(listener, 'result', None)
        if hasattr(port, 'stopListening'):
            port.stopListening()
    found = servers.get(asyncio.get_running_loop())
    if found is not None:
        await found.stop(messages.CLOSE_RESTART)
    answered = time.monotonic() + _ANSWERS
    while time.monotonic() < answered and any(_is_closing(protocol) for protocol in daphne.connections):
        await asyncio.sleep(0.02)
    pages = _applications(daphne, pages_only=True)
    if pages:
        await asyncio.wait(pages, timeout=max(0.1, deadline - time.monotonic()))
    # What has been written and not sent, as the rest of a page.
    while time.monotonic() < answered and reactor.getWriters():
        await asyncio.sleep(0.02)
    left = _applications(daphne)
    for application in left:
        application.cancel()
    if left:
        await asyncio.wait(left, timeout=1)


def _is_closing(protocol):
    return isinstance(protocol, SocketProtocol) and protocol.state == protocol.STATE_CLOSING


def _applications(daphne, pages_only=False):
    """Return the tasks of applications that run."""
    tasks = [
        details.get('application_instance')
        for protocol, details in daphne.connections.items()
        if not (pages_only and isinstance(protocol, WebSocketProtocol))
    ]
    return [task for task in tasks if task is not None and not task.done()]


def run(application, stdout, address, threads, connect_threads, options):
    """Serve ``application`` as the options of ``runsockets`` say."""
    patch_server()
    host, port = address
    is_elsewhere = options['unix_socket'] or options['file_descriptor'] is not None
    limit = 4 * max(conf.MAX_MESSAGE_SIZE, conf.MAX_BINARY_SIZE or 0)
    known = inspect.signature(Server.__init__).parameters
    forwarded = options['proxy_headers']
    daphne = Server(
        application,
        endpoints=build_endpoint_description_strings(
            host=None if is_elsewhere else host,
            port=None if is_elsewhere else port,
            unix_socket=options['unix_socket'],
            file_descriptor=options['file_descriptor'],
        ),
        action_logger=_access_log(options['access_log']),
        websocket_timeout=-1,
        ping_interval=options['ping_interval'],
        ping_timeout=options['ping_timeout'],
        root_path=options['root_path'],
        proxy_forwarded_address_header='X-Forwarded-For' if forwarded else None,
        proxy_forwarded_port_header='X-Forwarded-Port' if forwarded else None,
        proxy_forwarded_proto_header='X-Forwarded-Proto' if forwarded else None,
        # Since daphne 4.2.
        **{name: limit for name in ('websocket_max_message_size', 'websocket_max_frame_size') if name in known},
    )
    reactor.callWhenRunning(server, threads, connect_threads)
    if options['parent']:
        reactor.callWhenRunning(_stop_with, options['parent'])
    else:
        where = f'Serving on {options["where"]} (Django {get_version()}, daphne). Stop with Ctrl-C.'
        reactor.callWhenRunning(lambda: stdout.write(where))
    daphne.run()


def _stop_with(parent):
    if os.getppid() != parent:
        reactor.stop()
    else:
        reactor.callLater(1, _stop_with, parent)


def _access_log(name):
    if name is None:
        return None
    return AccessLogGenerator(sys.stdout if name == '-' else open(name, 'a', 1))
