"""What can go wrong, and what happens then.

::

    Exception
     +-- SocketsError
          +-- FrameError           the client's mistake: it becomes an ERROR frame
          +-- CloseConnection      the function is done with this connection: close with its code
          +-- ConnectionRevoked    the right to this connection has ended: RECONNECT, then close 4401
          |    +-- RowMissing      its row is gone for an unknown reason: RECONNECT, then close 1012
          +-- PermissionMissing    the client's user may not use this socket: ERROR, then close 4403
          +-- TooManyConnections   the client's user or address has as many as SOCKETS allows: close 4429
          +-- MailboxFull          a server took no message for SOCKETS['SEND_TIMEOUT'] seconds
          +-- DeliveryFailed       the layer could not be reached for some of the connections

A project's own mistakes are ``django.core.exceptions.ImproperlyConfigured`` or ``TypeError``,
raised while it is imported or checked.
"""

from typing import Any, Dict, Optional


class SocketsError(Exception):
    """Base of all exceptions of this package."""


class FrameError(SocketsError):
    """Raise it in a route to answer the frame with an ``ERROR``.

    ``code`` is one of the error codes in ``sockets.messages``, ``details`` a sentence for the client's
    developer, ``errors`` an optional dict of what is wrong per field, ``retry_after`` the seconds after which the same
    frame may be sent again, if that is known.
    """

    def __init__(
        self, code: str, details: str = '', errors: Optional[Dict[str, Any]] = None, retry_after: Optional[float] = None
    ) -> None:
        super().__init__(code, details, errors)
        self.code = code
        self.details = details
        self.errors = errors
        self.retry_after = retry_after


class CloseConnection(SocketsError):
    """Raise it to end a function and close the connection with ``code``: your own codes are 4000 to 4999.

    A connection that is not accepted yet is refused (HTTP 403). Nothing is logged, and a frame with a ``ref`` gets ``ACK``.
    """

    def __init__(self, code: int = 1000) -> None:
        super().__init__(code)
        self.code = code


class ConnectionRevoked(SocketsError):
    """The row, the session or the user behind a connection is no longer valid."""

    def __init__(self, details: str = 'Your session is gone. Come back with a new one.') -> None:
        super().__init__(details)
        self.details = details


class RowMissing(ConnectionRevoked):
    """The row of a connection is gone for a reason that this process does not know. Its client may come back."""

    def __init__(self, details: str = 'This connection is no longer known. Please come back.') -> None:
        super().__init__(details)


class PermissionMissing(SocketsError):
    """The user of a connection does not have the permission that its handler class asks for."""

    def __init__(self, details: str = 'You may not use this socket.') -> None:
        super().__init__(details)
        self.details = details


class TooManyConnections(SocketsError):
    """The user or the address behind a new connection has as many as ``SOCKETS`` allows."""

    def __init__(self, details: str) -> None:
        super().__init__(details)
        self.details = details


class MailboxFull(SocketsError):
    """A channel refused every message until the deadline; its server is stuck or dead."""


class DeliveryFailed(SocketsError):
    """A fan-out reached ``delivered`` of ``total`` connections; ``__cause__`` is why it did not reach the others."""

    def __init__(self, delivered: int, total: int, why: object) -> None:
        super().__init__(delivered, total, why)
        self.delivered = delivered
        self.total = total
        self.why = why

    def __str__(self) -> str:
        return f'Handed to {self.delivered} of {self.total} connections, the others could not be reached: {self.why}'
