"""The same work as a routed handler and as a bare consumer of Channels 1.x."""

from channels import route_class
from channels.generic.websockets import JsonWebsocketConsumer

from sockets import RoutedSocketHandler, SocketRouter
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


class LoggedIn(RoutedSocketHandler):
    login_required = True


class User:
    socket = SocketRouter()

    @socket.route('ECHO')
    def echo(socket, content):
        assert socket.user.is_authenticated
        return content


class Login:
    socket = SocketRouter(handler=LoggedIn)

    @socket.route('ECHO')
    def echo(socket, content):
        assert socket.user.is_authenticated
        return content


class Permission:
    socket = SocketRouter()

    @socket.route('ECHO', login_required=True, permission='auth.change_user')
    def echo(socket, content):
        assert socket.user.is_authenticated
        return content


class Bare(JsonWebsocketConsumer):
    def receive(self, content, **kwargs):
        self.send(content)


class BareUser(JsonWebsocketConsumer):
    http_user = True

    def receive(self, content, **kwargs):
        assert self.message.user.is_authenticated
        self.send(content)


class BarePermission(JsonWebsocketConsumer):
    http_user = True

    def receive(self, content, **kwargs):
        if not self.message.user.has_perm('auth.change_user'):
            self.close()
            return
        self.send(content)


class Grouped(JsonWebsocketConsumer):
    groups = ['everyone']

    def receive(self, content, **kwargs):
        self.group_send('everyone', dict(NEWS, n=content['n']))


routing = [
    route_class(Routed, path=r'^/routed/$'),
    route_class(Bare, path=r'^/bare/$'),
    route_class(User.socket.Handler, path=r'^/routed/user/$'),
    route_class(Login.socket.Handler, path=r'^/routed/login/$'),
    route_class(Permission.socket.Handler, path=r'^/routed/permission/$'),
    route_class(BareUser, path=r'^/bare/user/$'),
    route_class(BarePermission, path=r'^/bare/permission/$'),
    route_class(Grouped, path=r'^/grouped/$'),
]
