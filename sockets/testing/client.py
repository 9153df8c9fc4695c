"""A websocket client for tests."""
import contextlib
import itertools
import re
from urllib.parse import unquote

from django.test import Client

from .. import contracts, messages
from ..connection import envelopes
from ..models import Socket
from . import contents, isolation
from .handshake import handshake
from .inbox import Inbox
from .state import State

_refs = itertools.count(1)


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
        self._state = State()
        self._inbox = Inbox()

    def __repr__(self):
        return '<SocketClient {}>'.format(self.path)

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.enter_context(isolation.sandbox())
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
        if not self._state.has_ended():
            raise RuntimeError('{!r} is connected already.'.format(self))
        self._begin()
        self._connection.open(self._handshake())
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
        self._send(text)

    def send_bytes(self, data):
        """Send a binary frame."""
        self._send(data)

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
        return self._inbox.take_all()

    def close(self, code=1000):
        """Close the connection with ``code``, as a browser would; one that is closed already stays as it is."""
        self._settle()
        if not self._state.has_ended():
            self._end(code)
            self._settle()

    @property
    def accepted(self):
        """Whether the connection was opened; it may be closed by now."""
        self._settle()
        return self._state.name in ('open', 'closed')

    @property
    def refused(self):
        """Whether the connection was refused (HTTP 403) instead of opened."""
        self._settle()
        return self._state.name == 'refused'

    @property
    def close_code(self):
        """The code that the connection was closed with, by either side: ``None`` if it is open, 1006 if refused."""
        self._settle()
        return self._state.close_code

    @property
    def socket(self):
        """The row of this connection, ``None`` if there is none."""
        self._settle()
        return Socket.objects.on_primary().filter(channel_name=self.channel_name).first()

    def _send(self, frame):
        self._settle()
        if self._state.name != 'open':
            raise RuntimeError('{!r} cannot send: {}.'.format(self, self._state.reason()))
        self._connection.send(frame)
        self._settle()

    def _settle(self):
        if self._state.name != 'new' and isolation.is_current(self._sandbox):
            self._sandbox.settle(self.raise_exceptions)

    def _find(self, fields):
        self._settle()
        return self._inbox.find(fields)

    def _take(self, fields):
        self._settle()
        return self._inbox.take(fields)

    def _take_reply(self, ref, what):
        __tracebackhide__ = True
        self._settle()
        reply = self._inbox.take_reply(ref)
        if reply is None:
            raise AssertionError('{!r} got no reply to {}.\n{}'.format(self, what, self._history()))
        return reply

    def _history(self):
        """Return what the author of a test that fails wants to know."""
        lines = self._inbox.lines()
        if self._state.close_code is not None:
            lines += ['Closed with {}.'.format(self._state.close_code)]
        return '\n'.join(lines)

    def _begin(self):
        """Make a connection that is not open yet."""
        self._sandbox = isolation.current()
        if self.handler is not None:
            self._sandbox.server.route(self.handler, self.pattern)
        self._connection = self._sandbox.connection(self)
        self.channel_name = self._connection.name
        self._state.begin()

    def _handshake(self):
        """Return the request that opens a connection, as ASGI has it."""
        return handshake(self.headers, self.browser.cookies, self._query_string, self.address)

    def _hear(self, message):
        """Do what the server says in ``message``."""
        accept, frame, code = self._connection.read(message)
        if self._state.name == 'connecting' and accept:
            self._state.open()
        if self._state.name == 'connecting' and (accept is False or code):
            self._end(code)
        if self._state.name != 'open':
            return
        content = None if frame is None else contents.decode(frame)
        if frame is not None:
            self._inbox.add(content)
        if code:
            self._end(code)
        handler = isolation.handler_at(self.path) if isinstance(content, dict) else None
        if handler is not None:
            # TypeError if it does not declare that it sends this.
            contracts.check_sent_on(handler, content)

    def _end(self, code):
        self._connection.close(self._state.end(code))
