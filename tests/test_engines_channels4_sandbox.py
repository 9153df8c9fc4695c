"""What ``sockets.testing`` asks of an engine, asked directly."""

import asyncio
import threading

import pytest
from channels.layers import InMemoryChannelLayer, channel_layers
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation

from sockets import RoutedSocketHandler
from sockets.engines.channels4.sandbox import Sandbox
from sockets.execution import coroutines
from sockets.models import Socket
from sockets.routing import route_class

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


def opened(server, handler, path='/echo/'):
    server.route(handler, f'^{path}$')
    connection = server.connection(path)
    connection.open(HANDSHAKE)
    server.work()
    return connection


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
        assert echo == (None, '{"type":"ECHO"}', None) and 'invalid_message' in error[1]
        connection.close(1000)
        server.work()
        assert take(server, connection) == [] and not Socket.objects.exists()
        # The client has gone.
        connection.send(text='{"type":"ECHO"}')
        connection.close(1000)
        server.work()
        assert take(server, connection) == []


def test_a_refusal_is_a_close_before_the_accept():
    with Sandbox(routing=[route_class(Echo, path='^/echo/$')]) as server:
        connection = server.connection('/echo/')
        connection.open(dict(HANDSHAKE, headers=[[b'host', b'testserver'], [b'origin', b'https://evil.example']]))
        server.work()
        assert take(server, connection) == [(None, None, 4403)]
        lost = server.connection('/nowhere/')
        lost.open(HANDSHAKE)
        server.work()
        assert take(server, lost) == [(None, None, 4403)]


def test_what_goes_to_many_is_noted_and_sent_all_the_same():
    noted = []
    with Sandbox(routing=[]) as server:
        connection = opened(server, Echo)
        take(server, connection)
        with server.noting_sends(lambda *args: noted.append(args)):
            assert Socket.objects.send_json({'type': 'NEWS'}) == 1
            Socket.objects.close(4000)
        Socket.objects.send_json({'type': 'LATER'})
        assert noted == [([connection.name], '{"type":"NEWS"}', None), ([connection.name], None, 4000)]
        assert [code or frame for _, frame, code in take(server, connection)] == [
            '{"type":"NEWS"}',
            4000,
            '{"type":"LATER"}',
        ]
        # As its server does with one that has been told to close.
        connection.send(text='{"type":"ECHO"}')
        server.work()
        assert take(server, connection) == []


def test_an_async_def_runs_as_on_a_server_and_its_queries_in_the_transaction_of_the_test():
    threads = []

    class Page(RoutedSocketHandler):
        async def receive(self, content, **kwargs):
            assert asyncio.get_running_loop()
            if content['type'] == 'PLAIN':
                return {'users': get_user_model().objects.count()}
            await self.asend_json({'type': 'FIRST'})
            await get_user_model().objects.acreate(username='bob')
            return {'users': await get_user_model().objects.acount()}

        def send_json(self, content):
            threads.append(threading.current_thread())
            super().send_json(content)

    get_user_model().objects.create(username='alice')
    with Sandbox(routing=[]) as server:
        connection = opened(server, Page)
        take(server, connection)
        connection.send(text='{"type":"AWAITED"}')
        server.work()
        assert [frame for _, frame, _ in take(server, connection)] == ['{"type":"FIRST"}', '{"users":2}']
        with server_errors() as errors:
            connection.send(text='{"type":"PLAIN"}')
            server.work()
        assert [type(error) for error in errors] == [SynchronousOnlyOperation]
    assert get_user_model().objects.count() == 2 and set(threads) <= {threading.current_thread()}


class server_errors:
    """What handlers raised."""

    def __enter__(self):
        import logging

        from sockets.testing import isolation

        errors = []
        self.patch = isolation._noting_errors(logging.getLogger('sockets'), errors)
        self.patch.__enter__()
        return errors

    def __exit__(self, *raised):
        self.patch.__exit__(*raised)


def test_what_was_there_before_is_put_back_also_when_a_routing_cannot_be_made(settings):
    settings.CHANNEL_LAYERS = {
        alias: {'BACKEND': 'channels.layers.InMemoryChannelLayer'} for alias in ('default', 'two')
    }
    there, given = channel_layers['default'], InMemoryChannelLayer()
    with Sandbox(layer=given, routing=[]):
        assert channel_layers['default'] is given and 'two' in channel_layers.backends
    assert channel_layers['default'] is there and 'two' not in channel_layers.backends
    with pytest.raises(ImportError), Sandbox(routing='no.such.routing'):
        pytest.fail('It has no routing.')
    with pytest.raises(ImproperlyConfigured), Sandbox(routing=[len]):
        pytest.fail('It has no routing.')
    assert channel_layers['default'] is there and coroutines.runs_by() is None
