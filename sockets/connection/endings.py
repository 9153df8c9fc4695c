"""Connections that somebody else ends than their client: their rows are removed, they are told, their functions run."""
import logging
from functools import partial

from .. import callbacks, engine, fanout, messages
from .disconnect import end as end_one

logger = logging.getLogger('sockets')


def end(rows, details, code=messages.CLOSE_LOGIN_REQUIRED):
    """Close the connections of ``rows``, which have been removed, and run what is to run when they end.

    A ``code`` of ``None`` closes nothing. What cannot be told now is told when it can be.
    """
    if not rows:
        return
    if code is not None:
        names = [row.channel_name for row in rows]
        message = {'text': messages.encode(messages.reconnect(details)), 'close': code}
        try:
            fanout.send_many(names, message)
        except Exception as error:
            logger.error('Could not tell %d connections that they end (%s), trying until it is done: %s: %s',
                         len(rows), details, type(error).__name__, error)
            by_server = {}
            for name in names:
                by_server.setdefault(engine.server_of(name), []).append(name)
            for part in by_server.values():
                callbacks.try_again(partial(_close_again, part, message))
    # Who was silent or whose server is gone may have ended in any way.
    known = code if code == messages.CLOSE_LOGIN_REQUIRED else None
    for row in rows:
        end_one(row, known, details)


def _close_again(names, message):
    """Have a close sent that could not be: the rows are gone, and nothing else remembers it."""
    try:
        fanout.send_many(names, message)
    except Exception:
        callbacks.try_again(partial(_close_again, names, message))
