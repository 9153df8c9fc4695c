"""What stands around the functions of a handler: middleware, and in its middle the functions of each event."""

import contextlib

from .. import conf, contracts, engine
from ..declaration import middleware
from ..execution import coroutines
from .attempts import attempt


def call(handler, event, content):
    """Pass an event, with the content of a frame, through the middleware to the functions; return their result."""
    handler.event = event
    handle = chain(type(handler))
    if handle is not _innermost or type(handler)._has_receive:
        handler._identity.is_for_middleware = True
    return handle(handler, content)


def chain(cls):
    """Return what the events of the class pass through; ``ImproperlyConfigured`` names what is no middleware."""
    entries = (*conf.MIDDLEWARE, *cls.middleware)
    built = cls.__dict__.get('_chain')
    if built is None or built[0] != entries:
        # Once for each class, and for each SOCKETS['MIDDLEWARE'] that a test may set.
        built = cls._chain = entries, middleware.chain(entries, _innermost)
    return built[1]


def runs_at_the_end(cls):
    """Return whether anything of the project is to run when a connection to the handler class ``cls`` ends."""
    return bool(
        cls.disconnect is not cls._default_disconnect
        or cls.disconnect_functions
        or cls.middleware
        or conf.MIDDLEWARE
        or engine.current().has_groups(cls)
    )


def _innermost(handler, content):
    return _EVENTS[handler.event](handler, content)


def _connect(handler, content):
    coroutines.settle(handler.connect(handler.message, **handler.kwargs))
    if handler.closed:
        return
    handler.accept()
    _run_until_closed(handler, handler.connect_functions)


def _run_until_closed(handler, functions):
    for function in functions:
        if handler.closed:
            break
        function(handler, handler.message, handler.kwargs)


def _receive(handler, content):
    if isinstance(content, bytes):
        return run_route(handler, handler._route_table.binary, content, handler.kwargs)
    return coroutines.settle(handler.receive(content, **handler.kwargs))


def _disconnect(handler, content):
    attempt(handler, lambda: coroutines.settle(handler.disconnect(handler.message, **handler.kwargs)))
    _run_all(handler, handler.disconnect_functions)


def _run_all(handler, functions):
    # The last one first. What one raises keeps no other from running.
    with contextlib.ExitStack() as stack:
        for function in functions:
            stack.callback(function, handler, handler.message, handler.kwargs)


_EVENTS = {
    'connect': _connect,
    'receive': _receive,
    'disconnect': _disconnect,
    'arrived': lambda handler, content: _run_until_closed(handler, handler.arrived_functions),
    'left': lambda handler, content: _run_all(handler, handler.left_functions),
}


def run_route(handler, route, content, kwargs):
    """Hand ``content``, or the data of a binary frame, to the function of ``route``; return what that returned."""
    handler._route = route
    if route.has_contract:
        content = contracts.check(route, handler, content)
    return route.function(handler, content, kwargs)
