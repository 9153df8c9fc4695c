"""``CloseConnection``, which a function raises to close its connection: the same on every engine."""

import logging

import pytest

from sockets import RoutedSocketHandler
from sockets.exceptions import CloseConnection
from sockets.models import Socket
from sockets.multiplexing import SocketDemultiplexer
from sockets.routes import Route
from sockets.testing import SocketClient, sandbox

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def one_process():
    with sandbox(routing=[]):
        yield


def form(content):
    raise CloseConnection(4006)


class Handler(RoutedSocketHandler):
    def plain(self, content):
        raise CloseConnection(content.get('code', 4001))

    async def later(self, content):
        raise CloseConnection(4002)

    def default(self, content):
        raise CloseConnection()

    routes = (('PLAIN', 'plain'), ('LATER', 'later'), ('DEFAULT', 'default'), Route('FORM', 'plain', form=form))


class Both(SocketDemultiplexer):
    streams = {'it': Handler}


def open_connection(handler=Handler, **options):
    return SocketClient('/page/', handler=handler, **options).connect()


@pytest.mark.parametrize('type, code', [('PLAIN', 4001), ('LATER', 4002), ('DEFAULT', 1000), ('FORM', 4006)])
def test_the_connection_is_closed_with_its_code(caplog, type, code):
    client = open_connection()
    with caplog.at_level(logging.WARNING):
        client.send(type)
    assert client.received() == [] and client.close_code == code
    assert not caplog.records and not Socket.objects.exists()


def test_a_request_is_answered_before_the_close():
    client = open_connection()
    assert client.request('PLAIN') == {'type': 'ACK'} and client.close_code == 4001


def test_a_stream_closes_the_connection():
    client = open_connection(Both)
    client.send_json({'stream': 'it', 'payload': {'type': 'PLAIN'}})
    assert client.close_code == 4001


def test_a_code_that_does_not_exist_is_logged(caplog):
    client = open_connection(raise_exceptions=False)
    client.send('PLAIN', code=42)
    assert client.close_code == 1011 and 'failed to close' in caplog.text


class Early(RoutedSocketHandler):
    is_accepting = False

    def connect(self, message, **kwargs):
        if self.is_accepting:
            self.accept()
        raise CloseConnection(4003)


class Late(Early):
    is_accepting = True


def test_a_connection_that_is_not_accepted_is_refused():
    client = open_connection(Early)
    assert client.refused and not Socket.objects.exists()


def test_one_that_is_accepted_is_closed():
    client = open_connection(Late)
    assert client.accepted and client.close_code == 4003 and not Socket.objects.exists()


def closing(next):
    def handle(socket, content):
        if socket.event == 'receive':
            raise CloseConnection(4005)
        return next(socket, content)

    return handle


class Guarded(Handler):
    middleware = [closing]


def test_a_middleware_may_raise_it():
    client = open_connection(Guarded)
    client.send('PLAIN')
    assert client.close_code == 4005
