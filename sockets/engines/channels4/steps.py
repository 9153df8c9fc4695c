"""The steps of an event: those that may wait on a thread of the pool, coroutines on the loop."""

import asyncio

from django.db import Error

from ...connection import timing
from ...execution import request_state, steps, thread_state
from . import django_thread

_DONE = object()
# What a thread answers that has not begun, as its connection may have ended while it was waited for.
_IN_DOUBT = object()


async def take(work, handler, connection, pool, is_quick):
    """Take the steps of ``work``, a generator, for ``handler``, on the loop of ``connection`` and on threads of ``pool``; the
    first one on the loop if it ``is_quick``. A frame whose connection ends before a thread has time for it is dropped.
    """
    root_path = connection.scope.get('root_path')
    step = context = None
    may_drop = pool is connection.server.pool
    try:
        if is_quick:
            step = _advance(work)
            may_drop = may_drop and handler._frame is not None and not handler._frame.is_admitted
        while step is not _DONE:
            if step is None:
                connection.is_on_thread = True
                advance = _begin if may_drop else _go_on
                step = await pool.submit(advance, connection, handler, root_path, work)
                connection.is_on_thread = False
                if connection.is_cancelled and step is not _DONE:
                    raise asyncio.CancelledError()
                if step is _IN_DOUBT:
                    await connection.server.certainty()
                    if connection.has_ended:
                        return
                    step = None
                else:
                    may_drop = False
                continue
            try:
                # What it sets is not there for the next frame.
                context = context or request_state.fresh_context(root_path)
                connection.coroutine = handler, step, connection.server.loop.time()
                result = await _InContext(context, step)
            except asyncio.CancelledError:
                # Of the coroutine, unless it is of the whole connection.
                if connection.is_cancelled:
                    raise
                step = _advance(work, error=RuntimeError('The coroutine was cancelled.'))
            except (Exception, SystemExit, KeyboardInterrupt) as error:
                # Of the function: the server goes on.
                if isinstance(error, Error):
                    django_thread.look_after()
                step = _advance(work, error=error)
            else:
                step = _advance(work, result)
    finally:
        connection.coroutine = None
        if step is not _DONE:
            _abandon(work)


def _begin(connection, handler, root_path, work):
    if connection.has_ended or not connection.server.may_serve():
        return _IN_DOUBT
    return _go_on(connection, handler, root_path, work)


def _go_on(connection, handler, root_path, work):
    return on_thread(handler, root_path, _advance_far, work)


def on_thread(handler, root_path, function, *args):
    """Call ``function(*args)`` as a request of its own, which is watched; return what it returns."""
    return timing.timed(handler, handler.message.channel, thread_state.serve, function, root_path, type(handler), *args)


def _abandon(work):
    try:
        work.throw(steps.Abandoned())
    except (steps.Abandoned, StopIteration, ValueError):
        # Or a thread is in the middle of it.
        pass


def _advance(work, result=None, error=None):
    """Return the next step of ``work``, ``_DONE`` if there is none."""
    try:
        return work.send(result) if error is None else work.throw(steps.throwable(error))
    except StopIteration:
        return _DONE


def _advance_far(work):
    """Return the next step of ``work`` that is not to be taken on a thread: this is one.

    To give it back and to wait for another one would be to wait behind all that have just come.
    """
    step = _advance(work)
    while step is None:
        step = _advance(work)
    return step


class _InContext:
    """Awaits ``awaitable`` in ``context``."""

    __slots__ = ('context', 'awaitable')

    def __init__(self, context, awaitable):
        self.context = context
        self.awaitable = awaitable

    def __await__(self):
        run = self.context.run
        awaited = run(self.awaitable.__await__)
        failure = None
        while True:
            try:
                waits_for = run(next, awaited) if failure is None else run(awaited.throw, failure)
            except StopIteration as end:
                return end.value
            except GeneratorExit as error:
                if isinstance(failure, GeneratorExit):
                    # It is we who are closed.
                    raise
                # It would end the task of the whole connection.
                raise steps.throwable(error)
            failure = None
            try:
                yield waits_for
            except BaseException as error:
                failure = error
