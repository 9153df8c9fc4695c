"""The ASGI application of a site."""

from ... import messages
from . import routing
from .admission import refuse
from .server import server
from .serving import path_of, serve


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
            routing.warn_of_unrouted(path)
            return await refuse(scope, receive, send)
        await serve(handler, kwargs, scope, receive, send)


async def _live(receive, send):
    while True:
        event = (await receive())['type']
        if event == 'lifespan.startup':
            server()
            await send({'type': 'lifespan.startup.complete'})
        elif event == 'lifespan.shutdown':
            await server().stop(messages.CLOSE_RESTART)
            return await send({'type': 'lifespan.shutdown.complete'})
