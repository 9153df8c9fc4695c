"""Clients of Channels 4 that wait to connect are let in together: one statement inserts their rows."""

import asyncio
import threading

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.db import DatabaseError

from sockets import RoutedSocketHandler, SocketRouter
from sockets.engines.channels4 import arrivals
from sockets.engines.channels4.arrivals import Arrivals
from sockets.engines.channels4.server import server
from sockets.models import Socket, insertion

pytestmark = pytest.mark.django_db(transaction=True)


class Page:
    socket = SocketRouter()
    # What functions wait for, in the order in which they are called; and what they have seen.
    gates, opened = [], []

    @socket.connect
    def on_open(socket):
        number = len(Page.opened)
        Page.opened.append(Socket.objects.count())
        if number < len(Page.gates):
            Page.gates[number].wait(20)
        socket.send_json({'type': 'WELCOME'})


class Overridden(RoutedSocketHandler):
    gates = Page.gates

    def connect(self, message, **kwargs):
        Page.opened.append(Socket.objects.count())
        if len(Page.opened) == 1:
            Page.gates[0].wait(20)
        super().connect(message, **kwargs)


@pytest.fixture
def sizes(monkeypatch):
    """How many rows each statement has inserted."""
    create, found = insertion._create, []

    def counted(rows, using):
        found.append(len(rows))
        return create(rows, using)

    monkeypatch.setattr(insertion, '_create', counted)
    # However long the first function waits, and however slow the machine is.
    monkeypatch.setattr(arrivals, 'WEIGHT', 0)
    monkeypatch.setattr(arrivals, 'AT_ONCE', 5)
    Page.gates[:] = [threading.Event()]
    Page.opened.clear()
    yield found
    for gate in Page.gates:
        gate.set()


class Clients:
    def __init__(self, count, handler=Page.socket.Handler, threads=1):
        self.count, self.handler, self.threads = count, handler, threads

    async def wait(self):
        """Have the functions of the first ones wait, one in each thread, and the others for a thread."""
        server(4, self.threads)
        self.all = []
        for _ in range(self.count):
            one = WebsocketCommunicator(self.handler.as_asgi(), '/', [(b'host', b'example.com')])
            one.scope.update(client=['127.0.0.1', 1], server=['example.com', 80])
            await one.send_input({'type': 'websocket.connect'})
            self.all.append(one)
            while len(Page.opened) < min(len(self.all), self.threads):
                await asyncio.sleep(0.01)
        while len(server().connects.line) < self.count - self.threads:
            await asyncio.sleep(0.01)

    async def answers(self):
        """Return the type of what each is answered first."""
        return [(await one.receive_output(10))['type'] for one in self.all]

    async def leave(self):
        await server().stop(1012)


async def names_of_rows():
    return await sync_to_async(lambda: set(Socket.objects.values_list('channel_name', flat=True)))()


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_the_rows_of_those_that_wait_are_inserted_by_one_statement_before_their_functions_are_called(sizes):
    async def scenario():
        clients = Clients(6)
        await clients.wait()
        Page.gates[0].set()
        assert await clients.answers() == ['websocket.accept'] * 6
        for one in clients.all:
            assert await one.receive_json_from(10) == {'type': 'WELCOME'}
        names = {connection.name for connection in server().connections.values()}
        assert await names_of_rows() == names
        await clients.leave()

    run(scenario)
    # The first one was alone.
    assert sizes == [5] and Page.opened == [1, 6, 6, 6, 6, 6]
    assert not Socket.objects.exists()


def test_a_function_that_hangs_keeps_no_other_one(sizes):
    async def scenario():
        Page.gates.extend([threading.Event(), threading.Event()])
        clients = Clients(6, threads=2)
        await clients.wait()
        Page.gates[0].set()
        while len(Page.opened) < 3:
            await asyncio.sleep(0.01)
        # The first one of those that were inserted together hangs, in the only thread that has time.
        assert sizes == [4]
        Page.gates[1].set()
        while len(Page.opened) < 6:
            await asyncio.sleep(0.01)
        Page.gates[2].set()
        assert await clients.answers() == ['websocket.accept'] * 6
        await clients.leave()

    run(scenario)


def test_who_has_left_meanwhile_has_no_row(sizes, monkeypatch):
    insert = Arrivals._insert

    def insert_without_the_first(pool, waiting):
        waiting[0][0][-1][0].has_ended = True
        insert(pool, waiting)

    monkeypatch.setattr(Arrivals, '_insert', insert_without_the_first)

    async def scenario():
        clients = Clients(4)
        await clients.wait()
        Page.gates[0].set()
        while len(Page.opened) < 3:
            await asyncio.sleep(0.01)
        for one in [clients.all[0], *clients.all[2:]]:
            assert (await one.receive_output(10))['type'] == 'websocket.accept'
        assert len(await names_of_rows()) == 3
        await clients.leave()

    run(scenario)
    assert sizes == [2]


def test_after_a_failure_each_is_inserted_alone(sizes, monkeypatch):
    create = insertion._create

    def fail(rows, using):
        sizes.append(-len(rows))
        if len(rows) > 1:
            raise DatabaseError('one of them')
        return create(rows, using)

    monkeypatch.setattr(insertion, '_create', fail)

    async def scenario():
        clients = Clients(4)
        await clients.wait()
        Page.gates[0].set()
        assert await clients.answers() == ['websocket.accept'] * 4
        assert len(await names_of_rows()) == 4
        await clients.leave()

    run(scenario)
    assert sizes == [-3, -1, 1, -1, 1, -1, 1]


def test_where_somebody_may_have_so_many_connections_only_each_is_counted_by_the_next(sizes, settings):
    settings.SOCKETS = {**getattr(settings, 'SOCKETS', {}), 'MAX_CONNECTIONS_PER_ADDRESS': 3}

    async def scenario():
        clients = Clients(5)
        await clients.wait()
        Page.gates[0].set()
        assert await clients.answers() == ['websocket.accept'] * 5
        assert len(await names_of_rows()) == 3
        await clients.leave()

    run(scenario)
    assert sizes == []


def test_a_connect_of_the_project_s_own_is_called_before_there_is_a_row(sizes):
    async def scenario():
        clients = Clients(4, Overridden)
        await clients.wait()
        Page.gates[0].set()
        assert await clients.answers() == ['websocket.accept'] * 4
        await clients.leave()

    run(scenario)
    assert sizes == [] and Page.opened == [0, 1, 2, 3]
