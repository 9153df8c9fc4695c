"""The engine of Channels 1.x: what the core asks, answered by channel layers, routings and consumers."""

import logging
import weakref

import channels.routing
from channels.exceptions import ChannelSocketException, ConsumeLater, DenyConnection, WebsocketCloseException
from channels.message import Message
from django.core.exceptions import ImproperlyConfigured

from ... import conf, messages, rates
from ...engine import Closing, Denied, Engine, Special
from . import routing
from .channel_layer import adapted, channel_layer
from .consumer import Consumer, consumer_of_end

logger = logging.getLogger('sockets')

# What has been taken in this process, of each layer that does not count, or could not.
_taken = weakref.WeakKeyDictionary()
# Layers that could not count when they were last asked, of which the log has been told: this is every frame.
_uncounting = weakref.WeakSet()


class Channels1(Engine):
    """Channels 1.x, with daphne and its workers."""

    handler_base = Consumer
    # Channels gives the message to a worker again.
    escaping = (ConsumeLater,)
    apps = (('channels', 'sockets.E001', 'runserver and runworker are its commands'),)
    unused_settings = ('THREADS', 'ROUTING')
    remedies = {
        'route': 'to the ROUTING of your channel layer',
        'reach': "Set 'BACKEND': 'sockets.layers.RedisChannelLayer' in CHANNEL_LAYERS, which reaches all processes",
        'layer': "Start Redis, or correct its 'hosts' in CHANNEL_LAYERS.",
        'serve': 'Type: python manage.py runsockets',
        'log': 'the log of the worker',
    }

    def install(self):
        from . import installation

        installation.install()

    def layer_name(self):
        return adapted().name

    def is_local(self):
        return channel_layer().local_only()

    def live_servers(self, servers):
        return adapted().live_servers(servers)

    def dead_servers(self, servers=None):
        return adapted().dead_servers(servers)

    def has_forgotten(self):
        return adapted().has_forgotten()

    def forget_server(self, server):
        channel_layer().forget_server(server)

    def hand_over(self, names, message):
        return adapted().hand_over(names, message)

    def note_dropped(self, counts):
        adapted().note_dropped(counts)

    def take_token(self, name, now, per_second, burst):
        layer = channel_layer()
        try:
            seconds = adapted(layer).take_token(name, per_second, burst)
            _uncounting.discard(layer)
        except Exception as error:
            seconds = None
            if layer not in _uncounting:
                _uncounting.add(layer)
                logger.warning('The channel layer cannot count, so this process does: %s', error)
        if seconds is None:
            seconds = _taken.setdefault(layer, rates.Buckets()).wait(name, now, per_second, burst)
        return seconds

    def statistics(self):
        return adapted().statistics()

    def routing_error(self):
        return routing.routing_error(conf.CHANNEL_LAYER)

    def routed_classes(self):
        return [entry.consumer for entry in routing.routed(conf.CHANNEL_LAYER) if isinstance(entry.consumer, type)]

    def endpoints(self):
        return routing.endpoints()

    def route_class(self, handler, **conditions):
        return channels.routing.route_class(handler, **conditions)

    def include(self, routing, **conditions):
        return channels.routing.include(routing, **conditions)

    def application(self, routing):
        raise ImproperlyConfigured(
            'sockets.asgi is for Channels 4, and Channels 1 is installed, whose asgi.py says '
            '"channel_layer = channels.asgi.get_channel_layer()".'
        )

    def handler_at(self, path):
        return routing.handler_at(path)

    def has_groups(self, handler):
        return bool(handler.groups) or handler.connection_groups is not Consumer.connection_groups

    def ended(self, name, path, code):
        content = {'reply_channel': name, 'path': path, 'code': code, 'order': 0}
        message = Message(content, 'websocket.disconnect', channel_layer())
        consumer, kwargs = routing.consumer_of(message)
        return None if consumer is None else consumer_of_end(consumer, message, kwargs)

    def denied(self):
        return DenyConnection()

    def meaning_of(self, error):
        if isinstance(error, DenyConnection):
            return Denied()
        if isinstance(error, WebsocketCloseException):
            # Its own run() takes daphne's reply channels for something else and raises, which ends the worker.
            return Closing(error._code or messages.CLOSE_NORMAL)
        if isinstance(error, ChannelSocketException):
            return Special(error.run)
        return error

    def examine_layer(self, patience):
        from . import probe

        return probe.examine_layer(patience)

    def examine_workers(self, patience):
        from . import probe

        return probe.examine_workers(patience)

    def server_command(self):
        from . import command

        return command

    def sandbox(self, layer=None, routing=None):
        from .sandbox import Sandbox

        return Sandbox(layer, routing)


engine = Channels1()
