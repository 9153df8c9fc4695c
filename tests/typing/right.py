"""What a project writes, with annotations: a type checker finds nothing wrong here."""

import re
from typing import Any, Dict, Optional

from django.views.generic import TemplateView

from sockets import RoutedSocketHandler, SocketRouter
from sockets.exceptions import FrameError
from sockets.models import Socket, SocketQuerySet
from sockets.multiplexing import SocketDemultiplexer
from sockets.routes import Route
from sockets.testing import SocketClient, assert_received

Content = Dict[str, Any]


class Handler(RoutedSocketHandler):
    login_required = True
    permission = ('poker.bet', 'poker.fold')
    routes = (
        *RoutedSocketHandler.routes,
        ('BET', 'on_bet'),
        (re.compile('MOVE_'), 'on_move'),
        Route('FOLD', 'on_fold', rate='5/s', permission='poker.fold'),
    )

    def on_bet(self, content: Content) -> Content:
        self.session['bet'] = content['amount']
        return {'type': 'BET_TAKEN', 'by': self.user.get_username()}

    def on_move(self, content: Content) -> None:
        self.send_json({'type': content['type']})
        self.send_action('MOVED', by=self.user.pk)

    def on_fold(self, content: Content) -> Optional[Content]:
        if content.get('again'):
            raise FrameError('not_allowed', 'Once is enough.', {'again': ['Once is enough.']})
        self.join('folded')
        self.close(4000)
        return None

    def default_route(self, content: Content) -> Content:
        return {'type': 'SORRY'}

    def connect(self, message: Any, table: str) -> None:
        super().connect(message, table=table)
        self.row.join(table)

    def disconnect(self, message: Any, **kwargs: Any) -> None:
        self.socket.leave('folded')

    def on_bytes(self, data: bytes) -> bytes:
        return data


class Table(TemplateView):
    socket = SocketRouter(handler=Handler, guard='view', sends={'SAID': None})

    @socket.connect
    def on_open(socket: Handler, message: Any, table: str) -> None:
        socket.send_action('WELCOME', table=table)

    @socket.route('SAY', login_required=True, rate=5)
    def on_say(socket: Handler, content: Content) -> Content:
        return {'type': 'SAID', 'to': here(socket).send_action('SAID', text=content['text'])}

    @socket.route(re.compile('MOVE_(UP|DOWN)$'))
    def on_turn(socket: Handler, content: Content) -> None:
        socket.send_json({'type': content['type']})

    @socket.route('ASK')
    async def on_ask(socket: Handler) -> Content:
        return {'type': 'ASKED'}

    @socket.bytes
    def on_picture(socket: Handler, data: bytes) -> bytes:
        return data[::-1]

    @socket.default_route
    def on_other(socket: Handler, content: Content) -> None:
        socket.close()

    @socket.disconnect
    def on_close(socket: Handler) -> None:
        here(socket).exclude(channel_name=socket.channel_name).send_json({'type': 'LEFT'})


class Pictures(TemplateView):
    socket = SocketRouter()

    @socket.bytes(login_required=True, rate='5/s')
    def on_picture(socket: RoutedSocketHandler, data: bytes) -> Content:
        return {'type': 'GOT', 'size': len(data), 'row': socket.row.pk, 'rooms': socket.rooms}


routing = [Pictures.socket.Handler.as_route(path='^/$')]


class Everything(SocketDemultiplexer):
    streams = {'table': Table.socket.Handler}


def here(socket: RoutedSocketHandler) -> SocketQuerySet:
    return Socket.objects.filter(path=socket.path)


def tell(row: Socket) -> int:
    count: int = Socket.objects.in_room('tea').send_json({'type': 'BELL'})
    return count + row.send_action('BELL') + Socket.objects.filter(user__is_staff=True).close(4000)


def test() -> None:
    with SocketClient('/table/', handler=Table.socket.Handler) as client:
        client.send('SAY', text='hi')
        assert_received(client, type='SAID')
        assert client.request('ASK')['type'] == 'ASKED'
