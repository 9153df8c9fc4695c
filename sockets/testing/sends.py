"""What querysets and rows send during a test."""

import contextlib
from typing import Any, Iterator, List, Optional, Union

from . import contents, isolation


class Sent:
    """A message to many connections.

    ``content`` is what their clients receive, ``close_code`` what they are closed with; ``None`` where there is none.
    """

    content: Any
    close_code: Optional[int]
    channel_names: List[str]

    def __init__(self, channel_names: List[str], frame: Union[str, bytes, None], close_code: Optional[int]) -> None:
        self.channel_names = channel_names
        self.content = None if frame is None else contents.decode(frame)
        self.close_code = close_code

    def __repr__(self) -> str:
        what = self.close_code if self.content is None else self.content
        return f'<Sent {what} to {len(self.channel_names)} connections>'


@contextlib.contextmanager
def capture_sends() -> Iterator[List[Sent]]:
    """Record each message of a queryset or a row in the list that this returns, a ``Sent`` for each.

    They are sent all the same, in the ``sandbox()``. What a handler sends to its own connection is not recorded.
    """
    sent: List[Sent] = []

    def note(channel_names: List[str], frame: Any, close_code: Optional[int]) -> None:
        sent.append(Sent(channel_names, frame, close_code))

    with isolation.sandbox(), isolation.current().server.noting_sends(note):
        yield sent
