"""URL keyword arguments: names that a path may not use, because functions get other arguments of these names."""

import inspect

from django.core.exceptions import ImproperlyConfigured

from . import handler_classes

# What Channels and we hand over by these names, or authors call the first two arguments.
_TAKEN = ('self', 'socket', 'message', 'content')

# They get their arguments as Channels hands them over.
_METHODS = ('connect', 'receive', 'disconnect')


class NameTaken(ImproperlyConfigured):
    """A path gives a keyword argument a name that is taken. ``handler`` is the class that it leads to."""

    def __init__(self, handler, name, path, taker):
        self.handler = handler
        self.reason = (
            f'The path {path!r} of {handler.__name__} has a keyword argument {name!r}, and {taker} is called with another one of that '
            'name.'
        )
        self.remedy = rf'Use another name in the path, as in (?P<{name}_name>\w+).'
        super().__init__(f'{self.reason} {self.remedy}')


def refuse_taken(handler, names, path):
    """Raise ``NameTaken`` if one of ``names``, arguments of ``path``, is taken in the class ``handler``."""
    for name in sorted(names):
        taker = _taker(handler, name)
        if taker is not None:
            raise NameTaken(handler, name, path, taker)


def _taker(handler, name):
    """Return what has an argument ``name`` of its own, as text; ``None`` if the name is free."""
    if name in _TAKEN:
        return 'every function'
    for function in handler_classes.functions(handler):
        if name == function.first:
            return '{}()'.format(getattr(function.function, '__qualname__', function.function))
    for method in _METHODS:
        parameters = inspect.signature(getattr(handler, method)).parameters
        if name in list(parameters)[:2]:
            return f'{handler.__name__}.{method}()'
    if name == 'data' and handler._route_table.binary is not None:
        return 'what takes binary frames'
    for stream in getattr(handler, 'streams', {}).values():
        taker = _taker(stream, name)
        if taker is not None:
            return taker
    return None
