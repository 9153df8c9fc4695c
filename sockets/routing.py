"""What ``urls.py`` is to pages, for websockets: the same on Channels 1 and 4."""

from . import engine

__all__ = ['include', 'route_class']

# An entry of a routing: ``route_class(MyPage.socket.Handler, path=r'^/mypage/$')``. A path begins with a slash.
route_class = engine.current().route_class

# The entries of another routing, a list or its dotted path, at paths that begin with a match of ``path``, which is taken
# off what they see: ``include('shop.routing.channel_routing', path=r'^/shop')``.
include = engine.current().include
