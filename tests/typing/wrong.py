"""What a project may get wrong: a type checker finds each line that says so, with that code, and no other."""

from typing import Any, Dict

from django.views.generic import TemplateView

from sockets import RoutedSocketHandler, SocketRouter
from sockets.exceptions import FrameError
from sockets.models import Socket
from sockets.multiplexing import SocketDemultiplexer
from sockets.routes import Route
from sockets.testing import SocketClient

Content = Dict[str, Any]

SocketRouter(guard='x')  # wrong: arg-type
SocketRouter(handler='Handler')  # wrong: arg-type
SocketRouter(handlers=RoutedSocketHandler)  # wrong: call-arg
Route('BET', 'on_bet', per='table')  # wrong: arg-type
Route('BET', 'on_bet', login_required='yes')  # wrong: arg-type
Route('BET')  # wrong: call-arg
FrameError()  # wrong: call-arg
SocketClient(5)  # wrong: arg-type


class Handler(RoutedSocketHandler):
    def on_bet(self, content: Content) -> Content:
        self.send_json('text')  # wrong: arg-type
        self.send_action(5)  # wrong: arg-type
        self.join(5)  # wrong: arg-type
        self.close('now')  # wrong: arg-type
        self.send_acton('BET_TAKEN')  # wrong: attr-defined
        self.row.join(5)  # wrong: arg-type
        return {'type': 'BET_TAKEN', 'by': self.path + 1}  # wrong: operator


class Streams(SocketDemultiplexer):
    streams = {'table': 5}  # wrong: dict-item


class Table(TemplateView):
    socket = SocketRouter(handler=Handler)

    socket.route(5)  # wrong: arg-type
    socket.rout('SAY')  # wrong: attr-defined
    socket.bytes(rates=5)  # wrong: call-overload
    socket.login_required = True  # wrong: attr-defined

    @socket.route('BET', rates=5)  # wrong: call-arg
    def on_bet(socket: Handler, content: Content) -> None:
        socket.send_json('text')  # wrong: arg-type

    @socket.route  # wrong: arg-type
    def on_say(socket: Handler, content: Content) -> None:
        socket.join(5)  # wrong: arg-type


def tell(row: Socket) -> str:
    Socket.objects.all().send_json(3)  # wrong: arg-type
    Socket.objects.filter(path='/').send_action()  # wrong: call-arg
    Socket.objects.in_room(5)  # wrong: arg-type
    Socket.objects.close('now')  # wrong: arg-type
    row.send_json([])  # wrong: arg-type
    return row.send_action('BELL')  # wrong: return-value
