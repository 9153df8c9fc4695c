"""Rows of connections that are removed or changed without a signal of Django that says so."""

import threading
from typing import Any, Callable, Iterable

from ..connection import identity_cache

# Rows that were removed in this thread as Django was about to delete them (sockets.access.revocation). It finds none of them.
_gone = threading.local()

_LABEL = 'sockets.Socket'


def note_changed(keys: Iterable[Any], database: str) -> None:
    """Have no frame find what is kept of the rows of connections with the primary keys ``keys``, which were updated."""
    identity_cache.cache.drop_written([(_LABEL, key) for key in keys], database)


def note_gone() -> None:
    """Count a row of a connection that was removed before Django could delete it."""
    _gone.count = getattr(_gone, 'count', 0) + 1


def count_gone(delete: Callable[[], Any]) -> Any:
    """Return what ``delete()`` returns, with the rows that were removed meanwhile."""
    before = getattr(_gone, 'count', 0)
    total, of_models = delete()
    gone = getattr(_gone, 'count', 0) - before
    return total + gone, {**of_models, _LABEL: of_models.get(_LABEL, 0) + gone}
