"""The project's channel layer: between processes, one message for each server, on a channel of its own."""

import warnings

from channels.layers import InMemoryChannelLayer, channel_layers

from ... import conf

# Connections that one message of the layer is for, at most.
PART = 1000


def channel_layer():
    """Return the channel layer that fan-out sends through, ``None`` if the project has none."""
    if conf.CHANNEL_LAYER not in channel_layers.configs:
        return None
    with warnings.catch_warnings():
        # Of expiry times and the like; each call would say it.
        warnings.simplefilter('ignore')
        return channel_layers[conf.CHANNEL_LAYER]


def layer_error():
    """Return why there is no channel layer that can be used, as an exception, or ``None``."""
    try:
        channel_layer()
    except Exception as error:
        # Its CONFIG may be what its backend does not take.
        return error


def is_local():
    """Whether only connections of this process can be reached."""
    layer = channel_layer()
    return layer is None or isinstance(layer, InMemoryChannelLayer)


def pack(names, message):
    """Return the messages of the layer that carry ``message`` to the connections ``names`` of one server."""
    short = [name.partition('!')[2] for name in names]
    return [
        (names[start : start + PART], {'type': 'sockets.deliver', 'to': short[start : start + PART], **message})
        for start in range(0, len(names), PART)
    ]


def unpack(content):
    """Return what ``pack`` has packed: the names, without that of their server, and the message."""
    content = dict(content)
    content.pop('type', None)
    return content.pop('to'), content
