"""What ``RoutedSocketHandler`` extends on Channels 4."""

from ... import messages
from ...connection import envelopes


class Handler:
    """One event of one connection. ``scope`` is that of ASGI."""

    def __init__(self, connection, message):
        self._connection = connection
        self.message = message
        self.path = connection.path
        self.kwargs = connection.kwargs

    @classmethod
    def as_asgi(cls):
        """Return the ASGI application of this handler class, for Channels' ``URLRouter``: ``re_path(..., X.as_asgi())``."""
        from .serving import HandlerApplication

        return HandlerApplication(cls)

    @property
    def scope(self):
        """The scope of ASGI; of a connection that another process held, ``{}``."""
        return self._connection.scope

    @property
    def accepted(self):
        """Whether the connection has been accepted."""
        return self._connection.accepted

    @property
    def closed(self):
        """Whether the connection has been closed here."""
        return self._connection.closed

    @property
    def channel_name(self):
        """The name under which other processes reach this connection."""
        return self._connection.name

    def accept(self):
        """Accept the connection, unless that has been done."""
        self._connection.accept()

    def send(self, text=None, bytes=None, close=False):
        """Send a frame of ``text`` or ``bytes`` as it is to this connection now."""
        if text is not None:
            message = {'text': text}
        elif bytes is not None:
            message = {'bytes': envelopes.wrap(bytes)}
        elif close:
            message = {}
        else:
            raise ValueError("A frame is text='...' or bytes=b'...'.")
        if close:
            message['close'] = messages.close_code(1000 if close is True else close)
        self._connection.send(message)

    def close(self, code=1000):
        """Close the connection with ``code``; one that was not accepted yet is refused (HTTP 403)."""
        self._connection.send({'close': messages.close_code(1000 if code is True else code)})
