"""What may happen on Channels 4 to a connection between the insert of its row, with those of others, and its functions."""

import asyncio
import threading

import pytest
from asgiref.sync import sync_to_async

from sockets import SocketRouter
from sockets.connection.memory import memories
from sockets.connection.openings import openings
from sockets.engines.channels4 import arrivals, pool
from sockets.engines.channels4.server import server
from sockets.models import Socket, insertion

from .test_engines_channels4_arrivals import Clients, Page, names_of_rows, run, sizes  # noqa: F401

pytestmark = pytest.mark.django_db(transaction=True)


async def until(condition, seconds=10):
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)


def test_functions_that_are_slow_have_all_threads_that_there_are(sizes, monkeypatch):  # noqa: F811
    """Only one more was woken for those whose rows had been inserted together, and two of eight threads served them."""
    monkeypatch.setattr(pool, 'PATIENCE', 0.5)

    async def scenario():
        Page.gates[:] = [threading.Event() for _ in range(9)]
        server(4, 4)
        # One of the threads is at work, and none of the others is woken before that takes those that wait.
        clients = Clients(9)
        await clients.wait()
        Page.gates[0].set()
        await until(lambda: len(Page.opened) == 5)
        assert sizes == [8]
        for gate in Page.gates:
            gate.set()
        assert await clients.answers() == ['websocket.accept'] * 9
        await clients.leave()

    run(scenario)


class Counted:
    """Who is there, as a project would count them."""

    socket = SocketRouter()
    said = []

    @socket.connect
    def on_open(socket):
        Page.on_open(socket)
        Counted.said.append('opened ' + socket.channel_name)

    @socket.disconnect
    def on_close(socket):
        Counted.said.append('closed ' + socket.channel_name)


def test_who_ends_between_row_and_functions_is_not_opened_after_that(sizes):  # noqa: F811
    """A row that went with its user had its disconnect functions run, and then its connect functions."""
    Counted.said.clear()

    async def scenario():
        Page.gates.append(threading.Event())
        clients = Clients(5, Counted.socket.Handler)
        await clients.wait()
        names = list(server().connections)
        Page.gates[0].set()
        # The second one is in its function, and the others have their rows.
        await until(lambda: len(Page.opened) == 2)
        assert sizes == [4]
        await sync_to_async(Socket.objects.filter(channel_name=names[-1]).delete)()
        await until(lambda: server().connections[names[-1]].has_ended)
        Page.gates[1].set()
        assert [(await one.receive_output(10))['type'] for one in clients.all[:4]] == ['websocket.accept'] * 4
        assert (await clients.all[4].receive_output(10))['type'] == 'websocket.close'
        await until(lambda: len(Page.opened) >= 4)
        await clients.all[4].send_input({'type': 'websocket.disconnect', 'code': 1006})
        await until(lambda: names[-1] not in server().connections)
        assert 'opened ' + names[-1] not in Counted.said and names[-1] not in memories
        assert await names_of_rows() == set(names[:4])
        await clients.leave()

    run(scenario)


def test_a_server_that_stops_leaves_no_row_of_those_whose_functions_were_not_reached(sizes, caplog):  # noqa: F811
    """It was to be removed on the event loop, where Django allows no query."""

    async def scenario():
        Page.gates.append(threading.Event())
        clients = Clients(5)
        await clients.wait()
        names = list(server().connections)
        Page.gates[0].set()
        await until(lambda: len(Page.opened) == 2)
        await server().stop(1012, 0.5)
        # The only thread hangs in the function of the second one, and the end of the first one waits for it.
        left = await names_of_rows()
        Page.gates[1].set()
        assert not left & set(names[2:])

    run(scenario)
    assert 'SynchronousOnlyOperation' not in caplog.text and 'You cannot call this' not in caplog.text


class Wrong:
    socket = SocketRouter()

    @socket.connect
    def on_open(socket):
        pass


def test_what_is_configured_wrongly_is_told_to_all_that_wait_and_ends_no_thread(sizes, monkeypatch):  # noqa: F811
    """The thread that asked for it ended, and its client was left without an answer."""
    handler = Wrong.socket.Handler

    async def scenario():
        found = server(4, 1)
        release = threading.Event()
        found.connect_pool.submit(release.wait, 10)
        monkeypatch.setattr(handler, 'authentication', ['no.such.module'])
        clients = Clients(3, handler, threads=0)
        await clients.wait()
        release.set()
        assert [kind in ('websocket.close', 'websocket.accept') for kind in await clients.answers()] == [True] * 3
        assert all(thread.is_alive() for thread in found.connect_pool.threads)
        await clients.leave()

    run(scenario)


def test_a_row_that_is_withdrawn_while_it_is_inserted_is_removed(monkeypatch):
    rows = [Socket(channel_name=f'sockets.1.a!{n}', path='/') for n in range(3)]
    waiting = [insertion.Insertion(row) for row in rows]
    create = insertion._create

    def withdraw_one(rows, using):
        create(rows, using)
        waiting[1].withdraw()

    monkeypatch.setattr(insertion, '_create', withdraw_one)
    insertion.insert(waiting)
    assert set(Socket.objects.values_list('channel_name', flat=True)) == {'sockets.1.a!0', 'sockets.1.a!2'}


def test_who_is_hard_to_find_keeps_none_of_those_that_wait_for_its_row(sizes, monkeypatch):  # noqa: F811
    """A thread that hung in one of them, as in a user that is looked up elsewhere, kept all that it had taken before."""
    monkeypatch.setattr(arrivals, 'AT_ONCE', 0.5)
    release, found = threading.Event(), []

    def find(connection, key):
        found.append(connection)
        if len(found) == 4:
            release.wait(20)
        return None

    monkeypatch.setattr(openings, 'take', find)

    async def scenario():
        server(4, 2)
        clients = Clients(6)
        monkeypatch.setattr(pool, 'PATIENCE', 0.3)
        await clients.wait()
        Page.gates[0].set()
        try:
            # All but the fourth one.
            await until(lambda: len(Page.opened) == 5, 5)
        finally:
            release.set()
        assert await clients.answers() == ['websocket.accept'] * 6
        assert len(await names_of_rows()) == 6
        await clients.leave()

    run(scenario)
    assert not Socket.objects.exists()
