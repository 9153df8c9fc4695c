"""What is routed."""

from sockets.routing import route_class

from .pages import Page, Picky

channel_routing = [
    route_class(Page.socket.Handler, path=r'^/live/$'),
    route_class(Picky.socket.Handler, path=r'^/picky/$'),
]
