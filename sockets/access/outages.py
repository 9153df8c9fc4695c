"""Which errors say that something a connect needs is away for now: a database, the store of sessions."""

from django.db import InterfaceError, OperationalError

# Clients of stores, such as redis-py, have classes of their own. They are called like those of Python.
_NAMES = {'ConnectionError', 'TimeoutError'}


def is_outage(error):
    """Return whether what has raised ``error`` can be tried again: it is away, full, or locked."""
    while error is not None:
        if isinstance(error, (OperationalError, InterfaceError, OSError)):
            return True
        if any(cls.__name__ in _NAMES for cls in type(error).__mro__):
            return True
        error = error.__cause__
    return False
