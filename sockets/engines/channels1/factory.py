"""daphne's factory of connections, and how its server comes to use it."""

import functools
import sys

from daphne.http_protocol import HTTPFactory, WebRequest
from twisted.web import http

from ... import conf
from . import direct
from .channel_layer import adapted
from .handshake import join_cookies
from .protocol import SocketProtocol


class SocketFactory(HTTPFactory):
    """daphne's factory, which loses no empty message and knows the message that turns a client away (``retry``)."""

    # The ``Poll`` of the connections whose frames are read by threads, if there is one.
    poll = None

    # How many clients have been told to come back later and are still connected.
    turned_away = 0

    def __init__(self, channel_layer, **kwargs):
        super().__init__(channel_layer, **kwargs)
        timeout = conf.HANDSHAKE_TIMEOUT or self.ws_factory.openHandshakeTimeout
        if timeout:
            adapted(channel_layer).expect_handshakes_within(timeout)

    def dispatch_reply(self, channel, message):
        protocol = self.reply_protocols.get(channel)
        if not isinstance(protocol, SocketProtocol):
            return super().dispatch_reply(channel, message)
        # Nearly every message.
        if len(message) == 1 and isinstance(message.get('text'), str) and protocol.write_now(message['text'], _framed):
            return
        unknown = set(message).difference(_REPLY)
        if unknown:
            raise ValueError(
                'A message for {} has {}; there are {}.'.format(
                    channel, ', '.join(sorted(map(repr, unknown))), ', '.join(_REPLY)
                )
            )
        text, binary = message.get('text'), message.get('bytes')
        if text and binary:
            raise ValueError(f'A message for {channel} has both text and bytes; send two.')
        if message.get('retry') is not None:
            return protocol.turn_away(message['retry'])
        if protocol.state == protocol.STATE_CONNECTING and protocol.holds(message):
            return
        if message.get('accept'):
            protocol.choose(message.get('subprotocol'))
            protocol.serverAccept()
        elif message.get('accept') is False and protocol.state == protocol.STATE_CONNECTING:
            return protocol.serverReject()
        if binary is not None and not text:
            protocol.serverSend(binary, True)
        if text is not None and not binary:
            protocol.serverSend(text)
        if message.get('close'):
            protocol.serverClose(message['close'])

    def write_now(self, channel, text):
        """Send ``text`` from any thread if its client can have it at once; return whether that was done."""
        protocol = self.reply_protocols.get(channel)
        return isinstance(protocol, SocketProtocol) and protocol.write_now(text)


# A fan-out's connections share one text.
_framed = functools.lru_cache(maxsize=1)(direct.framed)

_REPLY = ('accept', 'subprotocol', 'text', 'bytes', 'close', 'retry')


def _parse_cookies(request):
    join_cookies(request)
    http.Request.parseCookies(request)


def patch_daphne():
    """Have daphne's server hold its websockets this way, in whichever process that runs."""
    from autobahn.websocket import protocol
    from daphne import http_protocol

    from . import page_consumers, page_servers

    # autobahn formats its options at each connection, for a log that daphne drops: that took a fifth of a server's time
    # while thousands connected.
    protocol.pformat = str
    http_protocol.WebSocketProtocol = SocketProtocol
    page_servers.patch_daphne()
    page_consumers.install()
    http_protocol.HTTPFactory = SocketFactory
    WebRequest.parseCookies = _parse_cookies
    # daphne.server has imported the name. To import that module here would choose the reactor for every process.
    if 'daphne.server' in sys.modules:
        sys.modules['daphne.server'].HTTPFactory = SocketFactory
