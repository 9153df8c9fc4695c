"""Coroutines on the thread that calls them, and which functions return one. Standard library only."""

import asyncio
import concurrent.futures
import functools
import inspect
import logging
import threading
import types

logger = logging.getLogger('sockets')

_thread = threading.local()

_GENERATORS = (types.GeneratorType, types.AsyncGeneratorType, map, filter)


def run(coroutine):
    """Run ``coroutine`` on this thread's event loop and return its result. Tasks that it leaves behind are cancelled.

    ``RuntimeError`` if it was cancelled itself. Where ``run_by`` was called, that has it run.
    """
    outer = asyncio._get_running_loop()
    if outer is None and getattr(_thread, 'run', None) is not None:
        try:
            return _thread.run(coroutine)
        except (asyncio.CancelledError, concurrent.futures.CancelledError) as error:
            raise RuntimeError('The coroutine was cancelled.') from error
    if outer is None:
        loop = getattr(_thread, 'loop', None)
        if loop is None or loop.is_closed():
            # One for all: making one takes longer than most functions.
            loop = _thread.loop = asyncio.new_event_loop()
        return _run_on(loop, coroutine)
    # An async receive() that calls ours, say, and so an async route: asyncio wants no loop within a loop.
    loop = asyncio.new_event_loop()
    asyncio._set_running_loop(None)
    try:
        return _run_on(loop, coroutine)
    finally:
        loop.close()
        asyncio._set_running_loop(outer)


def run_by(run):
    """Have ``run`` called by this thread with each coroutine that it is to run; it returns the result."""
    _thread.run = run


def runs_by():
    """Return what ``run_by`` was called with in this thread, ``None`` if it was not."""
    return getattr(_thread, 'run', None)


def outside_of_loop(function, *args):
    """Call ``function``, which may wait, on this thread as if no event loop ran on it; return what it returns."""
    outer = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        return function(*args)
    finally:
        asyncio._set_running_loop(outer)


def _run_on(loop, coroutine):
    try:
        return loop.run_until_complete(coroutine)
    except asyncio.CancelledError as error:
        # No Exception since Python 3.8: a worker would end with it.
        raise RuntimeError('The coroutine was cancelled.') from error
    finally:
        _cancel_tasks(loop)
        # Those that have not come to their end, as when a loop over them raised. What they hold, such as a transaction,
        # would be held until this loop runs again: in the next frame, if that has an async def at all.
        generators = list(getattr(loop, '_asyncgens', ()))
        if generators:
            loop.run_until_complete(_close_generators(generators))
            _cancel_tasks(loop)


def _cancel_tasks(loop):
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    while left:
        try:
            left = loop.run_until_complete(asyncio.wait(left))[1]
        except Exception:
            raise
        except BaseException:
            # asyncio lets some through, such as SystemExit. It is not the coroutine's, which has its result.
            left = {task for task in left if not task.done()}


async def _close_generators(generators):
    for generator in generators:
        try:
            await generator.aclose()
        except BaseException:
            logger.exception('Could not close %r', generator)


def settle(result):
    """Return ``result``, or, if a function has returned a coroutine, what that returns when it has been run.

    ``TypeError`` for a generator, of which nothing has been run and nothing will be.
    """
    if result is None or type(result) is dict:
        return result
    while inspect.isawaitable(result):
        result = run(result)
    if isinstance(result, _GENERATORS):
        raise TypeError(f'{result!r} is a generator, which is not run here: return a dict.')
    if isinstance(result, (list, tuple)) and any(map(inspect.isawaitable, result)):
        raise TypeError(f'{result!r} has coroutines in it that are not run here: await asyncio.gather(...).')
    return result


def is_async(function):
    """Whether ``function`` returns a coroutine, as far as that can be seen without calling it."""
    while isinstance(function, functools.partial):
        function = function.func
    return _is_coroutine_function(function) or (
        not inspect.isroutine(function) and _is_coroutine_function(getattr(type(function), '__call__', None))  # noqa: B004
    )


def check(function, name=None):
    """Raise ``TypeError`` if calling ``function`` would not run what its author wrote.

    That is an ``async def`` behind a decorator's plain function, which returns before the first line has run: a
    transaction has ended by then, and a check has found nothing. It is a generator, too.
    """
    name = name or getattr(function, '__qualname__', repr(function)) + '()'
    if inspect.isasyncgenfunction(function) or (
        inspect.isgeneratorfunction(function) and not _is_coroutine_function(function)
    ):
        raise TypeError(
            f'{name} has a yield, and a generator is not run here: return a dict, or call send_json() for each frame.'
        )
    is_plain = False
    for layer in _layers(function):
        if not is_async(layer):
            is_plain = True
        elif is_plain:
            raise TypeError(
                f'{name} is an async def behind a decorator that returns before it has run, so that nothing the decorator '
                'does holds for it. Write def; or do in the function what the decorator does, such as '
                '"with transaction.atomic():"; or have the decorator return an async def that awaits it.'
            )


def mentions(function, names):
    """Whether the code of ``function``, or of what it wraps, has one of ``names``; also where there is no code to see."""
    codes = [getattr(layer, '__code__', None) for layer in _layers(function)]
    return any(code is None or not names.isdisjoint(code.co_names) for code in codes)


def refuse(function, name):
    """Raise ``TypeError`` if ``function``, which is called for its result at once, is or hides an ``async def``."""
    if is_async(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f'{name} is an async def, and is not awaited where it is called: write def.')
    check(function, name)


def _is_coroutine_function(function):
    # Also what types.coroutine() makes of a generator.
    code = getattr(function, '__code__', None)
    return inspect.iscoroutinefunction(function) or bool(
        code is not None and getattr(code, 'co_flags', 0) & inspect.CO_ITERABLE_COROUTINE
    )


def _partialmethod_of(function):
    """Return the ``partialmethod`` that ``function``, as a class returns it, was made of, or ``None``."""
    found = getattr(function, '__dict__', {})
    return found.get('_partialmethod') or found.get('__partialmethod__')


def _layers(function):
    """Yield ``function`` and all that it says it wraps, from the outside in."""
    seen = set()
    while function is not None and id(function) not in seen:
        seen.add(id(function))
        if isinstance(function, functools.partial):
            function = function.func
            continue
        if isinstance(function, staticmethod):
            # It can be called, and has a __wrapped__, since Python 3.10.
            function = function.__func__
            continue
        if isinstance(_partialmethod_of(function), functools.partialmethod):
            function = _partialmethod_of(function).func
            continue
        yield function
        if hasattr(function, '__wrapped__'):
            function = function.__wrapped__
        elif not inspect.isroutine(function) and not isinstance(function, type):
            function = getattr(type(function), '__call__', None)  # noqa: B004
