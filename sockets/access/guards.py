"""What a view asks of its users, so that its socket can ask the same.

Known are Django's mixins and decorators: ``LoginRequiredMixin``, ``PermissionRequiredMixin``, ``UserPassesTestMixin``,
and ``login_required``, ``permission_required``, ``user_passes_test`` and ``staff_member_required`` around ``dispatch()``,
``get()``, the class or, in a URLconf, the view.
"""

import functools
import inspect
import re

from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import Http404

from ..declaration import handler_classes
from ..exceptions import PermissionMissing
from ..execution import coroutines
from ..routes import permission_names
from . import demands as of_handlers

_DECORATORS = 'django.contrib.auth.decorators', 'django.contrib.admin.views.decorators'

# What mixins of others are called that guard a view, where they do not build on Django's.
_GUARD = re.compile('(Login|Permissions?|Auth|Staff|Staffuser|Superuser|Group)Required|UserPassesTest|AccessMixin')


class Demands:
    """What a view class asks for: a ``login``, ``permissions``, and ``asks``, functions of a handler that raise.

    ``names`` are those of the mixins and decorators, ``unknown`` those of what may ask for more.
    """

    def __init__(self, view):
        from django.contrib.auth import mixins

        self.view = view
        self.login, self.permissions, self.asks, self.names, self.unknown = False, (), [], [], []
        if issubclass(view, mixins.LoginRequiredMixin):
            self.login = True
            self.names.append('LoginRequiredMixin')
        self._look_at_mixins(mixins)
        for klass in view.__mro__:
            if not _is_djangos(klass.__module__):
                for name in ('dispatch', 'get'):
                    self.look_at(vars(klass).get(name))
                if issubclass(klass, mixins.AccessMixin):
                    asks = 'dispatch' in vars(klass) and _is_of_its_own(klass, mixins)
                else:
                    asks = (
                        klass is not view
                        and _GUARD.search(klass.__name__)
                        and not (is_guarded(vars(klass).get('dispatch')))
                    )
                if asks:
                    self.unknown.append(klass.__name__)
        self.unknown += [
            permission.__name__
            for permission in getattr(view, 'permission_classes', None) or ()
            if getattr(permission, '__name__', 'AllowAny') != 'AllowAny'
        ]

    def _look_at_mixins(self, mixins):
        methods = []
        if issubclass(self.view, mixins.PermissionRequiredMixin):
            self.names.append('PermissionRequiredMixin')
            own = all(
                getattr(self.view, name) is getattr(mixins.PermissionRequiredMixin, name)
                for name in ('has_permission', 'get_permission_required')
            )
            try:
                self.permissions = permission_names(self.view.permission_required) if own else ()
            except TypeError:
                # Names that only a backend of the project's own understands.
                pass
            if not self.permissions:
                methods.append('has_permission')
        if issubclass(self.view, mixins.UserPassesTestMixin):
            self.names.append('UserPassesTestMixin')
            methods.append('get_test_func')
        if methods:
            self.asks.append(functools.partial(_ask_view, self.view, methods))

    def look_at(self, function):
        """Take in what the decorators around ``function`` ask for."""
        for decorator, test in _tests(function):
            self.names.append(decorator)
            if decorator == 'login_required':
                self.login = True
            else:
                self.asks.append(functools.partial(_ask_test, test))

    def __bool__(self):
        return bool(self.names or self.unknown)

    def are_within(self, other):
        """Whether ``other`` asks for all that this does."""
        return (
            self.login <= other.login
            and set(self.permissions) <= set(other.permissions)
            and set(self.unknown) <= set(other.unknown)
            and set(map(_key, self.asks)) <= set(map(_key, other.asks))
        )

    def are_met_by(self, handler):
        """Whether the handler class asks for at least as much. Of functions, those count that its guard took over."""
        theirs = of_handlers.of_connection(handler)
        return (
            not self.unknown
            and (theirs.login or not self.login)
            and (set(self.permissions) <= set(theirs.permissions))
            and (set(map(_key, self.asks)) <= set(map(_key, theirs.guards)))
        )

    def unseen(self):
        """Return the names of what may ask for more than is known, functions of the project's own included."""
        found = list(self.unknown)
        for klass in self.view.__mro__:
            if _is_djangos(klass.__module__):
                continue
            # A get() is the page itself. What is around it may ask for something.
            get = vars(klass).get('get')
            page = inspect.unwrap(get) if callable(get) else None
            for function in (*_functions(vars(klass).get('dispatch')), *_functions(get, but=[page])):
                if not (_is_djangos(function.__globals__.get('__name__', '')) or _only_passes_on(function, self.view)):
                    found.append(f'{function.__qualname__}()')
        return list(dict.fromkeys(found))


def attributes(router, base):
    """Return the attributes that make a subclass of the handler class ``base`` ask for what the router's view does."""
    if router.view is None:
        raise ImproperlyConfigured("SocketRouter(guard='view') is not an attribute of a view.")
    demands, name = Demands(router.view), router.view.__name__
    unseen = demands.unseen()
    if unseen:
        raise ImproperlyConfigured(
            "SocketRouter(guard='view') knows the mixins and decorators of Django, and not what {} of {} may ask for. Ask "
            "for it in a function with @socket.connect, which closes with socket.close(4403), and leave guard='view' "
            'out.'.format(' and '.join(unseen), name)
        )
    if not demands:
        raise ImproperlyConfigured(
            f"{name} has no mixin or decorator that SocketRouter(guard='view') could take over. Leave it "
            f'out, or add LoginRequiredMixin to {name}.'
        )
    if _has_setup_of_its_own(router.view) and not any(ask.func is _ask_view for ask in demands.asks):
        # It may let in fewer than the mixins do.
        demands.asks.append(functools.partial(_ask_view, router.view, []))
    guards = (*base._guards, *demands.asks)
    return {
        'login_required': base.login_required or demands.login,
        'permission': (*permission_names(base.permission), *demands.permissions),
        '_guards': guards,
        # A view looks at its request.
        '_deferred': () if any(guard.func is _ask_view for guard in guards) else base._deferred,
    }


def _has_setup_of_its_own(view):
    return any('setup' in vars(klass) and not _is_djangos(klass.__module__) for klass in view.__mro__)


def _key(ask):
    # What asks the same has the same: a view that inherits it, or a decorator that was looked at twice.
    asked = ask.args[0]
    if ask.func is _ask_view:
        return tuple(
            getattr(asked, name, None)
            for name in ('test_func', 'get_test_func', 'has_permission', 'get_permission_required')
        ) + (repr(getattr(asked, 'permission_required', None)),)
    return getattr(asked, '__code__', asked), tuple(
        id(cell.cell_contents) for cell in getattr(asked, '__closure__', None) or ()
    )


def _ask_view(view, methods, socket):
    view = view()
    try:
        if hasattr(view, 'setup'):
            view.setup(socket.request, **socket.kwargs)
        else:
            view.request, view.args, view.kwargs = socket.request, (), socket.kwargs
        # A coroutine is true, whatever it would return.
        allowed = all(
            coroutines.settle(view.get_test_func()() if name == 'get_test_func' else getattr(view, name)())
            for name in methods
        )
    except (PermissionDenied, Http404):
        allowed = False
    if not allowed:
        raise PermissionMissing()


def _ask_test(test, socket):
    try:
        allowed = coroutines.settle(test(socket.user))
    except PermissionDenied:
        allowed = False
    if not allowed:
        raise PermissionMissing()


def _tests(function):
    """Yield, for each of Django's decorators around ``function``, its name and the function of a user that it asks."""
    for found in _functions(function):
        if found.__globals__.get('__name__') not in _DECORATORS:
            continue
        cells = dict(zip(found.__code__.co_freevars, found.__closure__ or ()))
        if 'test_func' in cells:
            test = cells['test_func'].cell_contents
            is_djangos = getattr(test, '__globals__', {}).get('__name__') in _DECORATORS
            yield (test.__qualname__.partition('.')[0] if is_djangos else 'user_passes_test'), test
        elif '.' not in found.__qualname__ or found.__qualname__ == 'permission_required.<locals>.decorator':
            # What method_decorator() keeps until the view is called: login_required itself; since Django 5.2, the other.
            yield from _tests(found(_nothing))


def is_guarded(function):
    """Whether one of Django's decorators is around ``function``."""
    return any(True for _ in _tests(function))


def _nothing(request):
    pass


def _functions(thing, but=()):
    """Yield the functions that ``thing``, a decorated one, consists of, ``but`` some and what these consist of."""
    waiting, seen = [thing], list(but)
    while waiting:
        thing = waiting.pop()
        if any(thing is other for other in seen):
            continue
        seen.append(thing)
        if isinstance(thing, functools.partial):
            waiting += [thing.func, *thing.args, *thing.keywords.values()]
        elif isinstance(thing, (list, tuple)):
            waiting += thing
        elif isinstance(thing, (staticmethod, classmethod)) or inspect.ismethod(thing):
            waiting.append(thing.__func__)
        elif inspect.isfunction(thing):
            yield thing
            waiting += [getattr(thing, '__wrapped__', None), *(thing.__defaults__ or ())]
            for name, cell in zip(thing.__code__.co_freevars, thing.__closure__ or ()):
                try:
                    # What a decorator asks is not part of what it decorates.
                    waiting += [] if name == 'test_func' else [cell.cell_contents]
                except ValueError:
                    pass  # It is still empty.


def _is_djangos(module):
    return module == 'builtins' or module.partition('.')[0] == 'django'


def _is_of_its_own(klass, mixins):
    """Whether ``klass`` is a mixin as Django's documentation has them written, which asks in its dispatch()."""
    return issubclass(klass, mixins.AccessMixin) and not issubclass(
        klass, (mixins.LoginRequiredMixin, mixins.PermissionRequiredMixin, mixins.UserPassesTestMixin)
    )


def _only_passes_on(function, view):
    """Whether ``function`` is a dispatch() that does no more than call that of its bases."""
    names = {'super', 'dispatch', *(klass.__name__ for klass in view.__mro__)}
    return function.__name__ == 'dispatch' and set(function.__code__.co_names) <= names


def overridden(view, handler):
    """Yield, for each function that ``handler`` calls where ``view``, whose socket it is, has another one of that name:
    the name, the function, and the class that has it.
    """
    routed = [function.function for function in handler_classes.functions(handler)]
    for function in routed:
        for klass in view.__mro__:
            name = next((name for name, value in vars(klass).items() if _plain(value) is function), None)
            if name is not None:
                other = _plain(inspect.getattr_static(view, name))
                if other is not function and callable(other) and not any(other is known for known in routed):
                    yield name, function, klass
                break


def _plain(value):
    return getattr(value, '__func__', value)
