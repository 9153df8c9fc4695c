"""The same work as a routed handler and as a bare consumer of Channels 1.x."""
from channels import route_class
from channels.generic.websockets import JsonWebsocketConsumer

from sockets import RoutedSocketHandler
from sockets.models import Socket

NEWS = {'type': 'NEWS', 'text': 'x' * 100}
urlpatterns = []


class Routed(RoutedSocketHandler):
    routes = (
        *RoutedSocketHandler.routes,
        ('ECHO', lambda socket, content: content),
        ('SHOUT', 'on_shout'),
    )

    def on_shout(self, content):
        Socket.objects.all().send_json(dict(NEWS, n=content['n']))


class Bare(JsonWebsocketConsumer):
    def receive(self, content, **kwargs):
        self.send(content)


class WithUser(Bare):
    http_user = True


class Grouped(JsonWebsocketConsumer):
    groups = ['everyone']

    def receive(self, content, **kwargs):
        self.group_send('everyone', dict(NEWS, n=content['n']))


routing = [
    route_class(Routed, path=r'^/routed/$'),
    route_class(Bare, path=r'^/bare/$'),
    route_class(WithUser, path=r'^/user/$'),
    route_class(Grouped, path=r'^/grouped/$'),
]
