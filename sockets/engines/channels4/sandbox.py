"""What tests run on: what a server does for a connection, and all handlers in the thread of the test."""

import asyncio
import collections
import contextlib
import random
import string
from functools import partial
from unittest import mock

from asgiref.sync import async_to_sync, sync_to_async
from channels.layers import InMemoryChannelLayer, channel_layers
from django.core.exceptions import SynchronousOnlyOperation

from ... import conf, engine, fanout, messages, rates
from ...connection import connect, disconnect, frame
from ...execution import coroutines, steps
from . import delivery, routing
from .connection import IN_A_COROUTINE
from .ended import Ended
from .heartbeats import heartbeats
from .message import Message
from .steps import on_thread

# What the names of all clients begin with: they are connections of one server.
SERVER = 'sockets.test!'


class Sandbox:
    """The server that an engine plays for the clients of a test. It is in place during a ``with``.

    ``sockets.testing`` asks an engine for what this class and ``Connection`` have, and for nothing else. Nothing runs
    by itself: ``work`` runs handlers, ``receive`` takes what they sent. ``loggers`` are the names of loggers, besides
    ``sockets``, to which exceptions of handlers are logged.

    Here, each channel layer is replaced by a new one in memory, that of ``SOCKETS['CHANNEL_LAYER']`` by ``layer``, and
    the project's routing by ``routing``. Coroutines run as Django's own tests run them: what they wait for with
    ``sync_to_async``, such as the database, runs in the thread of the test, where its transaction is.
    """

    loggers = ()

    def __init__(self, layer=None, routing=None):
        self._asked_for = layer, routing
        self._entries = []
        self._connections = {}
        # Events that wait for their handler, and messages that wait for their client.
        self.events = collections.deque()
        self.sent = collections.deque()

    def __enter__(self):
        layer, asked_for = self._asked_for
        self._entries = routing.entries() if asked_for is None else routing.resolve(asked_for)
        with contextlib.ExitStack() as stack:
            for alias in channel_layers.configs:
                is_asked_for = layer is not None and alias == conf.CHANNEL_LAYER
                stack.callback(_set_layer, alias, channel_layers.backends.get(alias))
                _set_layer(alias, layer if is_asked_for else InMemoryChannelLayer())
            stack.enter_context(mock.patch.object(routing, 'entries', lambda: self._entries))
            stack.enter_context(mock.patch.object(delivery, 'hand_over', self._hand_over))
            stack.enter_context(mock.patch.object(engine.current(), 'wait_for', _wait_for))
            stack.enter_context(mock.patch.object(engine.current(), 'taken', rates.Buckets()))
            # No thread looks at other servers: it would still use the database when the test is over.
            stack.enter_context(mock.patch.object(heartbeats, '_start', lambda: None))
            # Rows of all servers can be reached from here.
            stack.enter_context(mock.patch.object(fanout, 'local_servers', None))
            stack.callback(coroutines.run_by, coroutines.runs_by())
            coroutines.run_by(_run)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised):
        self._stack.close()

    def route(self, handler, pattern):
        """Route paths that match the regular expression ``pattern`` to ``handler``, before all other routes."""
        self._entries = [routing.route_class(handler, path=pattern), *self._entries]

    def connection(self, path):
        """Return a new ``Connection`` to ``path``, which is not open yet."""
        connection = Connection(self, path)
        self._connections[connection.name] = connection
        return connection

    def work(self):
        """Run handlers until no event waits."""
        while self.events:
            self.events.popleft()()

    def receive(self):
        """Take what was sent to connections: yield the name of each and a message, which its ``read`` understands."""
        while self.sent:
            yield self.sent.popleft()

    @contextlib.contextmanager
    def noting_sends(self, note):
        """Call ``note(names, frame, close_code)`` for each message of a queryset or row, which is sent all the same."""
        send_many = fanout.send_many

        def note_and_send(names, message):
            note(list(names), message.get('text'), message.get('close'))
            return send_many(names, message)

        with mock.patch.object(fanout, 'send_many', note_and_send):
            yield

    def push(self, name, message):
        """Send ``message`` to the connection ``name``, of which no frame reaches a route after a close."""
        if message.get('close') and name in self._connections:
            self._connections[name].has_ended = True
        self.sent.append((name, message))

    def _hand_over(self, names, message):
        for name in names:
            self.push(name, message)
        return []


class Connection:
    """A connection of a test's client. ``name`` is its channel name. What the client does becomes an event that waits."""

    def __init__(self, sandbox, path):
        self.name = SERVER + ''.join(random.choices(string.ascii_letters, k=10))
        self.path = path
        # Whether no frame reaches a route any more.
        self.has_ended = False
        self._sandbox = sandbox
        # That of the server, while it is there.
        self._served = None

    def open(self, handshake):
        """Send the handshake: a dict of ASGI with ``headers``, ``query_string``, ``client`` and ``server``."""
        scope = {'type': 'websocket', 'path': self.path, **handshake}
        self._sandbox.events.append(partial(self._connect, scope))

    def send(self, **frame):
        """Send a frame: ``text='...'`` or ``bytes=b'...'``."""
        self._sandbox.events.append(partial(self._receive, frame))

    def close(self, code):
        """End the connection with ``code``; either side may have closed it."""
        self._sandbox.events.append(partial(self._disconnect, code))

    def read(self, message):
        """Return what the server does on ``message``: ``(accept, frame, code)``, each ``None`` for nothing.

        ``accept`` is true if it opens the connection and false if it refuses it, ``frame`` is what it sends to the
        client, a text or bytes, and ``code`` what it closes with.
        """
        frame, code = message.get('text'), message.get('close') or None
        if frame is None:
            frame = message.get('bytes')
        return message.get('accept'), frame, (1000 if code is True else code)

    def _connect(self, scope):
        handler, kwargs = routing.match(self.path)
        if handler is None:
            routing.warn_of_unrouted(self.path)
            return self._sandbox.push(self.name, {'close': messages.CLOSE_NOT_ALLOWED})
        served = self._served = Served(self._sandbox, handler, self.name, self.path, kwargs, scope)
        served.handle('websocket.connect', scope, connect.connect)

    def _receive(self, content):
        if self._served is not None and not (self.has_ended or self._served.closed):
            event = partial(frame.receive, text=content.get('text'), data=content.get('bytes'))
            self._served.handle('websocket.receive', content, event)

    def _disconnect(self, code):
        served, self._served = self._served, None
        if served is not None and served.accepted:
            served.closed = True
            served.end(code)


class Served(Ended):
    """The server's end of a connection, of the handler class ``handler``."""

    __slots__ = ('sandbox', 'handler')

    is_served_here = True

    def __init__(self, sandbox, handler, name, path, kwargs, scope):
        super().__init__(name, path, kwargs, scope)
        self.sandbox = sandbox
        self.handler = handler
        self.accepted = False

    def put(self, message, is_last=False):
        self.sandbox.push(self.name, message)

    def accept(self):
        if not self.accepted and asyncio._get_running_loop() is not None:
            raise SynchronousOnlyOperation(IN_A_COROUTINE)
        super().accept()

    def handle(self, channel, content, event):
        """Take all steps of an event."""
        handler = self.handler(self, Message(channel, content, self))
        on_thread(handler, self.scope.get('root_path'), lambda: steps.run(event(handler)))

    def end(self, code):
        """Handle the end of the connection."""
        handler = self.handler(self, Message('websocket.disconnect', {'code': code}, self))
        on_thread(handler, self.scope.get('root_path'), disconnect.disconnect, handler, code, True)


def _run(coroutine):
    async def wait():
        return await coroutine

    return async_to_sync(wait)()


async def _wait_for(function, *args):
    return await sync_to_async(function)(*args)


def _set_layer(alias, layer):
    if layer is None:
        channel_layers.backends.pop(alias, None)
    else:
        channel_layers.backends[alias] = layer
