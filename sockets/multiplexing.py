"""Several handlers over one connection, each for a stream of it: ``{"stream": "chat", "payload": {"type": ...}}``."""
from django.core.exceptions import ImproperlyConfigured

from . import messages, transport
from .exceptions import FrameError
from .handlers import RoutedSocketHandler
from .visitors import visitors

STREAM = 'stream'
PAYLOAD = 'payload'


class Stream:
    """Mixed into a handler class that serves one stream of another one's connection. Its frames are the payloads."""

    stream = None

    def __init__(self, connection):
        # Not super(): that would handle the message as if it were its own.
        self.connection, self.message, self.kwargs = connection, connection.message, connection.kwargs

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

    def deliver(self, message, is_last=False):
        """Hand a message to the connection."""
        self.connection.deliver(message, is_last)

    def pass_on(self, event):
        """Have the functions of this stream run for a connect or a disconnect."""
        self._pass_on(event, None)

    def serve(self, payload):
        """Answer ``payload`` as if it had come in a frame of its own."""
        ref = payload.get(messages.REF)
        try:
            self.content = payload
            reply = self._answer(visitors.get(self.channel_name), payload, ref)
        except transport.ConsumeLater:
            raise
        except Exception as error:
            self._attempt(self._fail, error, ref)
        else:
            if reply is not None and not self.closed:
                self.deliver(reply, is_last=True)


class SocketDemultiplexer(RoutedSocketHandler):
    """Hands the payload of each frame to the handler class of its stream, and sends what that sends on the stream.

    ``streams`` is a dict of names and handler classes. All of them hear of the connect and the disconnect; they share
    the connection, its row, user and session. Frames without a stream are routed as usual.
    """

    streams = {}

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        for name, handler in cls.streams.items():
            if not (isinstance(handler, type) and issubclass(handler, RoutedSocketHandler)):
                raise ImproperlyConfigured('{}.streams[{!r}] is {!r}, which is no subclass of RoutedSocketHandler; '
                                           'of a view, take <View>.socket.Handler.'.format(
                                               cls.__name__, name, handler))
        cls._streams = {name: type(handler.__name__, (Stream, handler), {'stream': name, '__module__': cls.__module__})
                        for name, handler in cls.streams.items()}

    def connect(self, message, **kwargs):
        """Accept the connection, and run the connect of every stream."""
        super().connect(message, **kwargs)
        for stream in self._streams.values():
            if not self.closed:
                stream(self).pass_on('connect')

    def receive(self, content, **kwargs):
        """Hand the payload to its stream; a frame without a stream is dispatched to our own routes."""
        if STREAM not in content:
            return super().receive(content, **kwargs)
        name, payload = content[STREAM], content.get(PAYLOAD)
        if not isinstance(name, str) or name not in self._streams:
            raise FrameError(messages.UNKNOWN_TYPE, 'No stream {:.100}.'.format(repr(name)))
        if not isinstance(payload, dict):
            raise FrameError(messages.INVALID_MESSAGE, 'A payload is a JSON object with a type.')
        stream = self._streams[name](self)
        stream.serve(payload)
        self.route = stream.route

    def disconnect(self, message, **kwargs):
        """Run the disconnect of every stream."""
        for stream in self._streams.values():
            self._attempt(stream(self).pass_on, 'disconnect')
