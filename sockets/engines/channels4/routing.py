"""Which handler a path leads to: our own routings, and those of Channels that ``ASGI_APPLICATION`` leads to."""

import logging
import re

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.urls.exceptions import Resolver404
from django.utils.module_loading import import_string

from ... import conf
from ...declaration import arguments
from ...engine import Endpoint
from ...router import refuse_views
from .handler import Handler

logger = logging.getLogger('sockets')


class Entry:
    """A handler class, and the regular expression ``path`` that its paths match, from their start."""

    def __init__(self, handler, path):
        self.handler = handler
        self.regex = re.compile(path)

    @property
    def pattern(self):
        """The regular expression, as a text."""
        return self.regex.pattern

    @property
    def names(self):
        """The names of the URL keyword arguments."""
        return set(self.regex.groupindex)

    def match(self, path):
        """Return the URL keyword arguments of ``path``, ``None`` if it does not match."""
        found = self.regex.match(path)
        return None if found is None else found.groupdict()


class Included:
    """An ``entry`` of a routing that is included where ``prefix`` matches the beginning of a path, which is taken off."""

    def __init__(self, prefix, entry):
        self.prefix = re.compile(prefix)
        self.entry = entry
        self.handler = entry.handler

    @property
    def pattern(self):
        """The regular expression of the whole path, as a text."""
        return self.prefix.pattern + self.entry.pattern.lstrip('^')

    @property
    def names(self):
        """The names of the URL keyword arguments."""
        return {*self.prefix.groupindex, *self.entry.names}

    def match(self, path):
        """Return the URL keyword arguments of ``path``, ``None`` if it does not match."""
        found = self.prefix.match(path)
        rest = None if found is None else self.entry.match(path[found.end() :])
        return None if rest is None else {**found.groupdict(), **rest}


class Resolved:
    """A handler class behind the ``patterns`` of Channels' ``URLRouter``, from the outside in."""

    def __init__(self, handler, patterns):
        self.handler = handler
        self.patterns = patterns

    @property
    def pattern(self):
        """The regular expression of the whole path, as a text."""
        return '^/' + ''.join(pattern.regex.pattern.lstrip('^').replace('\\Z', '$') for pattern in self.patterns)

    @property
    def names(self):
        """The names of the URL keyword arguments."""
        return {name for pattern in self.patterns for name in pattern.regex.groupindex}

    def match(self, path):
        """Return the URL keyword arguments of ``path``, ``None`` if it does not match."""
        found, path = {}, path.lstrip('/')
        for pattern in self.patterns:
            try:
                matched = pattern.match(path)
            except Resolver404:
                return None
            if matched is None:
                return None
            path, _, kwargs = matched
            found.update(kwargs)
        return found


def route_class(handler, path='^'):
    """Return an entry of a routing: the handler class ``handler``, or its dotted path, at paths that match the regular
    expression ``path``.

    A path begins with a slash. ``ImproperlyConfigured`` for what is no handler class.
    """
    if isinstance(handler, str):
        handler = import_string(handler)
    refuse_views(handler)
    if not (isinstance(handler, type) and issubclass(handler, Handler)):
        raise ImproperlyConfigured(
            f'route_class() takes a handler class, not {handler!r}. Write route_class(<View>.socket.Handler, path=...); '
            'consumers of Channels belong into its URLRouter, in asgi.py.'
        )
    entry = Entry(handler, path)
    arguments.refuse_taken(handler, entry.names, entry.pattern)
    return entry


def include(routing, path='^'):
    """Return the entries of ``routing``, a list or its dotted path, at paths that begin with a match of ``path``.

    What has matched is taken off what they see.
    """
    return _checked([Included(path, entry) for entry in resolve(routing)])


def resolve(routing):
    """Return the entries of ``routing``, a list or its dotted path, as a flat list."""
    if isinstance(routing, str):
        routing = import_string(routing)
    if not isinstance(routing, (list, tuple)):
        raise ImproperlyConfigured(f'A routing is a list of route_class(...) and include(...), not {routing!r}.')
    found = []
    for entry in routing:
        if isinstance(entry, (list, tuple)):
            found += resolve(entry)
        elif hasattr(entry, 'match') and hasattr(entry, 'handler'):
            found.append(entry)
        else:
            raise ImproperlyConfigured(
                f'A routing has {entry!r}, which is not made by route_class() or include() of sockets.routing.'
            )
    return _checked(found)


def _checked(found):
    for entry in found:
        arguments.refuse_taken(entry.handler, entry.names, entry.pattern)
    return found


def entries():
    """Return what this project routes to handler classes, in order; the first one that matches wins."""
    if conf.ROUTING is not None:
        return resolve(conf.ROUTING)
    path = getattr(settings, 'ASGI_APPLICATION', None)
    return [] if path is None else list(_walk(import_string(path), ()))


def routing_error():
    """Return why the routing cannot be used, as an exception, or ``None``."""
    try:
        entries()
    except Exception as error:
        return error


def endpoints():
    """Return an ``Endpoint`` for each handler class in the routing, in its order."""
    return [Endpoint(entry.handler, entry.pattern, entry.names) for entry in entries()]


def match(path, among=None):
    """Return the handler class and the URL arguments of ``path``; ``(None, {})`` where no route matches."""
    for entry in entries() if among is None else among:
        kwargs = entry.match(path)
        if kwargs is not None:
            return entry.handler, kwargs
    return None, {}


def warn_of_unrouted(path):
    """Tell the log of a client that is refused."""
    logger.warning(
        'Refused a websocket to %.100r: no route matches. Add route_class(<View>.socket.Handler, path=...) to the routing '
        'that asgi.py names.',
        path,
    )


def applications():
    """Yield the applications that ``ASGI_APPLICATION`` leads to, from the outside in."""
    waiting = [import_string(settings.ASGI_APPLICATION)]
    while waiting:
        application = waiting.pop()
        yield application
        waiting += [inner for inner, _ in _inner(application)]


def _walk(application, patterns):
    """Yield what is routed within an ASGI application, through routers and middleware."""
    if hasattr(application, 'sockets_routing'):
        yield from application.sockets_routing
    elif hasattr(application, 'sockets_handler'):
        yield Resolved(application.sockets_handler, patterns)
    else:
        for inner, pattern in _inner(application):
            yield from _walk(inner, patterns if pattern is None else (*patterns, pattern))


def _inner(application):
    """Return pairs of an application within ``application`` and the pattern of the path that leads there, or ``None``."""
    if hasattr(application, 'application_mapping'):
        return [(application.application_mapping.get('websocket'), None)]
    if isinstance(getattr(application, 'routes', None), (list, tuple)):
        return [(route.callback, route.pattern) for route in application.routes]
    # What middleware calls the application within.
    return [
        (getattr(application, name), None) for name in ('inner', 'application', 'app') if hasattr(application, name)
    ][:1]
