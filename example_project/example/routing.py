"""What ``urls.py`` is to pages, for websockets: ``ROUTING`` of the channel layer names this list."""

from channels.routing import route_class

from chat.views import Pulse, Room

channel_routing = [
    route_class(Room.socket.Handler, path=r'^/room/(?P<room>[a-z0-9-]{1,40})/$'),
    route_class(Pulse.socket.Handler, path=r'^/pulse/$'),
]
