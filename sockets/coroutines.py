"""Coroutines on the thread that calls them, one event loop for each thread. Standard library only."""
import asyncio
import inspect
import threading

_thread = threading.local()


def run(coroutine):
    """Run ``coroutine`` on this thread's event loop and return its result. Tasks that it leaves behind are cancelled.

    ``RuntimeError`` if it was cancelled itself.
    """
    loop = getattr(_thread, 'loop', None)
    if loop is None or loop.is_closed():
        # One for all: making one takes longer than most functions.
        loop = _thread.loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    except asyncio.CancelledError as error:
        # No Exception since Python 3.8: a worker would end with it.
        raise RuntimeError('The coroutine was cancelled.') from error
    finally:
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


def settle(result):
    """Return ``result``, or, if a function has handed back a coroutine, what that returns when it has been run."""
    return run(result) if inspect.isawaitable(result) else result
