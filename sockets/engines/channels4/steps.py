"""The steps of an event: those that may wait on a thread of the pool, coroutines on the loop."""

import asyncio
import functools
import types

from django.db import Error

from ...connection import timing
from ...execution import request_state, steps, thread_state
from . import django_thread
from .begun import Begun

# There is no step left.
DONE = object()
# What a thread answers that has not begun, as its connection may have ended while it was waited for.
_IN_DOUBT = object()


async def take(work, handler, connection, pool, left=None):
    """Take the steps of ``work``, a generator, for ``handler``, on the loop of ``connection`` and on threads of ``pool``.

    They begin with what is ``left``, a step and its context, as ``begin()`` has returned them; by default, with one on a
    thread. A frame whose connection ends before a thread has time for it is dropped.
    """
    root_path = connection.scope.get('root_path')
    step, context = left or (None, None)
    may_drop = pool is connection.server.pool and (left is None or _may_drop(handler))
    try:
        while step is not DONE:
            if step is None:
                connection.is_on_thread = True
                advance = _begin if may_drop else go_on
                step = await pool.submit(advance, connection, handler, root_path, work)
                connection.is_on_thread = False
                if connection.is_cancelled and step is not DONE:
                    raise asyncio.CancelledError()
                may_drop = False
                continue
            if step is _IN_DOUBT:
                await connection.server.certainty()
                if connection.has_ended:
                    return
                step, may_drop = None, True
                continue
            if isinstance(step, BaseException):
                raise step
            try:
                if type(step) is not Begun:
                    context = context or request_state.fresh_context(root_path)
                    step = _InContext(context, step)
                connection.coroutine = handler, step.coroutine, connection.server.loop.time()
                result = await step
            except _FAILURES as error:
                step = _fail(work, error, connection)
            else:
                step = _advance(work, result)
    finally:
        connection.coroutine = None
        if step is not DONE:
            if pool is not connection.server.pool and connection.is_on_thread:
                # A row that it has may be there already. Threads of the other pool do not hang in functions of this one.
                connection.server.end(functools.partial(steps.abandon, work), connection.server.pool)
            else:
                steps.abandon(work)


def on_pool(work, handler, connection, then):
    """Have a thread take the first steps of a frame, ``work``, and the loop call ``then`` with what it returns: a step for
    ``take()`` or an exception, followed by the connection, ``handler``, root path and ``work``.
    """
    begins = handler._frame is None or _may_drop(handler)
    pool = connection.server.pool
    pool.call(then, _begin if begins else go_on, connection, handler, connection.scope.get('root_path'), work)


def _may_drop(handler):
    """Return whether no function has been called with the frame of ``handler``, which has been begun."""
    return handler._frame is not None and not handler._frame.is_admitted


def _begin(connection, handler, root_path, work):
    if connection.has_ended or not connection.server.may_serve():
        return _IN_DOUBT
    return go_on(connection, handler, root_path, work)


def go_on(connection, handler, root_path, work):
    """Take steps of ``work`` on this thread; return the next one that is not to be taken on a thread."""
    return on_thread(handler, root_path, _advance_far, work)


def begin(work, connection):
    """Take the steps of ``work`` until one has to wait, and return that with its context: ``DONE``, and ``None``, if none
    had to.
    """
    context, step = None, _advance(work)
    try:
        while type(step) is types.CoroutineType:
            if context is None:
                # What it sets is not there for the next frame.
                context = request_state.fresh_context(connection.scope.get('root_path'))
            try:
                waits_for = context.run(step.send, None)
            except StopIteration as end:
                step = _advance(work, end.value)
            except (*_FAILURES, GeneratorExit) as error:
                step = _fail(work, error, connection)
            else:
                return Begun(step, step.__await__(), waits_for, context.run), context
    except BaseException:
        steps.abandon(work)
        raise
    return step, context


# Of a function: the server goes on.
_FAILURES = Exception, SystemExit, KeyboardInterrupt, asyncio.CancelledError


def _fail(work, error, connection):
    """Return the next step of ``work``, in which a coroutine has raised ``error``."""
    if isinstance(error, asyncio.CancelledError):
        # Of the coroutine, unless it is of the whole connection.
        if connection.is_cancelled:
            raise error
        error = RuntimeError('The coroutine was cancelled.')
    elif isinstance(error, Error):
        django_thread.look_after()
    return _advance(work, error=error)


def on_thread(handler, root_path, function, *args):
    """Call ``function(*args)`` as a request of its own, which is watched; return what it returns."""
    return timing.timed(handler, handler.message.channel, thread_state.serve, function, root_path, type(handler), *args)


def _advance(work, result=None, error=None):
    """Return the next step of ``work``, ``DONE`` if there is none."""
    try:
        return work.send(result) if error is None else work.throw(steps.throwable(error))
    except StopIteration:
        return DONE


def _advance_far(work):
    """Return the next step of ``work`` that is not to be taken on a thread: this is one.

    To give it back and to wait for another one would be to wait behind all that have just come.
    """
    step = _advance(work)
    while step is None:
        step = _advance(work)
    return step


class _InContext:
    """Awaits ``coroutine``, or whatever else can be awaited, in ``context``."""

    __slots__ = ('context', 'coroutine')

    def __init__(self, context, coroutine):
        self.context = context
        self.coroutine = coroutine

    def __await__(self):
        run = self.context.run
        awaited = run(self.coroutine.__await__)
        try:
            waits_for = run(next, awaited)
        except StopIteration as end:
            return end.value
        except GeneratorExit as error:
            raise steps.throwable(error)
        return (yield from Begun(self.coroutine, awaited, waits_for, run).__await__())
