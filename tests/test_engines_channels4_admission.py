"""Clients of Channels 4 that wait for a thread to let them in: how many may, and what the others are told."""

import asyncio
import threading

import pytest
from channels.testing import WebsocketCommunicator

from sockets import RoutedSocketHandler
from sockets.engines.channels4 import admission
from sockets.engines.channels4.server import server
from sockets.models import Socket

pytestmark = pytest.mark.django_db(transaction=True)


class Slow(RoutedSocketHandler):
    """Its connect waits until somebody says so."""

    released = None
    count = 0
    subprotocols = ('chat',)

    def connect(self, message, **kwargs):
        Slow.count += 1
        super().connect(message, **kwargs)
        self.released.wait(20)


def client(subprotocols=(), extensions=()):
    found = WebsocketCommunicator(Slow.as_asgi(), '/', [(b'host', b'example.com')], list(subprotocols))
    found.scope.update(client=['127.0.0.1', 1], server=['example.com', 80], extensions=dict.fromkeys(extensions))
    return found


class Threads:
    """What is asked of a pool of threads."""

    def __init__(self, waiting=0, seconds=0):
        self.waiting, self.seconds = waiting, seconds

    def waited(self, now):
        return self.seconds


def test_as_many_may_wait_as_are_served_in_two_seconds():
    # Nothing has been measured: 20 ms each are assumed.
    assert admission.Connects(Threads(100)).ask() is None
    assert 1 <= admission.Connects(Threads(101)).ask() <= 3
    assert admission.Connects(Threads(1, 2.1)).ask() >= 1


def test_more_may_wait_where_connects_take_less():
    connects = admission.Connects(Threads(300))
    for _ in range(100):
        connects.taken()
    assert connects.ask() is None


@pytest.fixture
def full(monkeypatch):
    """Servers that have no time for anybody in the next 7.4 seconds."""
    monkeypatch.setattr(admission.Connects, 'ask', lambda self: 7.4)


async def knock(one):
    """Begin to connect the client ``one`` and return the first answer."""
    await one.send_input({'type': 'websocket.connect'})
    return await one.receive_output(5)


def test_who_would_wait_too_long_is_told_when_to_come_back_without_a_row(full):
    async def scenario():
        late = client(['other', 'chat'])
        assert await knock(late) == {'type': 'websocket.accept', 'subprotocol': 'chat'}
        assert await late.receive_output(5) == {'type': 'websocket.close', 'code': 1013, 'reason': 'retry=7.4'}
        assert server().connects.turned_away == 1
        await late.send_input({'type': 'websocket.disconnect', 'code': 1013})
        await late.wait(5)
        assert server().connects.turned_away == 0

    Slow.count = 0
    asyncio.run(asyncio.wait_for(scenario(), 20))
    assert Slow.count == 0 and Socket.objects.count() == 0


def test_who_does_not_answer_the_close_is_forgotten(full, monkeypatch):
    monkeypatch.setattr(admission, 'TURN_AWAY_TIMEOUT', 0.1)

    async def scenario():
        late = client()
        await knock(late)
        await late.wait(5)
        assert server().connects.turned_away == 0

    asyncio.run(asyncio.wait_for(scenario(), 20))


@pytest.mark.parametrize('extensions', [(), ('websocket.http.response',)])
def test_beyond_a_thousand_who_are_being_told_others_are_refused(full, monkeypatch, extensions):
    monkeypatch.setattr(admission, 'MAX_TURNED_AWAY', 0)

    async def scenario():
        answer = await knock(client(extensions=extensions))
        if extensions:
            assert answer['status'] == 503 and 1 <= int(dict(answer['headers'])[b'retry-after']) <= 5
        else:
            assert answer == {'type': 'websocket.close', 'code': 1013}

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_who_waits_when_the_server_stops_is_told_to_come_back():
    async def scenario():
        Slow.released, Slow.count = threading.Event(), 0
        server(4, 1)
        first, *others = [client() for _ in range(4)]
        await first.send_input({'type': 'websocket.connect'})
        while not Slow.count:
            await asyncio.sleep(0.01)
        for one in others:
            await one.send_input({'type': 'websocket.connect'})
        await asyncio.sleep(0.1)
        stopping = asyncio.ensure_future(server().stop(1012))
        for one in others:
            assert (await one.receive_output(5))['type'] == 'websocket.accept'
            assert await one.receive_output(5) == {'type': 'websocket.close', 'code': 1013, 'reason': 'retry=1.0'}
        Slow.released.set()
        await stopping
        assert (await first.receive_output(5))['type'] == 'websocket.accept'
        assert (await first.receive_output(5))['code'] == 1012

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert Slow.count == 1 and Socket.objects.count() == 0
