"""The handler class that people build on."""
import time

from . import databases, engine, messages
from .connection import calls, frame, replies
from .declaration import handler_classes
from .exceptions import FrameError, RowMissing


class RoutedSocketHandler(engine.current().handler_base):
    """A websocket whose frames are dispatched on their type. An instance serves one frame of one connection.

    ``routes`` is the list of all routes: pairs of a pattern (``str`` or compiled regex) and a function or the name of a
    method, or instances of ``Route``. If several match, the last one is used. ``login_required`` closes connections
    without a user with 4401; ``permission``, a name like ``'poker.bet'`` or several, closes those of a user who does not
    have it with 4403. ``middleware`` runs around all functions, inside that of ``SOCKETS['MIDDLEWARE']``.
    ``sends`` declares what it sends: a dict of types, each with a form as that of a ``Route``, or ``None`` for any
    fields. ``left_after`` is how many seconds somebody is away who has left.
    """

    # What a subclass may set.

    routes = (
        (messages.HELLO, 'on_hello'),
        (messages.PING, 'on_ping'),
    )
    login_required = False
    permission = ()
    middleware = ()
    sends = {}
    # Seconds in which somebody who comes back has not left.
    left_after = 3

    # What a function sees of its connection.

    # What a middleware sees: 'connect', 'receive' or 'disconnect'.
    event = None
    # The content as it arrived; of a binary frame, its data.
    content = None
    # What stood before the data of a binary frame: its ``ref``, and whether it was ``resent``.
    envelope = {}

    @property
    def row(self):
        """The row of this connection; ``None`` before it is accepted and once it is gone."""
        return self._identity.row

    @property
    def socket(self):
        """The row of this connection, under its first name."""
        return self._identity.row

    @property
    def user(self):
        """The connection's user, as ``request.user``: an ``AnonymousUser`` when nobody is logged in."""
        return self._identity.user

    @property
    def session(self):
        """The connection's session, as ``request.session``: saved after the function if it was modified."""
        return self._identity.session

    @property
    def request(self):
        """The opening HTTP request: ``path``, ``GET``, ``COOKIES``, ``META``, ``user``, ``session``."""
        if self._request is None:
            row = self.row
            if row is None:
                raise RowMissing()
            with databases.on_primary():
                # It may not have been loaded with the row, and need not be where this process holds the connection.
                self._request = self._connection.handshake_again(lambda: row.handshake)
            self._request.session, self._request.user = self.session, self.user
        return self._request

    def send_json(self, content):
        """Send the ``dict`` ``content`` to this connection now; ``TypeError`` for what JSON cannot be made of."""
        self._connection.send(replies.message_of(self, content))

    def send_action(self, type, **fields):
        """Send ``{'type': type, **fields}`` to this connection now."""
        self.send_json({messages.TYPE: type, **fields})

    @property
    def rooms(self):
        """The names of the rooms that this connection is in; in a disconnect function, was in."""
        return [] if self.row is None else self.row.rooms

    def join(self, room):
        """Enter the room ``room``, a ``str``, for ``Socket.objects.in_room(room)`` to find this connection."""
        if self.row is None:
            raise RuntimeError('Cannot join {!r:.40} before the connection is accepted.'.format(room))
        self.row.join(room)

    def leave(self, room):
        """Leave the room ``room``. That happens by itself when the connection ends."""
        if self.row is not None:
            self.row.leave(room)

    # What a subclass may override.

    def connect(self, message, **kwargs):
        """Accept the connection."""
        self.accept()

    def decode(self, text, data):
        """Return the content of a frame, which is ``text`` or the ``bytes`` ``data``; the other one is ``None``.

        ``ValueError`` or ``FrameError`` for a frame that cannot be understood.
        """
        return messages.decode(text)

    def encode(self, content):
        """Return the frame, ``str`` or ``bytes``, of ``content``; ``TypeError`` for what cannot be one."""
        return messages.encode(content)

    def receive(self, content, **kwargs):
        """Dispatch ``content`` to its route and return what the function returned."""
        route = self._route_table.match(content.get(messages.TYPE))
        if route is None:
            self._route = None
            return self._default_function(self, content, kwargs)
        return calls.run_route(self, route, content, kwargs)

    # A method of (self, data), and of URL keyword arguments, takes binary frames, as a route for ``bytes`` does; what it
    # returns, ``bytes`` or a ``dict``, is the reply.
    on_bytes = None

    def default_route(self, content):
        """Answer a content whose type no route matches."""
        raise FrameError(messages.UNKNOWN_TYPE, 'No route for the type {:.100}.'.format(
            repr(content[messages.TYPE]) if messages.TYPE in content else '(there is none)'))

    def disconnect(self, message, **kwargs):
        """Called once for a connection that had been accepted; its row is deleted, ``socket`` still has its values."""

    # What was overridden is called at the end of a connection, whoever noticed that.
    _default_disconnect = disconnect

    def on_hello(self, content):
        """Tell a client who it is."""
        row = self.row
        return {
            messages.TYPE: messages.GOT_HELLO,
            'user_id': row.user_id,
            'socket_id': row.pk,
            'path': row.path,
            'last_ping': row.last_ping,
            'user_ip': row.user_ip,
            'TIMESTAMP': int(time.time() * 1000),
        }

    def on_ping(self, content):
        """Note that the client is alive."""
        frame.note_ping(self.channel_name)

    # What follows is not for subclasses.

    # Of a class: what SocketRouter adds, a view's own functions beside the methods above, functions that raise if the
    # view would not let its client in, and columns of the row that are not loaded with it.
    connect_functions = ()
    disconnect_functions = ()
    arrived_functions = ()
    left_functions = ()
    _guards = ()
    _deferred = ('handshake',)
    # The handler classes of the streams of a demultiplexer.
    _streams = {}
    _frame_class = frame.Frame
    # Of an instance: the frame that it serves, what matched it, and what is behind its connection.
    _frame = _route = _identity = _request = None

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        handler_classes.declare(cls, RoutedSocketHandler)


handler_classes.declare(RoutedSocketHandler, None)
