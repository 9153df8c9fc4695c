"""Assertions about what a client has received."""

from typing import Any

from .client import SocketClient


def assert_received(client: SocketClient, **fields: Any) -> Any:
    """Take the first frame with these ``fields`` out of those that ``client`` has received, and return it.

    A field is given as it was sent, or as it arrived (a date arrives as a text). ``AssertionError`` if there is none.
    """
    __tracebackhide__ = True
    content = client._take(fields)
    if content is None:
        raise AssertionError(f'{client!r} received no {fields or "frame"}.\n{client._history()}')
    return content


def assert_not_received(client: SocketClient, **fields: Any) -> None:
    """Raise ``AssertionError`` if ``client`` has received a frame with these ``fields`` that was not taken yet.

    Without fields, that is any frame.
    """
    __tracebackhide__ = True
    content = client._find(fields)
    if content is not None:
        raise AssertionError(f'{client!r} received {content}.')
