"""The ASGI application of a site on Channels 4."""

from typing import Any

__all__ = ['get_application']


def get_application(routing: Any) -> Any:
    """Return an ASGI application that serves websockets by ``routing``, a list or its dotted path, and Django's pages.

    It answers the lifespan of servers that have one. ``ImproperlyConfigured`` on Channels 1, which has no ASGI of today.
    """
    from .engine import current

    return current().application(routing)
