"""What a project's own tests need: a client that behaves as daphne does, and a sandbox in which its frames are handled.

Beside ``transport`` and ``server`` the only module that imports channels: it runs their worker.
"""
import contextlib
import itertools
import json
import logging
import random
import re
import string
import sys
from unittest import mock
from urllib.parse import unquote

from channels import channel_layers, route_class
from channels.asgi import ChannelLayerWrapper
from channels.routing import Router
from channels.signals import consumer_finished, consumer_started
from channels.worker import Worker
from django.db import close_old_connections, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import Client

from . import conf, messages, presence
from .access import credentials
from .connection import envelopes
from .engines.channels1 import transport
from .execution import thread_state
from .layers import InMemoryChannelLayer
from .models import Socket

__all__ = ['SocketClient', 'SocketTestMixin', 'assert_not_received', 'assert_received', 'capture_sends',
           'run_on_commit', 'sandbox', 'work']

# What the channel names of all clients begin with: they are the connections of one server.
SERVER = 'daphne.response.test!'

_refs = itertools.count(1)
_current = None


class SocketClient:
    """A websocket to ``path``, made as a browser and daphne make one. A worker has done its work when a call returns.

    ``user`` is logged in, or ``browser``, a ``django.test.Client``, lends its cookies. ``origin`` and ``headers``, a
    dict, belong to the handshake; ``address`` is where it comes from, ``None`` a unix socket. The project's routing
    says who answers, or else it is ``handler``, at ``path`` or where the regular expression ``pattern`` matches. What a
    handler raises is raised by the call that brought it about, unless ``raise_exceptions`` is false.
    """

    def __init__(self, path, user=None, browser=None, headers=None, origin=None, address='127.0.0.1', handler=None,
                 pattern=None, raise_exceptions=True):
        if user is not None and browser is not None:
            raise TypeError('A SocketClient takes a user or a browser; try browser.force_login(user).')
        path, _, self._query_string = path.partition('?')
        self.path = unquote(path)
        self.browser = Client() if browser is None else browser
        if user is not None:
            self.browser.force_login(user)
        self.headers = {'host': 'testserver', **({} if origin is None else {'origin': origin}), **(headers or {})}
        self.address = address
        self.handler = handler
        self.pattern = '^{}$'.format(re.escape(self.path)) if pattern is None else pattern
        self.raise_exceptions = raise_exceptions
        self.channel_name = None
        self._state = 'new'
        self._close_code = None
        self._received = []
        self._taken = []

    def __repr__(self):
        return '<SocketClient {}>'.format(self.path)

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.enter_context(sandbox())
            self.connect()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised):
        # What the block raised is what went wrong first.
        self.raise_exceptions = self.raise_exceptions and raised[0] is None
        with self._stack:
            self.close()

    def connect(self):
        """Open a connection and return the client, whatever came of it: see ``refused`` and ``close_code``."""
        if self._state in ('connecting', 'open'):
            raise RuntimeError('{!r} is connected already.'.format(self))
        self._begin()
        self.request_info = self._handshake()
        # As the process of runsockets does. One of a daphne apart finds what the row keeps.
        credentials.hold(self.channel_name, self)
        self._put('websocket.connect', **self.request_info)
        self._settle()
        return self

    def send(self, type, **fields):
        """Send ``{'type': type, **fields}``."""
        self.send_json({messages.TYPE: type, **fields})

    def send_json(self, content):
        """Send the ``dict`` ``content``, made of what Django's JSON encoder knows."""
        self.send_text(messages.encode(content))

    def send_text(self, text):
        """Send a text frame, be it JSON or not."""
        self._send(text=text)

    def send_bytes(self, data):
        """Send a binary frame."""
        self._send(bytes=data)

    def request(self, type, **fields):
        """Send ``{'type': type, **fields}`` with a ``ref`` and return the frame that answers it, without the ``ref``;
        bytes, if the function returned bytes.

        ``AssertionError`` if there is none.
        """
        __tracebackhide__ = True
        ref = 'test-{}'.format(next(_refs))
        self.send(type, **fields, **{messages.REF: ref})
        return self._take_reply(ref, type)

    def request_bytes(self, data):
        """Send a binary frame with a ``ref`` and return what answers it: a content without the ``ref``, or bytes.

        ``AssertionError`` if nothing does.
        """
        __tracebackhide__ = True
        ref = 'test-{}'.format(next(_refs))
        self.send_bytes(envelopes.wrap(data, ref))
        return self._take_reply(ref, 'bytes')

    def received(self):
        """Take the contents of all frames that were received and not taken yet, and return them.

        A text that is not JSON is a ``str``, a binary frame ``bytes``.
        """
        self._settle()
        received, self._received = self._received, []
        self._taken += received
        return received

    def close(self, code=1000):
        """Close the connection with ``code``, as a browser would; one that is closed already stays as it is."""
        self._settle()
        if self._state in ('connecting', 'open'):
            self._end(code)
            self._settle()

    @property
    def accepted(self):
        """Whether the connection was opened; it may be closed by now."""
        self._settle()
        return self._state in ('open', 'closed')

    @property
    def refused(self):
        """Whether the connection was refused (HTTP 403) instead of opened."""
        self._settle()
        return self._state == 'refused'

    @property
    def close_code(self):
        """The code that the connection was closed with, by either side: ``None`` if it is open, 1006 if refused."""
        self._settle()
        return self._close_code

    @property
    def socket(self):
        """The row of this connection, ``None`` if there is none."""
        self._settle()
        return Socket.objects.on_primary().filter(channel_name=self.channel_name).first()

    def _send(self, **frame):
        self._settle()
        if self._state != 'open':
            raise RuntimeError('{!r} cannot send: {}.'.format(self, {
                'new': 'call its connect() first',
                'connecting': 'nobody has accepted its connection',
                'refused': 'its connection was refused, and the log says why',
                'closed': 'its connection was closed with {}'.format(self._close_code),
            }[self._state]))
        self._put('websocket.receive', **frame)
        self._settle()

    def _settle(self):
        if self._state != 'new' and self._sandbox is _current:
            self._sandbox.settle(self.raise_exceptions)

    def _find(self, fields):
        """Return the first frame that has ``fields`` and was not taken yet, ``None`` if there is none."""
        self._settle()
        for content in self._received:
            if all(isinstance(content, dict) and name in content and _equal(content[name], value)
                   for name, value in fields.items()):
                return content
        return None

    def _take(self, fields):
        content = self._find(fields)
        if content is not None:
            self._received.remove(content)
            self._taken.append(content)
        return content

    def _take_reply(self, ref, what):
        __tracebackhide__ = True
        reply = self._take({messages.REF: ref})
        if reply is not None:
            return {name: value for name, value in reply.items() if name != messages.REF}
        for frame in self._received:
            envelope, data = envelopes.unwrap(frame) if isinstance(frame, bytes) else ({}, None)
            if envelope.get(messages.REF) == ref:
                self._received.remove(frame)
                self._taken.append(frame)
                return data
        raise AssertionError('{!r} got no reply to {}.\n{}'.format(self, what, self._history()))

    def _history(self):
        """Return what the author of a test that fails wants to know."""
        lines = ['Received:'] + ['  {!r}'.format(content) for content in self._received or ['nothing']]
        if self._taken:
            lines += ['Taken before:'] + ['  {!r}'.format(content) for content in self._taken]
        if self._close_code is not None:
            lines += ['Closed with {}.'.format(self._close_code)]
        return '\n'.join(lines)

    # What daphne does (daphne.ws_protocol, daphne.http_protocol).

    def _begin(self):
        self._sandbox = _require_sandbox()
        if self.handler is not None:
            self._sandbox.route(self.handler, self.pattern)
        self.channel_name = SERVER + ''.join(random.choice(string.ascii_letters) for _ in range(10))
        self._sandbox.clients[self.channel_name] = self
        self._state, self._close_code, self._order = 'connecting', None, 0

    def _handshake(self):
        headers = [[name.lower().encode('ascii'), value.encode('latin1')] for name, value in self.headers.items()]
        cookies = ['{}={}'.format(cookie.key, cookie.coded_value) for cookie in self.browser.cookies.values()]
        if cookies:
            headers.append([b'cookie', '; '.join(cookies).encode('latin1')])
        addresses = [None, None] if self.address is None else [[self.address, 50000], ['127.0.0.1', 80]]
        return {'headers': headers, 'query_string': self._query_string.encode(),
                'client': addresses[0], 'server': addresses[1]}

    def _put(self, channel, **content):
        # No frame but the first has headers.
        self._sandbox.layer.send(channel, dict(
            content, reply_channel=self.channel_name, path=self.path, order=self._order))
        self._order += 1

    def _hear(self, message):
        """Do what the application says in ``message``."""
        if set(message) - {'accept', 'text', 'bytes', 'close'} or (message.get('text') and message.get('bytes')):
            raise ValueError('daphne refuses what was sent to {!r}: {!r}'.format(self, message))
        frame, code = message.get('text') or message.get('bytes'), message.get('close')
        if self._state == 'connecting' and (message.get('accept') or frame):
            self._state = 'open'
        if self._state == 'connecting' and (message.get('accept') is False or code):
            self._end(code)
        if self._state != 'open':
            return
        if frame:
            self._received.append(_content(frame))
        if code:
            self._end(1000 if code is True else code)
        if frame:
            self._check_declared(_content(frame))

    def _check_declared(self, content):
        """Raise ``TypeError`` if our handler does not declare that it sends ``content``."""
        handler = transport.handler_at(self.path)
        if isinstance(content, dict) and handler is not None:
            handler.check_sent(content)

    def _end(self, code):
        # Before the accept there is no websocket that could have a code.
        self._state, self._close_code = ('closed', code) if self._state == 'open' else ('refused', 1006)
        self._put('websocket.disconnect', code=self._close_code)


class SocketTestMixin:
    """Has each test of a Django ``TestCase`` run in a ``sandbox()``."""

    def _pre_setup(self):
        super()._pre_setup()
        self._sandbox = sandbox()
        self._sandbox.__enter__()

    def _post_teardown(self):
        self._sandbox.__exit__(None, None, None)
        super()._post_teardown()


def assert_received(client, **fields):
    """Take the first frame with these ``fields`` out of those that ``client`` has received, and return it.

    A field is what was sent, or what became of it on the way (a date is a text). ``AssertionError`` if there is none.
    """
    __tracebackhide__ = True
    content = client._take(fields)
    if content is None:
        raise AssertionError('{!r} received no {}.\n{}'.format(client, fields or 'frame', client._history()))
    return content


def assert_not_received(client, **fields):
    """``AssertionError`` if ``client`` has received a frame with these ``fields``, or any, that was not taken yet."""
    __tracebackhide__ = True
    content = client._find(fields)
    if content is not None:
        raise AssertionError('{!r} received {}.'.format(client, content))


class Sent:
    """A fan-out: what was sent, and to which connections.

    ``content`` is what their clients receive, ``close_code`` what they are closed with; ``None`` where there is none.
    """

    def __init__(self, channel_names, message):
        self.channel_names = channel_names
        self.content = _content(message['text']) if 'text' in message else None
        self.close_code = message.get('close')

    def __repr__(self):
        return '<Sent {} to {} connections>'.format(
            self.close_code if self.content is None else self.content, len(self.channel_names))


@contextlib.contextmanager
def capture_sends():
    """Note each message of a queryset or a row in the list that this returns, a ``Sent`` for each.

    They go on their way as ever, in the ``sandbox()``. What a handler sends to its own connection is none of them.
    """
    sent = []
    send_many = transport.send_many

    def note(channel_names, message):
        sent.append(Sent(list(channel_names), message))
        return send_many(channel_names, message)

    with sandbox(), mock.patch.object(transport, 'send_many', note):
        yield sent


@contextlib.contextmanager
def run_on_commit():
    """Run what is given to ``transaction.on_commit`` when it would run outside of a test.

    The transaction that a ``TestCase`` wraps a test in is never committed. In here, what is outermost within it counts
    as a transaction: as it ends, its functions run, but those of a block that is rolled back.
    """
    # Where each connection stands: how deep in atomic blocks, and how many functions wait.
    begun = {connection: (len(connection.savepoint_ids), len(connection.run_on_commit))
             for connection in connections.all() if connection.in_atomic_block}

    def run(connection):
        depth, waiting = begun.get(connection, (None, 0))
        if len(connection.savepoint_ids) == depth and connection.in_atomic_block:
            functions = [function for _, function in connection.run_on_commit[waiting:]]
            del connection.run_on_commit[waiting:]
            # A block without a savepoint leaves its rollback to the one around it: these are never committed.
            for function in () if connection.needs_rollback else functions:
                function()

    leave, on_commit = transaction.Atomic.__exit__, BaseDatabaseWrapper.on_commit

    def leave_and_run(self, *raised):
        leave(self, *raised)
        run(transaction.get_connection(self.using))

    def on_commit_and_run(self, function):
        on_commit(self, function)
        run(self)

    with mock.patch.object(transaction.Atomic, '__exit__', leave_and_run), \
            mock.patch.object(BaseDatabaseWrapper, 'on_commit', on_commit_and_run):
        yield


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
        for alias in channel_layers.configs:
            asked_for = [layer, routing] if alias == conf.CHANNEL_LAYER else [None, None]
            stack.enter_context(_replaced(alias, *asked_for))
        stack.enter_context(run_on_commit())
        stack.enter_context(mock.patch.object(transport, 'here', None))
        stack.enter_context(mock.patch.object(presence, 'keep_house'))
        stack.enter_context(mock.patch.object(presence, 'background', _Here))
        stack.callback(presence._unfinished.clear)
        _current = _Sandbox(channel_layers[conf.CHANNEL_LAYER])
        for name in ('sockets', 'django.channels'):
            stack.enter_context(_noting_errors(logging.getLogger(name), _current.errors))
        # A worker says which channels it listens to, and ours starts at every frame.
        stack.enter_context(mock.patch.object(logging.getLogger('django.channels'), 'info'))
        try:
            yield
        finally:
            _current = outer


def work():
    """Run a worker on what waits in the ``sandbox()``, such as a message to a channel of your own.

    A client does so by itself, whatever it is asked.
    """
    _require_sandbox().settle(raise_exceptions=True)


class _Sandbox:
    """The clients of a test and what connects them; ``errors`` is what their handlers raised."""

    def __init__(self, layer):
        self.layer = layer
        self.clients = {}
        self.errors = []
        self.is_working = False

    def route(self, handler, pattern):
        router = self.layer.router
        router.root.routing.insert(0, route_class(handler, path=pattern))
        router.channels = router.root.channel_names()

    def settle(self, raise_exceptions):
        """Let a worker and all clients do what there is to do; raise what a handler has raised since the last time."""
        if self.is_working:
            # A handler looks at a client; its worker goes on when it returns.
            return self._deliver()
        self.is_working = True
        try:
            self._work()
            while self._deliver():
                self._work()
        finally:
            self.is_working = False
        errors = self.errors[:]
        del self.errors[:]
        if errors and raise_exceptions:
            raise errors[0]

    def _deliver(self):
        """Bring the clients what was sent to them; return whether there was anything."""
        channel, message = self.layer.receive([SERVER])
        any_came = channel is not None
        while channel is not None:
            if channel in self.clients:
                try:
                    self.clients[channel]._hear(message)
                except (TypeError, ValueError) as error:
                    self.errors.append(error)
            channel, message = self.layer.receive([SERVER])
        return any_came

    def _work(self):
        worker = Worker(_UntilEmpty(self.layer), signal_handlers=False)
        worker.ready()
        # It would end the test's transaction; Channels' own test client does the same.
        consumer_finished.disconnect(close_old_connections)
        consumer_started.disconnect(thread_state.begin)
        try:
            worker.run()
        except _Empty:
            pass
        finally:
            consumer_finished.connect(close_old_connections)
            consumer_started.connect(thread_state.begin)


class _Here:
    """Stands in for ``sockets.background``: another thread would not see what a test has in its transaction."""

    @staticmethod
    def run(function, name):
        function()


class _Empty(Exception):
    """Nothing waits for a worker. It has no other way to stop at once."""


class _UntilEmpty:
    """A channel layer whose worker stops when it has read everything."""

    def __init__(self, layer):
        self.layer = layer

    def __getattr__(self, name):
        return getattr(self.layer, name)

    def receive_many(self, channels, block=False):
        channel, content = self.layer.receive(channels)
        if channel is None:
            raise _Empty
        return channel, content


def _require_sandbox():
    if _current is None:
        raise RuntimeError('There is no sandbox: write "with SocketClient(...) as client:", or have your TestCase '
                           'inherit from SocketTestMixin, or your pytest function take the fixture socket_client.')
    return _current


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


def _content(frame):
    """Return what a client makes of a frame: the content of a text that is JSON, the frame itself if it is not."""
    if isinstance(frame, bytes):
        return frame
    try:
        return json.loads(frame)
    except ValueError:
        return frame


def _equal(value, expected):
    """Whether ``value``, which came as JSON, is ``expected``, or what JSON makes of that."""
    try:
        return value == expected or value == json.loads(messages.encode({'': expected}))['']
    except TypeError:
        return False
