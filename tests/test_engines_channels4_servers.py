"""What a server on Channels 4 is made of, without one: threads, what waits, and what it says when it stops."""

import asyncio
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from sockets.backlog import BACKLOG
from sockets.engines.channels4 import incoming, outgoing, overtime, pool, server, serving, uvicorn
from sockets.engines.channels4.connection import Connection


def test_what_two_pools_have_done_comes_back_in_the_order_in_which_it_was_done():
    """An accept that a thread of connects has sent went out behind the reply of the same thread."""

    async def scenario():
        loop, came = asyncio.get_running_loop(), []
        frames = pool.Pool(loop, 2)
        connects = pool.Pool(loop, 2, beside=frames)

        def work(number):
            frames.call_on_loop(came.append, (number, 'sent'))

        async def wait(number):
            await connects.submit(work, number)
            came.append((number, 'done'))

        await asyncio.gather(*map(wait, range(50)))
        for number in range(50):
            assert came.index((number, 'sent')) < came.index((number, 'done'))
        for each in (frames, connects):
            each.stop()

    asyncio.run(scenario())


def test_a_thread_that_hangs_is_replaced_but_not_without_end(caplog, monkeypatch):
    monkeypatch.setattr(pool, 'MOST_HUNG', 2)
    release = threading.Event()

    async def scenario():
        threads = pool.Pool(asyncio.get_running_loop(), 1)
        for _ in range(3):
            hung = threads.submit(release.wait, 10)
            await asyncio.sleep(0.05)
            threads.threads[0].replace()
            await asyncio.sleep(0.05)
        release.set()
        assert await hung
        threads.stop()

    asyncio.run(scenario())
    assert [record.levelname for record in caplog.records if 'hang' in record.message] == ['CRITICAL']
    assert 'Restart this process.' in caplog.text


def test_a_pool_that_can_start_no_thread_has_those_that_there_are_do_it(monkeypatch):
    """When the interpreter ends, none can be started any more, and connections are still to be closed."""

    def refuse(thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    async def scenario():
        threads = pool.Pool(asyncio.get_running_loop(), 2)
        threads.start()
        monkeypatch.setattr(pool.PoolThread, 'start', refuse)
        assert await asyncio.gather(*(threads.submit(str, n) for n in range(5))) == list('01234')
        assert len(threads.threads) == 1
        threads.stop()

    asyncio.run(scenario())


def events(*contents):
    waiting = [{'type': 'websocket.receive', 'text': text} for text in contents]

    async def receive():
        if waiting:
            return waiting.pop(0)
        await asyncio.Event().wait()

    return receive


@pytest.mark.parametrize(
    'contents, is_refused',
    [
        (['{}'] * incoming.CAPACITY, False),
        (['{}'] * (incoming.CAPACITY + 1), True),
        # However large it is, one is for its function to refuse.
        (['x' * (incoming.MAX_WAITING + 1)], False),
        (['x' * incoming.MAX_WAITING, '{}'], True),
    ],
)
def test_what_is_read_ahead_is_bounded(contents, is_refused):
    async def scenario():
        refusals = []
        found = incoming.Incoming(events(*contents), lambda: refusals.append(1))
        found.read_ahead()
        await asyncio.sleep(0.05)
        assert bool(refusals) is is_refused and found.waiting() == len(contents)
        for text in contents:
            assert (await found.next())['text'] == text
        assert found.size == found.waiting() == 0
        found.stop()

    asyncio.run(scenario())


def test_a_client_that_reads_is_not_cut_off_however_much_it_is_sent():
    """What had been sent was counted as waiting, as long as there was always something that waited."""

    async def scenario():
        sent, cuts, tasks = [], [], []

        async def send(event):
            await asyncio.sleep(0)
            sent.append(event)

        def start_task(coroutine):
            tasks.append(asyncio.ensure_future(coroutine))

        way_out = outgoing.Outgoing(send, start_task, lambda: cuts.append(1))
        for _ in range(20):
            way_out.push({'text': 'x' * (BACKLOG // 8)})
            way_out.push({'text': 'x' * (BACKLOG // 8)})
            while len(way_out.waiting) > 1:
                await asyncio.sleep(0)
        assert not cuts
        for _ in range(12):
            way_out.push({'text': 'x' * (BACKLOG // 8)})
        assert cuts == [1]
        await asyncio.gather(*tasks)

    asyncio.run(scenario())


@pytest.mark.parametrize('text', ['x' * (2 * BACKLOG), '\u20ac' * BACKLOG])
def test_a_frame_longer_than_all_that_may_wait_reaches_a_client_that_reads(text):
    """It cut off a client who had not taken the frame before, or to whom the server was sending it."""

    async def scenario():
        sent, cuts, tasks = [], [], []
        may_send = asyncio.Event()

        async def send(event):
            await may_send.wait()
            sent.append(event['text'])

        def start_task(coroutine):
            tasks.append(asyncio.ensure_future(coroutine))

        way_out = outgoing.Outgoing(send, start_task, lambda: cuts.append(1))
        for content in ('first', text, 'last'):
            way_out.push({'text': content})
            await asyncio.sleep(0)
        assert not cuts
        may_send.set()
        await asyncio.gather(*tasks)
        assert sent == ['first', text, 'last'] and way_out.sending is None
        may_send.clear()
        for _ in range(BACKLOG // 100000 + 3):
            way_out.push({'text': 'x' * 100000})
        assert cuts == [1]
        may_send.set()
        await asyncio.gather(*tasks)

    asyncio.run(scenario())


@pytest.mark.parametrize('beside, is_cut', [(1000, False), (BACKLOG + 1, True)])
def test_a_long_frame_in_the_buffer_of_a_server_is_not_what_its_client_does_not_read(monkeypatch, beside, is_cut):
    text, cuts = 'x' * (2 * BACKLOG), []
    connection = Connection.__new__(Connection)
    connection.name = 'a'
    connection.incoming = SimpleNamespace(bytes_unread=lambda: len(text) + beside)
    connection.outgoing = SimpleNamespace(sending={'text': text})
    monkeypatch.setattr(Connection, 'cut_off', lambda self: cuts.append(1))
    connection.check_backlog()
    assert bool(cuts) is is_cut
    connection.outgoing.sending = None
    connection.check_backlog()
    assert cuts


@pytest.mark.parametrize(
    'extensions, said',
    [
        ({'websocket.http.response': {}}, ['websocket.http.response.start', 'websocket.http.response.body']),
        ({}, ['websocket.close']),
        (None, ['websocket.close']),
    ],
)
def test_a_server_that_stops_refuses_with_503_where_that_can_be_said(extensions, said):
    async def scenario():
        sent = []

        async def receive():
            return {'type': 'websocket.connect'}

        async def send(event):
            sent.append(event)

        server.server().is_stopping = True
        scope = {'type': 'websocket', 'path': '/', 'headers': [], 'extensions': extensions}
        await serving.serve(None, {}, scope, receive, send)
        assert [event['type'] for event in sent] == said
        assert sent[0].get('status', 503) == 503 and sent[0].get('code', 1012) == 1012

    asyncio.run(scenario())


def test_it_is_said_where_a_coroutine_is():
    async def within():
        await asyncio.sleep(10)

    async def scenario():
        coroutine = within()
        task = asyncio.ensure_future(coroutine)
        await asyncio.sleep(0)
        assert 'in within' in overtime.stack_of(coroutine) and 'in sleep' in overtime.stack_of(coroutine)
        task.cancel()
        assert overtime.stack_of(asyncio.Future()) == ''

    asyncio.run(scenario())


def test_uvicorn_is_patched_once_and_only_where_it_is_used(monkeypatch):
    server = pytest.importorskip('uvicorn.server')
    monkeypatch.setattr(server.Server, 'shutdown', _shutdown)
    uvicorn.patch_server()
    patched = server.Server.shutdown
    assert patched.__wrapped__ is _shutdown
    uvicorn.patch_server()
    assert server.Server.shutdown is patched
    monkeypatch.setitem(uvicorn.sys.modules, 'uvicorn.server', None)
    uvicorn.patch_server()


async def _shutdown(self, sockets=None):
    pass


def test_the_server_of_runsockets_ends_at_once_only_at_a_second_ctrl_c():
    config = pytest.importorskip('uvicorn').Config(None)
    for numbers, is_forced in (
        ([signal.SIGTERM], False),
        ([signal.SIGTERM, signal.SIGTERM], False),
        ([signal.SIGINT, signal.SIGTERM], False),
        ([signal.SIGTERM, signal.SIGINT], True),
        ([signal.SIGINT, signal.SIGINT], True),
    ):
        server = uvicorn.make_server(config, None, None, 2, None)
        for number in numbers:
            server.handle_exit(number, None)
        assert (server.should_exit, server.force_exit) == (True, is_forced)
        # uvicorn would raise them again at its end.
        assert server._captured_signals == []


def test_a_blocked_loop_is_noticed_once_and_again_when_it_was_free_between(caplog, monkeypatch):
    monkeypatch.setattr(overtime, 'BLOCKED_AFTER', 0.2)
    monkeypatch.setattr(overtime, 'INTERVAL', 0.05)

    class Loop:
        is_over = False

        def is_closed(self):
            return self.is_over

        def is_running(self):
            return True

    class Server:
        loop, thread, ticked = Loop(), threading.get_ident(), time.monotonic()

    def told():
        return [record for record in caplog.records if 'event loop has been blocked' in record.message]

    def wait_for(count):
        deadline = time.monotonic() + 10
        while len(told()) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        assert len(told()) == count

    watch = threading.Thread(target=overtime._watch_loop, args=(Server,))
    watch.start()
    wait_for(1)
    assert 'test_a_blocked_loop' in told()[0].message
    # For long enough to be seen.
    Server.ticked = time.monotonic() + 0.5
    wait_for(2)
    Server.loop.is_over = True
    watch.join(5)
