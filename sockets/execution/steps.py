"""Work in steps, as a generator: what it yields says where it goes on.

``None``: where it may wait, such as for the database. A coroutine: on the event loop, and its result comes back. On an
engine without an event loop of its own, all steps are taken on one thread. Standard library only.
"""

import inspect

from . import coroutines


class Abandoned(BaseException):
    """Thrown into work whose remaining steps are not taken."""


def run(work):
    """Take all steps of the generator ``work`` on this thread, and return what it returns."""
    try:
        _take(work, ())
    except StopIteration as end:
        return end.value


def advance(work, until):
    """Take steps of the generator ``work`` on this thread; return the first that is an instance of the class ``until``,
    which somebody else takes. ``None`` after the last one.
    """
    try:
        return _take(work, until)
    except StopIteration:
        return None


def _take(work, until):
    step = work.send(None)
    while True:
        if step is None:
            step = work.send(None)
        elif isinstance(step, until):
            return step
        else:
            try:
                result = coroutines.run(step)
            except BaseException as error:
                step = work.throw(throwable(error))
            else:
                step = work.send(result)


def abandon(work):
    """Take no more steps of the generator ``work``."""
    try:
        work.throw(Abandoned())
    except (Abandoned, StopIteration, ValueError):
        # Or a thread is in the middle of it.
        pass


def throwable(error):
    """Return what is to be thrown into work for ``error``, which a coroutine has raised."""
    if isinstance(error, GeneratorExit):
        # It would close the generator instead.
        found = RuntimeError(f'The coroutine has raised {error!r}.')
        found.__cause__ = error
        return found
    return error


def settle(result):
    """Yield the steps to what ``coroutines.settle(result)`` returns, and return that."""
    while inspect.isawaitable(result):
        result = yield result
        if result is None or type(result) is dict:
            # To look what else it may be takes longer than most functions.
            return result
    return coroutines.settle(result)
