"""What Django keeps for each thread: its database connections, its caches, and what belongs to one request."""

import asyncio
import logging
import select
import threading
import time

from django.conf import settings
from django.core.cache import close_caches
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers import base as handlers
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, connections, reset_queries

from .. import conf
from ..signals import announce
from . import request_state

logger = logging.getLogger('sockets')

# Seconds in which a thread that goes from one frame to the next does not look at its database connections again.
_INTERVAL = 0.1

# The same where only a query can tell whether a connection is still there.
_QUERY_INTERVAL = 1

_thread = threading.local()

# Django's own receivers of the signals of requests. What they do is done here at less cost.
_DJANGOS = {
    id(function)
    for function in (
        # The last one came with Django 2.2.
        reset_queries,
        close_old_connections,
        close_caches,
        getattr(handlers, 'reset_urlconf', None),
    )
}


# The receivers of each of these signals when all of them were Django's own.
_LOOKED_AT = {}


def serve(function, root_path, sender, *args):
    """Return what ``function(*args)`` returns, called as a request: nothing is left here of what this thread did before.

    After it, the thread is as it was. ``root_path`` is what ``reverse()`` begins with, unless ``FORCE_SCRIPT_NAME`` says
    so. ``sender`` sends Django's ``request_started`` and ``request_finished``; ``None`` sends none, for what happens
    within another request.
    """
    return request_state.call_fresh(root_path, _serve, function, sender, args)


def _serve(function, sender, args):
    if sender is None:
        return function(*args)
    try:
        started(sender)
        return function(*args)
    finally:
        finished(sender)


def started(sender):
    """Say that a request begins, if anybody listens."""
    if _is_heard(request_started):
        _tell(request_started, sender=sender, environ={})


def finished(sender):
    """Say that a request has ended, if anybody listens, and have the caches of this thread let go of what they hold."""
    if _is_heard(request_finished):
        _tell(request_finished, sender=sender)
    elif asyncio._get_running_loop() is None:
        # Functions on an event loop share the caches, and others are in the middle of it.
        for cache in request_state.kept_caches():
            try:
                cache.close()
            except Exception:
                logger.exception('Could not close the caches after a frame')


def begin(**kwargs):
    """Prepare this thread for new work, whatever it has done before and however long ago that was."""
    now = time.monotonic()
    # To look takes a tenth of the time of a small frame.
    if now >= _thread.__dict__.get('next_look', 0) or _is_any_lost():
        _thread.next_look = now + _INTERVAL
        close_stale()
    request_state.forget()


def _is_any_lost():
    """Whether a function has left a transaction open on a connection of this thread, which Channels has closed since."""
    return any(getattr(connection, 'closed_in_transaction', False) for connection in _thread.__dict__.get('known', ()))


def script_name_of(content):
    """Return what ``SCRIPT_NAME`` is where ``content``, a dict, may have a ``root_path``; ``None`` if it is not known."""
    return content.get('root_path') if settings.FORCE_SCRIPT_NAME is None else settings.FORCE_SCRIPT_NAME


def close_stale():
    """Close the database connections of this thread that were ended, have failed, or are too old.

    One that was ended by the database, or by something between, shows that without a query: there is something to read.
    Drivers that hide their descriptor are asked, once a second at most.
    """
    try:
        found = connections.all()
    except ImproperlyConfigured:
        # A daphne may run where the database's driver is not installed.
        return
    _thread.known = found
    for connection in found:
        if getattr(connection, 'closed_in_transaction', False):
            # A function has left an atomic() open, and Channels has closed the connection: Django never opens it again.
            logger.error('A function has left a transaction open on %r, which is rolled back', connection.alias)
            del connections[connection.alias]
            _thread.next_look = 0
            continue
        if connection.connection is None or connection.in_atomic_block:
            continue
        try:
            connection.close_if_unusable_or_obsolete()
            if connection.connection is not None and _has_ended(connection):
                connection.close()
        except Exception:
            logger.exception('Could not look after the database connection %r', connection.alias)


def close_ended():
    """Close the database connections of this thread that were ended or have failed, whatever their age.

    A coroutine may be in the middle of what it reads through one.
    """
    for connection in connections.all():
        if connection.connection is None or connection.in_atomic_block:
            continue
        try:
            if (connection.errors_occurred and not connection.is_usable()) or _has_ended(connection):
                connection.close()
            else:
                connection.errors_occurred = False
        except Exception:
            logger.exception('Could not look after the database connection %r', connection.alias)


def end_transactions():
    """Roll back what a function has left open on the database connections of this thread, which is no test's.

    What comes next on it would be part of that transaction, and never be committed. Those that have failed are looked at
    before what comes next.
    """
    # As the last look found them: to ask Django for them takes a tenth of the time of a small frame.
    for connection in _thread.__dict__.get('known', ()):
        if connection.connection is None:
            continue
        if connection.errors_occurred:
            # It may have been ended: not all that comes within the interval is to fail.
            _thread.next_look = 0
        if connection.in_atomic_block or not connection.autocommit and connection.settings_dict['AUTOCOMMIT']:
            logger.error('A function has left a transaction open on %r, which is rolled back', connection.alias)
            try:
                connection.close()
            except Exception:
                logger.exception('Could not close the database connection %r', connection.alias)
            # Closed in a transaction, it would never be opened again. The next look finds the new one.
            del connections[connection.alias]
            _thread.next_look = 0


def close_idle():
    """Close the database connections of this thread that are in no transaction."""
    for connection in connections.all():
        if not connection.in_atomic_block:
            connection.close()


def _has_ended(connection):
    fileno = getattr(connection.connection, 'fileno', None)
    if fileno is None:
        # PyMySQL, Oracle. SQLite has no sessions.
        return connection.vendor != 'sqlite' and _is_time_to_ask(connection.alias) and not connection.is_usable()
    try:
        number = fileno()
    except Exception:
        # Its driver has noticed.
        return True
    # Or it is a notice, which the next query would read.
    return _is_readable(number) and not connection.is_usable()


def _is_time_to_ask(alias):
    asked, now = _thread.__dict__.setdefault('asked', {}), time.monotonic()
    if now - asked.get(alias, -_QUERY_INTERVAL) < _QUERY_INTERVAL:
        return False
    asked[alias] = now
    return True


def _is_readable(number):
    if not hasattr(select, 'poll'):
        return bool(select.select([number], [], [], 0)[0])
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(0))


def _is_heard(signal):
    """Whether ``signal`` has receivers beside Django's own, or ``DEBUG`` is on, where one of these forgets old queries."""
    receivers = signal.receivers
    if _LOOKED_AT.get(signal) != receivers:
        if any(entry[0][0] not in _DJANGOS for entry in receivers):
            return True
        # To look at each of them again takes longer than to see that they are the same.
        _LOOKED_AT[signal] = list(receivers)
    return conf.of_django('DEBUG')


def _tell(signal, **kwargs):
    # In a test's transaction: to close its connection would end it. Django's own test client does the same.
    in_transaction = any(connection.in_atomic_block for connection in connections.all())
    if in_transaction:
        signal.disconnect(close_old_connections)
    try:
        announce(signal, **kwargs)
    finally:
        if in_transaction:
            signal.connect(close_old_connections)
