"""Connections as ASGI asks for them."""

from ... import messages
from .connection import Connection
from .server import server


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


async def serve(handler, kwargs, scope, receive, send):
    """Serve one connection of the handler class ``handler``."""
    found = server()
    if found.is_stopping:
        return await turn_away(scope, receive, send)
    await Connection(found, handler, scope, path_of(scope), kwargs, receive, send).serve()


async def refuse(receive, send):
    """Refuse a connection before it is accepted: servers answer with HTTP 403."""
    await receive()
    await send({'type': 'websocket.close', 'code': messages.CLOSE_NOT_ALLOWED})


async def turn_away(scope, receive, send):
    """Refuse a connection for now: with HTTP 503 where the server lets us choose."""
    if 'websocket.http.response' not in (scope.get('extensions') or {}):
        return await refuse(receive, send)
    await receive()
    await send({'type': 'websocket.http.response.start', 'status': 503, 'headers': [(b'retry-after', b'1')]})
    await send({'type': 'websocket.http.response.body', 'body': b'Restarting'})


def path_of(scope):
    """Return the path of ``scope`` within the site."""
    path, root = scope['path'], (scope.get('root_path') or '').rstrip('/')
    return path[len(root) :] if root and path.startswith(root + '/') else path
