"""Frames on Channels 4 that are handled where a server lays them down, without the task of their connection."""

import asyncio
import gc
import json
import sys
import threading
import weakref
from types import SimpleNamespace

import pytest

from sockets import RoutedSocketHandler
from sockets.engines.channels4 import direct, incoming, steps
from sockets.engines.channels4.server import server

pytestmark = pytest.mark.django_db(transaction=True)


class Handler(RoutedSocketHandler):
    released = None
    held = []
    tasks = []
    cancelled = []
    ended = []

    async def answer(self, content):
        self.held.append(weakref.ref(self))
        self.tasks.append(asyncio.current_task())
        return {'type': 'DONE', 'n': content['n']}

    async def wait(self, content):
        self.tasks.append(asyncio.current_task())
        try:
            await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            self.cancelled.append(content['n'])
            raise
        self.tasks.append(asyncio.current_task())
        return {'type': 'DONE', 'n': content['n']}

    async def time_out(self, content):
        try:
            async with asyncio.timeout(0):
                await asyncio.sleep(10)
        except TimeoutError:
            return {'type': 'DONE', 'n': content['n']}

    async def raise_in_the_middle(self, content):
        await asyncio.sleep(0)
        raise KeyError(content['n'])

    def block(self, content):
        self.held.append(weakref.ref(self))
        if self.released is not None:
            self.released.wait(10)
        return {'type': 'DONE', 'n': content['n']}

    def disconnect(self, message, **kwargs):
        self.ended.append(message['code'])

    routes = (
        ('ASYNC', 'answer'),
        ('WAIT', 'wait'),
        ('TIME_OUT', 'time_out'),
        ('RAISE', 'raise_in_the_middle'),
        ('SYNC', 'block'),
    )


class Uvicorn:
    """What uvicorn's protocol of a websocket has; ``daphne`` has the queue alone."""

    def __init__(self):
        self.queue = asyncio.Queue()
        self.read_paused = False
        self.pauses = 0
        self.reads = True
        self.transport = SimpleNamespace(is_closing=lambda: False, resume_reading=self.resume)

    def resume(self):
        self.reads = True

    def lay(self, event):
        self.queue.put_nowait(event)
        if not self.read_paused:
            self.read_paused = True
            self.pauses += 1
            self.reads = False

    async def receive(self):
        event = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            self.resume()
        return event


class Client:
    """A client of a connection that lives on this event loop."""

    def __init__(self, kind):
        self.protocol = Uvicorn()
        self.sent = []
        self.lay = self.protocol.lay if kind == 'uvicorn' else lambda event: self.protocol.queue.put_nowait(event)
        self.receive = self.protocol.receive if kind == 'uvicorn' else self.protocol.queue.get

    async def open(self):
        scope = {'type': 'websocket', 'path': '/', 'headers': [(b'host', b'example.com')], 'query_string': b''}
        scope.update(client=['127.0.0.1', 1], server=['example.com', 80], subprotocols=[])
        self.lay({'type': 'websocket.connect'})
        self.task = asyncio.ensure_future(Handler.as_asgi()(scope, self.receive, self.send))
        await self.until(lambda: self.sent == [{'type': 'websocket.accept'}] and self.incoming.is_free)
        self.sent.clear()

    @property
    def connection(self):
        (found,) = server().connections.values()
        return found

    @property
    def incoming(self):
        return self.connection.incoming

    async def send(self, event):
        self.sent.append(event)

    def frames(self, *types):
        """Lay down frames as a server does: in a callback of the loop."""
        for n, type in enumerate(types):
            text = json.dumps({'type': type, 'n': n})
            asyncio.get_running_loop().call_soon(self.lay, {'type': 'websocket.receive', 'text': text})

    async def until(self, condition):
        for _ in range(1000):
            if condition():
                return
            await asyncio.sleep(0.005)
        raise AssertionError(self.sent)

    async def answers(self, count):
        await self.until(lambda: len(self.sent) >= count)
        return [json.loads(event['text']).get('n') for event in self.sent]

    async def close(self, code=1001):
        self.lay({'type': 'websocket.disconnect', 'code': code})
        await asyncio.wait_for(self.task, 10)
        assert Handler.ended == [code]


@pytest.fixture(params=['uvicorn', 'daphne'])
def run(request):
    """Run a scenario, a coroutine function of a client."""

    async def talk(scenario):
        client = Client(request.param)
        await client.open()
        await scenario(client)

    for kept in (Handler.held, Handler.tasks, Handler.cancelled, Handler.ended):
        kept.clear()
    Handler.released = None
    return lambda scenario: asyncio.run(asyncio.wait_for(talk(scenario), 30))


@pytest.fixture
def woken(monkeypatch):
    """How often the task of a connection asks for what is next."""
    calls, original = [], direct.Direct.next

    def count(self):
        calls.append(1)
        return original(self)

    monkeypatch.setattr(direct.Direct, 'next', count)
    return calls


@pytest.mark.parametrize('type', ['ASYNC', 'SYNC'])
def test_a_frame_that_waits_for_nothing_on_the_loop_wakes_no_task_and_stops_no_reading(run, woken, type):
    async def scenario(client):
        woken.clear()
        pauses = client.protocol.pauses
        for n in range(5):
            client.frames(type)
            await client.answers(n + 1)
        assert not woken and client.protocol.pauses == pauses
        await client.close()

    run(scenario)


def test_frames_that_come_together_are_answered_in_order(run, woken):
    types = ['ASYNC', 'SYNC', 'SYNC', 'WAIT', 'ASYNC', 'SYNC', 'ASYNC', 'WAIT']

    async def scenario(client):
        woken.clear()
        client.frames(*types)
        assert await client.answers(len(types)) == list(range(len(types)))
        await client.until(lambda: client.incoming.is_free)
        assert client.protocol.reads
        # Once for each that waits, and what waits behind the first is taken by the task.
        assert len(woken) <= 6
        await client.close()

    run(scenario)


def test_frames_behind_one_on_a_thread_wake_no_task(run, woken):
    async def scenario(client):
        Handler.released = threading.Event()
        woken.clear()
        client.frames('SYNC', 'ASYNC', 'SYNC', 'ASYNC')
        await client.until(lambda: client.incoming.waiting() == 3)
        assert client.sent == []
        Handler.released.set()
        assert await client.answers(4) == [0, 1, 2, 3]
        assert not woken
        await client.close()

    run(scenario)


@pytest.mark.parametrize('type', ['ASYNC', 'SYNC'])
def test_nothing_of_a_frame_is_held_once_it_has_been_handled(run, type):
    async def scenario(client):
        gc.disable()
        try:
            client.frames(type)
            await client.answers(1)
            await client.until(lambda: client.incoming.is_free)
            await asyncio.sleep(0.05)
            assert [handler() for handler in Handler.held] == [None]
        finally:
            gc.enable()
        await client.close()

    run(scenario)


def test_a_function_finds_one_task_before_and_after_it_has_waited(run):
    async def scenario(client):
        client.frames('ASYNC', 'WAIT')
        await client.answers(2)
        assert set(Handler.tasks) == {client.connection.task} and len(Handler.tasks) == 3
        await client.close()

    run(scenario)


@pytest.mark.skipif(sys.version_info < (3, 11), reason='asyncio.timeout() came with Python 3.11')
def test_a_timeout_that_comes_before_the_task_goes_on_reaches_the_function(run):
    async def scenario(client):
        client.frames('TIME_OUT')
        assert await client.answers(1) == [0]
        assert client.connection.task.cancelling() == 0
        client.frames('TIME_OUT', 'ASYNC')
        assert await client.answers(3) == [0, 0, 1]
        await client.close()

    run(scenario)


def test_a_function_that_raises_once_it_has_waited_is_answered(run):
    async def scenario(client):
        client.frames('RAISE', 'ASYNC')
        await client.answers(2)
        assert json.loads(client.sent[0]['text'])['code'] == 'server_error'
        assert json.loads(client.sent[1]['text'])['n'] == 1
        await client.close()

    run(scenario)


def test_a_connection_that_is_cancelled_before_the_task_goes_on_tells_the_function(run):
    async def scenario(client):
        client.frames('WAIT')
        asyncio.get_running_loop().call_soon(client.connection.cancel)
        await asyncio.wait_for(client.task, 10)
        assert Handler.cancelled == [0] and Handler.ended == [1006] and client.sent == []

    run(scenario)


def test_a_connection_that_is_cancelled_while_a_thread_works_ends_when_that_is_done(run):
    async def scenario(client):
        Handler.released = threading.Event()
        client.frames('SYNC', 'SYNC')
        await client.until(lambda: client.incoming.waiting() == 1)
        client.connection.cancel()
        await asyncio.sleep(0.02)
        assert not client.task.done()
        Handler.released.set()
        await asyncio.wait_for(client.task, 10)
        assert client.sent == [] and Handler.ended == [1006]

    run(scenario)


def test_a_server_that_stops_waits_for_a_frame_that_has_just_begun_to_wait(run):
    async def scenario(client):
        client.frames('WAIT')
        stopping = []
        stop = client.connection.stop
        loop = asyncio.get_running_loop()
        # At once: between the first part of the function and the task.
        eager = {'eager_start': True} if sys.version_info >= (3, 12) else {}
        loop.call_soon(lambda: stopping.append(asyncio.Task(stop(1012, loop.time() + 8), loop=loop, **eager)))
        await asyncio.wait_for(client.task, 10)
        assert Handler.cancelled == [] and json.loads(client.sent[0]['text'])['n'] == 0
        assert client.sent[1]['code'] == 1012 and Handler.ended == [1012]
        await stopping[0]

    run(scenario)


def test_a_client_that_leaves_while_a_thread_works_is_seen_off_after_that(run):
    async def scenario(client):
        Handler.released = threading.Event()
        client.frames('SYNC')
        await client.until(lambda: client.connection.is_on_thread)
        client.lay({'type': 'websocket.disconnect', 'code': 1001})
        await asyncio.sleep(0.02)
        assert Handler.ended == [] and client.incoming.is_over
        Handler.released.set()
        await asyncio.wait_for(client.task, 10)
        assert Handler.ended == [1001]

    run(scenario)


def test_no_frame_is_handled_of_a_server_that_was_found_dead(run):
    async def scenario(client):
        found = server()
        client.frames('ASYNC')
        asyncio.get_running_loop().call_soon(lambda: None)
        found._lost(found.name)
        await client.until(lambda: len(client.sent) == 2)
        assert json.loads(client.sent[0]['text'])['type'] == 'RECONNECT' and client.sent[1]['code'] == 1012
        assert not Handler.tasks
        await client.close(1012)

    run(scenario)


def test_what_nobody_expects_ends_the_connection_and_reaches_the_server_that_called(run, monkeypatch):
    async def scenario(client):
        def fail(*args):
            raise MemoryError()

        monkeypatch.setattr(steps, 'begin', fail)
        client.frames('ASYNC')
        with pytest.raises(MemoryError):
            await asyncio.wait_for(client.task, 10)
        assert Handler.ended == [1006]

    run(scenario)


def test_a_frame_that_a_task_lays_down_is_left_to_the_task_of_the_connection(run, woken):
    """As the communicators of tests do: a function finds one task, and that of its connection."""

    async def scenario(client):
        woken.clear()
        client.lay({'type': 'websocket.receive', 'text': json.dumps({'type': 'ASYNC', 'n': 7})})
        assert client.sent == []
        assert await client.answers(1) == [7]
        assert Handler.tasks == [client.connection.task] and len(woken) == 1
        await client.close()

    run(scenario)


@pytest.mark.parametrize('count, is_refused', [(incoming.CAPACITY, False), (incoming.CAPACITY + 1, True)])
def test_what_is_read_behind_a_slow_function_is_bounded(count, is_refused):
    async def scenario():
        client = Client('uvicorn')
        await client.open()
        Handler.released = threading.Event()
        client.frames('SYNC')
        await client.until(lambda: client.connection.is_on_thread)
        client.frames('SYNC')
        await client.until(lambda: not client.protocol.reads)
        client.incoming.read_ahead()
        assert client.protocol.reads
        client.frames(*['SYNC'] * (count - 1))
        await client.until(lambda: client.incoming.waiting() == count)
        assert client.protocol.reads
        assert ([event.get('code') for event in client.sent] == [1013]) is is_refused
        Handler.released.set()
        if not is_refused:
            await client.answers(count + 1)
            assert client.incoming.size == 0
        await client.close()

    Handler.ended.clear()
    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_server_or_middleware_that_lays_down_nothing_is_served_by_the_task():
    async def scenario():
        client = Client('uvicorn')
        queue = client.protocol.queue

        async def receive():
            return await client.protocol.receive()

        connection = SimpleNamespace(refuse_more=None)
        for other in (receive, Other([]).receive, Other(queue).receive):
            assert type(direct.incoming(connection, other)) is incoming.Incoming
        assert 'put_nowait' not in vars(queue)
        assert type(direct.incoming(connection, client.protocol.receive)) is direct.Direct

    asyncio.run(scenario())


class Other:
    """A server that has a queue, and of which we do not know how it stops to read."""

    def __init__(self, queue):
        self.queue = queue

    async def receive(self):
        return await self.queue.get()
