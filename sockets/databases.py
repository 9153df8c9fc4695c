"""Which database is read (a replica may be behind, and takes no writes), and how many values go into one query."""

import contextlib
import re
import threading

from django.db import OperationalError, ProgrammingError, router

# Values in one query; SQLite knew no more than 999 parameters.
IN_ONE_QUERY = 500

_thread = threading.local()


def parts(values):
    """Return ``values`` in lists, each of which fits into one query."""
    values = list(values)
    return [values[start : start + IN_ONE_QUERY] for start in range(0, len(values), IN_ONE_QUERY)]


# What SQLite, PostgreSQL and MySQL say of a table or a column that is not there.
_MISSING = re.compile(
    r"no such (table|column)|(relation|column) .* does not exist|Table .* doesn't exist|Unknown column"
)
_MIGRATE = 'Type: python manage.py migrate'


def trouble(error):
    """Return what ``error`` is about, and what is said of it. All tables that are missing are one thing."""
    text = f'{type(error).__name__}: {error}'
    if isinstance(error, (OperationalError, ProgrammingError)) and _MISSING.search(text):
        return _MIGRATE, f'{text.strip()}. {_MIGRATE}'
    return text, text


class _ReadsFromPrimary:
    """A database router before those of the project, which it overrules in a thread that is ``on_primary()``."""

    def db_for_read(self, model, **hints):
        return router.db_for_write(model, **hints) if getattr(_thread, 'is_on_primary', False) else None


@contextlib.contextmanager
def on_primary():
    """Within this block, reads of this thread that name no database go to the one that is written to.

    This is for what Django reads for us, a session and its user: a replica may not have a recent login yet.
    """
    if getattr(_thread, 'is_on_primary', False) or not router.routers:
        yield
        return
    if not isinstance(router.routers[0], _ReadsFromPrimary):
        router.routers.insert(0, _ReadsFromPrimary())
    _thread.is_on_primary = True
    try:
        yield
    finally:
        _thread.is_on_primary = False
