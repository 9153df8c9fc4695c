"""SocketRouter: a websocket beside a view's page."""

import weakref
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Type, TypeVar, Union, overload

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

from .rates import CONNECTION
from .routes import Function, Route, check_declaration

if TYPE_CHECKING:
    from typing import Literal

    from .handlers import RoutedSocketHandler
    from .routes import Form, Per, Permission, RoutePattern, Sends

# The pattern of binary frames, under a name that no method has.
BINARY = bytes

_F = TypeVar('_F', bound=Callable[..., Any])

# Every router that is an attribute of a view, for manage.py check.
attached_routers: 'weakref.WeakSet[SocketRouter]' = weakref.WeakSet()


class ViewInRouting(ImproperlyConfigured):
    """A routing names a view where its Handler belongs. ``remedy`` is what to write instead."""

    def __init__(self, view: type, name: str) -> None:
        self.view = view
        self.remedy = f'Write route_class({view.__name__}.{name}.Handler, path=...).'
        super().__init__(f'A routing names the view {view.__name__}, which is not a consumer. {self.remedy}')


def refuse_views(consumer: Any) -> None:
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
    ``guard='view'`` accepts the users whom the view's mixins and decorators (``LoginRequiredMixin`` and the like)
    accept, and no others; ``guard=False`` says that the socket of a guarded view is open to all on purpose. ``sends``,
    a dict of types and forms, declares what is sent, in addition to what ``handler`` declares.
    """

    def __init__(
        self,
        handler: 'Optional[Type[RoutedSocketHandler]]' = None,
        guard: "Union[Literal['view'], Literal[False], None]" = None,
        sends: 'Optional[Sends]' = None,
    ) -> None:
        if guard not in ('view', None) and guard is not False:
            raise TypeError(
                f"SocketRouter(guard=...) takes 'view', which asks for what the view does, or False, not {guard!r}."
            )
        if apps.ready and not apps.is_installed('sockets'):
            raise ImproperlyConfigured("SocketRouter needs its app: add 'sockets' to INSTALLED_APPS.")
        if sends is not None:
            check_declaration('SocketRouter(sends=...)', sends)
        self.view: Optional[type] = None
        self.name = ''
        self.base = handler
        self.guard = guard
        self._sends = sends
        self._routes: List[Route] = []
        self._functions: Dict[str, Function] = {}
        self._handler: Optional[Type[RoutedSocketHandler]] = None
        self._left_after: Optional[float] = None

    def __set_name__(self, owner: type, name: str) -> None:
        self.view = owner
        self.name = name
        attached_routers.add(self)

    # Type checkers find a wrong name by themselves, where they do not know of these.
    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if name.startswith('__'):
                raise AttributeError(name)
            raise AttributeError(
                f'A SocketRouter has no {name!r}: its decorators are @socket.connect, @socket.disconnect, '
                '@socket.arrived, @socket.left, @socket.route(pattern), @socket.bytes and '
                '@socket.default_route. What a connection has, such as follow(), its functions call on their argument.'
            )

        def __setattr__(self, name, value):
            from .declaration.options import remedy_for

            # An option set here, by another package or by mistake, would be ignored, and the socket open to all.
            known = 'login_required', 'permission', 'middleware', 'routes', 'sends'
            if name in known or name != 'guard' and remedy_for(name) is not None:
                raise AttributeError(
                    f'A SocketRouter has no {name!r}. Options for all of a socket are attributes of a handler '
                    'class: SocketRouter(handler=ThatClass).'
                )
            super().__setattr__(name, value)

    def __repr__(self) -> str:
        return '<SocketRouter {}>'.format(f'{self.view.__qualname__}.{self.name}' if self.view else 'on no view')

    def route(
        self,
        pattern: 'RoutePattern',
        *,
        rate: Union[float, str, None] = None,
        form: 'Form' = None,
        login_required: bool = False,
        permission: 'Permission' = (),
        per: 'Per' = CONNECTION,
        inline: bool = False,
    ) -> Callable[[_F], _F]:
        """Send contents whose type is ``pattern`` (``str``), or matches it (compiled regex), to the function.

        Options are those of ``sockets.routes.Route``: ``form``, ``login_required``, ``permission``, ``inline``, and ``rate``
        with ``per``, which counts instead of ``MAX_FRAMES_PER_SECOND``.
        """
        # Made here, to raise where the mistake is: also for @socket.route without a pattern, which is the function then.
        Route(pattern, None, rate, form, login_required, permission, per, inline)

        def decorate(function: _F) -> _F:
            self._check_open()
            route = Route(pattern, None, rate, form, login_required, permission, per, inline)
            route.function = Function(function, route.argument)
            earlier = next((other for other in self._routes if other.pattern is BINARY), None)
            if pattern is BINARY and earlier is not None:
                raise TypeError(f'{self!r} has its function for bytes already: {earlier!r}.')
            self._routes.append(route)
            return function

        return decorate

    @overload
    def bytes(self, function: _F) -> _F: ...

    @overload
    def bytes(
        self,
        *,
        rate: Union[float, str, None] = None,
        form: 'Form' = None,
        login_required: bool = False,
        permission: 'Permission' = (),
        per: 'Per' = CONNECTION,
        inline: bool = False,
    ) -> Callable[[_F], _F]: ...

    def bytes(
        self,
        function: Any = None,
        *,
        rate: Union[float, str, None] = None,
        form: 'Form' = None,
        login_required: bool = False,
        permission: 'Permission' = (),
        per: 'Per' = CONNECTION,
        inline: bool = False,
    ) -> Any:
        """Send binary frames to ``function(socket, data)``. ``@socket.bytes``, or with the options of a route:
        ``@socket.bytes(login_required=True)``.
        """
        options: Any = {'rate': rate, 'form': form, 'login_required': login_required, 'permission': permission}
        decorate = self.route(BINARY, per=per, inline=inline, **options)
        return decorate if function is None else decorate(function)

    def connect(self, function: _F) -> _F:
        """Call ``function(socket, message)`` when a connection has been accepted.

        Those of the handler to build on come first; once one has closed the connection, no other is called.
        """
        return self._record('connect', 'message', function)

    def disconnect(self, function: _F) -> _F:
        """Call ``function(socket, message)`` once when a connection has ended.

        Those of the handler to build on come last.
        """
        return self._record('disconnect', 'message', function)

    def arrived(self, function: _F) -> _F:
        """Call ``function(socket, message)`` when somebody has connected who was not at this path.

        That is nobody who has another connection there, or had one less than three seconds ago: who reloads a page has
        neither arrived nor left. It runs after the connect functions.
        """
        return self._record('arrived', 'message', function)

    @overload
    def left(self, function: _F) -> _F: ...

    @overload
    def left(self, *, after: float) -> Callable[[_F], _F]: ...

    def left(self, function: Any = None, *, after: Optional[float] = None) -> Any:
        """Call ``function(socket, message)`` when somebody has left this path, and has not come back for three seconds.

        ``@socket.left``, or with another time: ``@socket.left(after=10)``.
        """
        if function is None:
            if not isinstance(after, (int, float)) or isinstance(after, bool) or after <= 0:
                raise TypeError(f'@socket.left(after=...) takes a number of seconds, not {after!r}.')
            self._left_after = after
            return self.left
        return self._record('left', 'message', function)

    def default_route(self, function: _F) -> _F:
        """Send contents that no route matches to ``function(socket, content)``."""
        return self._record('default_route', 'content', function)

    @property
    def Handler(self) -> 'Type[RoutedSocketHandler]':
        """The handler class of this view, for ``route_class``; built when first asked for."""
        if self._handler is None:
            try:
                self._handler = _build(self)
            except AttributeError as error:
                # After an AttributeError, Python calls __getattr__, whose message is about decorators.
                raise ImproperlyConfigured(f'{self!r} cannot build its Handler: {error}') from error
        return self._handler

    def _record(self, kind: str, argument: str, function: _F) -> _F:
        self._check_open()
        function_ = Function(function, argument)
        if kind in self._functions:
            raise TypeError(
                f'{self!r} has its {kind} function already: {self._functions[kind].function.__qualname__}().'
            )
        self._functions[kind] = function_
        return function

    def _check_open(self) -> None:
        if self._handler is not None:
            raise ImproperlyConfigured(
                f'{self._handler.__name__} has been built already: decorate its functions before its routing is '
                'imported.'
            )


def _build(router: 'SocketRouter') -> 'Type[RoutedSocketHandler]':
    """Return the handler class that has what was decorated with ``router``."""
    from .handlers import RoutedSocketHandler

    base = RoutedSocketHandler if router.base is None else router.base
    if not (isinstance(base, type) and issubclass(base, RoutedSocketHandler)):
        raise ImproperlyConfigured(f'SocketRouter(handler=...) takes a subclass of RoutedSocketHandler, not {base!r}.')
    name = '{}SocketHandler'.format(router.view.__name__ if router.view else '')
    attributes: Dict[str, Any] = {
        '__module__': router.view.__module__ if router.view else base.__module__,
        '__doc__': f'The websocket of {router.view.__qualname__}.' if router.view else base.__doc__,
        'routes': (*base.routes, *router._routes),
    }
    if router.guard == 'view':
        from .access import guards

        attributes.update(guards.attributes(router, base))
    if router._sends is not None:
        attributes['sends'] = {**base.sends, **router._sends}
    if router._left_after is not None:
        attributes['left_after'] = router._left_after
    for kind in ('connect', 'disconnect', 'arrived', 'left'):
        if kind in router._functions:
            name_ = kind + '_functions'
            attributes[name_] = (*getattr(base, name_), router._functions[kind])
    if 'default_route' in router._functions:
        attributes['default_route'] = router._functions['default_route'].function
    return type(name, (base,), attributes)
