"""Positions: how far somebody has read a stream."""

from typing import Any, Dict, Optional

# 'stream', 'epoch' and 'offset'.
Position = Dict[str, Any]

# The epoch of a stream that has no message yet.
NO_EPOCH = ''

# The largest number that a database holds.
_LARGEST = 2**63 - 1


def position_of(name: str, head: Any, offset: Optional[int] = None) -> Position:
    """Return the position at ``offset``, or else at the end, of the stream ``name`` with that ``StreamHead`` or none."""
    if head is None:
        return {'stream': name, 'epoch': NO_EPOCH, 'offset': 0}
    return {'stream': name, 'epoch': head.epoch, 'offset': head.offset if offset is None else offset}


def is_position(value: Any) -> bool:
    """Whether ``value`` says an epoch and an offset."""
    if not isinstance(value, dict):
        return False
    epoch, offset = value.get('epoch'), value.get('offset')
    return isinstance(epoch, str) and type(offset) is int and 0 <= offset <= _LARGEST


def check_position(value: Any, stream: Optional[str] = None) -> Any:
    """Return ``value`` if it is a position; else raise ``TypeError``. ``ValueError`` if it is not one in ``stream``."""
    if not is_position(value):
        raise TypeError(
            f"A position is what Stream.position() returns, {{'epoch': 'k3f9', 'offset': 12}}, not {value!r:.100}."
        )
    if stream is not None and value.get('stream', stream) != stream:
        raise ValueError(f'This is a position in the stream {value["stream"]!r:.100}, and not in {stream!r:.100}.')
    return value


def check_limit(name: str, value: Any, unit: str = '') -> Any:
    """Return ``value``, a positive whole number or ``None``; else raise ``TypeError`` that names it."""
    if value is not None and (type(value) is not int or not 0 < value < 2**31):
        raise TypeError(f'{name} is a positive whole number{unit}, not {value!r:.60}.')
    return value


def is_lost(head: Any, epoch: str, offset: int) -> bool:
    """Whether somebody who has read up to ``offset`` of ``epoch`` cannot be given all that came after it."""
    if head is None:
        return epoch != NO_EPOCH or offset > 0
    if epoch == NO_EPOCH and offset == 0:
        # It had no message then.
        return head.trimmed > 0
    return epoch != head.epoch or not head.trimmed <= offset <= head.offset
