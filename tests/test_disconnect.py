"""The end of a connection: what it asks of the database, and what it runs."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from sockets import RoutedSocketHandler
from sockets.connection.memory import memories
from sockets.models import Membership, Socket
from sockets.signals import socket_disconnected
from sockets.testing import sandbox

from .client import Connection

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def one_process():
    with sandbox(routing=[]):
        yield


class Quiet(RoutedSocketHandler):
    """At whose end nothing is to run."""


class Told(Quiet):
    ran = []

    def disconnect(self, message, **kwargs):
        Told.ran.append(self.row.path)


def ended(client, code=1000):
    """Have ``client`` leave and return what that asks of the database."""
    with CaptureQueriesContext(connection) as context:
        client.disconnect(code)
    return [query['sql'].split()[0] for query in context.captured_queries]


def test_where_nothing_is_to_run_the_row_is_not_read():
    client = Connection('/quiet/', handler=Quiet)
    Socket.objects.get().join('tea')
    assert ended(client) == ['DELETE', 'DELETE']
    assert not (Socket.objects.exists() or Membership.objects.exists() or client.name in memories)


def test_where_something_is_to_run_it_gets_the_row():
    del Told.ran[:]
    client = Connection('/told/', handler=Told)
    assert ended(client) == ['SELECT', 'DELETE', 'DELETE'] and Told.ran == ['/told/']


@pytest.mark.parametrize('sender', [None, Quiet])
def test_who_listens_gets_the_row(sender):
    heard = []

    def listen(socket, code, **kwargs):
        heard.append((socket.path, code))

    client = Connection('/quiet/', handler=Quiet)
    socket_disconnected.connect(listen, sender=sender)
    try:
        ended(client)
    finally:
        socket_disconnected.disconnect(listen, sender=sender)
    assert heard == [('/quiet/', 1000)]


def test_an_unusual_end_is_logged_with_what_the_row_says(caplog):
    caplog.set_level('INFO', 'sockets')
    assert 'SELECT' in ended(Connection('/quiet/', handler=Quiet), 1006)
    assert "at '/quiet/' ended with 1006" in caplog.text


def test_a_row_of_somebody_who_has_arrived_is_read_whatever_the_class_says_by_now():
    client = Connection('/quiet/', handler=Quiet)
    Socket.objects.update(has_arrived=True)
    assert 'SELECT' in ended(client)
    assert not Socket.objects.exists()


def test_a_process_that_has_not_made_the_row_finds_it_by_its_name():
    client = Connection('/quiet/', handler=Quiet)
    memories.forget(client.name)
    assert ended(client) == ['SELECT', 'DELETE', 'DELETE'] and not Socket.objects.exists()


def test_a_row_that_somebody_else_has_removed_is_nobodys_end():
    client = Connection('/quiet/', handler=Quiet)
    other = Connection('/quiet/', handler=Quiet)
    Socket.objects.get(channel_name=client.name).remove()
    # Whoever has its key by now, it is another's.
    memories.get(client.name).row = Socket.objects.get().pk
    ended(client)
    assert Socket.objects.get().channel_name == other.name and client.name not in memories
