"""Our handlers on Channels 4: the same echo by each kind of function."""

from sockets import SocketRouter
from sockets.models import Socket

NEWS = {'type': 'NEWS', 'text': 'x' * 100}


class Plain:
    socket = SocketRouter()

    @socket.route('ECHO')
    def echo(socket, content):
        return content

    @socket.route('SHOUT')
    def shout(socket, content):
        Socket.objects.all().send_json(dict(NEWS, n=content['n']))


class Async:
    socket = SocketRouter()

    @socket.route('ECHO')
    async def echo(socket, content):
        return content


class Inline:
    socket = SocketRouter()

    @socket.route('ECHO', inline=True)
    def echo(socket, content):
        return content


class User:
    socket = SocketRouter()

    @socket.route('ECHO')
    def echo(socket, content):
        assert socket.user.is_authenticated
        return content


class AsyncUser:
    socket = SocketRouter()

    @socket.route('ECHO')
    async def echo(socket, content):
        assert socket.user.is_authenticated
        return content


class InlineUser:
    socket = SocketRouter()

    @socket.route('ECHO', inline=True)
    def echo(socket, content):
        assert socket.user.is_authenticated
        return content


paths = {
    'ours/sync/': Plain.socket.Handler,
    'ours/async/': Async.socket.Handler,
    'ours/inline/': Inline.socket.Handler,
    'ours/sync/user/': User.socket.Handler,
    'ours/async/user/': AsyncUser.socket.Handler,
    'ours/inline/user/': InlineUser.socket.Handler,
}
