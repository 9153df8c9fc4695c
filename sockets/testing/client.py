"""A websocket client for tests."""

import contextlib
import itertools
import re
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, TypeVar
from urllib.parse import unquote

from django.test import Client

from .. import contracts, engine, messages
from ..connection import envelopes
from ..models import Socket
from . import contents, isolation
from .handshake import handshake
from .state import State
from .streams import StreamReader

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

_Self = TypeVar('_Self', bound='SocketClient')

_refs = itertools.count(1)


class SocketClient(StreamReader):
    """A websocket connection to ``path``, as a browser makes it. When a call returns, all that it causes has happened.

    ``user`` is logged in, or the cookies are those of ``browser``, a ``django.test.Client``. ``origin`` and ``headers``
    belong to the handshake; ``address`` is that of the client, ``None`` for a unix socket. The project's routing says
    which handler answers. With ``handler`` it is that class, at ``path`` or where the regular expression ``pattern``
    matches. An exception of a handler is raised by the call that caused it, unless ``raise_exceptions`` is false.
    """

    def __init__(
        self,
        path: str,
        user: 'Optional[AbstractBaseUser]' = None,
        browser: Optional[Client] = None,
        headers: Optional[Mapping[str, str]] = None,
        origin: Optional[str] = None,
        address: Optional[str] = '127.0.0.1',
        handler: Optional[type] = None,
        pattern: Optional[str] = None,
        raise_exceptions: bool = True,
    ) -> None:
        if user is not None and browser is not None:
            raise TypeError('A SocketClient takes a user or a browser; try browser.force_login(user).')
        super().__init__()
        path, _, self._query_string = path.partition('?')
        self.path = unquote(path)
        self.browser = Client() if browser is None else browser
        if user is not None:
            self.browser.force_login(user)
        self.headers = {'host': 'testserver', **({} if origin is None else {'origin': origin}), **(headers or {})}
        self.address = address
        self.handler = handler
        self.pattern = f'^{re.escape(self.path)}$' if pattern is None else pattern
        self.raise_exceptions = raise_exceptions
        self.channel_name: Optional[str] = None
        self._state = State()

    def __repr__(self) -> str:
        return f'<SocketClient {self.path}>'

    def __enter__(self: _Self) -> _Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(isolation.sandbox())
            self.connect()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised: Any) -> None:
        # An exception of the block came first: it must not be replaced by one of the close.
        self.raise_exceptions = self.raise_exceptions and raised[0] is None
        with self._stack:
            self.close()

    def connect(self: _Self) -> _Self:
        """Open a connection and return the client, also if it was refused: see ``refused`` and ``close_code``."""
        if not self._state.has_ended():
            raise RuntimeError(f'{self!r} is connected already.')
        self._begin()
        self._connection.open(handshake(self.headers, self.browser.cookies, self._query_string, self.address))
        self._settle()
        return self

    def send(self, type: str, **fields: Any) -> None:
        """Send ``{'type': type, **fields}``."""
        self.send_json({messages.TYPE: type, **fields})

    def send_json(self, content: Dict[str, Any]) -> None:
        """Send ``content``, made of what Django's JSON encoder knows."""
        self.send_text(messages.text_of(content))

    def send_text(self, text: str) -> None:
        """Send a text frame, JSON or not."""
        self._send(text=text)

    def send_bytes(self, data: bytes) -> None:
        """Send a binary frame."""
        self._send(bytes=data)

    def request(self, type: str, **fields: Any) -> Any:
        """Send ``{'type': type, **fields}`` with a ``ref``, return the reply: a content without the ``ref``, or bytes.

        ``AssertionError`` if there is none.
        """
        __tracebackhide__ = True
        ref = f'test-{next(_refs)}'
        self.send(type, **fields, **{messages.REF: ref})
        return self._take_reply(ref, type)

    def request_bytes(self, data: bytes) -> Any:
        """Send a binary frame with a ``ref`` and return the reply: a content without the ``ref``, or bytes.

        ``AssertionError`` if there is none.
        """
        __tracebackhide__ = True
        ref = f'test-{next(_refs)}'
        self.send_bytes(envelopes.wrap(data, ref))
        return self._take_reply(ref, 'bytes')

    def received(self) -> List[Any]:
        """Take the contents of all frames that were received and not taken yet, and return them.

        A text that is not JSON is a ``str``, a binary frame ``bytes``.
        """
        self._settle()
        return self._inbox.take_all()

    def close(self, code: int = 1000) -> None:
        """Close the connection with ``code``, as a browser would; if it is closed already, do nothing."""
        self._settle()
        if not self._state.has_ended():
            self._end(code)
            self._settle()

    @property
    def accepted(self) -> bool:
        """Whether the connection was opened; it may be closed by now."""
        self._settle()
        return self._state.name in ('open', 'closed')

    @property
    def refused(self) -> bool:
        """Whether the connection was refused (HTTP 403) instead of opened."""
        self._settle()
        return self._state.name == 'refused'

    @property
    def close_code(self) -> Optional[int]:
        """The code that the connection was closed with, by either side: ``None`` if it is open, 1006 if refused."""
        self._settle()
        return self._state.close_code

    @property
    def socket(self) -> Optional[Socket]:
        """The row of this connection, ``None`` if there is none."""
        self._settle()
        return Socket.objects.on_primary().filter(channel_name=self.channel_name).first()

    def _send(self, **frame: Any) -> None:
        self._settle()
        if self._state.name != 'open':
            raise RuntimeError(f'{self!r} cannot send: {self._state.reason()}.')
        self._connection.send(**frame)
        self._settle()

    def _settle(self) -> None:
        if self._state.name != 'new' and isolation.is_current(self._sandbox):
            self._sandbox.settle(self.raise_exceptions)

    def _find(self, fields: Dict[str, Any]) -> Any:
        self._settle()
        return self._inbox.find(fields)

    def _take(self, fields: Dict[str, Any]) -> Any:
        self._settle()
        return self._inbox.take(fields)

    def _take_reply(self, ref: Any, what: str) -> Any:
        __tracebackhide__ = True
        self._settle()
        reply = self._inbox.take_reply(ref)
        if reply is None:
            raise AssertionError(f'{self!r} got no reply to {what}.\n{self._history()}')
        return reply

    def _history(self) -> str:
        """Return the lines that a failed assertion adds."""
        closed = [] if self._state.close_code is None else [f'Closed with {self._state.close_code}.']
        return '\n'.join(self._inbox.lines() + closed)

    def _begin(self) -> None:
        """Make a connection that is not open yet."""
        self._sandbox = isolation.current()
        if self.handler is not None:
            self._sandbox.server.route(self.handler, self.pattern)
        self._connection = self._sandbox.connection(self)
        self.channel_name = self._connection.name
        self._state.begin()
        self._forget_ends()

    def _handle(self, message: Any) -> None:
        """Do what the server says in ``message``, which is of the engine."""
        accept, frame, code = self._connection.read(message)
        if self._state.name == 'connecting' and accept:
            self._state.open()
        if self._state.name == 'connecting' and (accept is False or code):
            self._end(code)
        if self._state.name != 'open':
            return
        content = None if frame is None else contents.decode(frame)
        if frame is not None:
            self._receive(content)
        if code:
            self._end(code)
        handler = engine.current().handler_at(self.path) if isinstance(content, dict) else None
        if handler is not None:
            # TypeError if it does not declare that it sends this.
            contracts.check_sent_on(handler, content)

    def _end(self, code: Any) -> None:
        self._connection.close(self._state.end(code))
