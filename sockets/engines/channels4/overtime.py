"""What holds up a server: coroutines that take longer than ``SOCKETS['MAX_HANDLING_TIME']``, and a blocked event loop."""

import logging
import threading
import time
import traceback

from ... import conf
from ...connection import overtime
from ...execution import stacks

logger = logging.getLogger('sockets')

# Seconds after which an event loop is called blocked.
BLOCKED_AFTER = 3

# Seconds between two looks at it.
INTERVAL = 1

# Seconds that a coroutine has left for its client to be told, before it is cancelled.
_LAST_WORDS = 1

_lock = threading.Lock()
_is_watched = [False]


def keep_watch(server):
    """Watch ``server`` from now on, and what takes too long on any thread of this process."""
    with _lock:
        if not _is_watched[0]:
            _is_watched[0] = True
            overtime.keep_watch()
    threading.Thread(target=_watch_loop, args=(server,), daemon=True, name='sockets-watch').start()


def look(connection, now):
    """End ``connection`` if a coroutine of it takes too long at ``now``, in the loop's time. On the loop's thread."""
    limit, at_work = conf.MAX_HANDLING_TIME, connection.coroutine
    if limit is None or at_work is None:
        return
    handler, coroutine, began = at_work
    if now - began < limit:
        return
    if not connection.is_over_time:
        connection.is_over_time = True
        overtime.give_up(handler, handler.message.channel, now - began, stack_of(coroutine))
        connection.server.loop.call_later(_LAST_WORDS, _cancel, connection)
    elif now - began > limit + 2 * _LAST_WORDS:
        # It has gone on.
        connection.cancel()


def _cancel(connection):
    if connection.coroutine is not None:
        connection.cancel()


def stack_of(coroutine):
    """Return where ``coroutine`` is, as a text."""
    lines = []
    while coroutine is not None:
        frame = getattr(coroutine, 'cr_frame', None) or getattr(coroutine, 'gi_frame', None)
        if frame is None:
            break
        lines += traceback.format_stack(frame, 1)
        coroutine = getattr(coroutine, 'cr_await', None) or getattr(coroutine, 'gi_yieldfrom', None)
    return ''.join(lines)


def _watch_loop(server):
    is_told = False
    while not server.loop.is_closed():
        time.sleep(INTERVAL)
        is_blocked = time.monotonic() - server.ticked > BLOCKED_AFTER
        if is_blocked and not is_told and server.loop.is_running():
            frame = stacks.current_frames().get(server.thread)
            logger.error(
                'The event loop has been blocked for %d s: nothing else is served. Call what waits in a plain def, or with '
                'sync_to_async. It is here:\n%s',
                BLOCKED_AFTER,
                ''.join(traceback.format_stack(frame)),
            )
        is_told = is_blocked
