"""SocketRouter: a websocket beside a view's page."""
import weakref

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

from .routes import Function, Route, check_declaration

# Every router that hangs on a view, for manage.py check.
attached_routers = weakref.WeakSet()


class ViewInRouting(ImproperlyConfigured):
    """A routing names a view where its Handler belongs. ``remedy`` is what to write instead."""

    def __init__(self, view, name):
        self.view = view
        self.remedy = 'Write route_class({}.{}.Handler, path=...).'.format(view.__name__, name)
        super().__init__('A routing names the view {}, which is no consumer. {}'.format(view.__name__, self.remedy))


def refuse_views(consumer):
    """Raise ``ViewInRouting`` if ``consumer``, which a routing names, is a view with a router, or the router."""
    # What as_view() returns knows its view.
    view = getattr(consumer, 'view_class', consumer)
    for router in attached_routers:
        if consumer is router:
            raise ViewInRouting(router.view, router.name)
        if isinstance(view, type) and getattr(view, router.name, None) is router:
            raise ViewInRouting(view, router.name)


class SocketRouter:
    """Decorators that fill a view's route table, and the ``Handler`` class that serves it.

    ``handler`` is the ``RoutedSocketHandler`` subclass to build on: where its routes match too, ours are used.
    ``sends``, a dict of types and forms, declares what is sent, in addition to what ``handler`` declares.
    """

    def __init__(self, handler=None, sends=None):
        if apps.ready and not apps.is_installed('sockets'):
            raise ImproperlyConfigured("SocketRouter needs its app: add 'sockets' to INSTALLED_APPS.")
        self.view = None
        if sends is not None:
            check_declaration('SocketRouter(sends=...)', sends)
        self._base = handler
        self._sends = sends
        self._routes = []
        self._functions = {}
        self._handler = None

    def __set_name__(self, owner, name):
        self.view = owner
        self.name = name
        attached_routers.add(self)

    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)
        raise AttributeError('A SocketRouter has no {!r}: its decorators are @socket.connect, @socket.disconnect, '
                             '@socket.route(pattern) and @socket.default_route.'.format(name))

    def __repr__(self):
        return '<SocketRouter {}>'.format(
            '{}.{}'.format(self.view.__qualname__, self.name) if self.view else 'on no view')

    def route(self, pattern, **options):
        """Send contents whose type is ``pattern`` (``str``), or matches it (compiled regex), to the function.

        Options are those of ``sockets.routes.Route``: ``form``, ``login_required``, ``permission`` and ``rate``, which
        counts instead of ``MAX_FRAMES_PER_SECOND``.
        """
        # Also TypeError for @socket.route without a pattern, where it is the function.
        Route(pattern, None, **options)

        def decorate(function):
            self._check_open()
            self._routes.append(Route(pattern, Function(function, 'content'), **options))
            return function
        return decorate

    def connect(self, function):
        """Call ``function(socket, message)`` when a connection has been accepted."""
        return self._record('connect', 'message', function)

    def disconnect(self, function):
        """Call ``function(socket, message)`` once when a connection has ended."""
        return self._record('disconnect', 'message', function)

    def default_route(self, function):
        """Send contents that no route matches to ``function(socket, content)``."""
        return self._record('default_route', 'content', function)

    @property
    def Handler(self):
        """The handler class of this view, for ``route_class``; built when first asked for."""
        if self._handler is None:
            try:
                self._handler = self._build()
            except AttributeError as error:
                # __getattr__ would hide it behind a word about decorators.
                raise ImproperlyConfigured('{!r} cannot build its Handler: {}'.format(self, error)) from error
        return self._handler

    def _record(self, kind, argument, function):
        self._check_open()
        function_ = Function(function, argument)
        if kind in self._functions:
            raise TypeError('{!r} has its {} function already: {}().'.format(
                self, kind, self._functions[kind].function.__qualname__))
        self._functions[kind] = function_
        return function

    def _check_open(self):
        if self._handler is not None:
            raise ImproperlyConfigured('{} has been built already: decorate its functions before its routing is '
                                       'imported.'.format(self._handler.__name__))

    def _build(self):
        from .handlers import RoutedSocketHandler
        base = RoutedSocketHandler if self._base is None else self._base
        if not (isinstance(base, type) and issubclass(base, RoutedSocketHandler)):
            raise ImproperlyConfigured('SocketRouter(handler=...) takes a subclass of RoutedSocketHandler, '
                                       'not {!r}.'.format(base))
        name = '{}SocketHandler'.format(self.view.__name__ if self.view else '')
        attributes = {
            '__module__': self.view.__module__ if self.view else base.__module__,
            '__doc__': 'The websocket of {}.'.format(self.view.__qualname__) if self.view else base.__doc__,
            'routes': (*base.routes, *self._routes),
        }
        if self._sends is not None:
            attributes['sends'] = {**base.sends, **self._sends}
        for kind in ('connect', 'disconnect'):
            if kind in self._functions:
                attributes[kind + '_function'] = self._functions[kind]
        if 'default_route' in self._functions:
            attributes['default_route'] = self._functions['default_route'].function
        return type(name, (base,), attributes)
