"""Channel layers for any Channels 1.x project: drop-in ``BACKEND``s that keep order and do not poll."""

from typing import TYPE_CHECKING, Any

from .inmemory import InMemoryChannelLayer

if TYPE_CHECKING:
    from .redis import RedisChannelLayer

__all__ = ['InMemoryChannelLayer', 'RedisChannelLayer']


def __getattr__(name: str) -> Any:
    # Imported late: the in-memory layer needs no Redis client.
    if name == 'RedisChannelLayer':
        from .redis import RedisChannelLayer

        return RedisChannelLayer
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
