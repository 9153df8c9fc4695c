"""What stands around the functions of a handler: middleware, and in its middle the functions of each event."""

import contextlib
import inspect
import logging
import time

from .. import conf, contracts, engine, messages
from ..declaration import middleware
from ..execution import coroutines, steps
from .attempts import attempt

logger = logging.getLogger('sockets')

# Seconds that a function may take on the event loop.
LONG_INLINE = 0.005


def call(handler, event, content):
    """Pass an event, with the content of a frame, through the middleware to the functions; return their result."""
    return steps.run(pass_on(handler, event, content))


def pass_on(handler, event, content):
    """Return a generator of the steps of ``call``, which returns what that returns."""
    if is_plain(type(handler)):
        note(handler, event)
        return _EVENTS[event](handler, content)
    handler.event = event
    handler._identity.is_for_middleware = True
    return _through(chain(type(handler)), handler, content)


def note(handler, event):
    """Note what happens to ``handler``, whose functions have no middleware around them."""
    handler.event = event
    if handler._has_receive:
        handler._identity.is_for_middleware = True


def _through(handle, handler, content):
    # Middleware needs the result where it is called.
    yield None
    return handle(handler, content)


def chain(cls):
    """Return what the events of the class pass through; ``ImproperlyConfigured`` names what is no middleware."""
    entries = (*conf.MIDDLEWARE, *cls.middleware)
    built = cls.__dict__.get('_chain')
    if built is None or built[0] != entries:
        # Once for each class, and for each SOCKETS['MIDDLEWARE'] that a test may set.
        built = cls._chain = entries, middleware.chain(entries, _innermost)
    return built[1]


def is_plain(cls):
    """Return whether there is no middleware around the functions of the class."""
    return not (cls.middleware or conf.MIDDLEWARE)


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
    return steps.run(_EVENTS[handler.event](handler, content))


def _connect(handler, content):
    yield from steps.settle(handler.connect(handler.message, **handler.kwargs))
    if handler.closed:
        return
    # The row is written.
    yield None
    handler.accept()
    yield from _run_until_closed(handler, handler.connect_functions)


def _run_until_closed(handler, functions):
    for function in functions:
        yield None
        if handler.closed:
            break
        yield from steps.settle(function.call(handler, handler.message, handler.kwargs))


def _receive(handler, content):
    result = start(handler, content)
    if result is not None and type(result) is not dict:
        result = yield from finish(handler, result)
    return result


def start(handler, content):
    """Hand ``content`` to its function; return what that returns, which may be a coroutine for ``finish()``."""
    # What a handler class has overridden gets the results of functions, and not their coroutines.
    if isinstance(content, bytes):
        return run_route(handler, handler._route_table.binary, content, handler.kwargs)
    if handler._is_receive_plain:
        return dispatch(handler, content, handler.kwargs)
    return handler.receive(content, **handler.kwargs)


def finish(handler, result):
    """Yield the steps to what ``result`` comes to, which a function has returned, and return that."""
    if handler._identity.function is None and engine.current().has_loop and inspect.isawaitable(result):
        # An async def asks for the user where nothing may wait, unless it is known to ask for nothing.
        handler._identity.load()
    return (yield from steps.settle(result))


def _disconnect(handler, content):
    attempt(handler, lambda: coroutines.settle(handler.disconnect(handler.message, **handler.kwargs)))
    _run_all(handler, handler.disconnect_functions)
    yield None


def _left(handler, content):
    _run_all(handler, handler.left_functions)
    yield None


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
    'left': _left,
}


def dispatch(handler, content, kwargs):
    """Call the function that ``content`` is routed to; return what that returned, which may be a coroutine."""
    route = handler._route_table.match(content.get(messages.TYPE))
    if route is None:
        handler._route = None
        return handler._default_function.call(handler, content, kwargs)
    return run_route(handler, route, content, kwargs)


def run_route(handler, route, content, kwargs):
    """Hand ``content``, or the data of a binary frame, to the function of ``route``; return as ``dispatch``."""
    handler._route = route
    if route.has_contract:
        content = contracts.check(route, handler, content)
    if route.inline and engine.current().has_loop:
        return _run_on_loop(handler, route, content, kwargs)
    return route.function.call(handler, content, kwargs)


async def _run_on_loop(handler, route, content, kwargs):
    began = time.perf_counter()
    try:
        return route.function.call(handler, content, kwargs)
    finally:
        seconds = time.perf_counter() - began
        if seconds > LONG_INLINE:
            logger.warning(
                '%s at %r was %.0f ms in the inline route %r, in which nobody else was served. Write inline=False, or '
                'an async def that awaits what it waits for.',
                type(handler).__name__,
                handler.path,
                1000 * seconds,
                route.name,
            )
