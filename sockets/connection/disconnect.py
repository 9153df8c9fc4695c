"""A connection has ended: its row goes, and whoever really deleted it runs the view's functions, once."""

import functools
import logging

from django.utils import timezone

from .. import callbacks, engine, messages, signals
from ..execution import thread_state
from . import identity_cache, signs_of_life, timing
from .attempts import attempt
from .calls import call, runs_at_the_end
from .identity import Identity
from .memory import memories

logger = logging.getLogger('sockets')

# How often an end is looked at again of which no row was found: where no order is kept, it may have overtaken its connect.
_LOOKS = 3


def disconnect(handler, code, is_discarded=False):
    """Handle the end of the connection of ``handler``, of which the client or the server has said that it is there.

    Of a handler that ``is_discarded`` after that, nobody asks what the row was.
    """
    from django.db import Error

    handler._identity = Identity(handler._connection, memories.get(handler.channel_name))
    attempt(handler, handler._connection.left, handler)
    try:
        if not (is_discarded and _end_quietly(handler, code)):
            _find_and_end(handler, code)
    except Error as error:
        logger.error(
            'The database could not be told that %s has ended, and will be told again: %s', handler.channel_name, error
        )
        _try_again(handler.channel_name, handler.path, code, 0)
    except BaseException:
        logger.exception('%s at %r failed', type(handler).__name__, handler.path)


def end(row, code, reason):
    """Run what is to run when a connection has ended whose ``row`` is removed already. Raises nothing.

    ``code`` is the close code, ``None`` where it is not known, and ``reason`` why it ended, a text.
    """
    from ..models import Socket

    try:
        handler = engine.current().ended(row.channel_name, row.path, code)
        if handler is None:
            memories.forget(row.channel_name)
            signals.announce(signals.socket_disconnected, sender=Socket, socket=row, code=code, reason=reason)
            row.forget()
        else:
            handler._identity = Identity.of_row(handler._connection, memories.get(row.channel_name), row)
            attempt(handler, handler._connection.left, handler)
            _serve(handler, 'disconnect', _run, handler, row, code, reason)
    except BaseException:
        logger.exception('Could not end %s at %r', row.channel_name, row.path)


def run(row, event):
    """Run what is to run of ``event`` when the person of a connection has left, whose ``row`` is removed. Raises nothing."""
    try:
        handler = engine.current().ended(row.channel_name, row.path, None)
        if handler is not None:
            _serve(handler, event, _call, handler, row, event)
    except BaseException:
        logger.exception('Could not run what is to run when %s has left %r', row.channel_name, row.path)


def remove_row(handler, row, code):
    """Delete the ``row`` of a connection that is not to be, if nobody else has."""
    if row.remove():
        _announce_end(handler, row, code, None)


def _end_quietly(handler, code):
    """Remove the row of ``handler`` without reading it, if nothing is to run or to be told at its end; return whether that
    was done.
    """
    memory, cls = memories.get(handler.channel_name), type(handler)
    if (
        memory.row is None
        or code not in messages.ORDINARY_ENDS
        or runs_at_the_end(cls)
        or cls.arrived_functions
        or cls.left_functions
        or signals.socket_disconnected.has_listeners(cls)
    ):
        return False
    from ..models import Membership, Socket

    rows = Socket.objects.on_primary().filter(pk=memory.row, channel_name=handler.channel_name, has_arrived=None)
    if not rows._raw_delete(rows.db):
        # Its functions were others when it was opened, or it has gone.
        return False
    identity_cache.cache.drop_written([(Socket._meta.label, memory.row)], rows.db)
    memories.forget(handler.channel_name)
    rooms = Membership.objects.using(rows.db).filter(socket=memory.row)
    rooms._raw_delete(rooms.db)
    return True


def _find_and_end(handler, code, looks=0):
    from ..models import Socket, removal

    row = (
        Socket.objects.select_related('user', 'session').on_primary().filter(channel_name=handler.channel_name).first()
    )
    if row is None:
        memories.forget(handler.channel_name)
        if looks < _LOOKS and not handler._connection.keeps_order:
            _try_again(handler.channel_name, handler.path, code, looks + 1)
        return
    # It may be noted when it was last heard.
    signs_of_life.tell(row, memories.get(handler.channel_name))
    if removal.close(row, row._database):
        _run(handler, row, code, None)
        if row.has_arrived:
            callbacks.end_later()


def _try_again(name, path, code, looks):
    callbacks.try_again(functools.partial(_again, name, path, code, looks))


def _again(name, path, code, looks):
    handler = engine.current().ended(name, path, code)
    if handler is None:
        return
    from django.db import Error

    try:
        _serve(handler, 'disconnect', _find_and_end, handler, code, looks)
    except Error:
        _try_again(name, path, code, looks)


def _serve(handler, event, function, *args):
    """Call ``function``, which handles ``event`` of ``handler``, where no message of its connection is being handled."""
    # Whoever ends a connection for its client may be within a request of its own.
    timing.timed(handler, event, thread_state.serve, functools.partial(function, *args), None, None)


def _run(handler, row, code, reason):
    """Run the functions of ``handler`` for a connection whose ``row`` this process has removed."""
    identity = handler._identity = Identity.of_row(handler._connection, memories.take(row.channel_name), row)
    if 'handshake' not in row.get_deferred_fields():
        # No disconnect says how its connect came.
        handler._connection.recall(row.handshake)
    _announce_end(handler, row, code, reason)
    attempt(handler, call, handler, 'disconnect', None)
    attempt(handler, identity.save)
    row.forget()


def _call(handler, row, event):
    identity = handler._identity = Identity.of_row(handler._connection, memories.take(row.channel_name), row)
    handler._connection.recall(row.handshake)
    attempt(handler, call, handler, event, None)
    attempt(handler, identity.save)


def _announce_end(handler, row, code, reason):
    log(row, code, reason)
    signals.announce(signals.socket_disconnected, sender=type(handler), socket=row, code=code, reason=reason)


def log(row, code, reason):
    """Log the end of the connection of ``row`` if it is an unusual one."""
    if reason is not None or code not in messages.ORDINARY_ENDS:
        age, silence = ((timezone.now() - then).total_seconds() for then in (row.created, row.last_ping))
        logger.info(
            'The connection %s at %r ended with %s%s (user %s, open for %.0f s, last heard %.0f s ago)',
            row.channel_name,
            row.path,
            code,
            ': ' + reason if reason else '',
            row.user_id,
            age,
            silence,
            extra={
                'user_id': row.user_id,
                'path': row.path,
                'code': code,
                'reason': reason,
                'age': age,
                'silence': silence,
                'server': row.server,
                'socket_id': row.pk,
            },
        )
