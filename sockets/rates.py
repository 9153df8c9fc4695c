"""How many frames are let through: rates, and buckets of tokens. Standard library only; all times are seconds."""

import math
import re
import threading
from typing import TYPE_CHECKING, Dict, Tuple, Union

if TYPE_CHECKING:
    from typing import Literal

_TEXT = re.compile(r'(\d+(?:\.\d+)?)/(s|m|h)')
_SECONDS = {'s': 1, 'm': 60, 'h': 3600}

CONNECTION: "Literal['connection']" = 'connection'
USER: "Literal['user']" = 'user'

# How much of a token may be missing, because times are not exact.
_NEARLY = 1e-6


class Rate:
    """So many frames at once, refilled over the unit: ``'5/s'``, ``'30/m'``, ``'100/h'``, or a number a second.

    ``per`` says of whom they are counted: of each ``'connection'``, or of each ``'user'`` over all connections.
    ``TypeError`` for anything else.
    """

    __slots__ = ('per_second', 'burst', 'words', 'per')

    def __init__(self, value: Union[float, str], per: "Literal['connection', 'user']" = CONNECTION) -> None:
        match = _TEXT.fullmatch(value) if isinstance(value, str) else None
        number = float(match.group(1)) if match else value
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number < math.inf:
            raise TypeError(f"A route's rate is a number of frames a second, or a text like '30/m', not {value!r}.")
        if per not in (CONNECTION, USER):
            raise TypeError(f"A rate is counted per='connection' or per='user', not {per!r}.")
        # A bucket smaller than one token would never let a frame through.
        self.burst = max(number, 1)
        self.per_second = number / _SECONDS[match.group(2)] if match else number
        self.words: str = match.group() if match else f'{number:g} frames a second'
        self.per = per

    def __str__(self) -> str:
        return self.words + (' per user' if self.per == USER else '')


def take(bucket: Tuple[float, float], now: float, per_second: float, burst: float) -> Tuple[Tuple[float, float], float]:
    """Take a token out of ``bucket``, a pair of how many there were and when. Return the bucket as it is then, and the
    seconds until there is a token: 0 if there was one. If there was none, nothing is taken.
    """
    tokens, counted = bucket
    # A clock may be set back.
    now = max(now, counted)
    tokens = min(burst, tokens + (now - counted) * per_second)
    if tokens >= 1 - _NEARLY:
        return (tokens - 1, now), 0
    return (tokens, now), (1 - tokens) / per_second


class Buckets:
    """Buckets by name, for several threads. Those that must be full again are deleted."""

    sweep_every = 60

    def __init__(self) -> None:
        self._buckets: Dict[str, Tuple[Tuple[float, float], float]] = {}
        self._next_sweep = 0.0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait(self, name: str, now: float, per_second: float, burst: float) -> float:
        """Take a token of ``name``; return the seconds until there is one, 0 if it was taken."""
        with self._lock:
            if now >= self._next_sweep:
                self._next_sweep = now + self.sweep_every
                self._buckets = {key: kept for key, kept in self._buckets.items() if now < kept[1]}
            bucket = self._buckets.get(name, ((burst, now), 0))[0]
            bucket, seconds = take(bucket, now, per_second, burst)
            self._buckets[name] = bucket, now + (burst - bucket[0]) / per_second
        return seconds
