"""ASGI applications: of one handler class, of a routing, and of a whole site."""

import logging

from ... import messages
from . import routing
from .connection import Connection
from .server import server

logger = logging.getLogger('sockets')


class HandlerApplication:
    """Serves the handler class ``handler``, where Channels' ``URLRouter`` has found it."""

    def __init__(self, handler):
        self.sockets_handler = handler

    async def __call__(self, scope, receive, send):
        """Serve one connection. ``ValueError`` for anything but a websocket."""
        if scope['type'] != 'websocket':
            raise ValueError(f'{self.sockets_handler.__name__} serves websockets, and not {scope["type"]!r}.')
        kwargs = dict((scope.get('url_route') or {}).get('kwargs') or {})
        await serve(self.sockets_handler, kwargs, scope, receive, send)


class Application:
    """Serves a site: websockets by ``routing``, pages by ``pages``, an ASGI application, and the server's lifespan."""

    def __init__(self, entries, pages):
        self.sockets_routing = entries
        self.pages = pages

    async def __call__(self, scope, receive, send):
        """Serve a websocket, a page, or the lifespan."""
        if scope['type'] == 'http':
            return await self.pages(scope, receive, send)
        if scope['type'] == 'lifespan':
            return await _live(receive, send)
        if scope['type'] != 'websocket':
            raise ValueError(f'This application serves websockets and pages, and not {scope["type"]!r}.')
        path = path_of(scope)
        handler, kwargs = routing.match(path, self.sockets_routing)
        if handler is None:
            logger.warning(
                'Refused a websocket to %.100r: no route matches. Add route_class(<View>.socket.Handler, path=...) to '
                'the routing that asgi.py names.',
                path,
            )
            return await refuse(receive, send)
        await serve(handler, kwargs, scope, receive, send)


async def serve(handler, kwargs, scope, receive, send):
    """Serve one connection of the handler class ``handler``."""
    found = server()
    if found.is_stopping:
        return await refuse(receive, send)
    await Connection(found, handler, scope, path_of(scope), kwargs, receive, send).serve()


async def refuse(receive, send):
    """Refuse a connection before it is accepted: servers answer with HTTP 403."""
    await receive()
    await send({'type': 'websocket.close', 'code': messages.CLOSE_NOT_ALLOWED})


def path_of(scope):
    """Return the path of ``scope`` within the site."""
    path, root = scope['path'], (scope.get('root_path') or '').rstrip('/')
    return path[len(root) :] if root and path.startswith(root + '/') else path


async def _live(receive, send):
    while True:
        event = (await receive())['type']
        if event == 'lifespan.startup':
            server()
            await send({'type': 'lifespan.startup.complete'})
        elif event == 'lifespan.shutdown':
            await server().stop(messages.CLOSE_RESTART)
            return await send({'type': 'lifespan.shutdown.complete'})
