"""Methods that a handler class overrides: which of them may be ``async def``, and which may not."""

from django.core.exceptions import ImproperlyConfigured

from ..execution import coroutines

# Whatever these return is run if it is a coroutine, as what a routed function returns.
AWAITED = ('connect', 'receive', 'on_bytes', 'default_route', 'disconnect')


def check(handler, base):
    """Raise ``ImproperlyConfigured`` if a method of the class ``handler`` would never run, or not to its end.

    ``base`` is the class that says which methods are called, beside those that ``handler`` routes.
    """
    overridden = {name for cls in handler.__mro__ if cls not in base.__mro__ for name in vars(cls)}
    routed = {function for function in map(_function_of, handler.routes) if isinstance(function, str)}
    for name in overridden & routed.union(AWAITED):
        _check_bases(handler, name)
    for name in overridden:
        if name in AWAITED:
            _call(coroutines.check, handler, name)
        elif hasattr(base, name) and name not in routed and not name.startswith('__'):
            _call(coroutines.refuse, handler, name)


def _function_of(entry):
    if isinstance(entry, (tuple, list)):
        return entry[1] if len(entry) == 2 else None
    return getattr(entry, 'function', None)


def _call(check, handler, name):
    method = getattr(handler, name, None)
    if isinstance(method, property):
        method = method.fget
    if callable(method) and not isinstance(method, type):
        try:
            check(method, f'{handler.__name__}.{name}()')
        except TypeError as error:
            raise ImproperlyConfigured(str(error)) from error


def _check_bases(handler, name):
    """Refuse a plain method over an ``async def`` of a base, which it would call, as ``super()``, and not await."""
    plain = None
    for cls in handler.__mro__:
        method = vars(cls).get(name)
        method = getattr(method, '__func__', method)
        if method is None:
            continue
        if not coroutines.is_async(method):
            plain = plain or cls
        elif plain is not None:
            raise ImproperlyConfigured(
                f'{plain.__name__}.{name}() is a def over the async def of {cls.__name__}: what super().{name}() returns would be lost, and not run. '
                'Write async def, and await it.'
            )
