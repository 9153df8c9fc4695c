"""What goes out to a client on Channels 4: in order, and without waiting where there is nothing to wait for."""

import asyncio
import gc
import sys
import weakref

import pytest

from sockets.backlog import BACKLOG
from sockets.engines.channels4 import admission, connection, frames, server
from sockets.engines.channels4.outgoing import Outgoing

from .loops import run


@pytest.fixture(autouse=True)
def own_server(settings):
    settings.SOCKETS = {'THREADS': 1, 'CHANNEL_LAYER': 'none'}
    yield
    server.servers.clear()


@pytest.mark.skipif(sys.version_info < (3, 12), reason='tasks begin in the next round of the loop')
def test_what_the_server_takes_at_once_is_sent_at_once():
    sent = []

    async def send(event):
        sent.append(event['text'])

    async def push(found):
        tasks = len(found.tasks)
        outgoing = Outgoing(send, found.begin_task, None)
        for text in 'abc':
            outgoing.push({'text': text})
        return list(sent), len(found.tasks) - tasks

    assert run(push) == (['a', 'b', 'c'], 0)


def test_what_comes_while_the_server_takes_nothing_is_sent_after_it_in_order():
    sent = []

    async def push(found):
        may_send = asyncio.Event()

        async def send(event):
            await may_send.wait()
            sent.append(event['text'])

        outgoing = Outgoing(send, found.begin_task, None)
        for text in 'abc':
            outgoing.push({'text': text})
            await asyncio.sleep(0)
        before = list(sent)
        may_send.set()
        await outgoing.sent()
        return before

    assert run(push) == []
    assert sent == ['a', 'b', 'c']


def test_who_waits_behind_the_answer_to_a_frame_goes_on_when_its_connection_is_cancelled():
    # A task of the project's that was sending waited for ever, and was kept with all that it held.
    async def push(found):
        async def send(event):
            await asyncio.Event().wait()

        outgoing = Outgoing(send, found.begin_task, None)
        outgoing.last = {'text': 'the answer'}
        answering = asyncio.ensure_future(outgoing.conclude())
        await asyncio.sleep(0)
        outgoing.push({'text': 'something else'})
        waiting = asyncio.ensure_future(outgoing.sent())
        await asyncio.sleep(0)
        answering.cancel()
        await asyncio.wait([answering, waiting], timeout=5)
        return answering.cancelled(), waiting.done()

    assert run(push) == (True, True)


def test_nothing_of_a_frame_is_held_while_its_connection_is_idle(monkeypatch):
    held = []

    class Handler:
        _is_quick = False

        def __init__(self, connection, message):
            held.append(weakref.ref(self))

    async def take(work, handler, connection, pool, left):
        pass

    monkeypatch.setattr(frames.steps, 'take', take)
    monkeypatch.setattr(admission.connect, 'connect', lambda handler: None)
    monkeypatch.setattr(frames.frame, 'receive', lambda handler, text, data: None)

    async def serve(found):
        events = asyncio.Queue()
        for event in ({'type': 'websocket.connect'}, {'type': 'websocket.receive', 'text': 'x'}):
            events.put_nowait(event)
        served = connection.Connection(found, Handler, {}, '/x/', {}, events.get, None)
        task = asyncio.ensure_future(served.serve())
        while len(held) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        alive = [handler() for handler in held]
        served.cancel()
        await task
        return alive

    gc.disable()
    try:
        assert run(serve) == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize(
    'last, sent',
    [
        ({'accept': True}, ['websocket.accept', 'websocket.send', 'websocket.send']),
        ({'accept': False}, ['websocket.close']),
        ({'close': 4403}, ['websocket.close']),
    ],
)
def test_what_comes_before_the_accept_waits_for_it(last, sent):
    # A fan-out finds the row as soon as it is written. Its message came first, and the server refuses that.
    events = []

    async def send(event):
        events.append(event['type'])

    async def push(found):
        outgoing = Outgoing(send, found.begin_task, None, is_open=False)
        for text in 'ab':
            outgoing.push({'text': text})
            await outgoing.flush()
        assert events == []
        outgoing.push(last)
        await outgoing.sent()
        return events

    assert run(push) == sent


@pytest.mark.parametrize(
    'message, status',
    [
        ({'accept': False}, None),
        ({'close': True}, None),
        ({'close': 4403}, None),
        ({'close': 1011}, 500),
        ({'close': 1012}, 503),
        ({'close': 1013}, 503),
    ],
)
@pytest.mark.parametrize('can_answer', [True, False])
def test_who_is_refused_for_now_is_told_so_where_the_server_can(message, status, can_answer):
    events = []

    async def send(event):
        events.append(event)

    async def push(found):
        outgoing = Outgoing(send, found.begin_task, None, False, can_answer)
        outgoing.push(message)
        outgoing.push({'text': 'lost'})
        await outgoing.sent()
        await asyncio.sleep(0)
        assert outgoing.is_over

    run(push)
    if not (can_answer and status):
        (event,) = events
        # Our protocol for daphne makes the status of this.
        assert event == {'type': 'websocket.close', 'code': event['code']}
        assert type(event['code']) is int and event['code'] in (message.get('close'), 1000, 4403)
        return
    start, body = events
    assert start['type'] == 'websocket.http.response.start' and start['status'] == status
    assert body['type'] == 'websocket.http.response.body' and body['body']
    seconds = [int(value) for name, value in start['headers'] if name == b'retry-after']
    assert all(1 <= number <= 5 for number in seconds) and bool(seconds) is (status == 503)


def test_what_a_client_is_sent_before_it_is_accepted_is_bounded():
    """While threads hung in the functions of others, fan-outs to rows without an accept were kept without end."""

    async def scenario():
        sent, cuts, tasks = [], [], []

        async def send(event):
            sent.append(event)

        def start_task(coroutine):
            tasks.append(asyncio.ensure_future(coroutine))

        for count, is_cut in ((3, False), (12, True)):
            sent.clear()
            cuts.clear()
            way_out = Outgoing(send, start_task, lambda: cuts.append(1), False)
            for _ in range(count):
                way_out.push({'text': 'x' * (BACKLOG // 8)})
            way_out.push({'accept': True})
            await asyncio.gather(*tasks)
            assert bool(cuts) is is_cut
            assert len(sent) == (0 if is_cut else 1 + count) and (is_cut or not way_out.behind)

    asyncio.run(scenario())
