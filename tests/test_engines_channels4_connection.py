"""Connections on Channels 4, side by side: whose function waits, and who waits for it."""

import asyncio
import threading

import pytest
from channels.testing import WebsocketCommunicator

from sockets import RoutedSocketHandler, conf
from sockets.engines.channels4 import admission
from sockets.engines.channels4.heartbeats import heartbeats
from sockets.engines.channels4.server import server

pytestmark = pytest.mark.django_db(transaction=True)


class Waits(RoutedSocketHandler):
    """Its functions wait until somebody says so."""

    waiting = answered = 0
    names = set()
    released = None
    released_on_the_loop = None

    async def wait(self, content):
        Waits.waiting += 1
        await self.released_on_the_loop.wait()
        return {'type': 'DONE'}

    def block(self, content):
        Waits.waiting += 1
        self.names.add(self.channel_name)
        self.released.wait(10)
        return {'type': 'DONE'}

    @classmethod
    def held(cls, connection):
        return connection.name in cls.names

    def answer(self, content):
        Waits.answered += 1
        return {'type': 'ANSWER'}

    routes = (('WAIT', 'wait'), ('BLOCK', 'block'), ('ASK', 'answer'))


async def open_connection():
    client = WebsocketCommunicator(Waits.as_asgi(), '/', [(b'host', b'example.com')])
    client.scope.update(client=['127.0.0.1', 1], server=['example.com', 80])
    assert (await client.connect(timeout=10))[0]
    return client


@pytest.mark.parametrize('type, count', [('WAIT', 40), ('BLOCK', 3)])
def test_functions_that_wait_delay_no_other_connection(type, count):
    """Of coroutines any number, of others one less than there are threads."""
    assert type == 'WAIT' or count < conf.THREADS

    async def talk():
        Waits.waiting, Waits.released, Waits.released_on_the_loop = 0, threading.Event(), asyncio.Event()
        *slow, other = [await open_connection() for _ in range(count + 1)]
        for client in slow:
            await client.send_json_to({'type': type})
        while Waits.waiting < count:
            await asyncio.sleep(0.01)
        try:
            await other.send_json_to({'type': 'ASK'})
            assert await other.receive_json_from(timeout=10) == {'type': 'ANSWER'}
            assert all([await client.receive_nothing(timeout=0.01, interval=0.01) for client in slow])
        finally:
            Waits.released.set()
            Waits.released_on_the_loop.set()
        for client in slow:
            assert await client.receive_json_from(timeout=10) == {'type': 'DONE'}
        for client in (*slow, other):
            await client.disconnect(timeout=10)

    asyncio.run(asyncio.wait_for(talk(), 30))


def test_no_frame_is_handled_between_the_news_that_its_server_was_found_dead_and_the_close():
    """A server that had been stopped handled frames that had come in meanwhile, whose rows were gone."""

    async def talk():
        client = await open_connection()
        found, Waits.answered = server(), 0
        # It has come in, and is taken before what the thread of heartbeats has the loop do.
        await client.send_json_to({'type': 'ASK'})
        found._lost(found.name)
        assert (await client.receive_json_from(timeout=10))['type'] == 'RECONNECT'
        assert await client.receive_output(10) == {'type': 'websocket.close', 'code': 1012, 'reason': 'restart'}
        await client.wait(10)
        assert Waits.answered == 0
        # Others are served again.
        other = await open_connection()
        await other.send_json_to({'type': 'ASK'})
        assert await other.receive_json_from(timeout=10) == {'type': 'ANSWER'}
        await other.disconnect(timeout=10)

    asyncio.run(asyncio.wait_for(talk(), 30))


async def block_all_threads(clients):
    """Have each thread of the server wait for ``Waits.released``, each for one of ``clients``."""
    Waits.waiting, Waits.answered, Waits.released = 0, 0, threading.Event()
    for count, client in enumerate(clients, 1):
        await client.send_json_to({'type': 'BLOCK'})
        while Waits.waiting < count:
            await asyncio.sleep(0.01)


async def wait_for_a_thread():
    """Return a client that has the only thread, one whose frame waits for it, and their server."""
    slow, client = await open_connection(), await open_connection()
    found = server()
    await block_all_threads([slow])
    await client.send_json_to({'type': 'ASK'})
    while not found.pool.waiting:
        await asyncio.sleep(0.01)
    return slow, client, found


@pytest.mark.parametrize('is_found_dead', [True, False])
def test_a_frame_that_waits_for_a_thread_while_its_server_is_stopped_runs_only_if_that_lives(
    settings, monkeypatch, is_found_dead
):
    """A server that had been stopped handled what waited for its threads, although it had been found dead."""
    settings.SOCKETS = {'THREADS': 1}
    is_certain = [1]
    monkeypatch.setattr(heartbeats, 'may_serve', lambda: bool(is_certain))

    async def talk():
        slow, client, found = await wait_for_a_thread()
        # It goes on after a stop. The thread has time before anything else is known.
        is_certain.clear()
        Waits.released.set()
        await asyncio.sleep(0.2)
        assert Waits.answered == 0
        if is_found_dead:
            found._lost(found.name)
        is_certain.append(1)
        if not is_found_dead:
            assert await client.receive_json_from(timeout=10) == {'type': 'ANSWER'}
            for each in (slow, client):
                await each.disconnect(timeout=10)
            return
        assert (await client.receive_json_from(timeout=10))['type'] == 'RECONNECT'
        await client.wait(10)
        await asyncio.sleep(0.1)
        assert Waits.answered == 0

    asyncio.run(asyncio.wait_for(talk(), 30))


def test_a_frame_that_waits_for_a_thread_is_dropped_when_its_connection_is_closed(settings, monkeypatch):
    settings.SOCKETS = {'THREADS': 1}
    monkeypatch.setattr(heartbeats, 'may_serve', lambda: True)

    async def talk():
        slow, client, found = await wait_for_a_thread()
        (name,) = [name for name, each in found.connections.items() if each.busy_since and not Waits.held(each)]
        found.deliver([name], {'close': 4401})
        Waits.released.set()
        assert (await client.receive_output(10))['code'] == 4401
        await client.send_input({'type': 'websocket.disconnect', 'code': 4401})
        await client.wait(10)
        assert Waits.answered == 0
        assert await slow.receive_json_from(timeout=10) == {'type': 'DONE'}
        await slow.disconnect(timeout=10)

    asyncio.run(asyncio.wait_for(talk(), 30))


def test_who_has_left_while_its_connect_waits_costs_no_query(settings, monkeypatch):
    """What daphne and uvicorn know was looked at after a second only."""
    queries, connected = [], []
    monkeypatch.setattr(admission.connect, 'connect', lambda handler: connected.append(handler) or iter(()))

    class Transport:
        closes = False

        def is_closing(self):
            return self.closes

    class OfUvicorn:
        def __init__(self):
            self.transport, self.queue = Transport(), asyncio.Queue()

        async def receive(self):
            return await self.queue.get()

        def leave(self):
            self.transport.closes = True

    class OfDaphne(asyncio.Queue):
        receive = asyncio.Queue.get

        def leave(self):
            pass

    async def send(event):
        queries.append(event)

    async def talk(kind):
        found = server(4, 1)
        release = threading.Event()
        found.connect_pool.submit(release.wait, 10)
        clients = [kind() for _ in range(3)]
        scope = {'type': 'websocket', 'path': '/', 'headers': [], 'client': ['127.0.0.1', 1]}
        tasks = [asyncio.ensure_future(Waits.as_asgi()(scope, each.receive, send)) for each in clients]
        for each in clients:
            getattr(each, 'queue', each).put_nowait({'type': 'websocket.connect'})
        while found.connect_pool.waiting < 3:
            await asyncio.sleep(0.01)
        for each in clients[:2]:
            each.leave()
            getattr(each, 'queue', each).put_nowait({'type': 'websocket.disconnect', 'code': 1006})
        release.set()
        await asyncio.wait_for(asyncio.gather(*tasks[:2]), 10)
        while len(connected) < 1:
            await asyncio.sleep(0.01)
        assert len(connected) == 1 and queries == []
        getattr(clients[2], 'queue', clients[2]).put_nowait({'type': 'websocket.disconnect', 'code': 1006})
        await asyncio.wait_for(tasks[2], 10)
        connected.clear()

    for kind in (OfUvicorn, OfDaphne):
        asyncio.run(asyncio.wait_for(talk(kind), 30))
