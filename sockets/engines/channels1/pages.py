"""daphne's end of a page: no more of it is kept than its client takes."""
import collections
import logging
import re
import threading
import time
from urllib.parse import quote, unquote

from daphne import http_protocol
from daphne.http_protocol import HTTPFactory
from twisted.web import http, http_headers

from ... import conf

logger = logging.getLogger('sockets')

# Chunks of a page, of at most 512 kB each, that a thread of the same process may be ahead of the client.
CHUNKS_AHEAD = 8

# Bytes of a page that may wait in daphne for a client, where the view runs in another process and cannot be stopped.
PAGE_BACKLOG = 32 * 1024 * 1024

# Bytes that are written at a time: as many as Twisted's transport takes before it says that it is full.
PIECE = 64 * 1024

# The servers of this process, by the prefix of their connections' names.
servers = {}


class ClientLeft(Exception):
    """The client of a page is gone, or was cut off: what would be sent reaches nobody."""


class PageRequest(http_protocol.WebRequest):
    """daphne's request, which writes a response no faster than the client reads.

    A response is cut off when nothing of it was written for ``--http-timeout`` seconds, when more than
    ``PAGE_BACKLOG`` bytes wait, and when a part of it is missing: the client sees a broken connection, never a page
    that looks whole. A client's ``Daphne-Root-Path`` is dropped.
    """

    # Of a request that is refused before daphne has looked.
    client_addr = None
    # What the transport says: it takes no more for the moment.
    _is_paused = False
    # The last chunk has arrived.
    _is_complete = False
    # The connection was cut off, or is lost.
    is_gone = False
    _is_refused = False
    # When something was last written.
    _progress = None
    # Its view runs in this process.
    _is_local = False
    # How many bytes the Content-Length leaves; None: it has none.
    _left = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        servers[self.factory.send_channel] = self.factory
        self._chunks = collections.deque()
        self._size = 0
        self._order = 0
        # Of the thread that runs the view, if that is in this process.
        self._room = threading.Condition()
        self._ahead = 0

    # The request

    def gotLength(self, length):
        super().gotLength(length)
        self._limit_body(length or 0)

    def handleContentChunk(self, data):
        self._limit_body(self.content.tell() + len(data))
        if not self._is_refused:
            super().handleContentChunk(data)

    def _limit_body(self, size):
        if conf.MAX_BODY_SIZE is None or size <= conf.MAX_BODY_SIZE or self._is_refused:
            return
        self._is_refused = True
        if self.transport is None:
            # A stream of HTTP/2.
            return self._abort()
        self.transport.write(b'HTTP/1.1 413 Request Entity Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
        self.channel.loseConnection()

    def requestReceived(self, command, path, version):
        # Twisted would parse forms besides, for whose files it needs as much memory again. Django does that.
        if self._is_refused:
            return
        self.content.seek(0, 0)
        self.method, self.uri, self.clientproto, self.args = command, path, version, {}
        self.path = path.partition(b'?')[0]
        self.process()

    def process(self):
        # As browsers send it. daphne answers whatever bytes Twisted lets through, and then cannot say so in its log.
        self.uri = re.sub(rb'[\x80-\xff]', lambda match: b'%%%02X' % match.group()[0], self.uri)
        try:
            root_path = root_path_of(self.requestHeaders)
        except ValueError as error:
            logger.warning('Refused a request: %s', error)
            return self.basic_error(400, b'Bad Request', 'Invalid root path')
        # daphne believes this header whoever sent it. A websocket's headers go from here into its handshake.
        self.requestHeaders.removeHeader(b'Daphne-Root-Path')
        if root_path is not None:
            self.requestHeaders.setRawHeaders(b'Daphne-Root-Path', [root_path])
        super().process()

    # The response

    def serverResponse(self, message):
        if self.is_gone:
            return
        if message.get('broken') or message.get('order', self._order) != self._order:
            logger.error('Cutting off the page %s: %s', self.uri.decode('ascii', 'replace'),
                         'its view failed' if message.get('broken') else 'a part of it was lost on its way')
            return self._abort()
        self._order += 1
        is_first = not self._got_response_start
        self._is_complete = not message.get('more_content', False)
        content = message.get('content', b'')
        # The headers.
        try:
            super().serverResponse(dict(message, content=b'', more_content=True))
        except Exception:
            logger.exception('The page %s cannot be sent', self.uri.decode('ascii', 'replace'))
            return self._give_up()
        if is_first:
            self._begin()
        if not self._has_body:
            content = b''
        elif self._left is not None:
            if len(content) > self._left:
                logger.error('The page %s is longer than its Content-Length', self.uri.decode('ascii', 'replace'))
                content, self.channel.persistent = content[:self._left], False
            self._left -= len(content)
        self._chunks.append(content)
        self._size += len(content)
        self._write()
        if self._size > PAGE_BACKLOG:
            logger.warning('Cutting off the page %s, whose client does not read: %d bytes wait',
                           self.uri.decode('ascii', 'replace'), self._size)
            self._abort()

    def _give_up(self):
        # daphne takes it for begun, and would wait for the rest of it for ever.
        if self.startedWriting:
            return self._abort()
        self._got_response_start = False
        self.responseHeaders = http_headers.Headers()
        self.basic_error(500, b'Internal Server Error', 'Invalid response')

    def _begin(self):
        self._progress = time.monotonic()
        self._has_body = self.method != b'HEAD' and self.code not in http.NO_BODY_CODES
        lengths = self.responseHeaders.getRawHeaders(b'Content-Length') or [b'']
        if self._has_body and lengths[0].isdigit():
            self._left = int(lengths[0])
        self.registerProducer(self, True)

    def _write(self):
        """Write what waits until the transport is full, and end the response when that was all."""
        while self._chunks and not self._is_paused and not self.is_gone:
            chunk = self._chunks.popleft()
            piece = chunk[:PIECE]
            if len(chunk) > PIECE:
                self._chunks.appendleft(memoryview(chunk)[PIECE:])
            else:
                self._make_room()
            self._size -= len(piece)
            self._progress = time.monotonic()
            http.Request.write(self, bytes(piece))
        if self._is_complete and not self._chunks and not self.is_gone:
            if self._left:
                # Whatever comes next would be taken for the rest of it.
                logger.error('The page %s is shorter than its Content-Length', self.uri.decode('ascii', 'replace'))
                self.channel.persistent = False
            super().serverResponse({})

    def finish(self):
        if self.producer is not None:
            self.unregisterProducer()
        channel = self.channel
        super().finish()
        if not getattr(channel, 'persistent', True):
            # Twisted would wait for ever for a client to read the end.
            channel.setTimeout(self.factory.timeOut)

    def basic_error(self, *args):
        if self._got_response_start:
            self._abort()
        else:
            super().basic_error(*args)

    def check_timeout(self):
        """End a response that has not begun, or of which nothing was written, for ``--http-timeout`` seconds.

        A view of this process may take longer between two chunks; a worker that does may be dead.
        """
        if not self._got_response_start:
            if self.duration() > self.factory.timeout:
                self.basic_error(503, b'Service Unavailable', 'Worker server failed to respond within time limit.')
        elif (self._chunks or not self._is_local) and time.monotonic() - self._progress > self.factory.timeout:
            logger.warning('Cutting off the page %s: nothing of it was written for %s s',
                           self.uri.decode('ascii', 'replace'), self.factory.timeout)
            self._abort()

    def connectionLost(self, reason):
        self._drop()
        super().connectionLost(reason)

    def _abort(self):
        if not self.is_gone:
            self._drop()
            (self.transport or self.channel).abortConnection()

    def _drop(self):
        self._chunks.clear()
        with self._room:
            self.is_gone = True
            self._room.notify_all()

    # What the transport calls (twisted.internet.interfaces.IPushProducer)

    def pauseProducing(self):
        self._is_paused = True
        # Twisted would go on reading, and keep it: requests that come after this one.
        if isinstance(self.channel, http.HTTPChannel):
            self.channel._networkProducer.pauseProducing()

    def resumeProducing(self):
        self._is_paused = False
        # To hear that the client leaves. What it has sent ahead is read when its turn comes.
        if isinstance(self.channel, http.HTTPChannel) and not self.channel._dataBuffer:
            self.channel._networkProducer.resumeProducing()
        self._write()

    def stopProducing(self):
        pass

    # What the thread calls that runs the view

    def wait_for_room(self):
        """Wait until another chunk may be handed over; ``ClientLeft`` if there is nobody who would read it."""
        self._is_local = True
        with self._room:
            while self._ahead >= CHUNKS_AHEAD and not self.is_gone:
                self._room.wait()
            if self.is_gone:
                raise ClientLeft(self.reply_channel)
            self._ahead += 1

    def _make_room(self):
        with self._room:
            self._ahead -= 1
            self._room.notify_all()


def root_path_of(headers):
    """Return the value of the header that ``ROOT_PATH_HEADER`` names, or ``None``; ``ValueError`` if it is no path."""
    name = conf.ROOT_PATH_HEADER
    values = headers.getRawHeaders(name.encode('latin1')) if name else None
    if not values:
        return None
    # Of two, one is the client's. What is no ASCII is a ValueError, too.
    path = unquote(values[0].decode('ascii'))
    if len(values) > 1 or not _ROOT_PATH.match(path):
        raise ValueError('its {} is no path: {!r:.100}'.format(name, values))
    return quote(path.rstrip('/')).encode()


# No control characters, and no //, which begins another host's URL.
_ROOT_PATH = re.compile(r'(/|(/[^/\\?#\s\x00-\x1f\x7f-\x9f\ufffd]+)+/?)\Z')


def dispatch_reply(factory, channel, message):
    """What daphne does with a message for one of its connections, and the answer for a worker that asks."""
    try:
        _dispatch_reply(factory, channel, message)
    finally:
        if 'answer_to' in message:
            request = factory.reply_protocols.get(channel)
            factory.channel_layer.send(message['answer_to'], {'is_there': request is not None and not request.is_gone})


def check_timeouts(factory):
    """What daphne does every two seconds with each connection. An exception of one ended it for all, for good."""
    for name, protocol in list(factory.reply_protocols.items()):
        try:
            if isinstance(protocol, PageRequest):
                protocol.check_timeout()
            elif protocol.duration() > factory.websocket_timeout >= 0:
                protocol.serverClose()
            else:
                protocol.check_ping()
        except Exception:
            logger.exception('Could not look after %s', name)


_dispatch_reply = HTTPFactory.dispatch_reply


def install():
    """Have daphne's server hold its pages this way, in whichever process that runs."""
    http_protocol.WebRequest = PageRequest
    HTTPFactory.dispatch_reply = dispatch_reply
    HTTPFactory.check_timeouts = check_timeouts
