"""The requests for pages, and the limit of their bodies."""

import logging
import re

from daphne import http_protocol

from ... import conf
from .root_paths import root_path_of

logger = logging.getLogger('sockets')


class LimitedRequest(http_protocol.WebRequest):
    """daphne's request, refused with 413 when its body is larger than ``MAX_BODY_SIZE``.

    A client's ``Daphne-Root-Path`` is dropped.
    """

    # daphne sets it, but not for a request that is refused before.
    client_addr = None
    # The connection was cut off, or is lost.
    is_gone = False
    _is_refused = False

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
        # Twisted would also parse forms, which takes as much memory again for their files. Django does that.
        if self._is_refused:
            return
        self.content.seek(0, 0)
        self.method, self.uri, self.clientproto, self.args = command, path, version, {}
        self.path = path.partition(b'?')[0]
        self.process()

    def process(self):
        # As browsers send it. daphne answers any bytes that Twisted accepts, and then fails to write them to its log.
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
        if self.reply_channel is None:
            # It was a handshake, and its end is a websocket now. A circle of references would keep this for a while.
            channel, self.channel = self.channel, None
            channel.requests = []

    def connectionLost(self, reason):
        self._drop()
        super().connectionLost(reason)

    def _abort(self):
        if not self.is_gone:
            self._drop()
            (self.transport or self.channel).abortConnection()

    def _drop(self):
        self.is_gone = True
