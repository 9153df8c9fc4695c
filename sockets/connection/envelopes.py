"""The envelope of a binary frame: JSON with its ``ref``, between two NULs, and then the data."""

from .. import messages
from ..exceptions import FrameError

# How a frame begins that has one; by chance, one in 2 ** 64 does. Data that begin so travel in an envelope themselves.
MARK = b'\0{"ref":'

# The longest envelope, in bytes: it is looked at before anything is known of its sender.
MAX_SIZE = 1024


def unwrap(frame):
    """Return the envelope, a ``dict``, and the data of the binary frame ``frame``; ``FrameError`` for a broken one.

    A frame without an envelope is all data, and its envelope ``{}``.
    """
    if not frame.startswith(MARK):
        return {}, frame
    end = frame.find(b'\0', 1, MAX_SIZE)
    if end < 0:
        raise FrameError(
            messages.INVALID_MESSAGE, f'The envelope of a binary frame ends with a NUL, after at most {MAX_SIZE} bytes.'
        )
    try:
        text = frame[1:end].decode('utf-8')
    except UnicodeDecodeError:
        raise FrameError(messages.INVALID_JSON, 'The envelope of a binary frame is JSON in UTF-8.')
    return messages.decode(text), frame[end + 1 :]


def wrap(data, ref=None):
    """Return the binary frame of the bytes ``data``, in an envelope if there is a ``ref`` or they look like one."""
    if ref is None and not data.startswith(MARK):
        return data
    return b'\0' + messages.encode({messages.REF: ref}).encode() + b'\0' + data
