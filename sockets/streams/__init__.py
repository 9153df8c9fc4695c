"""Streams: named sequences of messages that are kept, so that a client which was away gets what it has missed."""

from functools import partial
from typing import Any, Dict, List, Optional, Union

from django.db import connections, transaction

from .. import engine, messages
from ..models import Membership, Socket, SocketQuerySet, StreamMessage
from . import numbering, replays, retention
from .positions import UNCHANGED, Position, own_limit, position_of
from .tables import database, heads, key_of, printable

__all__ = ['Stream']


class Stream:
    """The stream of that name, whatever its characters or length. It is made by its first message.

    A client gets the messages once ``socket.follow(name)`` was called for its connection: those that are sent from then
    on, and, when it comes back, those that were sent while it was away. ``max_messages`` and ``max_age``, in seconds, are
    how many it keeps, and how long. They are stored with the next message that is sent through this object, and hold until
    others are: ``None`` is what ``SOCKETS['STREAM_MAX_MESSAGES']`` and ``['STREAM_MAX_AGE']`` say, as for a stream that never
    had any, and ``math.inf`` keeps all. ``TypeError`` if ``name`` is no ``str`` or those are no positive whole numbers.
    """

    __slots__ = ('name', 'key', 'max_messages', 'max_age')

    def __init__(
        self,
        name: str,
        max_messages: Union[int, float, None] = UNCHANGED,
        max_age: Union[int, float, None] = UNCHANGED,
    ) -> None:
        self.key = key_of(name)
        self.name = printable(name)
        self.max_messages = own_limit('max_messages', max_messages)
        self.max_age = own_limit('max_age', max_age)

    def __repr__(self) -> str:
        return f'Stream({self.name!r})'

    def send_json(self, content: Dict[str, Any]) -> None:
        """Keep the ``dict`` ``content``, and send it to all followers.

        It is written in the transaction of the caller: if that is rolled back, there was no message. Once it is committed,
        the message gets its number and is sent. ``TypeError`` for what Django's JSON encoder cannot encode, and for a
        content with the key ``kept``.
        """
        text = messages.encode(content)
        if messages.KEPT in content:
            raise messages.kept_error()
        using = database()
        StreamMessage.objects.using(using).create(key=self.key, name=self.name, text=text)
        transaction.on_commit(partial(numbering.number_and_push, self), using=using)

    def send_action(self, type: str, **fields: Any) -> None:
        """Send ``{'type': type, **fields}``, as ``send_json`` does."""
        self.send_json(messages.action(type, fields))

    def position(self) -> Position:
        """Return where the stream stands: a ``dict`` of ``stream``, ``epoch`` and ``offset``.

        A view that asks for it before it runs its other queries, and prints it with ``{% stream_position %}``, has its page
        miss nothing.
        """
        head = heads().filter(pk=self.key).first()
        return position_of(self.name, head)

    def history(self, since: Optional[Position] = None, limit: Optional[int] = 100) -> 'List[Dict[str, Any]]':
        """Return contents, each with its ``kept``, oldest first: the last ``limit``, or the first after ``since``.

        ``since`` is what ``position()`` has returned, or the ``kept`` of a message. If that is of another epoch, or beyond
        the end, the last ``limit`` are returned. With ``limit=None``, it is all that is kept. To send them to a client, put the
        list into a content of your own.
        """
        return replays.history(self, since, limit)

    def clear(self) -> None:
        """Remove all messages, once the transaction of the caller is committed. Numbers go on where they are.

        What this transaction sends after that is kept.
        """
        using = database()
        last = retention.last_sent() if connections[using].in_atomic_block else None
        transaction.on_commit(partial(retention.clear, self.key, last), using=using)

    def followers(self) -> 'SocketQuerySet':
        """Return the connections that follow this stream."""
        following = Membership.objects.using(database()).filter(stream=self.key)
        return Socket.objects.on_primary().filter(pk__in=following.values('socket'))

    async def asend_json(self, content: Dict[str, Any]) -> None:
        """``send_json`` for an ``async def``."""
        await engine.current().wait_for(self.send_json, content)

    async def asend_action(self, type: str, **fields: Any) -> None:
        """``send_action`` for an ``async def``."""
        await self.asend_json(messages.action(type, fields))

    async def aposition(self) -> Position:
        """``position`` for an ``async def``."""
        return await engine.current().wait_for(self.position)

    async def ahistory(self, since: Optional[Position] = None, limit: Optional[int] = 100) -> 'List[Dict[str, Any]]':
        """``history`` for an ``async def``."""
        return await engine.current().wait_for(self.history, since, limit)

    async def aclear(self) -> None:
        """``clear`` for an ``async def``."""
        await engine.current().wait_for(self.clear)
