"""Middleware: callables around the functions of a handler, as Django's around its views."""

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ..execution import coroutines


def chain(entries, innermost):
    """Return ``innermost`` inside all ``entries``, the first of which is outermost.

    An entry is a function or class, or its dotted path. It is called once, with the callable that is next, and returns
    what is called with ``(socket, content)``. ``ImproperlyConfigured`` names the one that is wrong, such as an
    ``async def``: the middleware around it needs its result.
    """
    handle = innermost
    for entry in reversed(entries):
        try:
            factory = import_string(entry) if isinstance(entry, str) else entry
        except ImportError as error:
            raise ImproperlyConfigured(f'The socket middleware {entry!r} cannot be imported: {error}') from error
        refuse(factory, entry)
        try:
            handle = factory(handle)
        except TypeError as error:
            raise ImproperlyConfigured(
                f'The socket middleware {entry!r} cannot be called with the next one, as in '
                f'def middleware(next): {error}'
            ) from error
        if not callable(handle):
            raise ImproperlyConfigured(
                f'The socket middleware {entry!r} returned {handle!r}, which is not a function of (socket, content).'
            )
        refuse(handle, entry)
        handle = _settled(handle)
    return handle


def refuse(function, entry):
    """Raise ``ImproperlyConfigured`` if ``function``, of the middleware ``entry``, has not run when it returns."""
    try:
        coroutines.refuse(function, f'The socket middleware {entry!r}')
    except TypeError as error:
        raise ImproperlyConfigured(str(error)) from error


def _settled(handle):
    # A function that does not look async may return a coroutine, such as a lambda. Its answer is there after it has run.
    return lambda socket, content: coroutines.settle(handle(socket, content))
