"""What a client sends over an open websocket: handled some frames at a time, and not read while it must wait."""

import logging
import time

from .frames import BINARY, CLOSE, PING, PONG, TEXT, Violation

logger = logging.getLogger('sockets')

# Frames of one client that are handled before it is the turn of the others.
FRAMES_A_TURN = 64


class Reading:
    """How a ``SocketProtocol`` handles what comes in."""

    # The transport has been told to read nothing for now.
    is_paused = False

    # A thread has read something, and told the reactor to go on with it.
    is_on_its_way = False

    # The reactor's call that handles the frames which have been read.
    next_call = None

    # Nothing is read any more until the connection is closed.
    is_stopped = False

    def read_now(self):
        """Read in the thread that is to handle it: return the message of a frame, or ``None``. Under the transport's lock.

        What is no whole message, and nothing but that, is left to the reactor, which reads on when it has handled it.
        """
        transport = self.transport
        if not transport.is_polled:
            return None
        if self.is_paused:
            transport.stopReading()
            return None
        try:
            data = transport.socket.recv(transport.bufferSize)
        except BlockingIOError:
            return None
        except OSError:
            data = b''
        if not data:
            # It has ended. The reactor meets the same.
            transport.stopReading()
            self.factory.reactor.callFromThread(transport.leave_poll)
            return None
        frame = None
        if self.state == self.STATE_OPEN and self.autoPingTimeoutCall is None and not self.must_wait():
            self.reader.feed(data)
            data = b''
            try:
                frame = self.reader.read()
            except Violation as violation:
                frame = violation
            else:
                if frame is None:
                    return None
                opcode, payload = frame
                if opcode in (TEXT, BINARY) and payload is not None and not len(self.reader):
                    return None if self.muted else self.message_of(payload, opcode == BINARY)
        self.is_on_its_way = self.is_paused = True
        transport.stopReading()
        self.factory.reactor.callFromThread(self.go_on, data, frame)
        return None

    def go_on(self, data, frame):
        """Handle what a thread has read."""
        self.is_on_its_way = False
        if self.state == self.STATE_CLOSED:
            return
        if data:
            self.reader.feed(data)
            if self.autoPingTimeoutCall is not None and not self.is_awaiting_pong:
                self.note_sign_of_life()
        self.handle_frames(frame)

    def handle_frames(self, first=None):
        """Handle some of the frames that have been read, and ``first`` before them; pause reading while there are more."""
        self.next_call, ping, frame = None, None, ()
        if self.is_on_its_way:
            # It comes before what is in the buffer.
            return
        try:
            for _ in range(FRAMES_A_TURN):
                if self.state == self.STATE_CLOSED or first is None and self.must_wait():
                    break
                frame, first = self.reader.read() if first is None else first, None
                if frame is None:
                    break
                if isinstance(frame, Violation):
                    raise frame
                opcode, payload = frame
                if payload is None:
                    continue
                if opcode == PING:
                    # Of several, only the last one needs an answer (section 5.5.3).
                    ping = payload
                elif opcode == PONG:
                    if payload == self.autoPingPending:
                        self.note_sign_of_life()
                elif opcode == CLOSE:
                    self.onCloseFrame(*payload)
                else:
                    self.onMessage(payload, opcode == BINARY)
            if ping is not None:
                self.sendPong(ping)
        except Violation as violation:
            # The buffer is read on: the client's answer to our close may be in it.
            frame = ()
            self.fail(violation)
        except Exception:
            logger.exception('Cutting off %s: a frame could not be sent to a worker', self.reply_channel)
            self.dropConnection(abort=True)
        if self.state != self.STATE_CLOSED:
            if frame is not None and not self.must_wait():
                self.handle_frames_later()
            self.set_paused(self.next_call is not None or self.must_wait())

    def handle_frames_later(self):
        if self.next_call is None and self.state != self.STATE_CLOSED:
            self.next_call = self.factory.reactor.callLater(0, self.handle_frames)

    def must_wait(self):
        """Whether frames may not be handled now: the client does not read, or is to be closed."""
        return self.is_stopped or (self.backlog is not None and not self.is_awaiting_pong)

    def stop_reading(self):
        """Handle no more frames. The connection is about to be closed, which drops what comes until then."""
        if self.state == self.STATE_OPEN:
            self.is_stopped = True
            self.set_paused(True)

    def set_paused(self, is_paused):
        """Have the transport read nothing, or read again."""
        if is_paused != self.is_paused:
            self.is_paused = is_paused
            self.transport.pauseProducing() if is_paused else self.transport.resumeProducing()

    def onMessage(self, payload, isBinary):
        if self.muted:
            return
        if self.autoPingTimeoutCall is not None and not self.is_awaiting_pong:
            self.note_sign_of_life()
        try:
            self.channel_layer.send('websocket.receive', self.message_of(payload, isBinary))
        except self.channel_layer.ChannelFull:
            self.refuse_frames()

    def message_of(self, payload, is_binary):
        """Count a frame, and return the message that has it handled."""
        self.packets_received += 1
        self.last_data = time.time()
        message = {
            'reply_channel': self.reply_channel,
            'path': self.request_info['path'],
            'order': self.packets_received,
            'bytes' if is_binary else 'text': payload,
        }
        self.note_root_path(message)
        return message

    def refuse_later(self):
        """Close the connection from another thread: too many of its frames wait."""
        self.factory.reactor.callFromThread(self.refuse_frames)

    def refuse_frames(self):
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
