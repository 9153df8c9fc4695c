"""The frames of a connection, each handled on the loop as far as it goes without waiting, and on a thread or by the task then."""

import asyncio

from ...connection import frame
from ...execution.steps import abandon
from . import steps
from .message import Message

# Characters of the longest frame that is decoded on the loop.
_SHORT = 65536

# What goes on in a thread.
ON_THREAD = object()


def take(connection, event, is_direct=False):
    """Handle a frame as far as it goes now; return what is to be awaited for the rest, ``None`` if there is none.

    For one that ``is_direct``, no task waits: ``ON_THREAD`` says that ``connection.incoming.run()`` will be called when a
    thread has done its part.
    """
    if not connection.server.may_serve():
        return _take_later(connection, event)
    if connection.frames_left is not None:
        if connection.frames_left <= 0:
            connection.has_ended = True
        connection.frames_left -= 1
    if connection.has_ended or connection.closed:
        return None
    handler = connection.handler(connection, Message('websocket.receive', event, connection))
    text = event.get('text')
    data = event.get('bytes') if text is None else None
    work, left = frame.receive(handler, text, data), None
    if handler._is_quick and len(text or data or '') < _SHORT:
        left = steps.begin(work, connection)
        if left[0] is steps.DONE:
            return connection.outgoing.conclude()
    # Noted before anything is awaited: a server that stops waits for it.
    connection.busy_since = connection.server.loop.time()
    if not is_direct or (left is not None and left[0] is not None):
        return handle(connection, handler, work, connection.server.pool, left)
    connection.is_on_thread = True
    steps.on_pool(work, handler, connection, _come_back)
    return ON_THREAD


async def _take_later(connection, event):
    await connection.server.certainty()
    left = take(connection, event)
    if left is not None:
        await left


async def handle(connection, handler, work, pool, left=None):
    """Take the steps of ``work`` as ``steps.take()``, and send what is to be sent then."""
    connection.busy_since = connection.server.loop.time()
    try:
        await steps.take(work, handler, connection, pool, left)
    finally:
        connection.busy_since, connection.is_on_thread = None, False
    sending = connection.outgoing.conclude()
    if sending is not None:
        await sending


def _come_back(step, connection, handler, _, work):
    """Go on with a frame for which a thread has returned ``step``, or an exception. On the loop's thread."""
    if not connection.is_ending:
        connection.incoming.run(_go_on, step, connection, handler, work)
    elif step is not steps.DONE:
        abandon(work)


def _go_on(step, connection, handler, work):
    connection.is_on_thread = False
    if step is steps.DONE:
        connection.busy_since = None
        return connection.outgoing.conclude()
    if connection.is_cancelled:
        abandon(work)
        raise asyncio.CancelledError()
    return handle(connection, handler, work, connection.server.pool, (step, None))
