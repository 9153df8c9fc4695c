"""The opening handshake of a websocket: its request, its connect message, and the clients that are turned away."""

import logging
import math
import time
from urllib.parse import unquote

from daphne.utils import parse_x_forwarded_for
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport

from ... import messages
from ...access import credentials
from . import audit, direct, writing
from .handshake import BadRequest, Handshake

logger = logging.getLogger('sockets')

# Bytes that a request for a websocket may have, and what a client may send behind it before it is answered.
MAX_REQUEST = 64 * 1024

# Seconds that clients have to answer a close which tells them to come back later, and how many of them there may be at
# a time.
TURN_AWAY_TIMEOUT = 2
MAX_TURNED_AWAY = 1000


class Opening:
    """What a ``SocketProtocol`` does until its connection is open."""

    # The request is complete: what comes after it are frames.
    has_request = False

    # What a proxy has taken off the path, which URLs begin with.
    root_path = ''

    # Seconds after which a client that was turned away may come back.
    retry_after = None

    # Messages that wait until it is open.
    held = ()

    def read_request(self, data):
        self.data += data
        head, end, rest = self.data.partition(b'\r\n\r\n')
        if not end:
            if len(head) > MAX_REQUEST:
                self.cut_off('its request is too long')
            return
        self.has_request = True
        self.reader.feed(rest)
        try:
            self.handshake = Handshake(head)
            self.data = self.handshake.for_autobahn()
            self.processHandshake()
        except BadRequest as error:
            self.failHandshake(error.reason, error.status)
        except Exception:
            # Not the rest: there are tokens in queries and headers.
            logger.exception('A request for a websocket failed: %.200r', head.partition(b'\r')[0].partition(b'?')[0])
            self.cut_off('its request failed')
        self.data = b''
        self.check_request()

    def check_request(self):
        if self.state == self.STATE_CONNECTING and len(self.reader) > MAX_REQUEST:
            self.cut_off('it sends without waiting for the handshake')

    def onConnect(self, request):
        handshake, factory = self.handshake, self.main_factory
        self.handshake = None
        # For daphne and its log. autobahn was shown no path.
        request.path, self.path, self.request = handshake.raw_path, handshake.raw_path.encode(), request
        self.packets_received = 0
        self.socket_opened = self.last_data = time.time()
        # We support no extensions, and a bad offer of one must not fail the connection when it is accepted.
        self.websocket_extensions = []
        self.protocol_to_accept = next(
            (name for name in self.websocket_protocols if name in self.factory.protocols), None
        )
        peer, host = self.transport.getPeer(), self.transport.getHost()
        self.client_addr = self.server_addr = None
        if hasattr(peer, 'host') and hasattr(peer, 'port'):
            self.client_addr, self.server_addr = [str(peer.host), peer.port], [str(host.host), host.port]
        # Found as Twisted's own HTTP channel does.
        scheme = 'http' if ISSLTransport(self.transport, None) is None else 'https'
        if factory.proxy_forwarded_address_header:
            self.client_addr, scheme = parse_x_forwarded_for(
                {name.decode(): value.decode('latin-1') for name, value in handshake.headers},
                factory.proxy_forwarded_address_header,
                factory.proxy_forwarded_port_header,
                factory.proxy_forwarded_proto_header,
                self.client_addr,
                scheme,
            )
        self.reply_channel = factory.make_send_channel()
        # As daphne does for pages. The header is set by our PageRequest only.
        self.root_path = next(
            (unquote(value.decode('latin-1')) for name, value in handshake.headers if name == b'daphne-root-path'),
            factory.root_path,
        )
        self.request_info = {
            'path': handshake.path,
            # As daphne does: CVE-2015-0219.
            'headers': [(name, value) for name, value in handshake.headers if b'_' not in name],
            'query_string': handshake.target.partition(b'?')[2],
            'client': self.client_addr,
            'server': self.server_addr,
            'scheme': 'wss' if scheme in ('https', 'wss') else 'ws',
            'reply_channel': self.reply_channel,
            'order': 0,
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
            # Not raised: autobahn would send the text of the exception to the client.
            self.failHandshake('Internal Server Error', 500)
            return Deferred()
        self.factory.log_action(
            'websocket',
            'connecting',
            {'path': request.path, 'client': '{}:{}'.format(*self.client_addr) if self.client_addr else None},
        )
        self.handshake_deferred = Deferred()
        return self.handshake_deferred

    def choose(self, subprotocol):
        """Answer with ``subprotocol``, if the client offers that."""
        if subprotocol in self.websocket_protocols:
            self.protocol_to_accept = subprotocol

    def holds(self, message):
        """Return whether ``message`` does not accept, and is held until the connection is accepted.

        A handler of ours accepts before it sends. Others find the row before that, and what they send is not to accept the
        connection without its subprotocol.
        """
        if message.get('accept') is not None or message.get('close') or not audit.is_ours(self):
            return False
        self.held = self.held or []
        self.held.append(message)
        return True

    def note_root_path(self, message):
        # Most sites have none.
        if self.root_path:
            message['root_path'] = self.root_path

    def refuse(self, seconds):
        """Refuse a connect because too many wait: with 1013 if it may be tried again after ``seconds``, or with 503."""
        self.forget()
        if seconds is not None and self.main_factory.turned_away < MAX_TURNED_AWAY:
            self.note_retry(seconds)
            return self.protocol_to_accept
        if seconds is None:
            logger.warning('Refusing %s: too many connects wait', self.reply_channel)
        self.failHandshake(
            'Too many connects wait',
            503,
            [('Retry-After', max(1, math.ceil(seconds)))] if seconds is not None else None,
        )
        # autobahn waits for this one, which never fires.
        return Deferred()

    def turn_away(self, seconds):
        """Tell a client that waits to be accepted to come back after ``seconds``. No disconnect is sent for it."""
        if self.state != self.STATE_CONNECTING:
            return
        self.forget()
        if self.main_factory.turned_away < MAX_TURNED_AWAY:
            self.note_retry(seconds)
            # A browser does not show a page the headers of a refused handshake, but it does show a close.
            self.serverAccept()
        else:
            self.failHandshake('Too many connects wait', 503, [('Retry-After', max(1, math.ceil(seconds)))])

    def note_retry(self, seconds):
        self.retry_after = seconds
        self.main_factory.turned_away += 1

    def forget(self):
        """Send no messages about this connection, and take none for it."""
        self.muted = True
        self.cleanup()

    def onOpen(self):
        audit.begin(self.main_factory)
        # Memory that nobody needs any more, of a connection that may say nothing for hours.
        self.http_request_data = self.http_response_data = None
        self.send_queue = writing.NOTHING
        # It replaces the HTTP channel that this connection came through.
        self.transport.unregisterProducer()
        self.transport.registerProducer(self, True)
        self.is_direct = direct.open_to_threads(self.transport)
        if self.retry_after is not None:
            self.closeHandshakeTimeout = TURN_AWAY_TIMEOUT
            self.sendCloseFrame(1013, messages.retry_after(self.retry_after).encode())
        else:
            super().onOpen()
            held, self.held = self.held, ()
            for message in held:
                self.main_factory.dispatch_reply(self.reply_channel, message)
        poll = self.main_factory.poll
        if poll is not None and self.is_direct:
            # What has been read already is the reactor's.
            self.set_paused(True)
            self.transport.poll = poll
            self.handle_frames_later()
        elif len(self.reader):
            self.handle_frames_later()
