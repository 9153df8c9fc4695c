"""The contract between the core and what its connections run on.

An engine hands the core three events: ``connection.connect.connect(handler)`` and ``connection.frame.receive(handler,
text, data)``, whose steps it takes (``execution.steps``), and ``connection.disconnect.disconnect(handler, code)``. For the
rest, the core asks a ``Connection``, the one of the handler, and the ``Engine``, which ``current()`` returns.
What connections are sent is a *message*, a dict of one or two of these: ``text`` (``str``) or ``bytes``, a frame; and
``close``, a code; or an ``accept``, which may have a ``subprotocol``. A name begins with its server's, up to the first ``!``.
"""

import collections
from importlib import import_module

from .engines import INSTALL, prepare
from .exceptions import CloseConnection as Closing
from .meanings import Denied, Special

__all__ = ['Closing', 'Connection', 'Denied', 'Endpoint', 'Engine', 'Special', 'current', 'server_of']

_current = None


def current():
    """Return the ``Engine`` of this project."""
    global _current
    if _current is None:
        package = prepare()
        _current = Engine() if package is None else import_module(package + '.engine').engine
    return _current


def server_of(name):
    """Return the server of the connection ``name``."""
    head, mark, _ = name.partition('!')
    return head + mark


Endpoint = collections.namedtuple('Endpoint', 'handler pattern names')
Endpoint.__doc__ = """A handler class, the regular expression of its path, and its URL keyword arguments."""


class Connection:
    """One connection as the process that handles its event knows it, and the one way out to its client."""

    __slots__ = ('name', 'path', 'accepted', 'closed', 'opening', 'subprotocol', 'gathered')

    # Whether frames of this connection are handled one after another, and all of them by this process.
    keeps_order = False
    is_served_here = False

    def __init__(self, name, path, accepted):
        self.name = name
        self.path = path
        self.accepted = accepted
        self.closed = False
        # Called once, just before the connection is accepted.
        self.opening = None
        # The one that the accept names; each ``Insertion`` that goes with its own, where the engine makes several together.
        self.subprotocol = self.gathered = None

    def accept(self):
        """Accept the connection, unless that has been done. ``RuntimeError`` after a close."""
        if self.accepted:
            return
        if self.closed:
            raise RuntimeError(f'Cannot accept {self.name} once it has been closed.')
        if self.opening is not None:
            self.opening()
        self.accept_without_opening()

    def accept_without_opening(self):
        """Accept a connection that is only to be told why it will be closed."""
        self.accepted = True
        self.put({'accept': True} if self.subprotocol is None else {'accept': True, 'subprotocol': self.subprotocol})

    def send(self, message, is_last=False):
        """Send a message now. A frame accepts the connection first, a close refuses one that is not accepted.

        ``RuntimeError`` after a close. After what ``is_last`` the event has been handled: it may go with what comes next.
        """
        if self.closed:
            raise RuntimeError(f'Cannot send to {self.name} once it has been closed.')
        if is_last and self.accepted and 'close' not in message:
            return self.put(message, True)
        message = {key: value for key, value in message.items() if value is not None}
        refuses = message.get('accept') is False or (
            message.get('close') and not message.get('accept') and 'text' not in message and 'bytes' not in message
        )
        if not self.accepted and not refuses:
            self.accept()
        if self.accepted:
            message.pop('accept', None)
        if message:
            self.closed = bool(message.get('close')) or refuses
            self.put(message, is_last)

    async def asend(self, message):
        """Send a message as ``send()`` does, and wait until the server has taken it, but keep nobody else waiting."""
        await current().wait_for(self.send, message)

    def close(self, code):
        """Close the connection with ``code``, unless that has been done."""
        if not self.closed:
            self.send({'close': code})

    # What an engine says.

    def put(self, message, is_last=False):
        """Hand a message to the server; ``MailboxFull`` if it takes nothing for ``SEND_TIMEOUT`` seconds."""
        raise NotImplementedError

    def identified(self, handler):
        """Called when it is known who asks for the connection and that they may have it."""

    def left(self, handler):
        """Called when the connection has ended, before its functions run."""

    def handshake(self):
        """Return the HTTP request that asks for this connection."""
        raise NotImplementedError

    def handshake_again(self, load_text):
        """Return the request that asked for this connection, which is open: what is left of the ``handshake_text()`` that
        ``load_text()`` returns, if this process has nothing better.
        """
        raise NotImplementedError

    def handshake_text(self, secret_cookie):
        """Return what the request was as a text for the row, without credentials and the cookie of that name."""
        raise NotImplementedError

    def recall(self, handshake_text):
        """Have ``reverse()`` begin as it did when the connection was opened."""

    def peer(self, request):
        """Return the address that opened the connection of ``request``; ``None`` on a unix socket."""
        return request.META.get('REMOTE_ADDR')

    def user_of_middleware(self):
        """Return the user whom a middleware of the engine has found for this connection, ``None`` if there is none."""

    def waiting(self, count):
        """Return the names and requests of ``count`` connections that wait in this process to be opened."""
        return ()

    def header(self, name):
        """Return the header ``name`` of the request that asks for this connection, ``None`` if there is none."""
        raise NotImplementedError


class Engine:
    """What the core asks of what it runs on. These defaults are those of a project in which nothing is installed.

    ``handler_base`` is what ``RoutedSocketHandler`` extends; ``escaping`` are exceptions that it wants to see. ``has_loop`` says whether connections live on an event loop, where nothing may wait; ``knows_idle_servers`` whether
    servers without connections are known on a layer in memory, too.
    """

    handler_base = object
    escaping = ()
    has_loop = False
    knows_idle_servers = False
    # Apps that it needs, each with the id of its check and why; settings of SOCKETS that change nothing; what to do and where.
    apps = ()
    unused_settings = ()
    remedies = collections.defaultdict(str)

    def install(self):
        """Take up the work in this process: the apps are loaded."""
        raise self._missing()

    # Who is there.

    def layer_name(self):
        """Return what the servers have in common that can hear of each other; empty if they cannot."""
        raise self._missing()

    def is_local(self):
        """Return whether only connections of this process can be reached."""
        raise self._missing()

    def live_servers(self, servers):
        """Return the servers that are alive: of ``servers``, and others. ``None`` if that cannot be known."""
        return None

    def dead_servers(self, servers=None):
        """Return the servers that are gone: of ``servers``, which have rows, and others. None where it is not known."""
        return []

    def has_forgotten(self):
        """Return whether the memory of who is alive was lost, and ``dead_servers()`` waits to be told who has rows."""
        return False

    def forget_server(self, server):
        """Forget a dead server, of which no row is left."""

    def watch_servers(self, servers):
        """Watch ``servers``, which have rows, until it is known which live: in a process that has just begun to look."""

    def next_look(self, questions):
        """Wait about a second and return the keys of those of ``questions()``, querysets, that find something, or ``None``."""
        return None

    # What is sent.

    def hand_over(self, names, message):
        """Hand ``message`` to many connections now; return the names of those whose server takes no more at present.

        An exception with ``undelivered``, the names that could not be reached, and ``refused``, what would have been
        returned, has served the others.
        """
        raise self._missing()

    async def wait_for(self, function, *args):
        """Call ``function``, which may wait, where a coroutine cannot; return its result."""
        from .execution import coroutines

        return coroutines.outside_of_loop(function, *args)

    def note_dropped(self, counts):
        """Count messages that were given up: a dict of servers and numbers."""

    def take_token(self, name, now, per_second, burst):
        """Take one of ``burst`` tokens of ``name``, refilled at ``per_second``; return the seconds until there is one, 0 if
        it was taken. All processes share them where that can be; else those of this process do, where it is ``now``.
        """
        raise self._missing()

    def statistics(self):
        """Return what waits and what was dropped, ``{'waiting': {channel: n}, 'dropped': {server: n}}``, or ``{}``."""
        return {}

    # What is routed where.

    def routing_error(self):
        """Return why the routing cannot be used, as an exception, or ``None``."""
        raise self._missing()

    def endpoints(self):
        """Return an ``Endpoint`` for each handler class of ours in the routing, in its order."""
        raise self._missing()

    def routed_classes(self):
        """Return the classes that the routing leads to, those of others included."""
        raise self._missing()

    def route_class(self, handler, **conditions):
        """Return an entry of a routing: ``handler`` at the paths that match the regular expression ``path``."""
        raise self._missing()

    def include(self, routing, **conditions):
        """Return what stands in a routing for all entries of another one, at paths that begin with ``path``."""
        raise self._missing()

    def application(self, routing):
        """Return the ASGI application of a site, whose websockets are routed by ``routing``."""
        raise self._missing()

    def handler_at(self, path):
        """Return the handler class that frames of a connection to ``path`` go to, or ``None``."""
        raise self._missing()

    def has_groups(self, handler):
        """Return whether connections to the handler class ``handler`` are in groups of the engine's own."""
        return False

    def ended(self, name, path, code):
        """Return a handler for the end of a connection that somebody else has noticed, or ``None`` if none is routed."""
        raise self._missing()

    # What exceptions mean.

    def denied(self):
        """Return the exception with which people refuse a connection here."""
        return Denied()

    def meaning_of(self, error):
        """Return ``Denied``, ``Closing`` or ``Special`` for an exception of the engine's own, ``error`` for any other."""
        return error

    # For operators and tests.

    def examine_layer(self, patience):
        """Return what a try at the layer, of ``patience`` seconds, finds: a list of ``operations.findings.Finding``."""
        raise self._missing()

    def examine_workers(self, patience):
        """Return what a try at the workers of other processes finds, as ``examine_layer``."""
        raise self._missing()

    def server_command(self):
        """Return what ``manage.py runsockets`` runs: its options, ``add_arguments(parser)``, and ``run(stdout, **options)``."""
        raise self._missing()

    def sandbox(self, layer=None, routing=None):
        """Return what tests run on; see ``sockets.testing``."""
        raise self._missing()

    def _missing(self):
        from django.core.exceptions import ImproperlyConfigured

        return ImproperlyConfigured(f'sockets has nothing to run on: {INSTALL}')
