"""What is routed."""

from sockets.routing import route_class

from .pages import Page

channel_routing = [route_class(Page.socket.Handler, path=r'^/live/$')]
