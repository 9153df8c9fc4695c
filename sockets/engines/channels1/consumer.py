"""The consumer that Channels calls with each message of a connection, and which hands its event to the core."""

import functools
import weakref

from channels import Channel, Group
from channels.generic.websockets import WebsocketConsumer
from channels.message import Message
from channels.sessions import session_for_reply_channel
from django.contrib.sessions.backends.base import CreateError
from django.utils.functional import cached_property

from ...connection import connect, disconnect, envelopes, frame, timing
from ...connection.own_connection import OwnConnection
from ...execution import steps, thread_state
from .connection import Connection

# What the channel of a message is called that only makes a consumer. Nobody sends one.
ENDED = 'sockets.ended'


class ReplyChannel(Channel):
    """The reply channel of a connection, which does not wait, and knows the consumer while that is there."""

    def __init__(self, consumer, channel):
        super().__init__(channel.name, channel_layer=channel.channel_layer)
        self.connection = consumer._connection
        self.consumer = weakref.ref(consumer)

    def send(self, content, immediately=True):
        self.connection.send(content)


class _OfConsumer:
    """An attribute of a message that is asked of its consumer, unless somebody has set another one."""

    def __init__(self, ask):
        self.ask = ask

    def __get__(self, message, owner):
        return self if message is None else self.ask(message.reply_channel.consumer())


class IncomingMessage(Message):
    """A message with what ``http_user`` and its like would put on it, each at the cost of a query when touched."""

    user = _OfConsumer(lambda consumer: consumer.user)
    # As with Channels: no session is None, not one to write to.
    http_session = _OfConsumer(lambda consumer: consumer.session if consumer.session.session_key else None)

    @cached_property
    def channel_session(self):
        if not self.reply_channel.consumer()._has_channel_session:
            raise AttributeError('This message has no channel_session: its consumer does not ask for one.')
        session = session_for_reply_channel(self.reply_channel.name)
        if not session.exists(session.session_key):
            try:
                session.save(must_create=True)
            except CreateError:
                session = session_for_reply_channel(self.reply_channel.name)
        return session


def _prepare(consumer, message):
    message.reply_channel = ReplyChannel(consumer, message.reply_channel)
    if type(message) is Message:
        message.__class__ = IncomingMessage


class _LateMessage:
    """The message of a consumer that was made without one: few functions ask for it."""

    def __get__(self, consumer, owner):
        if consumer is None:
            return self
        connection = consumer._connection
        message = consumer.message = Message(connection.content, connection.channel, connection.layer)
        _prepare(consumer, message)
        return message


class Consumer(OwnConnection, WebsocketConsumer):
    """One event of one connection, as Channels hands it over. The methods are those of its own consumers."""

    _has_channel_session = False

    message = _LateMessage()

    def __init__(self, message, **kwargs):
        self._connection = Connection(message.channel_layer, message.content, message.channel.name)
        _prepare(self, message)
        super().__init__(message, **kwargs)

    def get_handler(self, message, **kwargs):
        """Return what handles ``message``. What Channels would load for each, an ``IncomingMessage`` loads if touched."""
        if self.channel_session or self.channel_session_user or self.http_user or self.http_user_and_session:
            self._has_channel_session = True
            self.channel_session = self.channel_session_user = self.http_user = self.http_user_and_session = False
        handler = super().get_handler(message, **kwargs)
        return functools.partial(_keeping_channel_session, handler) if self._has_channel_session else handler

    def dispatch(self, message, **kwargs):
        """Handle ``message`` as a request of its own: see ``execution``."""
        if message.channel.name == ENDED:
            return
        return timing.timed(
            self,
            message.channel.name,
            thread_state.serve,
            functools.partial(super().dispatch, message, **kwargs),
            message.content.get('root_path'),
            type(self),
        )

    def raw_connect(self, message, **kwargs):
        """Called with the message of a connect."""
        steps.run(connect.connect(self))

    def raw_receive(self, message, **kwargs):
        """Called with the message of a frame."""
        steps.run(frame.receive(self, message.get('text'), message.get('bytes')))

    def raw_disconnect(self, message, **kwargs):
        """Called with the message of a disconnect."""
        disconnect.disconnect(self, message.get('code'))

    def _join_groups(self):
        for name in self.connection_groups(**self.kwargs):
            Group(name, channel_layer=self.message.channel_layer).add(self.message.reply_channel)

    def _leave_groups(self):
        for name in self.connection_groups(**self.kwargs):
            Group(name, channel_layer=self.message.channel_layer).discard(self.message.reply_channel)

    def send(self, text=None, bytes=None, close=False):
        """Send a frame of ``text`` or ``bytes`` as it is to this connection now."""
        super().send(text, None if bytes is None else envelopes.wrap(bytes), close)


def _keeping_channel_session(handler, message, **kwargs):
    try:
        return handler(message, **kwargs)
    finally:
        session = vars(message).get('channel_session')
        if session is not None and session.modified:
            session.save()


def consumer_of_end(cls, message, kwargs):
    """Return an instance of the consumer class ``cls`` for ``message``, the end of a connection, which it does not handle."""
    channel = message.channel
    message.channel = Channel(ENDED, channel_layer=message.channel_layer)
    consumer = cls(message, **kwargs)
    message.channel = channel
    consumer.path = message['path']
    return consumer
