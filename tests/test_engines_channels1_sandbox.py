"""What ``sockets.testing`` asks of an engine, asked directly."""

import pytest
from channels import channel_layers, route, route_class
from django.core.exceptions import ImproperlyConfigured

from sockets import RoutedSocketHandler
from sockets.engines.channels1.sandbox import Sandbox
from sockets.models import Socket

pytestmark = pytest.mark.django_db

HANDSHAKE = {
    'headers': [[b'host', b'testserver']],
    'query_string': b'',
    'client': ['127.0.0.1', 50000],
    'server': ['127.0.0.1', 80],
}


class Echo(RoutedSocketHandler):
    def receive(self, content, **kwargs):
        return content


def take(server, connection):
    """Return what the server does to ``connection`` next, as its client reads it."""
    taken = list(server.receive())
    assert {name for name, _ in taken} <= {connection.name}
    return [connection.read(message) for _, message in taken]


def test_a_connection_is_opened_used_and_closed_and_nothing_runs_by_itself():
    with Sandbox(routing=[]) as server:
        server.route(Echo, '^/echo/$')
        connection = server.connection('/echo/')
        connection.open(HANDSHAKE)
        assert take(server, connection) == [] and not Socket.objects.exists()
        server.work()
        assert take(server, connection) == [(True, None, None)]
        assert Socket.objects.get().channel_name == connection.name
        connection.send(text='{"type":"ECHO"}')
        connection.send(bytes=b'x')
        server.work()
        echo, error = take(server, connection)
        assert echo == (True, '{"type":"ECHO"}', None) and 'invalid_message' in error[1]
        connection.close(1000)
        server.work()
        assert take(server, connection) == [] and not Socket.objects.exists()


def test_a_refusal_is_a_close_before_the_accept():
    with Sandbox(routing=[route_class(Echo, path='^/echo/$')]) as server:
        connection = server.connection('/echo/')
        connection.open(dict(HANDSHAKE, headers=[[b'host', b'testserver'], [b'origin', b'https://evil.example']]))
        server.work()
        assert take(server, connection) == [(None, None, 4403)]


@pytest.mark.parametrize(
    'message, expected',
    [
        ({'accept': True}, (True, None, None)),
        ({'accept': False}, (False, None, None)),
        ({'text': 'x', 'close': True}, (True, 'x', 1000)),
        ({'accept': False, 'bytes': b'x'}, (True, b'x', None)),
        ({'close': 4401}, (None, None, 4401)),
        ({'text': '', 'bytes': b'', 'close': False}, (None, None, None)),
    ],
)
def test_a_message_is_read_as_daphne_reads_it(message, expected):
    with Sandbox(routing=[]) as server:
        assert server.connection('/').read(message) == expected


def test_what_goes_to_many_is_noted_and_sent_all_the_same():
    noted = []
    with Sandbox(routing=[route_class(Echo, path='^/echo/$')]) as server:
        connection = server.connection('/echo/')
        connection.open(HANDSHAKE)
        server.work()
        take(server, connection)
        with server.noting_sends(lambda *args: noted.append(args)):
            Socket.objects.send_json({'type': 'NEWS'})
            Socket.objects.close(4000)
        Socket.objects.send_json({'type': 'LATER'})
        assert noted == [([connection.name], '{"type":"NEWS"}', None), ([connection.name], None, 4000)]
        assert [code or frame for _, frame, code in take(server, connection)] == [
            '{"type":"NEWS"}',
            4000,
            '{"type":"LATER"}',
        ]


def test_what_was_there_before_is_put_back_also_when_a_layer_cannot_be_made(settings, monkeypatch):
    before = dict(channel_layers.backends)
    with Sandbox(routing=[route('jobs', len)]):
        assert channel_layers['default'] is not before.get('default')
    assert channel_layers.backends == before
    with pytest.raises(ImproperlyConfigured), Sandbox(routing='no.such.routing'):
        pytest.fail('It has no routing.')
    assert channel_layers.backends == before
