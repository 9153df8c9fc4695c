"""Connections that somebody else ends than their client: their rows are removed, they are told, their functions run."""

import logging
import threading
from functools import partial

from .. import callbacks, engine, fanout, messages
from . import claims, disconnect
from .memory import memories

logger = logging.getLogger('sockets')


def end(rows, details, code=messages.CLOSE_LOGIN_REQUIRED):
    """Close the connections of ``rows``, which have been removed, and run what is noted to run when they end.

    A ``code`` of ``None`` closes nothing. What cannot be told now is told when it can be.
    """
    if not rows:
        return
    if code is not None:
        _close([row.channel_name for row in rows], details, code)
    # Who was silent or whose server is gone may have ended in any way.
    known = code if code == messages.CLOSE_LOGIN_REQUIRED else None
    claimed, is_any_shared = {}, False
    for row in rows:
        if row.claim is not None:
            claimed[row.claim.name] = row.claim
        elif row.is_noted:
            is_any_shared = True
        else:
            memories.forget(row.channel_name)
            disconnect.log(row, known, details)
    if claimed:
        claims.run_claimed(claimed.values())
    if is_any_shared:
        claims.run_due(waits=not getattr(threading.current_thread(), 'waits_for_nobody', False))
    if any(row.has_arrived for row in rows):
        callbacks.end_later()


def _close(names, details, code):
    message = {'text': messages.encode(messages.reconnect(details)), 'close': code}
    try:
        fanout.send_many(names, message)
    except Exception as error:
        logger.error(
            'Could not tell %d connections that they end (%s), trying until it is done: %s: %s',
            len(names),
            details,
            type(error).__name__,
            error,
        )
        by_server = {}
        for name in names:
            by_server.setdefault(engine.server_of(name), []).append(name)
        for part in by_server.values():
            callbacks.try_again(partial(_close_again, part, message))


def _close_again(names, message):
    """Have a close sent that could not be: the rows are gone, and nothing else remembers it."""
    try:
        fanout.send_many(names, message)
    except Exception:
        callbacks.try_again(partial(_close_again, names, message))
