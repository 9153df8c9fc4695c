"""Connections on Channels 4, side by side: whose function waits, and who waits for it."""

import asyncio
import threading

import pytest
from channels.testing import WebsocketCommunicator

from sockets import RoutedSocketHandler, conf
from sockets.engines.channels4.server import server

pytestmark = pytest.mark.django_db(transaction=True)


class Waits(RoutedSocketHandler):
    """Its functions wait until somebody says so."""

    waiting = answered = 0
    released = None
    released_on_the_loop = None

    async def wait(self, content):
        Waits.waiting += 1
        await self.released_on_the_loop.wait()
        return {'type': 'DONE'}

    def block(self, content):
        Waits.waiting += 1
        self.released.wait(10)
        return {'type': 'DONE'}

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
