"""What tests run on: channel layers in memory, what daphne does for a connection, and a worker, all in one thread."""

import contextlib
import logging
import random
import string
from unittest import mock

from channels import channel_layers, route_class
from channels.asgi import ChannelLayerWrapper
from channels.routing import Router
from channels.signals import consumer_finished, consumer_started
from django.db import close_old_connections

from ... import conf, fanout
from ...access import credentials
from ...execution import thread_state
from ...layers import InMemoryChannelLayer
from .frame_worker import FrameWorker

# The prefix of the channel names of all clients: they are connections of one server.
SERVER = 'daphne.response.test!'


class Sandbox:
    """The server that an engine plays for the clients of a test. It is in place during a ``with``.

    ``sockets.testing`` asks an engine for what this class and ``Connection`` have, and for nothing else. Nothing runs
    by itself: ``work`` runs handlers, ``receive`` takes what they sent. ``loggers`` are the names of loggers, besides
    ``sockets``, to which exceptions of handlers are logged.

    Here, each channel layer is replaced by a new one in memory with the same routing; ``layer`` and ``routing`` replace
    those of ``SOCKETS['CHANNEL_LAYER']``.
    """

    loggers = ('django.channels',)

    def __init__(self, layer=None, routing=None):
        self._asked_for = layer, routing
        self._layer = None

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            for alias in channel_layers.configs:
                asked_for = self._asked_for if alias == conf.CHANNEL_LAYER else (None, None)
                stack.enter_context(_replaced(alias, *asked_for))
            # Rows of all servers can be reached from here.
            stack.enter_context(mock.patch.object(fanout, 'local_servers', None))
            # A worker logs at its start which channels it listens to; here one starts at every frame.
            stack.enter_context(mock.patch.object(logging.getLogger('django.channels'), 'info'))
            self._layer = channel_layers[conf.CHANNEL_LAYER]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised):
        self._stack.close()

    def route(self, handler, pattern):
        """Route paths that match the regular expression ``pattern`` to ``handler``, before all other routes."""
        router = self._layer.router
        router.root.routing.insert(0, route_class(handler, path=pattern))
        router.channels = router.root.channel_names()

    def connection(self, path):
        """Return a new ``Connection`` to ``path``, which is not open yet."""
        return Connection(self._layer, path)

    def work(self):
        """Run handlers until no message waits."""
        worker = FrameWorker(UntilEmpty(self._layer), signal_handlers=False)
        worker.ready()
        # These would close the connection of the test's transaction; Channels' own test client does the same.
        consumer_finished.disconnect(close_old_connections)
        consumer_started.disconnect(thread_state.begin)
        try:
            worker.run()
        except Empty:
            pass
        finally:
            consumer_finished.connect(close_old_connections)
            consumer_started.connect(thread_state.begin)

    def receive(self):
        """Take what was sent to connections: yield the name of each and a message, which its ``read`` understands."""
        name, message = self._layer.receive([SERVER])
        while name is not None:
            yield name, message
            name, message = self._layer.receive([SERVER])

    @contextlib.contextmanager
    def noting_sends(self, note):
        """Call ``note(names, frame, close_code)`` for each message of a queryset or row, which is sent all the same."""
        send_many = fanout.send_many

        def note_and_send(names, message):
            note(list(names), message.get('text'), message.get('close'))
            return send_many(names, message)

        with mock.patch.object(fanout, 'send_many', note_and_send):
            yield


class Connection:
    """A connection of a test's client. ``name`` is its channel name.

    What the client does becomes a message that waits, of the form that ``daphne.ws_protocol`` gives it.
    """

    def __init__(self, layer, path):
        self.name = SERVER + ''.join(random.choice(string.ascii_letters) for _ in range(10))
        self._layer = layer
        self._path = path
        self._order = 0

    def open(self, handshake):
        """Send the handshake: a dict of ASGI with ``headers``, ``query_string``, ``client`` and ``server``."""
        self.request_info = handshake
        # As runsockets does. With a separate daphne, workers know only what the row keeps.
        credentials.hold(self.name, self)
        self.put('websocket.connect', **handshake)

    def send(self, **frame):
        """Send a frame: ``text='...'`` or ``bytes=b'...'``."""
        self.put('websocket.receive', **frame)

    def close(self, code):
        """End the connection with ``code``; either side may have closed it."""
        self.put('websocket.disconnect', code=code)

    def put(self, channel, **content):
        """Put the next message of this connection on ``channel``."""
        self._layer.send(channel, dict(content, reply_channel=self.name, path=self._path, order=self._order))
        self._order += 1

    def read(self, message):
        """Return what the server does on ``message``: ``(accept, frame, code)``, each ``None`` for nothing.

        ``accept`` is true if it opens the connection and false if it refuses it, ``frame`` is what it sends to the
        client, a text or bytes, and ``code`` what it closes with. ``ValueError`` for a message that it would not take.
        """
        if set(message) - {'accept', 'subprotocol', 'text', 'bytes', 'close'} or (
            message.get('text') and message.get('bytes')
        ):
            raise ValueError(f'daphne refuses what was sent to a connection to {self._path}: {message!r}')
        frame, code = message.get('text') or message.get('bytes') or None, message.get('close') or None
        # A frame to a connection that is not open yet opens it.
        return (True if frame else message.get('accept')), frame, (1000 if code is True else code)


class Empty(Exception):
    """No message waits: what stops a worker, which has no other way to stop at once."""


class UntilEmpty:
    """A channel layer whose worker stops when no message waits."""

    def __init__(self, layer):
        self._layer = layer

    def __getattr__(self, name):
        return getattr(self._layer, name)

    def receive_many(self, channels, block=False):
        """Return a message that waits; ``Empty`` if there is none."""
        channel, content = self._layer.receive(channels)
        if channel is None:
            raise Empty
        return channel, content


@contextlib.contextmanager
def _replaced(alias, layer, routing):
    """Replace the channel layer ``alias`` by ``layer``, or by a new one in memory."""
    # The present layer is not created for this if it was not yet: it may need a Redis.
    old = channel_layers.backends.get(alias)
    if routing is None:
        routing = channel_layers.configs[alias]['ROUTING'] if old is None else old.routing
    if layer is None:
        # A browser reads at once. Here messages wait until the test uses a client, perhaps after an hour in a debugger.
        layer = InMemoryChannelLayer(capacity=100000, expiry=86400)
    wrapper = ChannelLayerWrapper(layer, alias, list(Router.resolve_routing(routing)))
    wrapper.router.check_default()
    channel_layers.set(alias, wrapper)
    try:
        yield
    finally:
        if old is None:
            del channel_layers.backends[alias]
        else:
            channel_layers.set(alias, old)
