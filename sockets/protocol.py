"""daphne's end of a websocket: at less cost for each frame, and firm with clients that are gone or do not read."""
import logging
import time

from daphne.ws_protocol import WebSocketProtocol

from . import audit, conf

logger = logging.getLogger('sockets')

# Bytes that may wait for a client that does not read, before it is cut off. Its fan-outs would fill our memory.
BACKLOG = 4 * 1024 * 1024

# Seconds that a client has to answer a close. Whatever it has not read by then, the close included, is lost to it, and
# one that is still sending reads late; autobahn gives it one.
CLOSE_TIMEOUT = 5


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

    # Options of autobahn's: onMessage() checks the UTF-8, and what is too long is answered with 1009, not with a reset.
    utf8validateIncoming = False
    failByDrop = False
    closeHandshakeTimeout = CLOSE_TIMEOUT

    # What was sent since the client has stopped reading; None while it reads.
    backlog = None

    def onOpen(self):
        super().onOpen()
        audit.begin(self.main_factory)
        # A frame over the limit gets an ERROR, one far over it is not even read.
        self.maxMessagePayloadSize = 4 * conf.MAX_MESSAGE_SIZE
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
            return super().sendData(data, sync, chopsize)
        transport, sent = self.transport, 0
        # The transport would ask the reactor to be called back, and then not to be, for each frame that it could have
        # written at once. (TLS has no such buffers.)
        if getattr(transport, 'dataBuffer', None) == b'' and not getattr(transport, '_tempDataBuffer', True):
            sent = transport.writeSomeData(data)
            if isinstance(sent, Exception):
                # The reactor finds out, and tells whom it should.
                sent = 0
        if sent < len(data):
            transport.write(data[sent:])

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

    def serverClose(self, code=True):
        # autobahn's sendClose() refuses the codes of RFC 6455, such as 1011, with an exception, and the connection
        # stays open. daphne itself closes with 1013 this way. A restart (1012) says so in its reason.
        if code is not True and 1000 < code < 3000:
            self.sendCloseFrame(code=code, reasonUtf8=b'restart' if code == 1012 else None, isReply=False)
        else:
            super().serverClose(code)


def install():
    """Have daphne's server hold its websockets this way, in whichever process that runs."""
    from daphne import http_protocol
    http_protocol.WebSocketProtocol = SocketProtocol
