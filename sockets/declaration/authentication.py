"""Authentications: functions of the opening request that say who its user is, of all handlers or of a handler class."""

import functools

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from .. import conf
from ..execution import coroutines

_REMEDY = "write a list of functions of the request that return a user, (user, until) or None, or of their dotted paths: authentication = ['mysite.auth.by_token']"


def of_class(cls):
    """Return the pairs of a name and a function that find the user of a connection to the handler class ``cls``.

    ``ImproperlyConfigured`` names the one that is none.
    """
    entries = conf.AUTHENTICATION if cls.authentication is None else cls.authentication
    if not entries:
        return ()
    built = cls.__dict__.get('_finders')
    if built is None or built[0] is not entries:
        # Once for each class, and for each SOCKETS['AUTHENTICATION'] that a test may set.
        where = "SOCKETS['AUTHENTICATION']" if cls.authentication is None else f'{cls.__name__}.authentication'
        built = cls._finders = entries, [_load(entry, where) for entry in _list(entries, where)]
    return built[1]


def check(cls):
    """Raise ``ImproperlyConfigured`` if ``cls.authentication`` is wrong, as far as that is seen without importing any."""
    if cls.authentication is not None:
        where = f'{cls.__name__}.authentication'
        for entry in _list(cls.authentication, where):
            if not isinstance(entry, str):
                _check(entry, entry, where)


def _list(entries, where):
    if not isinstance(entries, (list, tuple)):
        raise ImproperlyConfigured(f'{where} is {entries!r}: {_REMEDY}.')
    return entries


def _load(entry, where):
    function = entry
    if isinstance(entry, str):
        try:
            function = import_string(entry)
        except ImportError as error:
            raise ImproperlyConfigured(f'{where} has {entry!r}, which cannot be imported: {error}') from error
    _check(function, entry, where)
    # What sockets.authentication makes knows more of its arguments.
    getattr(function, 'check', lambda where: None)(where)
    return entry if isinstance(entry, str) else _name_of(function), function


def _check(function, entry, where):
    if callable(getattr(function, 'authenticate', None)) and (isinstance(function, type) or not callable(function)):
        name = getattr(function, '__name__', type(function).__name__)
        raise ImproperlyConfigured(
            f'{where} has {entry!r}, which looks like an authentication class of REST framework: write '
            f'sockets.authentication.rest_framework({name}).'
        )
    if not callable(function) or isinstance(function, type):
        raise ImproperlyConfigured(f'{where} has {entry!r}, which is not a function of the request: {_REMEDY}.')
    try:
        coroutines.check(function, f'{where}: {_name_of(function)}()')
    except TypeError as error:
        raise ImproperlyConfigured(str(error)) from error


def _name_of(function):
    while isinstance(function, functools.partial):
        function = function.func
    kind = function if hasattr(function, '__qualname__') else type(function)
    return f'{kind.__module__}.{kind.__qualname__}'
