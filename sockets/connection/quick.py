"""Frames whose functions run on the event loop, where nothing may wait."""

from .. import messages
from .calls import is_plain


def look(handler, memory, content):
    """Return the function that ``content`` is for if it runs on the event loop, else ``None``, and whether something may
    wait before it is called.
    """
    table = handler._route_table
    route = table.match(content.get(messages.TYPE)) if type(content) is dict else table.binary
    function = handler._default_function if route is None else route.function
    if not (function.is_async or (route is not None and route.inline)):
        return None, True
    return function, (
        route is None
        or route.has_contract
        or memory.is_doubtful()
        or bool(handler.permission or handler._guards)
        or not is_plain(type(handler))
        or (
            (function.asks_who or handler.login_required or (route.rate is not None and route.counts_users))
            and not handler._identity.is_at_hand()
        )
    )
