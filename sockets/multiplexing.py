"""Several handlers over one connection, each for a stream of it: ``{"stream": "chat", "payload": {"type": ...}}``."""

from typing import Any, Dict, Optional, Type

from django.core.exceptions import ImproperlyConfigured

from . import engine, messages
from .access import demands
from .connection import connect, frame, replies
from .connection.attempts import attempt
from .connection.calls import call
from .contracts import refusals
from .exceptions import ConnectionRevoked, FrameError, PermissionMissing, TooManyConnections
from .execution import steps
from .handlers import RoutedSocketHandler
from .messages import PAYLOAD, STREAM
from .routes import Function

# What a connect raises about the connection as such, and not about one stream of it.
_ABOUT_ALL = (engine.Denied, engine.Closing, engine.Special, ConnectionRevoked, PermissionMissing, TooManyConnections)


class StreamConnection:
    """A connection as the handler of one of its streams sees it."""

    __slots__ = ('whole', 'is_open')

    def __init__(self, whole: Any) -> None:
        self.whole = whole
        # Whether its connect, or a middleware around it, has accepted the connection.
        self.is_open = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)

    def accept(self) -> None:
        """Accept the connection, unless that has been done."""
        self.is_open = True
        self.whole.accept()

    def close(self, code: int) -> None:
        """Close the connection with ``code``, unless that has been done."""
        self.is_open = True
        self.whole.close(code)

    def send(self, message: Dict[str, Any], is_last: bool = False) -> None:
        """Send a message, as ``Connection.send``."""
        self.is_open = True
        self.whole.send(message, is_last)

    async def asend(self, message: Dict[str, Any]) -> None:
        """Send a message, as ``Connection.asend``."""
        self.is_open = True
        await self.whole.asend(message)


class Stream:
    """Mixed into a handler class that serves one stream of another one's connection. Its frames are the payloads."""

    stream: Optional[str] = None
    _frame_class: type

    def __init__(self, whole: 'SocketDemultiplexer', payload: Any = None) -> None:
        # Not super(): that would handle the message as if it were its own.
        self._whole, self.message, self.kwargs, self.path = whole, whole.message, whole.kwargs, whole.path
        self._connection = StreamConnection(whole._connection)
        self._frame = self._frame_class(self)
        self.content = payload

    _identity: Any = property(lambda self: self._whole._identity)
    request: Any = property(lambda self: self._whole.request)

    def encode(self, content: Any) -> Any:
        """Return the frame of ``content`` on this stream."""
        return self._whole.encode({STREAM: self.stream, PAYLOAD: content})


class DemultiplexedFrame(frame.Frame):
    """A frame that may be for a stream."""

    # The stream that does not admit it.
    __slots__ = ('refusing',)

    def __init__(self, handler: Any) -> None:
        super().__init__(handler)
        self.refusing: Any = None

    def admit(self, memory: Any, content: Any) -> None:
        # A frame takes one token, of the rate that holds on its stream.
        stream = self.handler._stream_of(content)
        if stream is None:
            return super().admit(memory, content)
        self.handler._identity.must_hold = True
        self.refusing = stream
        stream._frame.admit(memory, stream.content)
        self.refusing = None
        demands.check_frame(self.handler)

    def fail(self, error: BaseException, ref: Any) -> Any:
        stream, self.refusing = self.refusing, None
        if stream is None:
            return super().fail(error, ref)
        _tell(stream, error)
        if ref is not None and not self.handler.closed:
            self.handler._connection.send(replies.reply_of(self.handler, None, ref))

    def last_message(self) -> Any:
        content = self.handler.content
        stream = self.handler._stream_of(content)
        # A client that waits for an answer on a stream looks for the ref in the payload.
        if stream is None or (messages.REF in content and messages.REF not in stream.content):
            return super().last_message()
        return stream._frame.last_message()


class SocketDemultiplexer(RoutedSocketHandler):
    """Hands the payload of each frame to the handler class of its stream, and sends what that sends on the stream.

    ``streams`` is a dict of names and handler classes. The connect and disconnect of each of them run; they share the
    connection, its row, user and session. A connection that one of them refuses is refused. Frames without a stream are
    routed as usual, and so are binary frames, which cannot name one.
    """

    streams: Dict[str, Type[RoutedSocketHandler]] = {}
    _frame_class = DemultiplexedFrame

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, handler in cls.streams.items():
            if not (isinstance(handler, type) and issubclass(handler, RoutedSocketHandler)):
                raise ImproperlyConfigured(
                    f'{cls.__name__}.streams[{name!r}] is {handler!r}, which is not a subclass of RoutedSocketHandler; '
                    'of a view, take <View>.socket.Handler.'
                )
        cls._streams = {
            name: type(handler.__name__, (Stream, handler), {'stream': name, '__module__': cls.__module__})
            for name, handler in cls.streams.items()
        }
        for event in ('arrived', 'left'):
            name = event + '_functions'
            if any(getattr(handler, name) for handler in cls.streams.values()):
                setattr(
                    cls,
                    name,
                    (*(other for other in getattr(cls, name) if other is not _OF_STREAMS[event]), _OF_STREAMS[event]),
                )
        cls.left_after = max([cls.left_after, *(handler.left_after for handler in cls.streams.values())])

    def connect(self, message: Any, **kwargs: Any) -> None:
        """Run the connect of every stream, and accept the connection."""
        opened = []
        try:
            for handler in self._streams.values():
                if self.closed:
                    return
                stream = handler(self)
                _open(stream)
                opened.append(stream)
        except BaseException as error:
            if isinstance(engine.current().meaning_of(error), engine.Denied):
                # A denied connection has no disconnect, and these streams have been opened.
                for stream in opened if self.accepted else ():
                    _end(stream)
            raise
        if not self.closed:
            super().connect(message, **kwargs)

    def receive(self, content: Any, **kwargs: Any) -> Any:
        """Hand the payload to its stream; a frame without a stream is dispatched to our own routes."""
        if STREAM not in content:
            return super().receive(content, **kwargs)
        stream = self._stream_of(content)
        if stream is None:
            name = content[STREAM]
            if not isinstance(name, str) or name not in self._streams:
                raise FrameError(messages.UNKNOWN_TYPE, f'No stream {repr(name):.100}.')
            raise FrameError(messages.INVALID_MESSAGE, 'A payload is a JSON object with a type.')
        try:
            _serve(stream, is_last=self.content.get(messages.REF) is None)
        finally:
            self._route, self._frame.outcome = stream._route, stream._frame.outcome

    def disconnect(self, message: Any, **kwargs: Any) -> None:
        """Run the disconnect of every stream."""
        for handler in self._streams.values():
            _end(handler(self))

    def _stream_of(self, content: Any) -> Any:
        """Return the stream that ``content`` is for, ``None`` if it is for none that there is."""
        if not isinstance(content, dict):
            return None
        name, payload = content.get(STREAM), content.get(PAYLOAD)
        if isinstance(name, str) and name in self._streams and isinstance(payload, dict):
            return self._streams[name](self, payload)
        return None


def _open(stream: Any) -> None:
    """Run the connect of ``stream``. What it raises about the connection as such is raised."""
    try:
        call(stream, 'connect', None)
        if not (stream._connection.is_open or stream.closed):
            # A middleware that does not pass it on.
            raise engine.Denied()
    except BaseException as error:
        if isinstance(error, engine.current().escaping) or isinstance(engine.current().meaning_of(error), _ABOUT_ALL):
            raise
        connect.refuse_with_error(stream, engine.current().meaning_of(refusals.frame_error(error)))


def _serve(stream: Any, is_last: bool) -> None:
    """Answer the payload of ``stream`` as if it had come in a frame of its own; ``is_last`` if nothing is sent after it."""
    try:
        reply = steps.run(stream._frame.answer(stream.content, stream._frame.ref()))
    except BaseException as error:
        if isinstance(error, engine.current().escaping):
            raise
        _tell(stream, error)
    else:
        if reply is not None and not stream.closed:
            attempt(stream, stream._connection.send, reply, is_last)


def _tell(stream: Any, error: BaseException) -> None:
    """Answer the payload of ``stream``, whose handling raised ``error``."""
    error = engine.current().meaning_of(refusals.frame_error(error))
    stream._frame.outcome = frame.outcome_of(error)
    attempt(stream, stream._frame.fail, error, stream._frame.ref())


def _end(stream: Any) -> None:
    """Run the disconnect of ``stream``."""
    attempt(stream, call, stream, 'disconnect', None)


def _pass_on(event: str) -> Function:
    """Return a function that has each stream of a connection handle ``event``."""

    def pass_on(socket: Any) -> None:
        for handler in socket._streams.values():
            stream = handler(socket)
            attempt(stream, call, stream, event, None)

    return Function(pass_on, 'message')


_OF_STREAMS = {event: _pass_on(event) for event in ('arrived', 'left')}
