"""Connections as ASGI asks for them."""

from ... import messages
from ...access import authentication
from .admission import refuse
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
        return await refuse(scope, receive, send, messages.CLOSE_RESTART)
    connection = Connection(found, handler, scope, path_of(scope), kwargs, receive, send)
    seconds = found.connects.ask()
    if seconds is None:
        return await connection.serve()
    # A browser that offers some wants an answer.
    subprotocol = authentication.subprotocol_of(connection.handshake(), handler.subprotocols)
    await found.connects.put_off(seconds, subprotocol, scope, receive, send)


def path_of(scope):
    """Return the path of ``scope`` within the site."""
    path, root = scope['path'], (scope.get('root_path') or '').rstrip('/')
    return path[len(root) :] if root and path.startswith(root + '/') else path
