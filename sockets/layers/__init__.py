"""Channel layers for any Channels 1.x project: drop-in ``BACKEND``s that keep order and do not poll."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .inmemory import InMemoryChannelLayer
    from .redis import RedisChannelLayer

__all__ = ['InMemoryChannelLayer', 'RedisChannelLayer']


def __getattr__(name: str) -> Any:
    # Imported late: the in-memory layer needs no Redis client, and what counts connects needs no Channels 1.
    if name == 'InMemoryChannelLayer':
        from .inmemory import InMemoryChannelLayer

        return InMemoryChannelLayer
    if name == 'RedisChannelLayer':
        from .redis import RedisChannelLayer

        return RedisChannelLayer
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
