"""Positions: how far somebody has read a stream."""

import math
from typing import Any, Dict, Optional

# 'stream', 'epoch' and 'offset'.
Position = Dict[str, Any]

# The epoch of a stream that has no message yet.
NO_EPOCH = ''

# The largest limit, and what is stored of a stream that has none.
ALL = 2**31 - 1

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


def check_limit(name: str, value: Any) -> Any:
    """Return ``value``, a positive whole number or ``None``; else raise ``TypeError`` that names it."""
    if value is not None and (type(value) is not int or not 0 < value <= ALL):
        raise TypeError(f'{name} is a positive whole number, not {value!r:.60}.')
    return value


class Unchanged:
    """What a limit of a stream is that is not given."""

    def __repr__(self) -> str:
        return 'UNCHANGED'


UNCHANGED: Any = Unchanged()


def own_limit(name: str, value: Any) -> Any:
    """Return what is stored of a limit of one stream; ``TypeError`` that names it for what is none."""
    if value is UNCHANGED:
        return value
    if value == math.inf:
        return ALL
    try:
        return check_limit(name, value)
    except TypeError:
        unit = ' of seconds' if name == 'max_age' else ''
        raise TypeError(
            f'{name} is a positive whole number{unit}, None for what SOCKETS say, or math.inf to keep all, not {value!r:.60}.'
        ) from None


def is_lost(head: Any, epoch: str, offset: int) -> bool:
    """Whether somebody who has read up to ``offset`` of ``epoch`` cannot be given all that came after it."""
    if head is None:
        return epoch != NO_EPOCH or offset > 0
    if epoch == NO_EPOCH and offset == 0:
        # It had no message then.
        return head.trimmed > 0
    return epoch != head.epoch or not head.trimmed <= offset <= head.offset
