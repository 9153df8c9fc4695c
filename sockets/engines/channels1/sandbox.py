"""What tests run on: channel layers in memory, daphne's end of the connections, and a worker, all in one thread."""
import contextlib
import logging
import random
import string
from unittest import mock

from channels import channel_layers, route_class
from channels.asgi import ChannelLayerWrapper
from channels.routing import Router
from channels.signals import consumer_finished, consumer_started
from channels.worker import Worker
from django.db import close_old_connections

from ... import conf, fanout
from ...access import credentials
from ...execution import thread_state
from ...layers import InMemoryChannelLayer

# What the channel names of all clients begin with: they are the connections of one server.
SERVER = 'daphne.response.test!'


class Sandbox:
    """The server of a test, in place while its ``with`` lasts, which then puts back what was there before.

    This class and ``Connection`` are what ``sockets.testing`` asks of an engine. Nothing happens by itself: ``work``
    runs handlers, and ``receive`` takes what they have sent. ``loggers`` are the names of those that the engine tells
    what a handler raised.

    Each channel layer is replaced by a new one in memory with the same routing; ``layer`` and ``routing`` say what
    ``SOCKETS['CHANNEL_LAYER']`` shall be instead.
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
            # Every connection is within reach.
            stack.enter_context(mock.patch.object(fanout, 'local_servers', None))
            # A worker says which channels it listens to, and ours starts at every frame.
            stack.enter_context(mock.patch.object(logging.getLogger('django.channels'), 'info'))
            self._layer = channel_layers[conf.CHANNEL_LAYER]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised):
        self._stack.close()

    def route(self, handler, pattern):
        """Have the class ``handler`` answer where the regular expression ``pattern`` matches, before the routing does."""
        router = self._layer.router
        router.root.routing.insert(0, route_class(handler, path=pattern))
        router.channels = router.root.channel_names()

    def connection(self, path):
        """Return a new ``Connection`` to ``path``, which is not open yet."""
        return Connection(self._layer, path)

    def work(self):
        """Run the handlers of all that waits, and of what waits then, until nothing does."""
        worker = Worker(UntilEmpty(self._layer), signal_handlers=False)
        worker.ready()
        # It would end the test's transaction; Channels' own test client does the same.
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
        """Take what was sent to connections: the name of each and a message that its ``read`` understands."""
        name, message = self._layer.receive([SERVER])
        while name is not None:
            yield name, message
            name, message = self._layer.receive([SERVER])

    @contextlib.contextmanager
    def noting_sends(self, note):
        """Call ``note(names, frame, close_code)`` for what is sent to many connections, which is sent all the same."""
        send_many = fanout.send_many

        def note_and_send(names, message):
            note(list(names), message.get('text'), message.get('close'))
            return send_many(names, message)

        with mock.patch.object(fanout, 'send_many', note_and_send):
            yield


class Connection:
    """A connection as daphne makes one of it (``daphne.ws_protocol``): what a client does becomes a message that waits.

    ``name`` is what the server calls it.
    """

    def __init__(self, layer, path):
        self.name = SERVER + ''.join(random.choice(string.ascii_letters) for _ in range(10))
        self._layer = layer
        self._path = path
        self._order = 0

    def open(self, handshake):
        """Ask for the connection. ``handshake`` has ``headers``, ``query_string``, ``client`` and ``server`` of ASGI."""
        self.request_info = handshake
        # As the process of runsockets does. One of a daphne apart finds what the row keeps.
        credentials.hold(self.name, self)
        self.put('websocket.connect', **handshake)

    def send(self, frame):
        """Send ``frame``, a text or bytes."""
        self.put('websocket.receive', **({'bytes': frame} if isinstance(frame, bytes) else {'text': frame}))

    def close(self, code):
        """Say that the connection has ended, with ``code``."""
        self.put('websocket.disconnect', code=code)

    def put(self, channel, **content):
        """Send a message as the next one of this connection. No message but the first has headers."""
        self._layer.send(channel, dict(content, reply_channel=self.name, path=self._path, order=self._order))
        self._order += 1

    def read(self, message):
        """Return what ``message`` has the server do: ``(accept, frame, code)``, each ``None`` if it does not say.

        ``accept`` is true or false, ``frame`` a text or bytes for the client, ``code`` that of a close.
        ``ValueError`` for what the server refuses.
        """
        if set(message) - {'accept', 'text', 'bytes', 'close'} or (message.get('text') and message.get('bytes')):
            raise ValueError('daphne refuses what was sent to a connection to {}: {!r}'.format(self._path, message))
        frame, code = message.get('text') or message.get('bytes') or None, message.get('close') or None
        # A frame accepts the connection that it is sent to.
        return (True if frame else message.get('accept')), frame, (1000 if code is True else code)


class Empty(Exception):
    """Nothing waits for a worker. It has no other way to stop at once."""


class UntilEmpty:
    """A channel layer whose worker stops when it has read everything."""

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
    """Put ``layer``, or a new one in memory, in the place of the one called ``alias``."""
    # The one that is there is not made if it has not been: it may need a Redis.
    old = channel_layers.backends.get(alias)
    if routing is None:
        routing = channel_layers.configs[alias]['ROUTING'] if old is None else old.routing
    if layer is None:
        # A browser reads all the time; ours may let anything wait until the test looks, or its author has debugged.
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
