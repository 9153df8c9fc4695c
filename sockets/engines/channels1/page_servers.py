"""daphne's server of pages: what it does with a message for one of them, and how it ends those that take too long."""

import logging

from daphne import http_protocol
from daphne.http_protocol import HTTPFactory

from .pages import PageRequest

logger = logging.getLogger('sockets')


def dispatch_reply(factory, channel, message):
    """Deliver a message to one of daphne's connections, and answer the worker if it asks."""
    try:
        _dispatch_reply(factory, channel, message)
    finally:
        if 'answer_to' in message:
            request = factory.reply_protocols.get(channel)
            factory.channel_layer.send(message['answer_to'], {'is_there': request is not None and not request.is_gone})


def check_timeouts(factory):
    """Check the time-outs of each connection, as daphne does, where an exception ends the checks for all."""
    for name, protocol in list(factory.reply_protocols.items()):
        try:
            if isinstance(protocol, PageRequest):
                protocol.check_timeout()
            elif protocol.duration() > factory.websocket_timeout >= 0:
                protocol.serverClose()
            else:
                protocol.check_ping()
        except Exception:
            logger.exception('Could not check the time-outs of %s', name)


_dispatch_reply = HTTPFactory.dispatch_reply


def patch_daphne():
    """Have daphne's server hold its pages this way, in whichever process that runs."""
    http_protocol.WebRequest = PageRequest
    HTTPFactory.dispatch_reply = dispatch_reply
    HTTPFactory.check_timeouts = check_timeouts
