"""What a server sends over a websocket: at once, framed once for all, and no more than its client reads."""

import collections
import logging

from ...backlog import Backlog
from ...messages import close_code, refusal
from . import direct

logger = logging.getLogger('sockets')

# The client is read again when the backlog is below so many bytes. Twisted says so only when nothing is left.
LOW = 32 * 1024


# The queue of frames that autobahn sends in chunks, of a connection that has never had one: an empty deque has 760 bytes.
NOTHING = ()


class Writing:
    """How a ``SocketProtocol`` sends, and how it closes."""

    # A ``Backlog`` of what was sent since the transport is full; None while it is not.
    backlog = None

    # Whether threads may write to the transport.
    is_direct = False

    # How a connection is refused, if not with 403.
    refusal = None

    def pauseProducing(self):
        # The transport calls this at each write while it is full.
        if self.backlog is None:
            self.backlog = Backlog()
            self.set_paused(self.must_wait())

    def resumeProducing(self):
        self.backlog = None
        if self.is_paused:
            self.handle_frames_later()

    def stopProducing(self):
        pass

    def sendData(self, data, sync=False, chopsize=None):
        if sync or chopsize or self.send_queue:
            if self.send_queue is NOTHING:
                self.close_to_threads()
                self.send_queue = collections.deque()
            return super().sendData(data, sync, chopsize)
        transport, sent = self.transport, 0
        with direct.lock_of(transport):
            # The transport would ask the reactor to be called back, and then not to be, for each frame that it could
            # have written at once. (TLS hands out the buffers of the transport beneath, which is not for us to write to.)
            if (
                hasattr(type(transport), 'writeSomeData')
                and transport.dataBuffer == b''
                and not transport._tempDataBuffer
            ):
                sent = transport.writeSomeData(data)
                if isinstance(sent, Exception):
                    # The reactor will meet the same error, and handle it.
                    sent = 0
            if sent < len(data):
                transport.write(data[sent:])
        if sent < len(data) and self.backlog is not None:
            self.check_backlog(len(data) - sent)

    def write_now(self, text, framed=direct.framed):
        """Send ``framed(text)`` from any thread if nothing is to be sent before it; return whether that was done."""
        if not self.is_direct or len(text) > direct.LONGEST:
            return False
        try:
            frame = framed(text)
        except UnicodeEncodeError:
            return False
        return self.transport.write_now(frame)

    def close_to_threads(self):
        if self.is_direct:
            self.transport.close_to_threads()

    def check_backlog(self, size):
        try:
            transport = self.transport
            waiting = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
        except AttributeError:
            waiting = self.backlog.size + size
        if self.backlog.add(size, waiting):
            self.cut_off(f'it does not read, and {waiting} bytes wait')
        elif waiting < LOW:
            self.resumeProducing()

    def serverAccept(self):
        if self.state == self.STATE_CONNECTING:
            super().serverAccept()

    def serverReject(self):
        if self.state == self.STATE_CONNECTING:
            super().serverReject()

    def failHandshake(self, reason, code=400, responseHeaders=None):
        # daphne knows no other answer than 403.
        if self.refusal is not None and code == 403:
            code, reason, responseHeaders = self.refusal
        super().failHandshake(reason, code, responseHeaders)

    def serverSend(self, content, binary=False):
        self.serverAccept()
        if self.state != self.STATE_OPEN:
            return
        # The same object: a fan-out's connections share one message.
        if getattr(self.factory, 'framed', None) is not content:
            payload = content if binary else content.encode('utf8')
            self.factory.framed, self.factory.frame = content, self.factory.prepareMessage(payload, binary)
        self.sendPreparedMessage(self.factory.frame)

    def serverClose(self, code=True):
        if code is not True:
            try:
                code = close_code(code)
            except ValueError as error:
                # autobahn would raise and leave it open, or send what no client understands.
                logger.error('Closing %s with 1011: %s', self.reply_channel, error)
                code = 1011
        if self.state == self.STATE_CONNECTING:
            self.refusal = refusal(code)
            self.serverReject()
        # autobahn's sendClose() refuses the codes of RFC 6455, such as 1011, with an exception, and the connection
        # stays open. daphne itself closes with 1013 this way. A restart (1012) says so in its reason.
        elif code is not True and 1000 < code < 3000:
            self.sendCloseFrame(code=code, reasonUtf8=b'restart' if code == 1012 else None, isReply=False)
        else:
            super().serverClose(code)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        # What was read and not handled yet is dropped as well: a client that reconnects sends it again.
        with direct.lock_of(self.transport):
            # Not while a thread reads.
            self.reader.close()
        self.is_stopped = False
        if self.is_paused:
            self.handle_frames_later()
        self.close_to_threads()
        super().sendCloseFrame(code, reasonUtf8, isReply)
