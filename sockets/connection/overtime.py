"""Functions that run for longer than ``SOCKETS['MAX_HANDLING_TIME']``: their connections end without them."""

import functools
import logging
import threading
import time
import traceback

from .. import callbacks, conf, fanout, messages
from ..execution import stacks
from . import timing

logger = logging.getLogger('sockets')


def keep_watch():
    """Have this process, a server or a worker, end from now on what takes too long, if the settings say so."""
    if conf.MAX_HANDLING_TIME is not None:
        _in_a_thread(_watch)


def _in_a_thread(function, *args):
    threading.Thread(target=function, args=args, daemon=True, name='sockets-overtime').start()


def _watch():
    while True:
        time.sleep(min(1, conf.MAX_HANDLING_TIME / 4))
        try:
            look()
        except Exception:
            logger.exception('Could not look for functions that hang')


def look():
    """End the connections whose functions have run for too long, each in a thread of its own: it may hang as well."""
    now = time.monotonic()
    for ident, handling in list(timing.handled.items()):
        handler = handling.handler
        if handling.is_told or now - handling.began < conf.MAX_HANDLING_TIME:
            continue
        frame = stacks.current_frames().get(ident)
        if timing.handled.get(ident) is not handling or frame is None:
            # It has just returned.
            continue
        handling.is_told = True
        give_up(handler, handling.what, now - handling.began, ''.join(traceback.format_stack(frame)))
        for thread in threading.enumerate():
            if thread.ident == ident and hasattr(thread, 'replace'):
                thread.replace()


def give_up(handler, what, seconds, stack):
    """Close the connection of ``handler``, which has been at ``what`` for some ``seconds``, and run what is to run then."""
    # What it says from now on is said to nobody.
    is_accepted, handler._connection.closed = handler.accepted, True
    logger.error(
        "%s at %r has been at a %s of %s for %.1f s, longer than SOCKETS['MAX_HANDLING_TIME']; closing the "
        'connection with 1011. It is here:\n%s',
        type(handler).__name__,
        handler.path,
        what,
        handler.channel_name,
        seconds,
        stack,
    )
    _in_a_thread(_end, handler, is_accepted)


def _end(handler, is_accepted):
    from django.db import connections

    name, last_message = handler.channel_name, {}
    try:
        if is_accepted and handler._frame is not None:
            last_message = handler._frame.last_message()
    except Exception:
        # Of an encoder of the project's own. It keeps nobody connected, and those after this one are looked at.
        logger.exception('Could not tell %s why it is closed', name)
    try:
        fanout.send_many([name], dict(last_message, close=messages.CLOSE_SERVER_ERROR))
    except Exception:
        logger.exception('Could not close %s', name)
    try:
        _remove(name)
    finally:
        connections.close_all()


def _remove(name):
    from django.db import Error

    from ..models import Socket

    details = 'A function took too long.'
    try:
        rows = Socket.objects.on_primary().filter(channel_name=name).remove(messages.CLOSE_SERVER_ERROR, details)
    except Error as error:
        logger.error('The database could not be told that %s has ended, and will be told again: %s', name, error)
        return callbacks.try_again(functools.partial(_remove, name))
    callbacks.end(rows, details, None)
