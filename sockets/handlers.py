"""The handler class that people build on."""

import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

from . import databases, engine, messages
from .access import auth
from .connection import calls, frame, identity, replies
from .connection.coroutines import AsyncMethods
from .connection.stream_methods import StreamMethods
from .declaration import handler_classes
from .exceptions import FrameError, RowMissing
from .execution import coroutines

if TYPE_CHECKING:
    from .models import Socket
    from .routes import Function, Permission, Route, RoutePattern, RouteTable, Sends

    class _Base:
        """What type checkers know of the class that the engine gives: of Channels 1, its generic consumers."""

        message: Any
        path: str
        kwargs: Dict[str, Any]
        channel_name: str
        accepted: bool
        closed: bool
        _connection: Any
        as_route: Any
        channel_names: Any
        channel_session: Any
        channel_session_user: Any
        connection_groups: Any
        dispatch: Any
        get_handler: Any
        group_send: Any
        groups: Any
        http_user: Any
        http_user_and_session: Any
        method_mapping: Any
        raw_connect: Any
        raw_disconnect: Any
        raw_receive: Any
        strict_ordering: Any

        def accept(self) -> None: ...

        def send(
            self, text: Optional[str] = None, bytes: Optional[bytes] = None, close: Union[bool, int] = False
        ) -> None: ...

        def close(self, code: int = 1000) -> None: ...
else:
    _Base = engine.current().handler_base


def _with_url_arguments(method: Callable[..., Any]) -> Callable[..., Any]:
    """Tell type checkers that a method which overrides ``method`` may name the keyword arguments of its URL."""
    return method


class RoutedSocketHandler(AsyncMethods, StreamMethods, _Base):
    """A websocket whose frames are dispatched on their type. An instance serves one frame of one connection.

    ``routes`` is the list of all routes: pairs of a pattern (``str`` or compiled regex) and a function or the name of a
    method, or instances of ``Route``. If several match, the last one is used. ``login_required`` closes connections
    without a user with 4401; ``permission``, a name like ``'poker.bet'`` or several, closes those of a user who does not
    have it with 4403. ``middleware`` runs around all functions, inside that of ``SOCKETS['MIDDLEWARE']``.
    ``authentication`` lists functions of the opening request, or their dotted paths, that return its user, instead of
    ``SOCKETS['AUTHENTICATION']``; the session is asked after them.
    ``subprotocols`` lists those that it speaks: the first that a client offers of them is chosen.
    ``sends`` declares what it sends: a dict of types, each with a form as that of a ``Route``, or ``None`` for any
    fields. ``left_after`` is how many seconds somebody is away who has left.
    """

    # What a subclass may set.

    routes: 'Sequence[Union[Route, Tuple[RoutePattern, Union[str, Callable[..., Any]]]]]' = (
        (messages.HELLO, 'on_hello'),
        (messages.PING, 'on_ping'),
    )
    login_required: bool = False
    permission: 'Permission' = ()
    middleware: Sequence[Union[str, Callable[..., Any]]] = ()
    authentication: Optional[Sequence[Union[str, Callable[[Any], Any]]]] = None
    subprotocols: Sequence[str] = ()
    sends: 'Sends' = {}
    # Seconds in which somebody who comes back has not left.
    left_after: float = 3

    # What a function sees of its connection.

    # What a middleware sees: 'connect', 'receive' or 'disconnect'.
    event: Optional[str] = None
    # The content as it arrived; of a binary frame, its data.
    content: Any = None
    # What stood before the data of a binary frame: its ``ref``, and whether it was ``resent``.
    envelope: Dict[str, Any] = {}

    @property
    def row(self) -> 'Socket':
        """The row of this connection; ``None`` before it is accepted and once it is gone."""
        return self._identity.row

    @property
    def socket(self) -> 'Socket':
        """The same as ``row``."""
        return self._identity.row

    @property
    def user(self) -> Any:
        """The connection's user, as ``request.user``: an ``AnonymousUser`` when nobody is logged in."""
        return self._identity.user

    @property
    def session(self) -> Any:
        """The connection's session, as ``request.session``: saved after the function if it was modified."""
        return self._identity.session

    @property
    def request(self) -> Any:
        """The opening HTTP request: ``path``, ``GET``, ``COOKIES``, ``META``, ``user``, ``session``."""
        if self._request is None:
            row = self.row
            if row is None:
                raise RowMissing()
            with databases.on_primary():
                # It may not have been loaded with the row, and need not be where this process holds the connection.
                self._request = self._connection.handshake_again(lambda: row.handshake)
            auth.introduce(self._request, self.session, self.user)
        return self._request

    @property
    def subprotocol(self) -> Optional[str]:
        """The subprotocol that was chosen of those that the client offers; ``None`` for none."""
        return identity.subprotocol_of(self._connection, self._identity)

    def send_json(self, content: Dict[str, Any]) -> None:
        """Send the ``dict`` ``content`` to this connection now; ``TypeError`` for what JSON cannot be made of."""
        self._connection.send(replies.message_of(self, content))

    def send_action(self, type: str, **fields: Any) -> None:
        """Send ``{'type': type, **fields}`` to this connection now."""
        self.send_json(messages.action(type, fields))

    @property
    def rooms(self) -> List[str]:
        """The names of the rooms that this connection is in; in a disconnect function, was in."""
        return [] if self.row is None else self.row.rooms

    def join(self, room: str) -> None:
        """Enter the room ``room``, a ``str``, for ``Socket.objects.in_room(room)`` to find this connection."""
        if self.row is None:
            raise RuntimeError(f'Cannot join {room!r:.40} before the connection is accepted.')
        self.row.join(room)

    def leave(self, room: str) -> None:
        """Leave the room ``room``. That happens by itself when the connection ends."""
        if self.row is not None:
            self.row.leave(room)

    # What a subclass may override.

    @_with_url_arguments
    def connect(self, message: Any, **kwargs: Any) -> None:
        """Accept the connection."""
        self.accept()

    # Before what was overridden accepts a connection, it has no row.
    _default_connect = connect

    def decode(self, text: Optional[str], data: Optional[bytes]) -> Dict[str, Any]:
        """Return the content of a frame, which is ``text`` or the ``bytes`` ``data``; the other one is ``None``.

        ``ValueError`` or ``FrameError`` for a frame that cannot be understood.
        """
        return messages.decode(text)

    def encode(self, content: Any) -> Union[str, bytes]:
        """Return the frame, ``str`` or ``bytes``, of ``content``; ``TypeError`` for what cannot be one."""
        return messages.encode(content)

    @_with_url_arguments
    def receive(self, content: Any, **kwargs: Any) -> Any:
        """Dispatch ``content`` to its route and return what the function returned."""
        return coroutines.settle(calls.dispatch(self, content, kwargs))

    # A method of (self, data), and of URL keyword arguments, takes binary frames, as a route for ``bytes`` does; what it
    # returns, ``bytes`` or a ``dict``, is the reply.
    on_bytes: Optional[Callable[..., Any]] = None

    def default_route(self, content: Dict[str, Any]) -> Any:
        """Answer a content whose type no route matches."""
        raise FrameError(
            messages.UNKNOWN_TYPE,
            'No route for the type {:.100}.'.format(
                repr(content[messages.TYPE]) if messages.TYPE in content else '(there is none)'
            ),
        )

    @_with_url_arguments
    def disconnect(self, message: Any, **kwargs: Any) -> None:
        """Called once for a connection that had been accepted; its row is deleted, ``socket`` still has its values."""

    # Whether it is overridden: nobody else needs the result of a function before it has run.
    _is_receive_plain = True
    _is_quick = False
    # What was overridden is called at the end of a connection, whoever noticed that.
    _default_disconnect = disconnect

    def on_hello(self, content: Dict[str, Any]) -> Any:
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

    def on_ping(self, content: Dict[str, Any]) -> Any:
        """Note that the client is alive."""
        frame.note_ping(self.channel_name)

    # What follows is not for subclasses.

    # Of a class: what SocketRouter adds, a view's own functions beside the methods above, functions that raise if the
    # view would not let its client in, and columns of the row that are not loaded with it.
    connect_functions: 'Tuple[Function, ...]' = ()
    disconnect_functions: 'Tuple[Function, ...]' = ()
    arrived_functions: 'Tuple[Function, ...]' = ()
    left_functions: 'Tuple[Function, ...]' = ()
    _guards: Tuple[Callable[..., Any], ...] = ()
    _deferred: Tuple[str, ...] = identity.DEFERRED
    # The handler classes of the streams of a demultiplexer.
    _streams: Dict[str, type] = {}
    _frame_class: type = frame.Frame
    # Of an instance: the frame that it serves, what matched it, and what is behind its connection.
    _route_table: 'RouteTable'
    _default_function: Any
    _frame: Any = None
    _route: Any = None
    _identity: Any = None
    _request: Any = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        handler_classes.declare(cls, RoutedSocketHandler)


handler_classes.declare(RoutedSocketHandler, None)
