"""What a client sends over an open websocket: handled some frames at a time, and not read while it must wait."""
import logging
import time

from .frames import BINARY, CLOSE, PING, PONG, Violation

logger = logging.getLogger('sockets')

# Frames of one client that are handled before the others have their turn.
FRAMES_A_TURN = 64


class Reading:
    """How a ``SocketProtocol`` handles what comes in."""

    # Nothing is read from the client for now.
    is_held = False

    # The call that goes on with what has been read.
    next_turn = None

    # It is to be read no more, until it is closed.
    is_leaving = False

    def turn(self):
        """Handle some of the frames that have been read, and read on when none is left."""
        self.next_turn, ping, frame = None, None, ()
        try:
            for _ in range(FRAMES_A_TURN):
                if self.state == self.STATE_CLOSED or self.must_wait():
                    break
                frame = self.reader.read()
                if frame is None:
                    break
                opcode, payload = frame
                if payload is None:
                    continue
                if opcode == PING:
                    # Of several, only the last one needs an answer (section 5.5.3).
                    ping = payload
                elif opcode == PONG:
                    if payload == self.autoPingPending:
                        self.note_life()
                elif opcode == CLOSE:
                    self.onCloseFrame(*payload)
                else:
                    self.onMessage(payload, opcode == BINARY)
            if ping is not None:
                self.sendPong(ping)
        except Violation as violation:
            # Its answer to our close may have arrived as well.
            frame = ()
            self.fail(violation)
        except Exception:
            logger.exception('Cutting off %s, of which a frame could not be handed on', self.reply_channel)
            self.dropConnection(abort=True)
        if self.state != self.STATE_CLOSED:
            if frame is not None and not self.must_wait():
                self.go_on()
            self.hold(self.next_turn is not None or self.must_wait())

    def go_on(self):
        if self.next_turn is None and self.state != self.STATE_CLOSED:
            self.next_turn = self.factory.reactor.callLater(0, self.turn)

    def must_wait(self):
        return self.is_leaving or (self.backlog is not None and not self.is_looking)

    def stop_reading(self):
        """Hand on no more frames. What comes now is dropped when the connection is closed, which is what is next."""
        if self.state == self.STATE_OPEN:
            self.is_leaving = True
            self.hold(True)

    def hold(self, is_held):
        if is_held != self.is_held:
            self.is_held = is_held
            self.transport.pauseProducing() if is_held else self.transport.resumeProducing()

    def onMessage(self, payload, isBinary):
        if self.muted:
            return
        self.packets_received += 1
        self.last_data = time.time()
        if self.autoPingTimeoutCall is not None and not self.is_looking:
            self.note_life()
        message = {'reply_channel': self.reply_channel, 'path': self.request_info['path'],
                   'order': self.packets_received, 'bytes' if isBinary else 'text': payload}
        self.note_root_path(message)
        try:
            self.channel_layer.send('websocket.receive', message)
        except self.channel_layer.ChannelFull:
            # As daphne does.
            self.muted = True
            logger.warning('Closing %s with 1013: too many of its frames wait', self.reply_channel)
            self.sendCloseFrame(code=1013, isReply=False)

    def onCloseFrame(self, code, reasonRaw):
        self.remoteCloseCode, self.remoteCloseReason = code, reasonRaw
        self.wasClean = True
        # Unless this is the answer to ours.
        if self.state == self.STATE_OPEN:
            self.sendCloseFrame(code=1000, isReply=True)
        elif self.closeHandshakeTimeoutCall is not None:
            self.closeHandshakeTimeoutCall.cancel()
            self.closeHandshakeTimeoutCall = None
        self.dropConnection()

    def fail(self, violation):
        logger.info('Closing %s with %d: %s', self.reply_channel, violation.code, violation)
        self.failedByMe, self.wasNotCleanReason = True, violation.reason
        self.sendCloseFrame(code=violation.code, reasonUtf8=violation.reason.encode(), isReply=False)
