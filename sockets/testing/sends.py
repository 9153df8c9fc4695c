"""What querysets and rows send during a test."""
import contextlib

from . import contents, isolation


class Sent:
    """A fan-out: what was sent, and to which connections.

    ``content`` is what their clients receive, ``close_code`` what they are closed with; ``None`` where there is none.
    """

    def __init__(self, channel_names, frame, close_code):
        self.channel_names = channel_names
        self.content = None if frame is None else contents.decode(frame)
        self.close_code = close_code

    def __repr__(self):
        return '<Sent {} to {} connections>'.format(
            self.close_code if self.content is None else self.content, len(self.channel_names))


@contextlib.contextmanager
def capture_sends():
    """Note each message of a queryset or a row in the list that this returns, a ``Sent`` for each.

    They go on their way as ever, in the ``sandbox()``. What a handler sends to its own connection is none of them.
    """
    sent = []

    def note(channel_names, frame, close_code):
        sent.append(Sent(channel_names, frame, close_code))

    with isolation.sandbox(), isolation.current().server.noting_sends(note):
        yield sent
