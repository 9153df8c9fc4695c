"""The sandbox that a test runs in: nothing of what it does with sockets has an effect outside."""

import contextlib
import logging
import sys
from functools import partial
from typing import Any, Callable, Dict, Iterator, List, Optional
from unittest import mock

from .. import callbacks, engine, presence
from ..connection import claims
from ..models import removal
from ..streams import following
from .commits import run_on_commit

_current: 'Optional[_Sandbox]' = None


@contextlib.contextmanager
def sandbox(layer: Any = None, routing: Any = None) -> Iterator[None]:
    """Keep what is done with sockets in here from having an effect outside. Within a sandbox, this changes nothing.

    Each of ``CHANNEL_LAYERS`` is replaced by a new one in memory, with the same routing: no Redis, nothing left over.
    Functions given to ``transaction.on_commit`` run, as in ``run_on_commit()``, and no thread looks after the rows.
    ``layer`` and ``routing`` replace those of ``SOCKETS['CHANNEL_LAYER']``, in a sandbox of its own.
    """
    global _current
    if _current is not None and layer is None and routing is None:
        yield
        return
    outer = _current
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(engine.current().sandbox(layer, routing))
        stack.enter_context(run_on_commit())
        stack.enter_context(mock.patch.object(presence, 'start_housekeeper'))
        stack.enter_context(mock.patch.object(presence, 'background', _SameThread))
        stack.callback(presence._unfinished.clear)
        stack.enter_context(mock.patch.object(following, 'teller', following.Teller(is_patient=False)))
        # Ends are handled in this thread, and who leaves has left at once.
        stack.enter_context(mock.patch.object(claims, 'THREADS', 0))
        stack.enter_context(mock.patch.object(removal, 'delay_of', lambda handler: 0))
        stack.enter_context(mock.patch.object(callbacks, 'end_later', partial(claims.run_due, late=True)))
        inner = _Sandbox(server)
        for name in ('sockets', *server.loggers):
            stack.enter_context(_noting_errors(logging.getLogger(name), inner.errors))
        _current = inner
        try:
            yield
        finally:
            _current = outer


def work() -> None:
    """Handle all that waits in the ``sandbox()``, such as a message on a channel of your own.

    Each method and property of a client does so by itself.
    """
    current().settle(raise_exceptions=True)


def current() -> '_Sandbox':
    """Return the sandbox that we are in; ``RuntimeError`` if there is none."""
    if _current is None:
        raise RuntimeError(
            'There is no sandbox: write "with SocketClient(...) as client:", or have your TestCase '
            'inherit from SocketTestMixin, or your pytest function take the fixture socket_client.'
        )
    return _current


def is_current(candidate: '_Sandbox') -> bool:
    """Return whether ``candidate`` is the sandbox that we are in: nothing runs for clients of another one."""
    return candidate is _current


class _Sandbox:
    """The clients of a test, and the ``server`` that the engine plays for them; ``errors`` is what handlers raised."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.errors: List[BaseException] = []
        self._clients: Dict[str, Any] = {}
        self._is_working = False

    def connection(self, client: Any) -> Any:
        """Return a new connection of ``client``, which then handles what the server sends to it."""
        connection = self.server.connection(client.path)
        self._clients[connection.name] = client
        return connection

    def settle(self, raise_exceptions: bool) -> None:
        """Let the server and all clients handle what waits; raise what a handler has raised since the last time."""
        if self._is_working:
            # A handler uses a client. The work goes on when the handler returns.
            self._deliver()
            return
        self._is_working = True
        try:
            self.server.work()
            while self._deliver():
                self.server.work()
        finally:
            self._is_working = False
        errors = self.errors[:]
        del self.errors[:]
        if errors and raise_exceptions:
            raise errors[0]

    def _deliver(self) -> bool:
        """Hand the clients what was sent to them; return whether there was anything."""
        has_delivered = False
        for name, message in self.server.receive():
            has_delivered = True
            if name in self._clients:
                try:
                    self._clients[name]._handle(message)
                except (TypeError, ValueError) as error:
                    self.errors.append(error)
        return has_delivered


class _SameThread:
    """Replaces ``execution.background``: another thread would not see what a test has in its transaction."""

    @staticmethod
    def run(function: Callable[[], Any], name: str) -> None:
        function()


def _noting_errors(logger: logging.Logger, errors: List[BaseException]) -> Any:
    """Add to ``errors`` each exception that is logged to ``logger`` as an error, also where logging is disabled."""
    log = logger.error

    def error(message: Any, *args: Any, exc_info: Any = None, **kwargs: Any) -> None:
        raised = sys.exc_info()[1] if exc_info is True else exc_info
        if isinstance(raised, BaseException):
            errors.append(raised)
        if sys.version_info >= (3, 8):
            # The record names the line of our caller.
            kwargs['stacklevel'] = kwargs.get('stacklevel', 1) + 1
        log(message, *args, exc_info=exc_info, **kwargs)

    return mock.patch.object(logger, 'error', error)
