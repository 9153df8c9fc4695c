"""Channel layers for any Channels 1.x project: drop-in ``BACKEND``s that keep order and do not poll."""
from .inmemory import InMemoryChannelLayer

__all__ = ['InMemoryChannelLayer']
