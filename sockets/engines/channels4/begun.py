"""The rest of a coroutine that has been begun: only then it is known whether it has to wait at all."""

from ...execution import steps


class Begun:
    """Awaits the rest of ``coroutine``, whose iterator ``awaited`` waits for ``waits_for``. ``run`` calls each part of it."""

    __slots__ = ('coroutine', 'awaited', 'waits_for', 'run')

    def __init__(self, coroutine, awaited, waits_for, run):
        self.coroutine, self.awaited = coroutine, awaited
        self.waits_for, self.run = waits_for, run

    def __await__(self):
        run, awaited, waits_for = self.run, self.awaited, self.waits_for
        while True:
            failure = None
            try:
                yield waits_for
            except BaseException as error:
                failure = error
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
