"""daphne's end of a websocket: at less cost for each frame, and firm with clients that are gone or do not read."""
import logging
import math
import sys
import time
from urllib.parse import unquote

from daphne.http_protocol import HTTPFactory, WebRequest
from daphne.utils import parse_x_forwarded_for
from daphne.ws_protocol import WebSocketProtocol
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport
from twisted.web import http

from ... import conf
from ...access import credentials
from . import audit
from .frames import BINARY, CLOSE, FrameReader, PING, PONG, Violation
from .handshake import BadRequest, Handshake, join_cookies
from .transport import close_code

logger = logging.getLogger('sockets')

# Bytes that may wait for a client that does not read, before it is cut off. Its fan-outs would fill our memory.
BACKLOG = 4 * 1024 * 1024

# Bytes of a backlog that has come down so far that the client is read again. Twisted says so only when nothing is left.
LOW = 32 * 1024

# Bytes that a request for a websocket may have, and what is sent behind it before it is answered.
MAX_REQUEST = 64 * 1024

# Frames of one client that are handled before the others have their turn.
FRAMES_A_TURN = 64

# Seconds that a client has to answer a close. Whatever it has not read by then, the close included, is lost to it, and
# one that is still sending reads late; autobahn gives it one. The same for what it has to read before we hang up.
CLOSE_TIMEOUT = 5

# The same for clients that are told to come again later, and how many of them there may be at a time.
TURN_AWAY_TIMEOUT = 2
MAX_TURNED_AWAY = 1000


class SocketProtocol(WebSocketProtocol):
    """daphne's protocol, at less cost for each frame.

    A text that goes to many connections one after another is framed once for all. What comes in is read by our own
    ``FrameReader``. What goes out is written at once, not in the reactor's next round.

    Whoever is silent is pinged, also if something is sent to it all the time: that proves nothing. Whoever does not
    read is read no more, and cut off when too much waits for it. What comes after our close is not handled.
    """

    # An option of autobahn's.
    closeHandshakeTimeout = CLOSE_TIMEOUT

    # Its request is complete: what comes now are frames.
    has_asked = False

    # What was sent since the transport is full; None while it is not.
    backlog = None

    # Nothing is read from the client for now.
    is_held = False

    # The call that goes on with what has been read, and the one that ends a connection which does not end by itself.
    next_turn = last_call = None

    # It is to be read no more, until it is closed.
    is_leaving = False

    # What a full transport keeps us from reading may be the answer to a ping: we are looking.
    is_looking = False

    # What a proxy has taken off the path, which URLs begin with.
    root_path = ''

    # Seconds after which a client that was turned away may come again.
    retry_after = None

    def connectionMade(self):
        # A frame over the limit gets an ERROR, one far over it is not even read.
        self.reader = FrameReader(4 * conf.MAX_MESSAGE_SIZE, 4 * max(conf.MAX_MESSAGE_SIZE, conf.MAX_BINARY_SIZE or 0))
        if conf.HANDSHAKE_TIMEOUT is not None:
            self.openHandshakeTimeout = conf.HANDSHAKE_TIMEOUT
        super().connectionMade()

    def connectionLost(self, reason):
        for call in (self.next_turn, self.last_call):
            if call is not None and call.active():
                call.cancel()
        if self.retry_after is not None:
            self.main_factory.turned_away -= 1
        super().connectionLost(reason)

    # What the transport calls. (The rest is twisted.internet.interfaces.IPushProducer.)

    def dataReceived(self, data):
        if self.state == self.STATE_CONNECTING and not self.has_asked:
            return self.read_request(data)
        if self.state == self.STATE_CLOSED:
            return
        self.reader.feed(data)
        if self.state == self.STATE_CONNECTING:
            self.check_request()
        elif self.is_held:
            # Someone has told the transport to go on: daphne does, after the handshake.
            self.transport.pauseProducing()
        else:
            # Who sends a large frame over a slow line answers no ping until it is through.
            if self.autoPingTimeoutCall is not None and not self.is_looking:
                self.note_life()
            self.turn()

    def pauseProducing(self):
        # The transport says so at each write.
        if self.backlog is None:
            self.backlog = 0
            self.hold(self.must_wait())

    def resumeProducing(self):
        self.backlog = None
        if self.is_held:
            self.go_on()

    def stopProducing(self):
        pass

    # The handshake

    def read_request(self, data):
        self.data += data
        head, end, rest = self.data.partition(b'\r\n\r\n')
        if not end:
            if len(head) > MAX_REQUEST:
                self.cut_off('its request is too long')
            return
        self.has_asked = True
        self.reader.feed(rest)
        try:
            self.handshake = Handshake(head)
            self.data = self.handshake.for_autobahn()
            self.processHandshake()
        except BadRequest as error:
            self.failHandshake(error.reason, error.status)
        except Exception:
            logger.exception('A request for a websocket failed: %.200r', head)
            self.cut_off('its request failed')
        self.data = b''
        self.check_request()

    def check_request(self):
        if self.state == self.STATE_CONNECTING and len(self.reader) > MAX_REQUEST:
            self.cut_off('it sends without waiting for the handshake')

    def onConnect(self, request):
        handshake, factory = self.handshake, self.main_factory
        self.handshake = None
        # For daphne, its log and autobahn, which has seen no more of the path than it needs.
        request.path, self.path, self.request = handshake.raw_path, handshake.raw_path.encode(), request
        self.packets_received = 0
        self.socket_opened = self.last_data = time.time()
        # We speak none, and a bad offer of one is no reason to fail when the connection is accepted.
        self.websocket_extensions = []
        self.protocol_to_accept = next(
            (name for name in self.websocket_protocols if name in self.factory.protocols), None)
        peer, host = self.transport.getPeer(), self.transport.getHost()
        self.client_addr = self.server_addr = None
        if hasattr(peer, 'host') and hasattr(peer, 'port'):
            self.client_addr, self.server_addr = [str(peer.host), peer.port], [str(host.host), host.port]
        # As Twisted's own HTTP channel finds out.
        scheme = 'http' if ISSLTransport(self.transport, None) is None else 'https'
        if factory.proxy_forwarded_address_header:
            self.client_addr, scheme = parse_x_forwarded_for(
                {name.decode(): value.decode('latin-1') for name, value in handshake.headers},
                factory.proxy_forwarded_address_header, factory.proxy_forwarded_port_header,
                factory.proxy_forwarded_proto_header, self.client_addr, scheme)
        self.reply_channel = factory.make_send_channel()
        # As daphne does for pages, which says of the header that it is a page's own.
        self.root_path = next((unquote(value.decode('latin-1')) for name, value in handshake.headers
                               if name == b'daphne-root-path'), factory.root_path)
        self.request_info = {
            'path': handshake.path,
            # As daphne does: CVE-2015-0219.
            'headers': [(name, value) for name, value in handshake.headers if b'_' not in name],
            'query_string': handshake.target.partition(b'?')[2],
            'client': self.client_addr, 'server': self.server_addr,
            'scheme': 'wss' if scheme in ('https', 'wss') else 'ws',
            'reply_channel': self.reply_channel, 'order': 0,
        }
        self.note_root_path(self.request_info)
        factory.reply_protocols[self.reply_channel] = self
        credentials.hold(self.reply_channel, self)
        try:
            self.channel_layer.send('websocket.connect', self.request_info)
        except self.channel_layer.ChannelFull as full:
            return self.refuse(getattr(full, 'retry_after', None))
        except Exception:
            logger.exception('The connect of %s could not be handed on', self.reply_channel)
            # autobahn would tell the client what went wrong.
            self.failHandshake('Internal Server Error', 500)
            return Deferred()
        self.factory.log_action('websocket', 'connecting', {
            'path': request.path, 'client': '{}:{}'.format(*self.client_addr) if self.client_addr else None})
        self.handshake_deferred = Deferred()
        return self.handshake_deferred

    def note_root_path(self, message):
        # Most sites have none.
        if self.root_path:
            message['root_path'] = self.root_path

    def refuse(self, seconds):
        """Do what is to be done about a connect for which there is no room, now or for so many seconds."""
        self.forget()
        if seconds is not None and self.main_factory.turned_away < MAX_TURNED_AWAY:
            self.note_retry(seconds)
            return self.protocol_to_accept
        if seconds is None:
            logger.warning('Refusing %s: too many connects wait', self.reply_channel)
        self.failHandshake('Too many connects wait', 503,
                           [('Retry-After', max(1, math.ceil(seconds)))] if seconds is not None else None)
        # That autobahn waits for.
        return Deferred()

    def turn_away(self, seconds):
        """Tell a client that waits to be accepted to come again after so many seconds. Its end is told to nobody."""
        if self.state != self.STATE_CONNECTING:
            return
        self.forget()
        if self.main_factory.turned_away < MAX_TURNED_AWAY:
            self.note_retry(seconds)
            # A browser sees no more of a refusal than that it was one.
            self.serverAccept()
        else:
            self.failHandshake('Too many connects wait', 503, [('Retry-After', max(1, math.ceil(seconds)))])

    def note_retry(self, seconds):
        self.retry_after = seconds
        self.main_factory.turned_away += 1

    def forget(self):
        self.muted = True
        self.cleanup()

    def onOpen(self):
        audit.begin(self.main_factory)
        # Instead of the HTTP channel that this connection came through.
        self.transport.unregisterProducer()
        self.transport.registerProducer(self, True)
        if self.retry_after is not None:
            self.closeHandshakeTimeout = TURN_AWAY_TIMEOUT
            self.sendCloseFrame(1013, 'retry={:.1f}'.format(self.retry_after).encode())
        else:
            super().onOpen()
        if len(self.reader):
            self.go_on()

    # What comes in

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

    # Pings

    def check_ping(self):
        # daphne would forget the one that is still to be answered, and its end would come whatever the answer.
        if self.state != self.STATE_OPEN or self.autoPingTimeoutCall is None:
            super().check_ping()

    def note_life(self):
        if self.autoPingTimeoutCall is not None:
            self.autoPingTimeoutCall.cancel()
        self.autoPingTimeoutCall = self.autoPingPending = None
        self.is_looking = False

    def onAutoPingTimeout(self):
        if self.backlog is None or self.is_looking or self.state != self.STATE_OPEN:
            return super().onAutoPingTimeout()
        # What it takes slowly has kept us from reading its answer, if there is one.
        self.is_looking = True
        self.autoPingTimeoutCall = self.factory._batched_timer.call_later(1, self.onAutoPingTimeout)
        self.go_on()

    # What goes out

    def sendData(self, data, sync=False, chopsize=None):
        if sync or chopsize or self.send_queue:
            return super().sendData(data, sync, chopsize)
        transport, sent = self.transport, 0
        # The transport would ask the reactor to be called back, and then not to be, for each frame that it could have
        # written at once. (TLS hands out the buffers of the transport beneath, which is not for us to write to.)
        if (hasattr(type(transport), 'writeSomeData') and transport.dataBuffer == b'' and
                not transport._tempDataBuffer):
            sent = transport.writeSomeData(data)
            if isinstance(sent, Exception):
                # The reactor finds out, and tells whom it should.
                sent = 0
        if sent < len(data):
            transport.write(data[sent:])
            if self.backlog is not None:
                self.check_backlog(len(data) - sent)

    def check_backlog(self, size):
        self.backlog += size
        try:
            transport = self.transport
            waiting = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
        except AttributeError:
            waiting = self.backlog
        if waiting > BACKLOG:
            self.cut_off('it does not read, and {} bytes wait'.format(waiting))
        elif waiting < LOW:
            self.resumeProducing()

    def serverAccept(self):
        if self.state == self.STATE_CONNECTING:
            super().serverAccept()

    def serverReject(self):
        if self.state == self.STATE_CONNECTING:
            super().serverReject()

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
            self.serverReject()
        # autobahn's sendClose() refuses the codes of RFC 6455, such as 1011, with an exception, and the connection
        # stays open. daphne itself closes with 1013 this way. A restart (1012) says so in its reason.
        elif code is not True and 1000 < code < 3000:
            self.sendCloseFrame(code=code, reasonUtf8=b'restart' if code == 1012 else None, isReply=False)
        else:
            super().serverClose(code)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        # What was read and not handled yet is dropped as well: who sends it again elsewhere gets its answer there.
        self.reader.close()
        self.is_leaving = False
        if self.is_held:
            self.go_on()
        super().sendCloseFrame(code, reasonUtf8, isReply)

    # The end

    def cut_off(self, why):
        logger.warning('Cutting off %s: %s', getattr(self, 'reply_channel', self.peer), why)
        self.wasClean, self.wasNotCleanReason = False, why
        self.dropConnection(abort=True)

    def _closeConnection(self, abort=False):
        # A transport waits for ever until a client has read what there is to read.
        if not abort and self.last_call is None:
            self.last_call = self.factory.reactor.callLater(
                self.closeHandshakeTimeout, lambda: self.transport.abortConnection())
        super()._closeConnection(abort)


class SocketFactory(HTTPFactory):
    """daphne's factory, which loses no empty message and knows the message that turns a client away (``retry``)."""

    # Clients that have been told to come again later and have not gone yet.
    turned_away = 0

    def __init__(self, channel_layer, **kwargs):
        super().__init__(channel_layer, **kwargs)
        # Stock layers expect nothing.
        expect = getattr(channel_layer, 'expect_handshakes_within', None)
        timeout = conf.HANDSHAKE_TIMEOUT or self.ws_factory.openHandshakeTimeout
        if expect is not None and timeout:
            expect(timeout)

    def dispatch_reply(self, channel, message):
        protocol = self.reply_protocols.get(channel)
        if not isinstance(protocol, SocketProtocol):
            return super().dispatch_reply(channel, message)
        unknown = set(message).difference(_REPLY)
        if unknown:
            raise ValueError('A message for {} has {}; there are {}.'.format(
                channel, ', '.join(sorted(map(repr, unknown))), ', '.join(_REPLY)))
        text, binary = message.get('text'), message.get('bytes')
        if text and binary:
            raise ValueError('A message for {} has both text and bytes; send two.'.format(channel))
        if message.get('retry') is not None:
            return protocol.turn_away(message['retry'])
        if message.get('accept'):
            protocol.serverAccept()
        elif message.get('accept') is False and protocol.state == protocol.STATE_CONNECTING:
            return protocol.serverReject()
        if binary is not None and not text:
            protocol.serverSend(binary, True)
        if text is not None and not binary:
            protocol.serverSend(text)
        if message.get('close'):
            protocol.serverClose(message['close'])


_REPLY = ('accept', 'text', 'bytes', 'close', 'retry')


def _parse_cookies(request):
    join_cookies(request)
    http.Request.parseCookies(request)


def install():
    """Have daphne's server hold its websockets this way, in whichever process that runs."""
    from autobahn.websocket import protocol
    from daphne import http_protocol

    from . import page_consumers, pages
    # It lays out its options with each connection, for a log that daphne throws away: a fifth of what a server did while
    # thousands connected.
    protocol.pformat = str
    http_protocol.WebSocketProtocol = SocketProtocol
    pages.install()
    page_consumers.install()
    http_protocol.HTTPFactory = SocketFactory
    WebRequest.parseCookies = _parse_cookies
    # It has a name of its own for it. To import it would choose the reactor for every process.
    if 'daphne.server' in sys.modules:
        sys.modules['daphne.server'].HTTPFactory = SocketFactory
