"""Which consumer a path leads to, and what a routing names."""

import collections
import logging

from channels import channel_layers
from channels.message import Message
from channels.routing import Include, Route, Router, connect_consumer, null_consumer

from ... import conf
from ...engine import Endpoint
from .channel_layer import channel_layer
from .consumer import Consumer
from .delivery import send

logger = logging.getLogger('sockets')

Routed = collections.namedtuple('Routed', 'consumer channels conditions')
Routed.__doc__ = """An entry of a routing. ``conditions`` are the regexes of each ``include`` around it, and its own:
dicts, by what they are about (``path``). What an ``include`` has matched is taken off what the next one sees.
"""


def routing_error(alias):
    """Return why the layer ``alias`` cannot be used, as an exception, or ``None``. Opens no connection."""
    try:
        channel_layers[alias]
    except Exception as error:
        return error


def routed(alias):
    """Return what the routing of the layer ``alias`` leads to: a list of ``Routed``, in order. The first one wins."""
    # The root is an include of everything.
    return [found for entry in channel_layers[alias].router.root.routing for found in _walk(entry)]


def endpoints():
    """Return an ``Endpoint`` for each consumer class of ours in the routing, in its order."""
    found = []
    for entry in routed(conf.CHANNEL_LAYER):
        if is_consumer_of_ours(entry.consumer):
            paths = [conditions['path'].pattern for conditions in entry.conditions if 'path' in conditions]
            names = {name for regexes in entry.conditions for regex in regexes.values() for name in regex.groupindex}
            found.append(
                Endpoint(
                    entry.consumer, ''.join(path.lstrip('^') if n else path for n, path in enumerate(paths)), names
                )
            )
    return found


def handler_at(path):
    """Return the consumer class of ours that frames of a connection to ``path`` go to, or ``None``."""
    return consumer_of(Message({'reply_channel': 'a!b', 'path': path}, 'websocket.receive', channel_layer()))[0]


def consumer_of(message):
    """Return the consumer class of ours that ``message`` goes to, and its URL arguments; ``(None, {})`` if to none."""
    consumer, kwargs = message.channel_layer.router.match(message) or (None, {})
    return (consumer, kwargs) if is_consumer_of_ours(consumer) else (None, {})


def is_consumer_of_ours(consumer):
    """Return whether ``consumer``, which a routing names, is a handler class."""
    return isinstance(consumer, type) and issubclass(consumer, Consumer)


def _walk(entry, conditions=()):
    if isinstance(entry, Include):
        for child in entry.routing:
            yield from _walk(child, (*conditions, entry.prefixes))
    elif hasattr(entry, 'consumer'):
        yield Routed(entry.consumer, set(entry.channels), (*conditions, entry.filters))


def check_routings(check_consumer, check_arguments):
    """Have what each routing names checked as it is made.

    ``check_consumer`` is called with it, and may raise: Channels' own word about what is no consumer is hard to
    understand, and late. So is ``check_arguments``, with each consumer of ours, the names of what its path hands it, and
    the path.
    """
    resolve = Route._resolve_consumer

    def _resolve_consumer(self, consumer):
        consumer = resolve(self, consumer)
        check_consumer(consumer)
        return consumer

    Route._resolve_consumer = _resolve_consumer

    def check_entries(entries):
        for entry in entries:
            if is_consumer_of_ours(entry.consumer):
                regexes = [regex for regexes in entry.conditions for regex in regexes.values()]
                check_arguments(
                    entry.consumer,
                    {name for regex in regexes for name in regex.groupindex},
                    ''.join(regexes['path'].pattern for regexes in entry.conditions if 'path' in regexes),
                )

    for cls in (Route, Include):
        _check_after(cls, check_entries)


def _check_after(cls, check):
    """Have ``check`` called with the entries of each instance of ``cls``, a part of a routing, once that is made."""
    init = cls.__init__

    def __init__(self, *args, **kwargs):
        init(self, *args, **kwargs)
        check(_walk(self))

    cls.__init__ = __init__


def patch_include():
    """Have an ``include`` without conditions, as each routing is one, match without a copy of the message.

    Channels copies it deeply for each frame, so that an ``include`` can take off what it has matched.
    """
    match = Include.match

    def _match(self, message):
        if self.prefixes:
            return match(self, message)
        for entry in self.routing:
            found = entry.match(message)
            if found is not None:
                return found

    Include.match = _match


def refuse_unrouted(router):
    """Have ``router`` refuse websockets that no route matches, which Channels would accept and leave open."""
    for entry in router.root.routing:
        if getattr(entry, 'consumer', None) is connect_consumer:
            entry.consumer = unrouted_consumer


def unrouted_consumer(message, **kwargs):
    """What Channels routes a connect to that nothing else matches: refuse it, unless its frames are routed."""
    probe = Message(dict(message.content), 'websocket.receive', message.channel_layer)
    matched = Router.match(message.channel_layer.router, probe)
    if matched is not None and matched[0] is not null_consumer:
        return connect_consumer(message)
    logger.warning(
        'Refused a websocket to %.100r: no route matches. Add route_class(<View>.socket.Handler, path=...) '
        'to the ROUTING of your channel layer.',
        message['path'],
    )
    send(message.channel_layer, message.reply_channel.name, {'close': True})
