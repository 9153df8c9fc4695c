"""A handler class as it is declared: its ``routes`` become a table, and what could never work is refused."""

import copy

from django.core.exceptions import ImproperlyConfigured

from .. import messages
from ..routes import Function, Route, RouteTable, check_declaration
from . import authentication, middleware, options, overrides


def declare(cls, base):
    """Resolve what the handler class ``cls`` declares; ``base`` is ``RoutedSocketHandler``, or ``None`` for that itself.

    ``ImproperlyConfigured`` names the class and what is wrong.
    """
    if base is not None:
        options.check_handler(cls, base)
        authentication.check(cls)
    cls._routes = [_resolve(cls, entry) for entry in cls.routes]
    cls._route_table = RouteTable(
        cls._routes, _binary_route(cls), [Route(messages.RESUME, _method(cls, 'on_resume', 'content'))]
    )
    overrides.check(cls, base or cls)
    if cls.subprotocols:
        # It tells which one was chosen.
        cls._deferred = ()
    for entry in cls.middleware:
        if not isinstance(entry, str):
            middleware.refuse(entry, entry)
    cls._default_function = _method(cls, 'default_route', 'content')
    # A receive() of the project's own runs before the demands of a route are looked at, as a middleware does.
    cls._has_receive = any(
        'receive' in vars(klass)
        for klass in cls.__mro__
        if klass.__module__.partition('.')[0] not in ('sockets', 'channels')
    )
    cls._is_receive_plain = base is None or cls.receive is base.receive
    cls._has_decoder = base is not None and cls.decode is not base.decode
    # Whether frames can be for a function that runs on the event loop, without anything of the project's own before it.
    cls._is_quick = (
        cls._is_receive_plain
        and not (cls._has_receive or cls._has_decoder)
        and any(
            route.inline or route.function.is_async
            for route in (*cls._route_table, *filter(None, [cls._route_table.binary]))
        )
    )
    try:
        check_declaration(f'{cls.__name__}.sends', cls.sends)
    except TypeError as error:
        raise ImproperlyConfigured(str(error)) from error


def own_routes(cls):
    """Return the routes that the class adds to those of its bases."""
    inherited = {id(entry) for base in cls.__mro__[1:] for entry in vars(base).get('routes', ())}
    return [route for entry, route in zip(cls.routes, cls._routes) if id(entry) not in inherited]


def functions(cls):
    """Return the ``Function`` of every route and hook of the class."""
    binary = cls._route_table.binary
    return [
        *(route.function for route in cls._route_table),
        *([] if binary is None else [binary.function]),
        cls._default_function,
        *cls.connect_functions,
        *cls.disconnect_functions,
        *cls.arrived_functions,
        *cls.left_functions,
    ]


def _resolve(cls, entry):
    if not isinstance(entry, Route) and not (isinstance(entry, (tuple, list)) and len(entry) == 2):
        raise ImproperlyConfigured(
            f"{cls.__name__}.routes has {entry!r}, which is not a pair like ('TYPE', 'method_name')."
        )
    try:
        route = copy.copy(entry) if isinstance(entry, Route) else Route(*entry)
        name = route.function
        if isinstance(name, str):
            route.function = getattr(cls, name, None)
            if route.function is None:
                raise ImproperlyConfigured(
                    f'{cls.__name__}.routes sends {route.pattern!r} to {name!r}, but {cls.__name__} has no method {name}().'
                )
        if not isinstance(route.function, Function):
            route.function = Function(route.function, route.argument)
    except TypeError as error:
        raise ImproperlyConfigured(f'{cls.__name__}.routes, {entry!r}: {error}') from error
    return route


def _binary_route(cls):
    """Return the route of binary frames: the last of ``routes``, or ``on_bytes`` if it was defined below that."""
    entry = route = None
    for entry_, route_ in zip(cls.routes, cls._routes):
        if route_.pattern is bytes:
            entry, route = entry_, route_
    if cls.on_bytes is None or route is not None and route.function.function is cls.on_bytes:
        return route
    if route is not None:
        origin = next(
            (base for base in reversed(cls.__mro__) if any(entry is other for other in vars(base).get('routes', ()))),
            cls,
        )
        if 'on_bytes' in vars(origin):
            raise ImproperlyConfigured(
                f'{origin.__name__} has on_bytes() and {route!r}: remove one of them, or write '
                "Route(bytes, 'on_bytes')."
            )
        if not any('on_bytes' in vars(base) for base in cls.__mro__[: cls.__mro__.index(origin)]):
            return route
    return Route(bytes, _method(cls, 'on_bytes', 'data'))


def _method(cls, name, argument):
    try:
        return Function(getattr(cls, name), argument)
    except TypeError as error:
        raise ImproperlyConfigured(f'{cls.__name__}.{name}: {error}') from error
