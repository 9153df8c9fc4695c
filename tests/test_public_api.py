"""What a project imports, calls, sets and types is what it was in the release before (commit 559dd33).

The texts below are that release. A line goes when a release note says so, and no test here asks the code for its names.
"""

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest
from django.core.management import load_command_class
from django.template import Context, Template
from django.test import override_settings

import sockets
from sockets import RoutedSocketHandler, SocketRouter, conf, exceptions, messages, signals
from sockets.models import Membership, Socket
from sockets.multiplexing import SocketDemultiplexer
from sockets.streams.positions import UNCHANGED
from sockets.testing import SocketClient, capture_sends

from .client import ON_CHANNELS_1

ROOT = Path(__file__).resolve().parent.parent

# Each name with its arguments, without the first of a method. The options of SocketRouter.route() and .bytes() were
# **options, which took these.
NAMES = """
    sockets.SocketRouter(handler=None, guard=None, sends=None)
    sockets.SocketRouter.route(pattern, *, rate=None, form=None, login_required=False, permission=(),
            per='connection')
    sockets.SocketRouter.bytes(function=None, *, rate=None, form=None, login_required=False, permission=(),
            per='connection')
    sockets.SocketRouter.connect(function)
    sockets.SocketRouter.disconnect(function)
    sockets.SocketRouter.default_route(function)
    sockets.SocketRouter.Handler
    sockets.router.SocketRouter(handler=None, guard=None, sends=None)
    sockets.RoutedSocketHandler
    sockets.RoutedSocketHandler.user
    sockets.RoutedSocketHandler.session
    sockets.RoutedSocketHandler.socket
    sockets.RoutedSocketHandler.request
    sockets.RoutedSocketHandler.channel_name
    sockets.RoutedSocketHandler.event
    sockets.RoutedSocketHandler.content
    sockets.RoutedSocketHandler.envelope
    sockets.RoutedSocketHandler.send_json(content)
    sockets.RoutedSocketHandler.send_action(type, **fields)
    sockets.RoutedSocketHandler.send(text=None, bytes=None, close=False)
    sockets.RoutedSocketHandler.close(code=1000)
    sockets.RoutedSocketHandler.accept()
    sockets.RoutedSocketHandler.rooms
    sockets.RoutedSocketHandler.join(room)
    sockets.RoutedSocketHandler.leave(room)
    sockets.RoutedSocketHandler.follow(name, since=None, last=None)
    sockets.RoutedSocketHandler.unfollow(name)
    sockets.RoutedSocketHandler.connect(message, **kwargs)
    sockets.RoutedSocketHandler.receive(content, **kwargs)
    sockets.RoutedSocketHandler.default_route(content)
    sockets.RoutedSocketHandler.disconnect(message, **kwargs)
    sockets.RoutedSocketHandler.on_hello(content)
    sockets.RoutedSocketHandler.on_ping(content)
    sockets.RoutedSocketHandler.on_bytes
    sockets.RoutedSocketHandler.decode(text, data)
    sockets.RoutedSocketHandler.encode(content)
    sockets.RoutedSocketHandler.routes
    sockets.RoutedSocketHandler.login_required
    sockets.RoutedSocketHandler.permission
    sockets.RoutedSocketHandler.middleware
    sockets.RoutedSocketHandler.sends
    sockets.RoutedSocketHandler.connect_functions
    sockets.RoutedSocketHandler.disconnect_functions
    sockets.handlers.RoutedSocketHandler
    sockets.routes.Route(pattern, function, rate=None, form=None, login_required=False, permission=(),
            per='connection')
    sockets.routes.RouteTable(routes=(), binary=None)
    sockets.routes.RouteTable.match(type)
    sockets.rates.Rate(value, per='connection')
    sockets.multiplexing.SocketDemultiplexer
    sockets.multiplexing.SocketDemultiplexer.streams
    sockets.multiplexing.SocketDemultiplexer.connect(message, **kwargs)
    sockets.multiplexing.SocketDemultiplexer.receive(content, **kwargs)
    sockets.multiplexing.SocketDemultiplexer.disconnect(message, **kwargs)
    sockets.contracts.clean(form, data, socket=None, asks=None)
    sockets.models.Socket
    sockets.models.Socket.objects
    sockets.models.Socket.send_json(content)
    sockets.models.Socket.send_action(type, **fields)
    sockets.models.Socket.send(text=None, bytes=None)
    sockets.models.Socket.close(code=1000)
    sockets.models.Socket.join(room)
    sockets.models.Socket.leave(room)
    sockets.models.Socket.rooms
    sockets.models.Socket.session
    sockets.models.Socket.channel_name
    sockets.models.Socket.server
    sockets.models.Socket.layer
    sockets.models.Socket.user
    sockets.models.Socket.path
    sockets.models.Socket.active
    sockets.models.Socket.last_ping
    sockets.models.Socket.user_ip
    sockets.models.Socket.handshake
    sockets.models.Socket.created
    sockets.models.Socket.modified
    sockets.models.Socket.memberships
    sockets.models.Socket.delete(*args, **kwargs)
    sockets.models.Socket.save(*args, **kwargs)
    sockets.models.SocketQuerySet
    sockets.models.SocketQuerySet.send_json(content)
    sockets.models.SocketQuerySet.send_action(type, **fields)
    sockets.models.SocketQuerySet.send(text=None, bytes=None)
    sockets.models.SocketQuerySet.close(code=1000)
    sockets.models.SocketQuerySet.in_room(name)
    sockets.models.SocketQuerySet.on_primary()
    sockets.models.SocketQuerySet.revoke(details='You may not use this connection any more.')
    sockets.models.SocketQuerySet.mark_active()
    sockets.models.SocketQuerySet.mark_inactive()
    sockets.models.SocketQuerySet.cleanup_stale()
    sockets.models.SocketQuerySet.purge_inactive(in_last_mins=5)
    sockets.models.SocketQuerySet.purge_dead(at_most=None)
    sockets.models.SocketQuerySet.count()
    sockets.models.SocketQuerySet.delete()
    sockets.models.Membership
    sockets.models.Membership.socket
    sockets.models.Membership.key
    sockets.models.Membership.name
    sockets.models.StreamHead
    sockets.models.StreamMessage
    sockets.streams.Stream(name, max_messages=UNCHANGED, max_age=UNCHANGED)
    sockets.streams.Stream.name
    sockets.streams.Stream.send_json(content)
    sockets.streams.Stream.send_action(type, **fields)
    sockets.streams.Stream.position()
    sockets.streams.Stream.history(since=None, limit=100)
    sockets.streams.Stream.clear()
    sockets.streams.Stream.followers()
    sockets.streams.Stream.asend_json(content)
    sockets.streams.Stream.asend_action(type, **fields)
    sockets.streams.Stream.aposition()
    sockets.streams.Stream.ahistory(since=None, limit=100)
    sockets.streams.Stream.aclear()
    sockets.exceptions.SocketsError
    sockets.exceptions.FrameError(code, details='', errors=None, retry_after=None)
    sockets.exceptions.ConnectionRevoked(details='Your session is gone. Come back with a new one.')
    sockets.exceptions.RowMissing(details='This connection is no longer known. Please come back.')
    sockets.exceptions.PermissionMissing(details='You may not use this socket.')
    sockets.exceptions.TooManyConnections(details)
    sockets.exceptions.MailboxFull
    sockets.exceptions.DeliveryFailed(delivered, total, why)
    sockets.signals.socket_connected
    sockets.signals.socket_disconnected
    sockets.signals.message_handled
    sockets.signals.messages_dropped
    sockets.messages.decode(text)
    sockets.messages.encode(content)
    sockets.layers.InMemoryChannelLayer(expiry=60, group_expiry=86400, capacity=100, channel_capacity=None,
            server_capacity=100000, lease=5, leases=None)
    sockets.layers.InMemoryChannelLayer.send(channel, message)
    sockets.layers.InMemoryChannelLayer.send_many(channel_names, message)
    sockets.layers.InMemoryChannelLayer.receive(channels, block=False)
    sockets.layers.InMemoryChannelLayer.receive_many(channels, block=False)
    sockets.layers.InMemoryChannelLayer.receive_twisted(channels)
    sockets.layers.InMemoryChannelLayer.new_channel(pattern)
    sockets.layers.InMemoryChannelLayer.group_add(group, channel)
    sockets.layers.InMemoryChannelLayer.group_discard(group, channel)
    sockets.layers.InMemoryChannelLayer.group_channels(group)
    sockets.layers.InMemoryChannelLayer.send_group(group, message)
    sockets.layers.InMemoryChannelLayer.flush()
    sockets.layers.InMemoryChannelLayer.statistics()
    sockets.layers.RedisChannelLayer(expiry=60, hosts=None, prefix='sockets:', *args, server_capacity=10000,
            lease=10, timeout=None, **kwargs)
    sockets.layers.RedisChannelLayer.send(channel, message)
    sockets.layers.RedisChannelLayer.send_many(channel_names, message)
    sockets.layers.RedisChannelLayer.receive(channels, block=False)
    sockets.layers.RedisChannelLayer.receive_many(channels, block=False)
    sockets.layers.RedisChannelLayer.receive_twisted(channels)
    sockets.layers.RedisChannelLayer.new_channel(pattern)
    sockets.layers.RedisChannelLayer.group_add(group, channel)
    sockets.layers.RedisChannelLayer.group_discard(group, channel)
    sockets.layers.RedisChannelLayer.group_channels(group)
    sockets.layers.RedisChannelLayer.send_group(group, message)
    sockets.layers.RedisChannelLayer.flush()
    sockets.layers.RedisChannelLayer.statistics()
    sockets.layers.RedisChannelLayer.serve_locally()
    sockets.layers.inmemory.InMemoryChannelLayer(expiry=60, group_expiry=86400, capacity=100,
            channel_capacity=None, server_capacity=100000, lease=5, leases=None)
    sockets.layers.redis.RedisChannelLayer(expiry=60, hosts=None, prefix='sockets:', *args,
            server_capacity=10000, lease=10, timeout=None, **kwargs)
    sockets.layers.redis.OutOfMemory
    sockets.testing.SocketClient(path, user=None, browser=None, headers=None, origin=None, address='127.0.0.1',
            handler=None, pattern=None, raise_exceptions=True)
    sockets.testing.SocketClient.connect()
    sockets.testing.SocketClient.send(type, **fields)
    sockets.testing.SocketClient.send_json(content)
    sockets.testing.SocketClient.send_text(text)
    sockets.testing.SocketClient.send_bytes(data)
    sockets.testing.SocketClient.request(type, **fields)
    sockets.testing.SocketClient.request_bytes(data)
    sockets.testing.SocketClient.received()
    sockets.testing.SocketClient.close(code=1000)
    sockets.testing.SocketClient.away()
    sockets.testing.SocketClient.resume()
    sockets.testing.SocketClient.lost
    sockets.testing.SocketClient.accepted
    sockets.testing.SocketClient.refused
    sockets.testing.SocketClient.close_code
    sockets.testing.SocketClient.socket
    sockets.testing.SocketTestMixin
    sockets.testing.assert_received(client, **fields)
    sockets.testing.assert_not_received(client, **fields)
    sockets.testing.capture_sends()
    sockets.testing.run_on_commit()
    sockets.testing.sandbox(layer=None, routing=None)
    sockets.testing.work()
    sockets.pytest_plugin.socket_client
    sockets.apps.SocketsConfig
    sockets.apps.SocketsConfig.name
    sockets.templatetags.sockets.socket_script()
"""

MESSAGES = """
    TYPE type   REF ref   RESENT resent
    HELLO HELLO   GOT_HELLO GOT_HELLO   PING PING   RECONNECT RECONNECT   ERROR ERROR   ACK ACK
    INVALID_JSON invalid_json   INVALID_MESSAGE invalid_message   UNKNOWN_TYPE unknown_type   TOO_LARGE too_large
    INVALID_CONTENT invalid_content   NOT_ALLOWED not_allowed   NOT_FOUND not_found   RATE_LIMITED rate_limited
    SERVER_ERROR server_error
    CLOSE_NORMAL 1000   CLOSE_TOO_LARGE 1009   CLOSE_SERVER_ERROR 1011   CLOSE_RESTART 1012   CLOSE_LOGIN_REQUIRED 4401
    CLOSE_NOT_ALLOWED 4403   CLOSE_RATE_LIMITED 4429
"""

SETTINGS = {
    'CHANNEL_LAYER': 'default',
    'MAX_MESSAGE_SIZE': 1048576,
    'MAX_BINARY_SIZE': None,
    'SEND_TIMEOUT': 2.0,
    'LAST_PING_RESOLUTION': 15,
    'PURGE_INTERVAL': 10,
    'MAX_CONNECTIONS_PER_USER': None,
    'MAX_CONNECTIONS_PER_ADDRESS': None,
    'MAX_FRAMES_PER_SECOND': None,
    'MAX_BAD_FRAMES': 100,
    'MAX_HANDLING_TIME': None,
    'MIDDLEWARE': (),
    'ALLOWED_ORIGINS': None,
    'HANDSHAKE_TIMEOUT': None,
    'REQUIRE_ORIGIN': False,
    'TRUSTED_PROXIES': (),
    'CLIENT_ADDRESS_HEADER': None,
    'ROOT_PATH_HEADER': None,
    'MAX_BODY_SIZE': 104857600,
}
CREDENTIALS = (
    '*authorization* *token* *secret* *password* *passwd* *credential* *jwt* *api-key* *apikey* *access-key* '
    '*assertion* *signature* sig auth *-auth *oauth* *oidc* ticket otp session *-session *session-id* *sessionid* '
    '*sessid* sid *.sid sec-websocket-protocol'
)

# With the default of each.
RUNSOCKETS = """
    addrport='127.0.0.1:8000' --processes=1 --threads=2 --connect-threads=2 --page-threads=4 -u=None --unix-socket=None
    -e=[] --endpoint=[] --fd=None --http-timeout=120 --websocket-timeout=None --websocket-connect-timeout=20
    --websocket-handshake-timeout=5 --ping-interval=20 --ping-timeout=30 --ws-protocol=None --root-path=''
    --proxy-headers=False --access-log=None
"""
SOCKETS = """
    action='list' content=None --path=None --user=None --server=None --address=None --inactive=False --all=False
    --code=1000 --every=None --json=False --asyncapi=False --typescript=False --url=None
"""
ACTIONS = ['list', 'purge', 'send', 'close', 'doctor', 'describe']

CHECKS = [f'sockets.E{number:03}' for number in range(1, 13)] + [
    f'sockets.W{number:03}' for number in (*range(1, 14), 16, 17)
]


LINES = [line.strip() for line in re.sub(r'\n {8,}', ' ', NAMES).strip().splitlines()]


def find(path):
    """Return what is at the dotted ``path``, of a class without its descriptors' work, and the class."""
    parts = path.split('.')
    module = next(name for name in ('.'.join(parts[:end]) for end in range(len(parts) - 1, 0, -1)) if is_module(name))
    found, owner = import_module(module), None
    for name in parts[module.count('.') + 1 :]:
        owner = found if inspect.isclass(found) else None
        found = inspect.getattr_static(owner, name) if owner else getattr(found, name)
    return found, owner


def is_module(name):
    try:
        return bool(import_module(name))
    except ModuleNotFoundError:
        return False


def parameters_of(function, is_method=False):
    found = list(inspect.signature(function).parameters.values())[is_method:]
    return {parameter.name: (parameter.kind, parameter.default) for parameter in found}


def marked(line):
    """Return a parameter for ``line``, marked if it is of one engine."""
    of_channels1 = [pytest.mark.channels1('the layers are those of Channels 1')] if 'sockets.layers' in line else []
    return pytest.param(line, marks=of_channels1)


@pytest.mark.parametrize('line', map(marked, LINES), ids=lambda line: line.partition('(')[0])
def test_a_name_is_where_it_was_and_takes_what_it_took(line):
    path, is_called, arguments = line.partition('(')
    found, owner = find(path)
    if not is_called:
        return
    namespace = {'UNCHANGED': UNCHANGED}
    exec(f'def function({arguments}: pass', namespace)
    before = parameters_of(namespace['function'])
    now = parameters_of(found, is_method=owner is not None)
    assert {name: now.get(name) for name in before} == before
    # What was added comes after what there was, and may be left out.
    assert [name for name in now if name in before] == list(before)
    by_position = [name for name, (kind, _) in before.items() if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert list(now)[: len(by_position)] == by_position
    for name in set(now) - set(before):
        kind, default = now[name]
        assert default is not inspect.Parameter.empty or kind is inspect.Parameter.VAR_KEYWORD


def test_the_list_of_names_is_long():
    assert len(LINES) > 150 and len(set(LINES)) == len(LINES)


def test_the_manager_has_the_methods_of_the_queryset():
    for line in LINES:
        name = line.partition('sockets.models.SocketQuerySet.')[2].partition('(')[0]
        # Django lets nobody delete() a whole table by a slip.
        assert not name or name == 'delete' or callable(getattr(Socket.objects, name))


def test_exceptions_say_what_they_did():
    error = exceptions.FrameError('not_allowed', 'No.', {'a': ['b']}, 3)
    assert (error.code, error.details, error.errors, error.retry_after) == ('not_allowed', 'No.', {'a': ['b']}, 3)
    error = exceptions.DeliveryFailed(1, 2, 'Away.')
    assert (error.delivered, error.total, error.why) == (1, 2, 'Away.')
    for name, base in [
        ('FrameError', 'SocketsError'),
        ('ConnectionRevoked', 'SocketsError'),
        ('RowMissing', 'ConnectionRevoked'),
        ('PermissionMissing', 'SocketsError'),
        ('TooManyConnections', 'SocketsError'),
        ('MailboxFull', 'SocketsError'),
        ('DeliveryFailed', 'SocketsError'),
    ]:
        assert issubclass(getattr(exceptions, name), getattr(exceptions, base))
    for name in ('ConnectionRevoked', 'RowMissing', 'PermissionMissing', 'TooManyConnections'):
        assert getattr(exceptions, name)('Gone.').details == 'Gone.'


def test_the_words_of_messages_are_what_they_were():
    for name, value in re.findall(r'(\w+) (\w+)', MESSAGES):
        assert str(getattr(messages, name)) == value


def test_the_settings_are_what_they_were():
    assert {name: conf.DEFAULTS[name] for name in SETTINGS} == SETTINGS
    assert set(CREDENTIALS.split()) <= set(conf.DEFAULTS['CREDENTIALS'])


@pytest.mark.parametrize(
    'command, options',
    [
        pytest.param('runsockets', RUNSOCKETS, marks=pytest.mark.channels1('on Channels 4, its servers have others')),
        ('sockets', SOCKETS),
    ],
)
def test_a_command_has_the_options_that_it_had(command, options):
    parser = load_command_class('sockets', command).create_parser('manage.py', command)
    now = {}
    for action in parser._actions:
        for name in action.option_strings or [action.dest]:
            now[name] = action.default
    before = dict(option.split('=') for option in options.split())
    assert {name: repr(now[name]) for name in before} == before


def test_the_command_has_the_actions_that_it_had():
    parser = load_command_class('sockets', 'sockets').create_parser('manage.py', 'sockets')
    (choices,) = [action.choices for action in parser._actions if action.dest == 'action']
    assert set(ACTIONS) <= set(choices)


def test_dumpdata_is_still_ours():
    assert type(load_command_class('sockets', 'dumpdata')).__module__ == 'sockets.management.commands.dumpdata'


def test_the_checks_have_the_ids_that_they_had():
    texts = [path.read_text(encoding='utf-8') for path in (ROOT / 'sockets').glob('**/*.py')]
    for id in CHECKS:
        assert any(repr(id) in text for text in texts), id


def test_the_row_has_the_permissions_and_relations_that_it_had():
    assert {'send_socket', 'close_socket', 'logout_socket'} <= {name for name, _ in Socket._meta.permissions}
    related = {(field.name, field.remote_field.related_name) for field in Socket._meta.fields if field.remote_field}
    assert {('user', 'sockets'), ('session', 'sockets')} <= related
    assert (Socket._meta.label, Socket._meta.db_table) == ('sockets.Socket', 'sockets_socket')
    assert (Membership._meta.label, Membership._meta.db_table) == ('sockets.Membership', 'sockets_membership')


@pytest.mark.parametrize(
    'name',
    [
        '0001_initial',
        '0002_socket_server',
        '0003_socket_admin',
        '0004_rooms',
        '0005_socket_layer',
        '0006_bytes',
        '0007_credentials',
    ],
)
def test_a_migration_that_projects_depend_on_is_called_what_it_was(name):
    assert import_module('sockets.migrations.' + name).Migration


@pytest.mark.parametrize('name', ['sockets.js', 'sockets.d.ts'])
def test_a_static_file_is_where_it_was(name):
    assert (ROOT / 'sockets/static/sockets' / name).is_file()


def test_the_template_tag_loads_the_browser_client():
    with override_settings(STATIC_URL='/static/'):
        assert '/static/sockets/sockets.js' in Template('{% load sockets %}{% socket_script %}').render(Context())


def test_a_handler_is_a_consumer_of_channels_1_and_has_the_attributes_that_it_had():
    assert issubclass(SocketDemultiplexer, RoutedSocketHandler)
    if ON_CHANNELS_1:
        from channels.generic.websockets import WebsocketConsumer

        assert issubclass(RoutedSocketHandler, WebsocketConsumer)
    assert sockets.__version__
    assert [entry[0] for entry in RoutedSocketHandler.routes] == ['HELLO', 'PING']
    assert (
        RoutedSocketHandler.login_required,
        RoutedSocketHandler.permission,
        RoutedSocketHandler.middleware,
        RoutedSocketHandler.sends,
        RoutedSocketHandler.on_bytes,
    ) == (False, (), (), {}, None)


def name_of(message):
    """Return the name of the connection of ``message``. On Channels 4, that has no reply channel."""
    return message.reply_channel.name if ON_CHANNELS_1 else message['reply_channel']


class Shown(RoutedSocketHandler):
    """What the documents show people writing, and what they may have found beside it."""

    routes = (*RoutedSocketHandler.routes, ('ASK', 'on_ask'))
    seen = []

    def connect(self, message, **kwargs):
        self.note('connect', message)
        super().connect(message, **kwargs)

    def disconnect(self, message, **kwargs):
        self.note('disconnect', message)
        super().disconnect(message, **kwargs)

    def receive(self, content, **kwargs):
        return super().receive(content, **kwargs)

    def on_hello(self, content):
        return {**super().on_hello(content), 'more': 1}

    def on_ping(self, content):
        super().on_ping(content)
        self.send_action('PONG')

    def on_ask(self, content):
        self.note('receive', self.message)
        return {
            'type': 'TOLD',
            'content': self.content,
            'path': self.path,
            'room': self.kwargs['room'],
            'open': self.accepted and not self.closed,
            'row': self.socket.pk,
        }

    def default_route(self, content):
        try:
            return super().default_route(content)
        except exceptions.FrameError as error:
            return {'type': 'SORRY', 'code': error.code}

    def decode(self, text, data):
        return super().decode(text, data)

    def encode(self, content):
        return super().encode(content)

    def note(self, event, message):
        assert message is self.message and self.event == event
        user = message.user if ON_CHANNELS_1 else self.user
        self.seen.append((event, name_of(message) == self.channel_name, message['path'], user.pk))


@pytest.mark.django_db
def test_a_handler_class_overrides_and_asks_what_it_did():
    Shown.seen.clear()
    with SocketClient('/room/tea/', handler=Shown, pattern=r'^/room/(?P<room>\w+)/$') as client:
        assert client.request('HELLO')['more'] == 1
        client.send('PING')
        assert client.received() == [{'type': 'PONG'}]
        row = Socket.objects.get().pk
        client.send('ASK', more=2)
        assert client.received() == [
            {
                'type': 'TOLD',
                'content': {'type': 'ASK', 'more': 2},
                'path': '/room/tea/',
                'room': 'tea',
                'open': True,
                'row': row,
            }
        ]
        assert client.request('WHAT') == {'type': 'SORRY', 'code': 'unknown_type'}
    assert Shown.seen == [(event, True, '/room/tea/', None) for event in ('connect', 'receive', 'disconnect')]


class View:
    socket = SocketRouter(handler=Shown, sends={'SAID': None})

    @socket.connect
    def on_open(socket, message, room):
        socket.join(room)
        socket.seen.append(name_of(message))

    @socket.route('SAY')
    def on_say(socket, content):
        return {'type': 'SAID', 'by': name_of(socket.message), 'rooms': socket.rooms}

    @socket.bytes
    def on_data(socket, data):
        return data[::-1]

    @socket.disconnect
    def on_close(socket, message):
        socket.seen.append(message.get('code'))


@pytest.mark.django_db
def test_functions_of_a_view_get_what_they_did():
    Shown.seen.clear()
    with SocketClient('/room/tea/', handler=View.socket.Handler, pattern=r'^/room/(?P<room>\w+)/$') as client:
        name = client.socket.channel_name
        assert client.request('SAY') == {'type': 'SAID', 'by': name, 'rooms': ['tea']}
        assert client.request_bytes(b'tea') == b'aet'
        client.close(1001)
    assert [seen for seen in Shown.seen if not isinstance(seen, tuple)] == [name, 1001]


@pytest.mark.django_db
def test_what_is_captured_has_the_attributes_that_it_had():
    with capture_sends() as sent:
        Socket.objects.send_action('BELL')
    assert [(each.content, each.close_code, each.channel_names) for each in sent] == [({'type': 'BELL'}, None, [])]


@pytest.mark.django_db
def test_signals_carry_what_they_did():
    heard = {}

    def connected(sender, socket, **kwargs):
        heard['connected'] = sender, socket.path

    def disconnected(sender, socket, code, reason, **kwargs):
        heard['disconnected'] = sender, code, reason

    def handled(sender, socket, route, duration, outcome, **kwargs):
        heard['handled'] = sender, route, outcome, duration >= 0

    receivers = [
        (signals.socket_connected, connected),
        (signals.socket_disconnected, disconnected),
        (signals.message_handled, handled),
    ]
    for signal, receiver in receivers:
        signal.connect(receiver)
    try:
        with SocketClient('/', handler=RoutedSocketHandler) as client:
            client.send('PING')
    finally:
        for signal, receiver in receivers:
            signal.disconnect(receiver)
    assert heard == {
        'connected': (RoutedSocketHandler, '/'),
        'disconnected': (RoutedSocketHandler, 1000, None),
        'handled': (RoutedSocketHandler, 'PING', 'ok', True),
    }
