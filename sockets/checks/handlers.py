"""The handler classes of a project: their routes, functions and middleware, and whether they are routed."""

import re

from django.core.checks import Error, Warning, register
from django.core.exceptions import ImproperlyConfigured

from .. import engine, messages
from ..connection import calls
from ..declaration import authentication, handler_classes
from ..router import attached_routers
from ..routes import covers
from . import views as view_checks
from .installation import is_checkable


@register('sockets')
def check_handlers(app_configs=None, **kwargs):
    """W003: handlers that the routing does not lead to; E008: URL arguments that the path does not give; E011:
    middleware that cannot be used; E013: authentications that cannot; W009: routes that never match; W016: sockets that ask for less than their page;
    W017: functions of a subclass that are not called; W024: routes and frames that take the place of those of streams.
    """
    if not is_checkable():
        return []
    # The engine's checks say what is wrong with it.
    if engine.current().routing_error() is not None:
        return []
    _import_views()
    endpoints = engine.current().endpoints()
    handlers = [endpoint.handler for endpoint in endpoints]
    return [
        *_unrouted(engine.current().routed_classes()),
        *_missing_arguments(endpoints),
        *_broken_middleware(handlers),
        *_broken_authentications(handlers),
        *_hidden_routes(handlers),
        *_in_place_of_streams(handlers),
        *view_checks.check(attached_routers, handlers),
    ]


def _import_views():
    from django.urls import get_resolver

    try:
        list(get_resolver().url_patterns)
    except Exception:
        pass  # Django's own check of the URLconf says what is wrong with it.


def _unrouted(classes):
    classes = classes + [handler for consumer in classes for handler in getattr(consumer, 'streams', {}).values()]
    names = {
        router.Handler: f'{router.view.__name__}.{router.name}.Handler'
        for router in attached_routers
        if not _is_of_tests(router.view.__module__)
    }
    return [
        Warning(
            f'{name} is in no routing: its websocket will be refused.',
            obj=handler,
            id='sockets.W003',
            hint=rf"Add route_class({name}, path=r'^/path/of/the/page/$') {engine.current().remedies['route']}.",
        )
        for handler, name in sorted([*names.items(), *_leaves(names)], key=lambda item: item[1])
        if not any(issubclass(consumer, handler) for consumer in classes)
    ]


def _leaves(known):
    """Return the handler classes, with their names, that have no subclasses: they should be routed."""
    from ..handlers import RoutedSocketHandler
    from ..multiplexing import SocketDemultiplexer, Stream

    found, classes = [], [RoutedSocketHandler]
    while classes:
        handler = classes.pop()
        # Subclasses in tests do not count.
        subclasses = [cls for cls in handler.__subclasses__() if not _is_of_tests(cls.__module__)]
        classes += subclasses
        if not (
            subclasses
            or handler in known
            or issubclass(handler, Stream)
            or handler in (RoutedSocketHandler, SocketDemultiplexer)
        ):
            found.append((handler, handler.__name__))
    return found


def _is_of_tests(module):
    return any(_TESTS.match(part) for part in module.split('.'))


# As Django and pytest find them.
_TESTS = re.compile(r'(tests?|test_.*|.*_tests?|conftest)$')


def _missing_arguments(endpoints):
    for handler, _, names in endpoints:
        for function in handler_classes.functions(handler):
            for name in function.missing(names):
                yield Error(
                    f'{function.function.__qualname__}() needs {name!r}, which the path of {handler.__name__} does not give.',
                    hint=rf'Name it in the path, as in (?P<{name}>\w+), or give it a default.',
                    obj=handler,
                    id='sockets.E008',
                )


def _broken_middleware(handlers):
    for handler in handlers:
        try:
            calls.chain(handler)
        except ImproperlyConfigured as error:
            yield Error(
                str(error),
                obj=handler,
                id='sockets.E011',
                hint=("Correct it in SOCKETS['MIDDLEWARE'], or in the middleware of the class."),
            )


def _broken_authentications(handlers):
    # That of the setting is the same for all.
    found = {}
    for handler in handlers:
        try:
            authentication.of_class(handler)
        except ImproperlyConfigured as error:
            found.setdefault(str(error), handler)
    for text, handler in found.items():
        yield Error(
            text,
            obj=handler,
            id='sockets.E013',
            hint="Correct it in SOCKETS['AUTHENTICATION'], or in the authentication of the class.",
        )


def _hidden_routes(handlers):
    """Find routes that another route of the same class hides. A class may hide those of its bases."""
    classes = dict.fromkeys(cls for handler in handlers for cls in handler.__mro__ if hasattr(cls, '_route_table'))
    for handler in classes:
        routes = handler_classes.own_routes(handler)
        for index, route in enumerate(routes):
            later = next((other for other in routes[index + 1 :] if covers(other.pattern, route.pattern)), None)
            if later is not None:
                yield Warning(
                    f'{route!r} of {handler.__name__} can never match: {later!r}, defined after it, takes all that it would.',
                    obj=handler,
                    id='sockets.W009',
                    hint='Remove one of them, or define the one that is to win last.',
                )


def _in_place_of_streams(handlers):
    """Find routes that get what clients ask of streams, and declared frames that ``sockets.js`` takes for those of streams."""
    classes = [*handlers, *(part for handler in handlers for part in getattr(handler, 'streams', {}).values())]
    for handler in dict.fromkeys(cls for part in classes for cls in part.__mro__ if hasattr(cls, '_route_table')):
        for route in handler_classes.own_routes(handler):
            if route.pattern == messages.RESUME:
                yield Warning(
                    f'{route!r} of {handler.__name__} gets the frames by which clients ask for what they have missed of streams.',
                    obj=handler,
                    id='sockets.W024',
                    hint='Call the type something else. If its connections never follow a stream, silence this.',
                )
        if messages.FOLLOWING in vars(handler).get('sends', ()):
            yield Warning(
                f'{handler.__name__} sends the type {messages.FOLLOWING!r}, which tells clients where a stream stands.',
                obj=handler,
                id='sockets.W024',
                hint='Call the type something else.',
            )
