"""What ``urls.py`` is to pages, for websockets. On Channels 1, the channel layer names this list; on Channels 4, asgi.py."""

from chat.views import Pulse, Room
from sockets.routing import route_class

channel_routing = [
    route_class(Room.socket.Handler, path=r'^/room/(?P<room>[a-z0-9-]{1,40})/$'),
    route_class(Pulse.socket.Handler, path=r'^/pulse/$'),
]
