"""The seam: how frames come from Channels 1.x and how messages go back. Nothing else of the core imports channels.

Messages are handed to the channel layer at once. Channels' own pending store would hold them until the consumer
has returned, and its worker exits when that flush meets a full channel.
"""
import builtins
import collections
import functools
import json
import logging
import os
import socket
import time
import weakref

from channels import Channel, Group, channel_layers
from channels.exceptions import ChannelSocketException, ConsumeLater, DenyConnection, WebsocketCloseException
from channels.generic.websockets import WebsocketConsumer
from channels.handler import AsgiRequest
from channels.message import Message
from channels.routing import Include, Route, Router, connect_consumer, null_consumer
from channels.sessions import session_for_reply_channel
from channels.signals import consumer_started, worker_process_ready, worker_ready
from django.contrib.sessions.backends.base import CreateError
from django.utils.functional import cached_property

from ... import conf, rates
from ...access import credentials
from ...connection import envelopes
from ...execution import background, overtime, thread_state
from ...exceptions import DeliveryFailed, MailboxFull
from ...layers import dropped as layers_dropped
from ...signals import announce, messages_dropped

__all__ = ['ChannelSocketException', 'ConsumeLater', 'DenyConnection', 'WebsocketCloseException', 'Consumer',
           'ask_worker', 'channel_layer', 'close_code', 'dead_servers', 'disconnect', 'forget_server', 'frame',
           'handler_at', 'has_forgotten', 'has_other_workers', 'idle', 'install', 'is_local', 'is_ours', 'layer_name',
           'live_servers', 'redis_info', 'round_trip',
           'routed', 'routing_error', 'say_end', 'say_farewell', 'send', 'send_last', 'send_many', 'server_prefix',
           'servers_elsewhere', 'statistics', 'take_token', 'unreachable']

logger = logging.getLogger('sockets')

# Seconds between two tries at a full mailbox. A stock daphne looks into its own every 0.05 s when idle and
# empties it without pause once it has looked (daphne.server.Server.backend_reader_sync).
_RETRY_INTERVAL = 0.01

# What a worker on a layer of several processes answers: ``manage.py sockets doctor`` asks.
DOCTOR = 'sockets.doctor'

# What to do about connections that an in-memory layer does not reach.
REACH_ALL = ("Set 'BACKEND': 'sockets.layers.RedisChannelLayer' in CHANNEL_LAYERS, which reaches all processes, or do "
             'this in a view of the server itself.')

# The servers whose rows this process has made: on a layer that reaches no other process, its own. ``None`` in a sandbox,
# where everybody is.
here = set()
# Those of other processes that the log has been told of.
_told_of = set()


def channel_layer():
    """Return the channel layer that fan-out sends through."""
    return channel_layers[conf.CHANNEL_LAYER]


def close_code(code):
    """Return ``code`` if a server may close with it (RFC 6455, section 7.4); ``ValueError`` if not."""
    if isinstance(code, int) and (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        return int(code)
    raise ValueError('{!r} is no close code; use 1000, or one of your own from 4000 to 4999.'.format(code))


def server_prefix(channel_name):
    """Return the part of ``channel_name`` that names one server process: all its sockets share that mailbox."""
    head, mark, _ = channel_name.partition('!')
    return head + mark


def send(layer, channel_name, message):
    """Hand ``message`` to one channel now; ``MailboxFull`` if it takes nothing for ``SEND_TIMEOUT`` seconds."""
    try:
        layer.send(channel_name, message)
    except layer.ChannelFull:
        if _send_many(layer, [channel_name], message):
            return
        raise MailboxFull('{} has taken no message for {} s; is its server still running?'.format(
            server_prefix(channel_name), conf.SEND_TIMEOUT))


def send_last(layer, channel_name, message):
    """Hand over the last message of a frame, with which the worker need not wait for the layer; a failure is logged."""
    send_later = getattr(layer, 'send_later', None)
    if send_later is None:
        return send(layer, channel_name, message)

    def on_failure(error):
        try:
            if not isinstance(error, layer.ChannelFull):
                raise error
            send(layer, channel_name, message)
        except Exception:
            logger.exception('The answer to a frame of %s was lost', channel_name)
    send_later(channel_name, message, on_failure)


def send_many(channel_names, message):
    """Hand ``message`` to many channels now and return how many took it.

    The others belong to servers that took nothing for ``SEND_TIMEOUT`` seconds: they are logged, not raised. If the
    layer cannot reach some, the others are served, and then ``DeliveryFailed`` says how many that were. Connections of
    another process are sent nothing over an in-memory layer.
    """
    away = unreachable(channel_names)
    if away:
        reached = [name for name in channel_names if server_prefix(name) not in away]
        if not away <= _told_of:
            _told_of.update(away)
            logger.warning('%d of %d connections get nothing: they are of another process (%s), or one that has ended, '
                           'and the channel layer in memory reaches this one only. %s',
                           len(channel_names) - len(reached), len(channel_names), ', '.join(sorted(away)), REACH_ALL)
        channel_names = reached
    return _send_many(channel_layer(), channel_names, message)


def unreachable(channel_names):
    """Return the servers of ``channel_names`` that the layer, in memory, does not reach: those of other processes."""
    if here is None or not channel_layer().local_only():
        return set()
    return {server_prefix(name) for name in channel_names} - here


def servers_elsewhere(channel_names):
    """Return those of the ``unreachable`` servers that are known to live: they look after their own connections."""
    away = unreachable(channel_names)
    return away.intersection(live_servers(list(away)) or ()) if away else away


def disconnect(channel_name, path, code, row, reason):
    """Run the consumer of ``path`` for a connection that has ended and whose ``row`` is removed already.

    Return whether there is such a consumer of ours. Nothing of what it raises comes back.
    """
    layer = channel_layer()
    content = {'reply_channel': channel_name, 'path': path, 'code': code, 'order': 0}
    message = Message(content, 'websocket.disconnect', layer)
    message.row, message.reason = row, reason
    consumer, kwargs = _consumer_of(message)
    if consumer is None:
        return False
    try:
        consumer(message, **kwargs)
    except BaseException:
        logger.exception('%s at %r failed to end %s', consumer.__name__, path, channel_name)
    return True


def dead_servers(prefixes=None):
    """Return the servers that are gone: of ``prefixes``, and of what the layer has heard of. None on stock layers.

    ``prefixes`` are all that have rows; the layer remembers them.
    """
    look = getattr(channel_layer(), 'dead_servers', None)
    return [] if look is None else look(prefixes)


def has_forgotten():
    """Whether the layer has lost its memory, as ``dead_servers()`` found, and waits to be told who has rows."""
    ask = getattr(channel_layer(), 'has_forgotten', None)
    return False if ask is None else ask()


def idle(channel_names):
    """Return those of which no frame waits or is being handled; ``None`` on stock layers, which do not know."""
    ask = getattr(channel_layer(), 'idle', None)
    return None if ask is None else ask(channel_names)


def handler_at(path):
    """Return the consumer class of ours that frames of a connection to ``path`` go to, or ``None``."""
    return _consumer_of(Message({'reply_channel': 'a!b', 'path': path}, 'websocket.receive', channel_layer()))[0]


def _consumer_of(message):
    """Return the consumer class of ours that ``message`` goes to, and its URL arguments; ``(None, {})`` if to none."""
    consumer, kwargs = message.channel_layer.router.match(message) or (None, {})
    return (consumer, kwargs) if isinstance(consumer, type) and issubclass(consumer, Consumer) else (None, {})


def is_ours(path):
    """Return whether frames of a connection to ``path`` go to a consumer of ours: such a connection has a row."""
    return handler_at(path) is not None


def say_end(channel_name, path):
    """Have the end of a connection, of which nobody said that it ended, handled after what waits of its frames."""
    channel_layer().send('websocket.disconnect', {
        'reply_channel': channel_name, 'path': path, 'code': 1006, 'order': 0})


def say_farewell(message):
    """Have the layer send ``message``, which closes, to the connections of a server that was taken for dead."""
    say = getattr(channel_layer(), 'set_close_message', None)
    if say is not None:
        say(message)


def live_servers(prefixes):
    """Return the servers that are there: of ``prefixes``, and of what the layer has heard of. ``None`` on stock layers,
    which do not know.
    """
    look = getattr(channel_layer(), 'live_servers', None)
    return None if look is None else look(prefixes)


def is_local():
    """Return whether the layer reaches its own process only."""
    return channel_layer().local_only()


def statistics():
    """Return what waits in the layer and what was dropped: ``{'waiting': {channel: n}, 'dropped': {server: n}}``.

    Empty where the layer does not count, or is in another process.
    """
    count = getattr(channel_layer(), 'statistics', None)
    return {} if count is None else count()


def layer_name():
    """Return what the layer calls itself: servers of another name cannot be heard of. Empty on stock layers."""
    return getattr(channel_layer(), 'name', '')


def forget_server(prefix):
    """Have the layer forget a dead server, of which no row is left."""
    channel_layer().forget_server(prefix)


def round_trip(seconds):
    """Send a message through the layer to ourselves; return whether it came back within ``seconds``."""
    layer = channel_layer()
    name = layer.new_channel(DOCTOR + '?')
    layer.send(name, {'n': 1})
    return _wait_for(layer, name, seconds) is not None


def ask_worker(channel, seconds, **question):
    """Send ``question`` to any worker that listens to ``channel``; return its answer, or ``None`` after ``seconds``."""
    layer = channel_layer()
    name = layer.new_channel(channel + '?')
    layer.send(channel, {'reply_channel': name, **question})
    return _wait_for(layer, name, seconds)


def has_other_workers():
    """Whether workers of other processes handle the frames of the connections of this one."""
    layer = channel_layer()
    return not (layer.local_only() or getattr(layer, 'is_served_locally', False))


def _wait_for(layer, name, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        channel, message = layer.receive([name])
        if channel is not None:
            return message
        time.sleep(0.001)


# What has been taken in this process, of each layer that does not count, or could not.
_taken = weakref.WeakKeyDictionary()
# Layers that could not count when they were last asked, which the log has been told: this is every frame.
_uncounting = weakref.WeakSet()


def take_token(name, now, per_second, burst):
    """Take one of ``burst`` tokens of ``name``, refilled at ``per_second``; return the seconds until there is one, 0 if it
    was taken. All processes share them where the layer counts; else those of this process do, where it is ``now``.
    """
    layer = channel_layer()
    if hasattr(layer, 'take_token'):
        try:
            seconds = layer.take_token(name, per_second, burst)
            _uncounting.discard(layer)
            return seconds
        except Exception as error:
            if layer not in _uncounting:
                _uncounting.add(layer)
                logger.warning('The channel layer cannot count, so this process does: %s', error)
    return _taken.setdefault(layer, rates.Buckets()).wait(name, now, per_second, burst)


def redis_info():
    """Return what each Redis behind the layer says of itself (``INFO``); an empty list if there is none."""
    layer = channel_layer()
    return [layer.connection(index).info() for index in range(getattr(layer, 'ring_size', 0))]


def frame(text=None, bytes=None):
    """Return the message that has daphne send a frame of one of the two; ``TypeError`` for anything else."""
    if isinstance(text, str) and bytes is None:
        return {'text': text}
    if isinstance(bytes, builtins.bytes) and text is None:
        return {'bytes': envelopes.wrap(bytes)}
    raise TypeError("A frame is text='...' or bytes=b'...', not text={!r:.40}, bytes={!r:.40}.".format(text, bytes))


def _send_many(layer, channel_names, message):
    hand_over = getattr(layer, 'send_many', None) or functools.partial(_send_one_by_one, layer)
    waiting = list(channel_names)
    deadlines = {}
    dropped = collections.Counter()
    failure, undelivered = None, 0
    while True:
        before = collections.Counter(map(server_prefix, waiting))
        try:
            waiting = hand_over(waiting, message)
        except Exception as error:
            if not hasattr(error, 'undelivered'):
                raise
            failure = failure or error
            undelivered += len(error.undelivered)
            waiting = error.refused
        if not waiting:
            break
        # A server that took something since we last asked has not had its time yet.
        now = time.monotonic()
        for prefix, left in collections.Counter(map(server_prefix, waiting)).items():
            if left < before[prefix] or prefix not in deadlines:
                deadlines[prefix] = now + conf.SEND_TIMEOUT
            elif now >= deadlines[prefix]:
                dropped[prefix] = left
        waiting = [name for name in waiting if server_prefix(name) not in dropped]
        if waiting:
            time.sleep(_RETRY_INTERVAL)
    if dropped:
        logger.error('Gave up %d messages: the mailbox took none for %s s of %s', sum(dropped.values()),
                     conf.SEND_TIMEOUT, ', '.join('{} ({})'.format(*item) for item in dropped.items()))
        note_dropped = getattr(layer, 'note_dropped', None)
        if note_dropped is not None:
            note_dropped(dropped)
        announce(messages_dropped, sender=None, servers=dict(dropped))
    delivered = len(channel_names) - sum(dropped.values()) - undelivered
    if failure is not None:
        raise DeliveryFailed(delivered, len(channel_names), failure) from failure
    return delivered


def _send_one_by_one(layer, channel_names, message):
    """What ``send_many`` of our layers does, on any other: send, and return the names of those that were full.

    What a server cannot be reached for is raised when the others have been served, with the names as ``undelivered``.
    """
    refused = []
    full = set()
    failures, undelivered = {}, []
    for name in channel_names:
        prefix = server_prefix(name)
        try:
            # All sockets of a server share one mailbox, and we know that it is full.
            if prefix in failures:
                undelivered.append(name)
                continue
            if prefix not in full:
                layer.send(name, message)
                continue
        except layer.ChannelFull:
            full.add(prefix)
        except (AssertionError, TypeError, ValueError):
            # Of the message, whoever gets it.
            raise
        except Exception as error:
            failures[prefix] = error
            undelivered.append(name)
            continue
        refused.append(name)
    for error in failures.values():
        error.undelivered, error.refused = undelivered, refused
        raise error
    return refused


class ReplyChannel(Channel):
    """The reply channel of a connection, which tells its consumer what goes out and does not wait."""

    def __init__(self, consumer, channel):
        super().__init__(channel.name, channel_layer=channel.channel_layer)
        self.consumer = consumer

    def send(self, content, immediately=True):
        self.consumer.deliver(content)


class _OfConsumer:
    """An attribute of a message that is asked of its consumer, unless somebody has set another one."""

    def __init__(self, ask):
        self.ask = ask

    def __get__(self, message, owner):
        return self if message is None else self.ask(message.reply_channel.consumer)


class IncomingMessage(Message):
    """A message with what ``http_user`` and its like would put on it, each at the cost of a query when touched."""

    user = _OfConsumer(lambda consumer: consumer.user)
    # As with Channels: no session is None, not one to write to.
    http_session = _OfConsumer(lambda consumer: consumer.session if consumer.session.session_key else None)

    @cached_property
    def channel_session(self):
        if not self.reply_channel.consumer.has_channel_session:
            raise AttributeError('This message has no channel_session: its consumer does not ask for one.')
        session = session_for_reply_channel(self.reply_channel.name)
        if not session.exists(session.session_key):
            try:
                session.save(must_create=True)
            except CreateError:
                session = session_for_reply_channel(self.reply_channel.name)
        return session


class Consumer(WebsocketConsumer):
    """One frame of one connection, as Channels hands it over: what comes in, and the one way out."""

    has_channel_session = False

    def __init__(self, message, **kwargs):
        self.accepted = message.channel.name != 'websocket.connect'
        self.closed = False
        message.reply_channel = ReplyChannel(self, message.reply_channel)
        if type(message) is Message:
            message.__class__ = IncomingMessage
        super().__init__(message, **kwargs)

    def get_handler(self, message, **kwargs):
        """Return what handles ``message``. What Channels would load for each, an ``IncomingMessage`` loads if touched."""
        self.has_channel_session = bool(self.channel_session or self.channel_session_user or self.http_user or
                                        self.http_user_and_session)
        self.channel_session = self.channel_session_user = self.http_user = self.http_user_and_session = False
        handler = super().get_handler(message, **kwargs)
        return functools.partial(self._keep_channel_session, handler) if self.has_channel_session else handler

    def _keep_channel_session(self, handler, message, **kwargs):
        try:
            return handler(message, **kwargs)
        finally:
            session = vars(message).get('channel_session')
            if session is not None and session.modified:
                session.save()

    def dispatch(self, message, **kwargs):
        # Whoever ends a connection for daphne (``disconnect()``) does it in a request of its own.
        sender = None if 'row' in vars(message) else type(self)
        function = functools.partial(super().dispatch, message, **kwargs)
        return overtime.timed(self, functools.partial(
            thread_state.serve, function, message.content.get('root_path'), sender))

    def last_words(self):
        """Return the message that goes before the close of an accepted connection whose function takes too long."""
        return {}

    @property
    def channel_name(self):
        """The name under which the layer reaches this connection."""
        return self.message.reply_channel.name

    @property
    def is_in_order(self):
        """Whether the layer hands over the frames of a connection one after another, as ours do."""
        return getattr(self.message.channel_layer, 'keeps_order', False)

    def opening(self):
        """Called once, just before the connection is accepted."""

    def accept(self):
        """Accept the connection, unless that has been done."""
        if not self.accepted:
            if self.closed:
                raise RuntimeError('Cannot accept {} once it has been closed.'.format(self.channel_name))
            self.opening()
            self.accept_without_opening()

    def accept_without_opening(self):
        """Accept a connection that is only to be told why it will be closed."""
        self.accepted = True
        self._send({'accept': True})

    def deliver(self, content, is_last=False):
        """Hand a message of daphne's protocol (``accept``, ``text``, ``bytes``, ``close``) to this connection.

        What is not a refusal accepts the connection first, as daphne would. ``RuntimeError`` after a close. After what
        ``is_last`` the consumer returns: it may go with whatever the worker asks of the layer next.
        """
        if self.closed:
            raise RuntimeError('Cannot send to {} once it has been closed.'.format(self.channel_name))
        content = {key: value for key, value in content.items() if value is not None}
        refuses = content.get('accept') is False or (
            content.get('close') and not content.get('accept') and 'text' not in content and 'bytes' not in content)
        if not self.accepted and not refuses:
            self.accept()
        if self.accepted:
            content.pop('accept', None)
        if content:
            self.closed = bool(content.get('close')) or refuses
            self._send(content, send_last if is_last else send)

    def send(self, text=None, bytes=None, close=False):
        """Send a frame of ``text`` or ``bytes`` as it is to this connection now."""
        super().send(text, None if bytes is None else envelopes.wrap(bytes), close)

    def close(self, code=1000):
        """Close the connection with ``code``; one that was not accepted yet is refused (HTTP 403)."""
        self.deliver({'close': close_code(1000 if code is True else code)})

    def join_groups(self, **kwargs):
        """Enter the groups that ``groups`` and ``connection_groups()`` name."""
        for name in self.connection_groups(**kwargs):
            Group(name, channel_layer=self.message.channel_layer).add(self.message.reply_channel)

    def leave_groups(self, **kwargs):
        """Leave the groups that ``groups`` and ``connection_groups()`` name."""
        for name in self.connection_groups(**kwargs):
            Group(name, channel_layer=self.message.channel_layer).discard(self.message.reply_channel)

    def handshake_text(self, secret_cookie):
        """Return what ``handshake()`` needs of the connect message, as JSON, without credentials and the cookie of that
        name.
        """
        content = self.message.content
        return json.dumps(credentials.strip({
            **{key: content.get(key) for key in ('path', 'client', 'server', 'root_path', 'scheme')},
            'query_string': _text(content.get('query_string') or ''),
            'headers': [[_text(name), _text(value)] for name, value in _headers(content)],
        }, secret_cookie))

    def handshake(self, load_text=None):
        """Return the HTTP request that asked for this connection: of the connect message, or of the one that this process
        holds, or else of the ``handshake_text()`` that ``load_text`` returns.
        """
        content = self.message.content
        if load_text is not None:
            # A row may be older than this column.
            content = credentials.held(self.channel_name) or json.loads(load_text() or '{}')
        content = dict(content, method='GET')
        dropped = content.pop('dropped', None)
        content['path'] = self.path
        content['query_string'] = _text(content.get('query_string') or '')
        content['headers'] = [[_bytes(name), _bytes(value)] for name, value in _headers(content)]
        # Django asks for "https".
        content['scheme'] = 'https' if content.get('scheme') in ('https', 'wss') else 'http'
        content['reply_channel'] = self.channel_name
        content['root_path'] = thread_state.script_name_of(content)
        content = {key: value for key, value in content.items() if value is not None}
        request = AsgiRequest(Message(content, self.message.channel.name, self.message.channel_layer))
        if dropped:
            credentials.note_absent(request, dropped)
        return request

    @staticmethod
    def recall_root_path(handshake):
        """Have ``reverse()`` begin as it did when the connection of ``handshake``, a ``handshake_text()``, was opened."""
        thread_state.set_root_path(json.loads(handshake or '{}').get('root_path'))

    def header(self, name):
        """Return the header ``name`` of the connect message, ``None`` if there is none; several are one list.

        Unlike ``request.META``, where X_Real_IP, which no proxy strips, is X-Real-IP.
        """
        name = name.lower()
        values = [_text(value) for header, value in _headers(self.message.content) if _text(header).lower() == name]
        return ','.join(values) if values else None

    @staticmethod
    def peer(request):
        """Return the address that opened the TCP connection of ``request``; ``None`` on a unix socket."""
        return request.META.get('REMOTE_ADDR')

    def _send(self, content, hand_over=None):
        (hand_over or send)(self.message.channel_layer, self.channel_name, content)


def _headers(content):
    headers = content.get('headers') or ()
    # Those of Channels' own test client.
    return headers.items() if isinstance(headers, dict) else headers


def _text(value):
    # Headers are bytes of Latin-1 (RFC 7230, section 3.2.4), and what is beyond ASCII in a query string is escaped.
    return value.decode('latin1') if isinstance(value, bytes) else value


def _bytes(value):
    return value.encode('latin1', 'replace') if isinstance(value, str) else value


def routing_error(alias):
    """Return why the layer ``alias`` cannot be used, as an exception, or ``None``. Opens no connection."""
    try:
        channel_layers[alias]
    except Exception as error:
        return error


Routed = collections.namedtuple('Routed', 'consumer channels conditions')
Routed.__doc__ = """An entry of a routing. ``conditions`` are the regexes of each ``include`` around it, and its own:
dicts, by what they are about (``path``). What an ``include`` has matched is taken off what the next one sees.
"""


def routed(alias):
    """Return what the routing of the layer ``alias`` leads to: a list of ``Routed``, in order. The first one wins."""
    # The root is an include of everything.
    return [found for entry in channel_layers[alias].router.root.routing for found in _walk(entry)]


def _walk(entry, conditions=()):
    if isinstance(entry, Include):
        for child in entry.routing:
            yield from _walk(child, (*conditions, entry.prefixes))
    elif hasattr(entry, 'consumer'):
        yield Routed(entry.consumer, set(entry.channels), (*conditions, entry.filters))


def _check_after(cls, check):
    """Have ``check`` called with the entries of each instance of ``cls``, a part of a routing, once that is made."""
    init = cls.__init__

    def __init__(self, *args, **kwargs):
        init(self, *args, **kwargs)
        check(_walk(self))
    cls.__init__ = __init__


def install(on_worker, on_worker_process, check_consumer, check_arguments, answers):
    """Make workers refuse websockets that no route matches, which Channels would accept and leave open.

    ``on_worker`` is a receiver of the signal that each worker sends, be it a thread of ``runserver``, and
    ``on_worker_process`` of that of each ``runworker``; ``check_consumer`` is called with what a routing names, and may
    raise: Channels' own word about what is no consumer is hard to understand, and late. So is ``check_arguments``, with
    each consumer of ours, the names of what its path hands it, and the path. ``answers`` is a dict of channels and the
    functions that workers answer with.
    """
    _answers.update(answers)
    consumer_started.connect(thread_state.begin)
    worker_ready.connect(_prepare, dispatch_uid='sockets')
    worker_ready.connect(on_worker, dispatch_uid='sockets.on_worker')
    worker_process_ready.connect(on_worker_process, dispatch_uid='sockets')
    resolve = Route._resolve_consumer

    def _resolve_consumer(self, consumer):
        consumer = resolve(self, consumer)
        check_consumer(consumer)
        return consumer
    Route._resolve_consumer = _resolve_consumer

    def check_entries(entries):
        for entry in entries:
            if isinstance(entry.consumer, type) and issubclass(entry.consumer, Consumer):
                regexes = [regex for regexes in entry.conditions for regex in regexes.values()]
                check_arguments(entry.consumer, {name for regex in regexes for name in regex.groupindex},
                                ''.join(regexes['path'].pattern for regexes in entry.conditions if 'path' in regexes))
    for cls in (Route, Include):
        _check_after(cls, check_entries)
    if _announce_expired not in layers_dropped.listeners:
        layers_dropped.listeners.append(_announce_expired)


def _announce_expired(servers):
    # A receiver may take its time, and this thread has others that wait for it.
    background.run(functools.partial(announce, messages_dropped, sender=None, servers=servers), 'sockets-dropped')


def _prepare(sender, **kwargs):
    router = sender.channel_layer.router
    for entry in router.root.routing:
        if getattr(entry, 'consumer', None) is connect_consumer:
            entry.consumer = unrouted_consumer
    # Who could ask a worker that shares its layer with nobody?
    if not sender.channel_layer.local_only():
        for channel, function in _answers.items():
            if channel not in router.channels:
                router.add_route(Route(channel, function))


def answer_doctor(message):
    """What a worker does with a message of ``manage.py sockets doctor``: say who it is."""
    send(message.channel_layer, message.reply_channel.name, {'process': os.getpid(), 'host': socket.gethostname()})


# What workers are asked, and what answers.
_answers = {DOCTOR: answer_doctor}


def unrouted_consumer(message, **kwargs):
    """What Channels routes a connect to that nothing else matches: refuse it, unless its frames are routed."""
    probe = Message(dict(message.content), 'websocket.receive', message.channel_layer)
    matched = Router.match(message.channel_layer.router, probe)
    if matched is not None and matched[0] is not null_consumer:
        return connect_consumer(message)
    logger.warning('Refused a websocket to %.100r: no route matches. Add route_class(<View>.socket.Handler, path=...) '
                   'to the ROUTING of your channel layer.', message['path'])
    send(message.channel_layer, message.reply_channel.name, {'close': True})
