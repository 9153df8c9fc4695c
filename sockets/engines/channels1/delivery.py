"""Messages to one channel. They are handed to the layer at once.

Channels' own pending store would hold them until the consumer has returned, and its worker exits when that flush meets
a full channel.
"""

import logging

from ... import conf, fanout
from ...engine import server_of
from ...exceptions import MailboxFull
from .channel_layer import adapted, channel_layer

logger = logging.getLogger('sockets')


def send(layer, name, message):
    """Hand ``message`` to one channel now; ``MailboxFull`` if it takes nothing for ``SEND_TIMEOUT`` seconds."""
    try:
        layer.send(name, message)
    except layer.ChannelFull:
        if fanout.hand_over(adapted(layer), [name], message):
            return
        raise MailboxFull(
            f'{server_of(name)} has taken no message for {conf.SEND_TIMEOUT} s; is its server still running?'
        )


def send_last(layer, name, message):
    """Hand over the last message of a frame, with which the worker need not wait for the layer; a failure is logged."""
    send_later = adapted(layer).send_later
    if send_later is None:
        return send(layer, name, message)

    def on_failure(error):
        try:
            if not isinstance(error, layer.ChannelFull):
                raise error
            send(layer, name, message)
        except Exception:
            logger.exception('The answer to a frame of %s was lost', name)

    send_later(name, message, on_failure)


def send_end(name, path):
    """Have the end of a connection, of which nobody said that it ended, handled after what waits of its frames."""
    channel_layer().send('websocket.disconnect', {'reply_channel': name, 'path': path, 'code': 1006, 'order': 0})
