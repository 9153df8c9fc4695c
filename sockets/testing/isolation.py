"""The sandbox that a test runs in: nothing of what it does with sockets goes any further."""
import contextlib
import logging
import sys
from unittest import mock

from .. import engine, presence
from .commits import run_on_commit

_current = None


@contextlib.contextmanager
def sandbox(layer=None, routing=None):
    """Keep what is done with sockets in here from going any further. Within a sandbox, it is that one.

    Each of ``CHANNEL_LAYERS`` is replaced by a new one in memory, with the same routing: no Redis, nothing left over.
    What is given to ``transaction.on_commit`` runs, as in ``run_on_commit()``, and no thread looks after the rows.
    ``layer`` and ``routing`` say what ``SOCKETS['CHANNEL_LAYER']`` shall be instead, in a sandbox of its own.
    """
    global _current
    if _current is not None and layer is None and routing is None:
        yield
        return
    outer = _current
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_server(layer, routing))
        stack.enter_context(run_on_commit())
        stack.enter_context(mock.patch.object(presence, 'keep_house'))
        stack.enter_context(mock.patch.object(presence, 'background', _SameThread))
        stack.callback(presence._unfinished.clear)
        inner = _Sandbox(server)
        for name in ('sockets', *server.loggers):
            stack.enter_context(_noting_errors(logging.getLogger(name), inner.errors))
        _current = inner
        try:
            yield
        finally:
            _current = outer


def work():
    """Run a worker on what waits in the ``sandbox()``, such as a message to a channel of your own.

    A client does so by itself, whatever it is asked.
    """
    current().settle(raise_exceptions=True)


def current():
    """Return the sandbox that we are in; ``RuntimeError`` if there is none."""
    if _current is None:
        raise RuntimeError('There is no sandbox: write "with SocketClient(...) as client:", or have your TestCase '
                           'inherit from SocketTestMixin, or your pytest function take the fixture socket_client.')
    return _current


def is_current(candidate):
    """Return whether ``candidate`` is the sandbox that we are in: clients of another one are left as they are."""
    return candidate is _current


class _Sandbox:
    """The clients of a test and the engine's ``server``; ``errors`` is what handlers raised."""

    def __init__(self, server):
        self.server = server
        self.errors = []
        self._clients = {}
        self._is_working = False

    def connection(self, client):
        """Return a new connection of ``client`` to the server, which is told what the server sends to it."""
        connection = self.server.connection(client.path)
        self._clients[connection.name] = client
        return connection

    def settle(self, raise_exceptions):
        """Let the server and all clients do what there is to do; raise what a handler has raised since the last time."""
        if self._is_working:
            # A handler looks at a client; its worker goes on when it returns.
            return self._deliver()
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

    def _deliver(self):
        """Bring the clients what was sent to them; return whether there was anything."""
        any_came = False
        for name, message in self.server.receive():
            any_came = True
            if name in self._clients:
                try:
                    self._clients[name]._hear(message)
                except (TypeError, ValueError) as error:
                    self.errors.append(error)
        return any_came


class _SameThread:
    """Stands in for ``execution.background``: another thread would not see what a test has in its transaction."""

    @staticmethod
    def run(function, name):
        function()


def _server(layer, routing):
    """Return what plays the server in a sandbox."""
    return engine.current().sandbox(layer, routing)


def handler_at(path):
    """Return the handler class that frames of a connection to ``path`` go to, or ``None``."""
    return engine.current().handler_at(path)


def _noting_errors(logger, errors):
    """Note in ``errors`` each exception that ``logger`` is told of: what a worker survives. It may be switched off."""
    log = logger.error

    def error(message, *args, exc_info=None, **kwargs):
        raised = sys.exc_info()[1] if exc_info is True else exc_info
        if isinstance(raised, BaseException):
            errors.append(raised)
        if sys.version_info >= (3, 8):
            # The line to log is that of our caller.
            kwargs['stacklevel'] = kwargs.get('stacklevel', 1) + 1
        log(message, *args, exc_info=exc_info, **kwargs)
    return mock.patch.object(logger, 'error', error)
