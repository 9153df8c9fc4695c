"""daphne's end of a websocket: cheaper for each frame, and with time-outs for clients that are gone or do not read."""

import logging

from daphne.ws_protocol import WebSocketProtocol

from ... import conf
from .frames import FrameReader
from .heartbeats import Heartbeats
from .opening import Opening
from .reading import Reading
from .writing import Writing

logger = logging.getLogger('sockets')

# Seconds that a client has to answer a close, and to read what was sent before it; then the rest is lost. autobahn has
# one second, which is too little for a client that is still sending.
CLOSE_TIMEOUT = 5


class SocketProtocol(Opening, Reading, Heartbeats, Writing, WebSocketProtocol):
    """daphne's protocol, cheaper for each frame.

    A text that goes to many connections one after another is framed once for all. What comes in is read by our own
    ``FrameReader``. What goes out is written at once, not in the reactor's next round.

    A silent client is pinged, also while something is sent to it all the time: that does not prove that it is there. A
    client that does not read is not read either, and is cut off when too much waits for it. What comes after our close
    is not handled.
    """

    # An option of autobahn's.
    closeHandshakeTimeout = CLOSE_TIMEOUT

    # The reactor's call that cuts the connection off if it does not end by itself.
    last_call = None

    def connectionMade(self):
        # A frame over the limit gets an ERROR, one far over it is not even read.
        self.reader = FrameReader(4 * conf.MAX_MESSAGE_SIZE, 4 * max(conf.MAX_MESSAGE_SIZE, conf.MAX_BINARY_SIZE or 0))
        if conf.HANDSHAKE_TIMEOUT is not None:
            self.openHandshakeTimeout = conf.HANDSHAKE_TIMEOUT
        super().connectionMade()

    def connectionLost(self, reason):
        for call in (self.next_call, self.last_call):
            if call is not None and call.active():
                call.cancel()
        if self.retry_after is not None:
            self.main_factory.turned_away -= 1
        super().connectionLost(reason)

    def dataReceived(self, data):
        if self.state == self.STATE_CONNECTING and not self.has_request:
            return self.read_request(data)
        if self.state == self.STATE_CLOSED:
            return
        self.reader.feed(data)
        if self.state == self.STATE_CONNECTING:
            self.check_request()
        elif self.is_paused:
            # daphne tells the transport to read, after the handshake.
            self.transport.pauseProducing()
        else:
            # A client that sends a large frame over a slow line answers no ping until that is sent.
            if self.autoPingTimeoutCall is not None and not self.is_awaiting_pong:
                self.note_sign_of_life()
            self.handle_frames()

    def cut_off(self, why):
        logger.warning('Cutting off %s: %s', getattr(self, 'reply_channel', self.peer), why)
        self.wasClean, self.wasNotCleanReason = False, why
        self.dropConnection(abort=True)

    def _closeConnection(self, abort=False):
        # A transport would wait for ever for the client to read the rest.
        if not abort and self.last_call is None:
            self.last_call = self.factory.reactor.callLater(
                self.closeHandshakeTimeout, lambda: self.transport.abortConnection()
            )
        super()._closeConnection(abort)
