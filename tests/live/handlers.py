"""What the live tests connect to."""

from channels.exceptions import DenyConnection

from sockets import RoutedSocketHandler
from sockets.exceptions import CloseConnection
from sockets.models import Socket
from sockets.routing import route_class


class Live(RoutedSocketHandler):
    routes = (
        *RoutedSocketHandler.routes,
        ('ECHO', lambda socket, content: content),
        ('SHOUT', 'on_shout'),
        ('CLOSE', lambda socket, content: socket.close(content['code'])),
        ('RAISE', 'on_raise'),
    )

    def on_shout(self, content):
        return {'type': 'HEARD', 'by': Socket.objects.filter(path=self.path).send_action('SHOUT', n=content['n'])}

    def on_raise(self, content):
        raise {'deny': DenyConnection(), 'close': CloseConnection(4242), 'bug': KeyError('x')}[content['what']]


class Broken(Live):
    def connect(self, message, **kwargs):
        self.accept()
        raise KeyError('in connect')


class Members(Live):
    login_required = True


routing = [
    route_class(Live, path=r'^/live/$'),
    route_class(Broken, path=r'^/broken/$'),
    route_class(Members, path=r'^/members/$'),
]
