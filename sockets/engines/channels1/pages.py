"""daphne's end of a page: its response is written no faster than its client reads."""

import collections
import logging
import threading
import time

from twisted.web import http, http_headers

from .page_requests import LimitedRequest

logger = logging.getLogger('sockets')

# Chunks of a page, of at most 512 kB each, that a thread of the same process may be ahead of the client.
CHUNKS_AHEAD = 8

# Bytes of a page that may wait in daphne for a client, where the view runs in another process and cannot be stopped.
PAGE_BACKLOG = 32 * 1024 * 1024

# Bytes that are written at a time: as many as Twisted's transport takes before it says that it is full.
PIECE = 64 * 1024

# The servers of this process, by the prefix of their connections' names.
servers = {}


_making_conditions = threading.Lock()


class ClientLeft(Exception):
    """The client of a page has left, or was cut off."""


class PageRequest(LimitedRequest):
    """A request that writes a response no faster than the client reads.

    A response is cut off when nothing of it was written for ``--http-timeout`` seconds, when more than
    ``PAGE_BACKLOG`` bytes wait, and when a part of it is missing: the client sees a broken connection, never a page
    that looks whole.
    """

    # The transport is full.
    _is_paused = False
    # The last chunk has arrived.
    _is_complete = False
    # When something was last written.
    _progress = None
    # Its view runs in this process.
    _is_local = False
    # How many bytes the Content-Length leaves; None: it has none.
    _left = None
    # What the thread waits for that runs the view, if that is in this process. A handshake never needs it.
    _room = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        servers[self.factory.send_channel] = self.factory
        self._chunks = collections.deque()
        self._size = 0
        self._order = 0
        self._ahead = 0

    # The response

    def serverResponse(self, message):
        if self.is_gone:
            return
        if message.get('broken') or message.get('order', self._order) != self._order:
            logger.error(
                'Cutting off the page %s: %s',
                self.uri.decode('ascii', 'replace'),
                'its view failed' if message.get('broken') else 'a part of it was lost on its way',
            )
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
                content, self.channel.persistent = content[: self._left], False
            self._left -= len(content)
        self._chunks.append(content)
        self._size += len(content)
        self._write()
        if self._size > PAGE_BACKLOG:
            logger.warning(
                'Cutting off the page %s, whose client does not read: %d bytes wait',
                self.uri.decode('ascii', 'replace'),
                self._size,
            )
            self._abort()

    def _give_up(self):
        # daphne believes that it has begun, and would wait for the rest for ever.
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
                # The client would take the next response for the rest of this one.
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
            logger.warning(
                'Cutting off the page %s: nothing of it was written for %s s',
                self.uri.decode('ascii', 'replace'),
                self.factory.timeout,
            )
            self._abort()

    def _drop(self):
        self._chunks.clear()
        with self._condition():
            super()._drop()
            self._room.notify_all()

    # Called by the transport (twisted.internet.interfaces.IPushProducer)

    def pauseProducing(self):
        self._is_paused = True
        # Or Twisted would go on reading the requests behind this one, and keep them in memory.
        if isinstance(self.channel, http.HTTPChannel):
            self.channel._networkProducer.pauseProducing()

    def resumeProducing(self):
        self._is_paused = False
        # To notice that the client leaves. Requests that it has sent ahead are read later.
        if isinstance(self.channel, http.HTTPChannel) and not self.channel._dataBuffer:
            self.channel._networkProducer.resumeProducing()
        self._write()

    def stopProducing(self):
        pass

    # Called by the thread that runs the view

    def wait_for_room(self):
        """Wait until another chunk may be sent; ``ClientLeft`` if the client has left."""
        self._is_local = True
        with self._condition():
            while self._ahead >= CHUNKS_AHEAD and not self.is_gone:
                self._room.wait()
            if self.is_gone:
                raise ClientLeft(self.reply_channel)
            self._ahead += 1

    def _condition(self):
        if self._room is None:
            with _making_conditions:
                if self._room is None:
                    self._room = threading.Condition()
        return self._room

    def _make_room(self):
        with self._condition():
            self._ahead -= 1
            self._room.notify_all()
