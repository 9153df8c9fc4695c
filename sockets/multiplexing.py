"""Several handlers over one connection, each for a stream of it: ``{"stream": "chat", "payload": {"type": ...}}``."""
from django.core.exceptions import ImproperlyConfigured

from . import messages
from .contracts import refusals
from .engines.channels1 import transport
from .exceptions import ConnectionRevoked, FrameError, PermissionMissing, TooManyConnections
from .handlers import RoutedSocketHandler

STREAM = 'stream'
PAYLOAD = 'payload'


class Stream:
    """Mixed into a handler class that serves one stream of another one's connection. Its frames are the payloads."""

    stream = None
    # Names of ours begin with an underscore: the others are the author's.
    # Whether its connect, or what stands around that, has agreed to the connection.
    _is_open = False

    def __init__(self, connection, payload=None):
        # Not super(): that would handle the message as if it were its own.
        self.connection, self.message, self.kwargs = connection, connection.message, connection.kwargs
        self.content = payload

    path = property(lambda self: self.connection.path)
    accepted = property(lambda self: self.connection.accepted)
    closed = property(lambda self: self.connection.closed)
    socket = property(lambda self: self.connection.socket)
    user = property(lambda self: self.connection.user)
    session = property(lambda self: self.connection.session)
    request = property(lambda self: self.connection.request)

    def encode(self, content):
        """Return the frame of ``content`` on this stream."""
        return self.connection.encode({STREAM: self.stream, PAYLOAD: content})

    def accept(self):
        """Accept the connection, unless that has been done."""
        self._is_open = True
        self.connection.accept()

    def deliver(self, message, is_last=False):
        """Hand a message to the connection."""
        self._is_open = True
        self.connection.deliver(message, is_last)

    def _open(self):
        """Run the connect of this stream. What it raises about the connection as such is raised."""
        try:
            self._pass_on('connect', None)
            if not (self._is_open or self.closed):
                # A middleware that does not pass it on.
                raise transport.DenyConnection()
        except (transport.ConsumeLater, transport.DenyConnection, transport.ChannelSocketException, ConnectionRevoked,
                PermissionMissing, TooManyConnections):
            raise
        except BaseException as error:
            self._refuse(error)

    def _end(self):
        """Run the disconnect of this stream."""
        self._attempt(self._pass_on, 'disconnect', None)

    def _serve(self):
        """Answer the payload as if it had come in a frame of its own."""
        ref = self.content.get(messages.REF)
        try:
            reply = self._answer(self.content, ref)
        except transport.ConsumeLater:
            raise
        except BaseException as error:
            self._tell(error)
        else:
            if reply is not None and not self.closed:
                self._attempt(self.deliver, reply, self.connection.content.get(messages.REF) is None)

    def _tell(self, error):
        """Answer the payload, whose handling raised ``error``."""
        error = refusals.frame_error(error)
        self._outcome = self._outcome_of(error)
        self._attempt(self._fail, error, self.content.get(messages.REF))

    def _save_session(self):
        self.connection._save_session()


class SocketDemultiplexer(RoutedSocketHandler):
    """Hands the payload of each frame to the handler class of its stream, and sends what that sends on the stream.

    ``streams`` is a dict of names and handler classes. All of them hear of the connect and the disconnect; they share
    the connection, its row, user and session. A connection that one of them would turn away is turned away. Frames
    without a stream are routed as usual, and so are binary frames, which name none: a stream gets no binary frame.
    """

    streams = {}
    _streams = {}

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        for name, handler in cls.streams.items():
            if not (isinstance(handler, type) and issubclass(handler, RoutedSocketHandler)):
                raise ImproperlyConfigured('{}.streams[{!r}] is {!r}, which is no subclass of RoutedSocketHandler; '
                                           'of a view, take <View>.socket.Handler.'.format(
                                               cls.__name__, name, handler))
        cls._streams = {name: type(handler.__name__, (Stream, handler), {'stream': name, '__module__': cls.__module__})
                        for name, handler in cls.streams.items()}

    @classmethod
    def check_sent(cls, content):
        """Raise ``TypeError`` if the handler of its stream, or ours where it has none, does not declare ``content``."""
        name, payload = content.get(STREAM), content.get(PAYLOAD)
        if isinstance(name, str) and name in cls._streams and isinstance(payload, dict):
            return cls._streams[name].check_sent(payload)
        super().check_sent(content)

    def connect(self, message, **kwargs):
        """Run the connect of every stream, and accept the connection."""
        opened = []
        try:
            for handler in self._streams.values():
                if self.closed:
                    return
                stream = handler(self)
                stream._open()
                opened.append(stream)
        except transport.DenyConnection:
            # Then there is no disconnect, and these have not denied it.
            for stream in opened if self.accepted else ():
                stream._end()
            raise
        if not self.closed:
            super().connect(message, **kwargs)

    def receive(self, content, **kwargs):
        """Hand the payload to its stream; a frame without a stream is dispatched to our own routes."""
        if STREAM not in content:
            return super().receive(content, **kwargs)
        stream = self._stream_of(content)
        if stream is None:
            name = content[STREAM]
            if not isinstance(name, str) or name not in self._streams:
                raise FrameError(messages.UNKNOWN_TYPE, 'No stream {:.100}.'.format(repr(name)))
            raise FrameError(messages.INVALID_MESSAGE, 'A payload is a JSON object with a type.')
        try:
            stream._serve()
        finally:
            self.route, self._outcome = stream.route, stream._outcome

    def disconnect(self, message, **kwargs):
        """Run the disconnect of every stream."""
        for handler in self._streams.values():
            handler(self)._end()

    def last_words(self):
        stream = self._stream_of(self.content)
        # Who waits for an answer on a stream looks for its ref there.
        if stream is None or (messages.REF in self.content and messages.REF not in stream.content):
            return super().last_words()
        return stream.last_words()

    # The stream that does not admit its frame.
    _refusing = None

    @classmethod
    def _wants_login(cls):
        return cls.login_required or any(handler._wants_login() for handler in cls._streams.values())

    @classmethod
    def _wanted_permissions(cls):
        names = list(super()._wanted_permissions())
        for handler in cls._streams.values():
            names += handler._wanted_permissions()
        return tuple(dict.fromkeys(names))

    @classmethod
    def _wanted_guards(cls):
        guards = list(cls._guards)
        for handler in cls._streams.values():
            guards += handler._wanted_guards()
        return guards

    def _stream_of(self, content):
        """Return the stream that ``content`` is for, ``None`` if it is for none that there is."""
        if not isinstance(content, dict):
            return None
        name, payload = content.get(STREAM), content.get(PAYLOAD)
        if isinstance(name, str) and name in self._streams and isinstance(payload, dict):
            return self._streams[name](self, payload)
        return None

    def _admit(self, visitor, content):
        # A frame takes one token, of the rate that holds on its stream.
        stream = self._stream_of(content)
        if stream is None:
            return super()._admit(visitor, content)
        self._in_frame = True
        self._refusing = stream
        stream._admit(visitor, stream.content)
        self._refusing = None
        self._check_user()

    def _fail(self, error, ref):
        stream, self._refusing = self._refusing, None
        if stream is None:
            return super()._fail(error, ref)
        stream._tell(error)
        if ref is not None and not self.closed:
            self.deliver(self._reply(None, ref))
