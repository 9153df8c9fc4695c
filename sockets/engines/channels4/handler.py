"""What ``RoutedSocketHandler`` extends on Channels 4."""

from ... import messages
from ...connection import envelopes
from ...connection.own_connection import OwnConnection


class Handler(OwnConnection):
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
