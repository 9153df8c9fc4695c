"""What a handler of any engine says of its connection, and does with it, whatever the engine adds."""

from .. import messages


class OwnConnection:
    """Mixed into the class that ``RoutedSocketHandler`` extends, which has a ``_connection``."""

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

    def close(self, code=1000):
        """Close the connection with ``code``; one that was not accepted yet is refused (HTTP 403)."""
        self._connection.send({'close': messages.close_code(1000 if code is True else code)})
