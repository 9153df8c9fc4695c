"""Channel layers for any Channels 1.x project: drop-in ``BACKEND``s that keep order and do not poll."""
from .inmemory import InMemoryChannelLayer

__all__ = ['InMemoryChannelLayer', 'RedisChannelLayer']


def __getattr__(name):
    # Imported late: the in-memory layer needs no Redis client.
    if name == 'RedisChannelLayer':
        from .redis import RedisChannelLayer
        return RedisChannelLayer
    raise AttributeError('module {!r} has no attribute {!r}'.format(__name__, name))
