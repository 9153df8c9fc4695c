"""The handlers of a project's routing, and what each answers and sends."""

import inspect
import re

from django.utils.regex_helper import normalize

from ... import engine
from ...handlers import RoutedSocketHandler
from ...multiplexing import SocketDemultiplexer


class Endpoint:
    """A path and the handler class that the routing leads to from there, or one of its streams."""

    def __init__(self, handler, pattern, is_stream=False):
        self.handler = handler
        self.pattern = pattern
        # The route of binary frames, if there is one: a binary frame names no stream.
        self.binary = None if is_stream else handler._route_table.binary
        # MyPage of MyPageSocketHandler.
        self.name = re.sub(r'(Socket)?Handler$', '', handler.__name__) or handler.__name__
        self.address, self.parameters = address(pattern)

    @property
    def routes(self):
        """The routes that can match: of those of one pattern, the last; HELLO and PING only if they were replaced."""
        found = {}
        for route in self.handler._route_table:
            found.pop(route.pattern, None)
            found[route.pattern] = route
        base = {route.pattern: route.function.function for route in RoutedSocketHandler._route_table}
        return [route for pattern, route in found.items() if route.function.function is not base.get(pattern)]

    @property
    def sends(self):
        """What the handler declares that it sends: a dict of types and their forms, ``None`` for any fields."""
        return self.handler.sends

    @property
    def streams(self):
        """The streams of a ``SocketDemultiplexer``: pairs of a name and its ``Endpoint``."""
        if not issubclass(self.handler, SocketDemultiplexer):
            return []
        return [
            (name, Endpoint(handler, self.pattern, is_stream=True)) for name, handler in self.handler.streams.items()
        ]

    @property
    def is_open(self):
        """Whether contents of other types than those of the routes are taken, too."""
        return self.handler.default_route is not RoutedSocketHandler.default_route


def endpoints():
    """Return the ``Endpoint`` of every handler of ours in the routing, in its order."""
    return [Endpoint(found.handler, found.pattern) for found in engine.current().endpoints()]


def address(pattern):
    """Return a path for the regular expression ``pattern``, such as ``/room/{room}/``, and the names in it."""
    try:
        form, names = normalize(pattern)[0]
    except (IndexError, ValueError, NotImplementedError):
        return pattern, []
    path = form % {name: '{' + name + '}' for name in names}
    return path if path.startswith('/') else '/' + path, names


def docstring(thing):
    """Return the docstring of a function or class, or ``''``."""
    return inspect.cleandoc(thing.__doc__ or '')


def summary(thing):
    """Return the first line of the docstring of a function or class, or ``''``."""
    return docstring(thing).partition('\n')[0]


def type_of(route):
    """Return the type of a route as people write it: regular expressions between slashes."""
    return route.pattern if isinstance(route.pattern, str) else f'/{route.pattern.pattern}/'


def first_line(schema):
    """Return the first line of the description in a schema."""
    return schema.get('description', '').partition('\n')[0]


def options(route):
    """Return what a route asks of its client, as text."""
    return ', '.join(
        filter(
            None,
            [
                'login required' if route.login_required else '',
                'permission ' + ', '.join(route.permissions) if route.permissions else '',
                str(route.rate or ''),
            ],
        )
    )


def unused(name, taken):
    number, unused = 1, name
    while unused in taken:
        number += 1
        unused = f'{name}{number}'
    return unused
