from channels import route_class
from channels.test import ChannelTestCase, WSClient, apply_routes

from sockets import RoutedSocketHandler
from sockets.models import Socket


class ClassicHandler(RoutedSocketHandler):
    routes = (*RoutedSocketHandler.routes, ('ECHO', lambda socket, content: content))

    def connect(self, message, **kwargs):
        self.message.reply_channel.send({'accept': True})
        self.send_json({'slug': kwargs.get('slug')})


class ChannelsOwnTestTools(ChannelTestCase):
    """Channels' WSClient, apply_routes and ChannelTestCase, as its documentation shows them."""

    routes = [route_class(ClassicHandler, path=r'^/(?P<slug>\w+)/$')]

    def test_a_connection_from_connect_to_disconnect(self):
        with apply_routes(self.routes):
            ws = WSClient()
            handler = ws.send_and_consume('websocket.connect', path='/page/')
            assert isinstance(handler, ClassicHandler)
            assert handler.socket == Socket.objects.get()
            assert handler.kwargs == {'slug': 'page'}
            assert ws.receive() == {'slug': 'page'}
            handler = ws.send_and_consume('websocket.receive', text={'type': 'ECHO', 'n': 1}, path='/page/')
            assert handler.socket == Socket.objects.get()
            assert ws.receive() == {'type': 'ECHO', 'n': 1}
            handler = ws.send_and_consume('websocket.disconnect', path='/page/')
            assert handler.socket.pk is None
            assert not Socket.objects.exists()
            assert ws.send_and_consume('websocket.disconnect', path='/page/').socket is None
            assert ws.receive() is None

    def test_a_client_that_is_logged_in(self):
        from django.contrib.auth import get_user_model

        user = get_user_model().objects.create_user('bob')
        with apply_routes([ClassicHandler.as_route(path='^/page/$', attrs={'login_required': True})]):
            ws = WSClient()
            ws.force_login(user)
            with self.assertNumQueries(3):
                handler = ws.send_and_consume('websocket.connect', path='/page/')
            assert handler.user == user == handler.socket.user
            assert handler.session.session_key == handler.socket.session_id
            ws.receive()
            Socket.objects.filter(user=user).send_action('YOU')
            assert ws.receive() == {'type': 'YOU'}

    def test_channels_own_ways_to_know_the_user(self):
        from django.contrib.auth import get_user_model

        user = get_user_model().objects.create_user('bob')

        class WithHttpUser(ClassicHandler):
            http_user_and_session = True
            routes = (('ME', lambda socket: {'me': socket.message.user.username}),)

        with apply_routes([route_class(WithHttpUser, path='^/page/$')]):
            ws = WSClient()
            ws.force_login(user)
            ws.send_and_consume('websocket.connect', path='/page/')
            ws.receive()
            ws.send_and_consume('websocket.receive', text={'type': 'ME'}, path='/page/')
            assert ws.receive() == {'me': 'bob'}
