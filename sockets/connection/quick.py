"""Frames whose functions run on the event loop, where nothing may wait."""

from .. import messages
from .calls import is_plain


def route_of(handler, content):
    """Return the route of ``content``, ``None`` if it has none."""
    table = handler._route_table
    return table.match(content.get(messages.TYPE)) if type(content) is dict else table.binary


def function_of(handler, route):
    """Return the function of ``route``, or of ``None``, if it runs on the event loop, else ``None``."""
    function = handler._default_function if route is None else route.function
    return function if function.is_async or (route is not None and route.inline) else None


def may_wait(handler, route, function, memory):
    """Return whether something may wait before ``function``, that of ``route``, is called."""
    return (
        route is None
        or route.has_contract
        or memory.is_doubtful()
        or bool(handler.permission or handler._guards)
        or not is_plain(type(handler))
        or ((function.asks_who or handler.login_required or route.counts_users) and not handler._identity.is_at_hand())
    )
