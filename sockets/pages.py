"""Pages: as much of one as its client takes is kept for it, and the view's generator ends when the client leaves.

``PageRequest`` is daphne's end, in whichever process holds connections. ``PageConsumer`` runs the view, in the same
process (``runsockets``, ``runserver``) or in another (``runworker``).
"""
import collections
import logging
import re
import threading
import time

from channels.handler import AsgiHandler, ViewConsumer
from channels.staticfiles import StaticFilesConsumer, StaticFilesHandler
from daphne import http_protocol
from twisted.web import http

from . import conf

logger = logging.getLogger('sockets')

# Chunks of a page, of at most 512 kB each, that a thread of the same process may be ahead of the client.
CHUNKS_AHEAD = 8

# Bytes of a page that may wait in daphne for a client, where the view runs in another process and cannot be stopped.
PAGE_BACKLOG = 32 * 1024 * 1024

# Bytes that are written at a time: as many as Twisted's transport takes before it says that it is full.
PIECE = 64 * 1024

# A worker of another process asks its page's server after so many chunks, bytes or seconds how far it has come.
UNANSWERED, UNANSWERED_SIZE, ASK_INTERVAL = 64, 4 * 1024 * 1024, 1

# The servers of this process, by the prefix of their connections' names.
_servers = {}


class ClientLeft(Exception):
    """The client of a page is gone, or was cut off: what would be sent reaches nobody."""


class PageRequest(http_protocol.WebRequest):
    """daphne's request, which writes a response no faster than the client reads.

    A response is cut off when nothing of it could be written for ``--http-timeout`` seconds, when more than
    ``PAGE_BACKLOG`` bytes wait, and when a part of it is missing: the client sees a broken connection, never a page
    that looks whole. A client's ``Daphne-Root-Path`` is dropped.
    """

    # What the transport says: it takes no more for the moment.
    _is_paused = False
    # The last chunk has arrived, or the connection was aborted.
    _is_complete = False
    _is_aborted = False
    _is_refused = False
    # When something was last written.
    _progress = None
    # How many bytes the Content-Length leaves; None: it has none.
    _left = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        _servers[self.factory.send_channel] = self.factory
        self._chunks = collections.deque()
        self._size = 0
        self._order = 0
        # Of the thread that runs the view, if that is in this process.
        self._room = threading.Condition()
        self._ahead = 0
        self._is_lost = False

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
        if self._is_aborted:
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
        super().serverResponse(dict(message, content=b'', more_content=True))
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

    def _begin(self):
        self._progress = time.monotonic()
        self._has_body = self.method != b'HEAD' and self.code not in http.NO_BODY_CODES
        lengths = self.responseHeaders.getRawHeaders(b'Content-Length') or [b'']
        if self._has_body and lengths[0].isdigit():
            self._left = int(lengths[0])
        self.registerProducer(self, True)

    def _write(self):
        """Write what waits until the transport is full, and end the response when that was all."""
        while self._chunks and not self._is_paused and not self._is_aborted:
            chunk = self._chunks.popleft()
            piece = chunk[:PIECE]
            if len(chunk) > PIECE:
                self._chunks.appendleft(memoryview(chunk)[PIECE:])
            else:
                self._let_in(1)
            self._size -= len(piece)
            self._progress = time.monotonic()
            http.Request.write(self, bytes(piece))
        if self._is_complete and not self._chunks and not self._is_aborted:
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
            channel.setTimeout(channel.timeOut)

    def basic_error(self, *args):
        if self._got_response_start:
            self._abort()
        else:
            super().basic_error(*args)

    def check_timeout(self):
        """End a response that has not begun, or of which nothing was written, for ``--http-timeout`` seconds."""
        if not self._got_response_start:
            if self.duration() > self.factory.timeout:
                self.basic_error(503, b'Service Unavailable', 'Worker server failed to respond within time limit.')
        elif time.monotonic() - self._progress > self.factory.timeout:
            logger.warning('Cutting off the page %s: nothing of it was written for %s s',
                           self.uri.decode('ascii', 'replace'), self.factory.timeout)
            self._abort()

    def connectionLost(self, reason):
        self._is_aborted = True
        self._chunks.clear()
        super().connectionLost(reason)
        self._let_in(0, is_lost=True)

    @property
    def is_open(self):
        return not self._is_aborted

    def _abort(self):
        if not self._is_aborted:
            self._is_aborted = True
            self._chunks.clear()
            self._let_in(0, is_lost=True)
            (self.transport or self.channel).abortConnection()

    # What the transport calls (twisted.internet.interfaces.IPushProducer)

    def pauseProducing(self):
        self._is_paused = True

    def resumeProducing(self):
        self._is_paused = False
        self._write()

    def stopProducing(self):
        pass

    # What the thread calls that runs the view

    def wait_for_room(self):
        """Wait until another chunk may be handed over; ``ClientLeft`` if there is nobody who would read it."""
        with self._room:
            while self._ahead >= CHUNKS_AHEAD and not self._is_lost:
                self._room.wait()
            if self._is_lost:
                raise ClientLeft(self.reply_channel)
            self._ahead += 1

    def _let_in(self, count, is_lost=False):
        with self._room:
            self._ahead -= count
            self._is_lost = self._is_lost or is_lost
            self._room.notify_all()


def root_path_of(headers):
    """Return the value of the header that ``ROOT_PATH_HEADER`` names, or ``None``; ``ValueError`` if it is no path."""
    name = conf.ROOT_PATH_HEADER
    values = headers.getRawHeaders(name.encode('latin1')) if name else None
    if not values:
        return None
    # Of two, one is the client's.
    if len(values) > 1 or not _ROOT_PATH.match(values[0]):
        raise ValueError('its {} is no path: {!r:.100}'.format(name, values))
    return values[0].rstrip(b'/')


# No control characters, escaped or not, and no //, which begins another host's URL.
_ROOT_PATH = re.compile(rb"(/|(/(?!%[01]|%7[fF])[\w.~!$&'()*+,;=:@%-]+)+/?)\Z")


class _ClosesResponses:
    """A handler whose responses are closed, and so their generators, also if they are not sent to their end."""

    @classmethod
    def encode_response(cls, response):
        try:
            yield from super().encode_response(response)
        except BaseException:
            response.close()
            raise


class PageHandler(_ClosesResponses, AsgiHandler):
    pass


class StaticFilesPageHandler(_ClosesResponses, StaticFilesHandler):
    pass


class PageConsumer(ViewConsumer):
    """Channels' consumer for pages, which stops when the client has left and tells it when the view fails half-way."""

    handler_class = PageHandler

    def __call__(self, message):
        server = _servers.get(message.reply_channel.name.partition('!')[0] + '!')
        way = _Distant(message) if server is None else _Local(message, server)
        replies = self.handler(message)
        sent = 0
        try:
            for reply in replies:
                if message.get('method') == 'HEAD' or reply.get('status') in (204, 304):
                    # Nobody would see the rest, and it might have no end.
                    reply.update(content=b'', more_content=False)
                way.send(dict(reply, order=sent))
                sent += 1
                if not reply['more_content']:
                    break
        except ClientLeft:
            logger.debug('The client of %s has left', message.reply_channel.name)
        except BaseException:
            # The worker logs it.
            way.fail(sent)
            raise
        finally:
            # Here if it was not sent to its end, its response is closed.
            replies.close()


class StaticFilesPageConsumer(PageConsumer):
    handler_class = StaticFilesPageHandler


class _Way:
    """How the chunks of a page get to its client."""

    def __init__(self, message):
        self.channel = message.reply_channel
        self.layer = message.channel_layer

    def fail(self, sent):
        """Answer for a view that raised after ``sent`` chunks."""
        try:
            self.send({'order': sent, 'broken': True} if sent else {
                'status': 500, 'headers': [(b'Content-Type', b'text/plain')], 'content': b'Internal Server Error'})
        except ClientLeft:
            pass


class _Local(_Way):
    """To a connection of this process: a chunk waits until the client has taken those before it."""

    def __init__(self, message, server):
        super().__init__(message)
        self.requests = server.reply_protocols

    def send(self, reply):
        request = self.requests.get(self.channel.name)
        if request is None:
            raise ClientLeft(self.channel.name)
        request.wait_for_room()
        while self.channel.name in self.requests:
            try:
                return self.channel.send(reply, immediately=True)
            except self.layer.ChannelFull:
                time.sleep(0.05)
        raise ClientLeft(self.channel.name)


class _Distant(_Way):
    """To a connection of another process, which is asked now and then whether it has come so far and has the client."""

    def __init__(self, message):
        super().__init__(message)
        self.answers = None
        self.begin()

    def begin(self):
        self.since, self.chunks, self.size = time.monotonic(), 0, 0

    def send(self, reply):
        begun = time.monotonic()
        self.chunks += 1
        self.size += len(reply.get('content', b''))
        # Whoever is ahead fills the layer; a page that is short or over soon asks nothing.
        is_question = reply.get('more_content') and (
            self.chunks >= UNANSWERED or self.size >= UNANSWERED_SIZE or begun - self.since >= ASK_INTERVAL)
        if is_question:
            self.answers = self.answers or self.layer.new_channel('sockets.page?')
            reply['answer_to'] = self.answers
        while True:
            try:
                self.channel.send(reply, immediately=True)
                break
            except self.layer.ChannelFull:
                self.wait(begun, 0.05)
        if is_question:
            while True:
                channel, answer = self.layer.receive([self.answers])
                if channel is not None:
                    break
                self.wait(begun, 0.002)
            if not answer['is_there']:
                raise ClientLeft(self.channel.name)
            self.begin()

    def wait(self, begun, seconds):
        """Wait for the server of the client. One that does nothing for ``expiry`` seconds, as messages do, is dead."""
        if time.monotonic() - begun > self.layer.expiry:
            raise ClientLeft(self.channel.name)
        time.sleep(seconds)


def dispatch_reply(factory, channel, message):
    """What daphne does with a message for one of its connections, and the answer for a worker that asks."""
    try:
        _dispatch_reply(factory, channel, message)
    finally:
        if 'answer_to' in message:
            request = factory.reply_protocols.get(channel)
            factory.channel_layer.send(message['answer_to'], {'is_there': request is not None and request.is_open})


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


def use_page_consumers(sender, **kwargs):
    """Have a worker serve pages this way, unless its routing names a consumer of its own."""
    ours = {ViewConsumer: PageConsumer, StaticFilesConsumer: StaticFilesPageConsumer}
    for entry in sender.channel_layer.router.root.routing:
        consumer = ours.get(type(getattr(entry, 'consumer', None)))
        if consumer is not None:
            entry.consumer = consumer()


_dispatch_reply = http_protocol.HTTPFactory.dispatch_reply


def install():
    """Have daphne's server and Channels' workers serve their pages this way, in whichever process they run."""
    from channels.signals import worker_ready
    worker_ready.connect(use_page_consumers, dispatch_uid='sockets.pages')
    http_protocol.WebRequest = PageRequest
    http_protocol.HTTPFactory.dispatch_reply = dispatch_reply
    http_protocol.HTTPFactory.check_timeouts = check_timeouts
