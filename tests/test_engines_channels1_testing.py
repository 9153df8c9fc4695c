"""What ``sockets.testing`` does on Channels 1: with its layers, its routes and the other channels of a project."""

import sys
import threading
from types import SimpleNamespace

import pytest
from asgiref.inmemory import ChannelLayer
from channels import Channel, channel_layers, route, route_class
from daphne.ws_protocol import WebSocketProtocol
from django.test import Client
from django.views.generic import View

from sockets import SocketRouter, presence
from sockets.models import Socket
from sockets.testing import SocketClient, assert_not_received, assert_received, capture_sends, sandbox, work

pytestmark = pytest.mark.django_db


class Room(View):
    socket = SocketRouter()

    @socket.connect
    def on_open(socket, message):
        socket.send_action('WELCOME')

    @socket.route('BACKGROUND')
    def on_background(socket, content):
        Channel('background').send({'path': socket.path})


def in_background(message):
    Socket.objects.filter(path=message['path']).send_action('DONE')


ROUTING = [
    route_class(Room.socket.Handler, path='^/room/$'),
    route('websocket.connect', lambda message: None, path='^/silent/$'),
    route('background', in_background),
]


@pytest.fixture(autouse=True)
def routed(settings, monkeypatch):
    """Have the project's layer be one that cannot be reached, with our routing."""
    settings.CHANNEL_LAYERS = {
        name: {
            'BACKEND': 'sockets.layers.RedisChannelLayer',
            'CONFIG': {'hosts': ['redis://192.0.2.1:1/0']},
            'ROUTING': ROUTING,
        }
        for name in ('default', 'other')
    }
    monkeypatch.setattr(channel_layers, 'backends', {})


def test_layers_are_replaced_and_put_back():
    backends = dict(channel_layers.backends)
    with SocketClient('/room/'):
        layer = channel_layers['default'].channel_layer
        with sandbox():
            assert channel_layers['default'].channel_layer is layer is not channel_layers['other'].channel_layer
        with sandbox(ChannelLayer()) as inner:
            assert channel_layers['default'].channel_layer is not layer and inner is None
    assert channel_layers.backends == backends


def test_the_connection_to_the_database_is_closed_after_consumers_again(socket_client):
    from channels.signals import consumer_finished
    from django.db import close_old_connections

    socket_client('/room/').send('ECHO')
    assert consumer_finished.disconnect(close_old_connections)
    consumer_finished.connect(close_old_connections)


def test_what_it_hands_to_the_layer_is_what_daphne_hands_to_it():
    layer = ChannelLayer(capacity=100)
    daphne = WebSocketProtocol()
    daphne.set_main_factory(
        SimpleNamespace(
            channel_layer=layer,
            make_send_channel=lambda: 'daphne.response.x!y',
            reply_protocols={},
            proxy_forwarded_address_header=None,
        )
    )
    daphne.factory = SimpleNamespace(protocols=[], log_action=lambda *args: None, reply_protocols={})
    daphne.transport = SimpleNamespace(
        getPeer=lambda: SimpleNamespace(host='192.0.2.7', port=50000),
        getHost=lambda: SimpleNamespace(host='127.0.0.1', port=80),
    )
    daphne._raw_query_string = b'a=1&b=%20'
    daphne.onConnect(
        SimpleNamespace(path='/caf%C3%A9/', headers={'Host': 'testserver', 'X-Thing': 'é', 'Cookie': 'a=b; c="d e"'})
    )
    daphne.onMessage('{"é": 1}'.encode(), False)
    daphne.onMessage(b'\0', True)
    daphne.onClose(True, 1001, '')
    browser = Client()
    browser.cookies['a'], browser.cookies['c'] = 'b', 'd e'
    seen = []

    def consume(message):
        seen.append((message.channel.name, message.content))
        if message.channel.name == 'websocket.connect':
            message.reply_channel.send({'accept': True})

    with sandbox(routing=[route('websocket.' + kind, consume) for kind in ('connect', 'receive', 'disconnect')]):
        with SocketClient(
            '/caf%C3%A9/?a=1&b=%20', headers={'X-Thing': 'é'}, browser=browser, address='192.0.2.7'
        ) as client:
            client.send_text('{"é": 1}')
            client.send_bytes(b'\0')
            client.close(1001)
    assert [channel for channel, _ in seen] == [
        'websocket.connect',
        'websocket.receive',
        'websocket.receive',
        'websocket.disconnect',
    ]
    for order, (channel, given) in enumerate(seen):
        expected = layer.receive([channel])[1]
        assert '!' in given['reply_channel'] and len(given['reply_channel']) < 100
        assert given.pop('reply_channel') != expected.pop('reply_channel')
        for message in (given, expected):
            if 'headers' in message:
                message['headers'] = sorted(map(tuple, message['headers']))
        assert given == expected and given['order'] == order


def test_daphne_would_not_send_what_it_does_not_know(socket_client):
    client = socket_client('/room/')
    for message in ({'txt': 'typo'}, {'text': '{}', 'bytes': b'{}'}):
        channel_layers['default'].send(client.channel_name, message)
        with pytest.raises(ValueError, match='daphne refuses'):
            client.received()
    # Nor what is empty; bytes and a text that is no JSON it passes on.
    for message in ({'text': ''}, {'bytes': b'\1'}, {'text': 'x'}, {'close': True}, {'text': 'late'}):
        channel_layers['default'].send(client.channel_name, message)
    assert assert_received(client, type='WELCOME') and client.close_code == 1000
    with pytest.raises(AssertionError, match="received b'.x01'"):
        assert_not_received(client)
    assert client.received() == [b'\1', 'x']


def test_what_a_consumer_of_channels_raises_is_raised_too(socket_client, monkeypatch):
    client = socket_client('/room/')
    monkeypatch.setattr(sys.modules[__name__], 'Socket', None)
    with pytest.raises(AttributeError):
        client.send('BACKGROUND')


def test_a_layer_that_is_there_lends_its_routing(monkeypatch):
    with sandbox(ChannelLayer(), routing=[route_class(Room.socket.Handler, path='^/other/$')]):
        there = channel_layers['default']
    monkeypatch.setitem(channel_layers.backends, 'default', there)
    with SocketClient('/other/') as other, SocketClient('/room/') as room:
        assert other.accepted and room.refused
    assert channel_layers['default'] is there


def test_whatever_waits_on_a_channel_is_handled(socket_client):
    client = socket_client('/room/')
    client.send('BACKGROUND')
    assert_received(client, type='DONE')
    with capture_sends() as sent:
        Channel('background').send({'path': '/room/'})
        assert sent == []
        work()
    assert [each.content for each in sent] == [{'type': 'DONE'}]


def test_nobody_sends_before_the_accept(socket_client):
    client = socket_client('/silent/')
    assert not client.accepted and not client.refused
    with pytest.raises(RuntimeError, match='nobody has accepted'):
        client.send('ECHO')
    client.close()
    assert client.refused
    with pytest.raises(RuntimeError, match='call its connect'):
        SocketClient('/room/').send('ECHO')


def test_nobody_has_housekeeper(monkeypatch):
    monkeypatch.setattr(presence, 'start_housekeeper', lambda: pytest.fail('a thread would start'))
    with sandbox(ChannelLayer(capacity=100)):
        with pytest.raises(RuntimeError):
            SocketClient('/room/').send('ECHO')
        client = SocketClient('/room/')
        client._begin()
        client.close()
        assert presence._unfinished
    assert not presence._unfinished
    assert not [thread for thread in threading.enumerate() if isinstance(thread, presence.Housekeeper)]
