"""The engine of Channels 4: what the core asks, answered by ASGI applications, channel layers and a table of servers."""

import asyncio
import collections
import contextvars
import logging
import sys

from asgiref.sync import sync_to_async
from channels.exceptions import DenyConnection

from ... import rates
from ...engine import Denied, Engine
from . import layer
from .handler import Handler

logger = logging.getLogger('sockets')


# Seconds that servers have to say what waits in them.
PATIENCE = 0.5


class Channels4(Engine):
    """Channels 4, with daphne, uvicorn or any other server of ASGI."""

    handler_base = Handler
    has_loop = True
    knows_idle_servers = True
    unused_settings = ('MAX_BODY_SIZE', 'ROOT_PATH_HEADER')
    remedies = {
        'route': 'to the routing that asgi.py names',
        'reach': "Set 'BACKEND': 'channels_redis.pubsub.RedisPubSubChannelLayer' in CHANNEL_LAYERS, which reaches all processes",
        'layer': "Start Redis, or correct its 'hosts' in CHANNEL_LAYERS.",
        'serve': 'Start a server: python manage.py runsockets, uvicorn or daphne.',
        'log': 'the log of the server',
    }

    def __init__(self):
        # What has been taken in this process, and messages that it has given up, by their server.
        self.taken = rates.Buckets()
        self.dropped = collections.Counter()

    def install(self):
        """Take over the servers that are here. They begin with daphne, as their lifespan begins, or with a first connection."""
        from . import access_log, checks, uvicorn  # noqa: F401, checks register themselves

        access_log.install()
        uvicorn.patch_server()
        if 'daphne.server' in sys.modules:
            from . import daphne

            daphne.patch_server()
            daphne.begin_with_daphne()

    def layer_name(self):
        # It is the table of servers that says who lives.
        return 'heartbeats'

    def is_local(self):
        return layer.is_local()

    def live_servers(self, servers):
        return _heartbeats().live_servers(servers)

    def dead_servers(self, servers=None):
        return _heartbeats().dead_servers(servers)

    def has_forgotten(self):
        return _heartbeats().has_forgotten()

    def forget_server(self, server):
        _heartbeats().forget_server(server)

    def watch_servers(self, servers):
        _heartbeats().watch_servers(servers)

    def next_look(self, questions):
        return _heartbeats().next_look(questions)

    def hand_over(self, names, message):
        from . import delivery

        return delivery.hand_over(names, message)

    def note_dropped(self, counts):
        self.dropped.update(counts)

    def statistics(self):
        from . import probe

        try:
            return probe.statistics(PATIENCE)
        except Exception as error:
            logger.warning('The servers cannot be asked: %s: %s', type(error).__name__, error)
            return {}

    def examine_layer(self, patience):
        from . import probe

        return probe.examine_layer(patience)

    def examine_workers(self, patience):
        from . import probe

        return probe.examine_servers(patience)

    def take_token(self, name, now, per_second, burst):
        return self.taken.wait(name, now, per_second, burst)

    async def wait_for(self, function, *args):
        from . import delivery

        loop = asyncio.get_running_loop()
        server = next((found for found in delivery.servers_here() if found.loop is loop), None)
        if server is not None:
            # It speaks the language of whoever calls.
            return await server.pool.submit(contextvars.copy_context().run, function, *args)
        # A page or a test of Django's, which has a thread for that.
        return await sync_to_async(function)(*args)

    def routing_error(self):
        from . import routing

        return layer.layer_error() or routing.routing_error()

    def endpoints(self):
        from . import routing

        return routing.endpoints()

    def routed_classes(self):
        return [endpoint.handler for endpoint in self.endpoints()]

    def route_class(self, handler, **conditions):
        from . import routing

        return routing.route_class(handler, **conditions)

    def include(self, entries, **conditions):
        from . import routing

        return routing.include(entries, **conditions)

    def application(self, entries):
        from django.core.asgi import get_asgi_application

        pages = get_asgi_application()
        # Models can be imported from here on.
        from . import routing
        from .application import Application

        return Application(routing.resolve(entries), pages)

    def handler_at(self, path):
        from . import routing

        return routing.match(path)[0]

    def ended(self, name, path, code):
        from . import routing
        from .ended import Ended
        from .message import Message

        handler, kwargs = routing.match(path)
        if handler is None:
            return None
        connection = Ended(name, path, kwargs)
        return handler(connection, Message('websocket.disconnect', {'code': code}, connection))

    def server_command(self):
        from . import command

        return command

    def denied(self):
        return DenyConnection()

    def sandbox(self, layer=None, routing=None):
        from .sandbox import Sandbox

        return Sandbox(layer, routing)

    def meaning_of(self, error):
        return Denied() if isinstance(error, DenyConnection) else error


def _heartbeats():
    # Models cannot be imported before the apps are loaded.
    from .heartbeats import heartbeats

    return heartbeats


engine = Channels4()
