"""What happens to connections, frames and pages of a server that is told to stop."""

import asyncio
import collections
import contextlib
import http.client
import signal
import time

import pytest

from . import fleet
from .hall import ONE_CLASSIC, ONE_RUNSOCKETS
from .stack import ON_CHANNELS_1

pytestmark = pytest.mark.timed

SERVER, PAIR = ONE_RUNSOCKETS, 'daphne, `runworker --threads 4`' if ON_CHANNELS_1 else ONE_CLASSIC


def start(hall, shape):
    if shape == SERVER:
        return hall.servers.runsockets('--threads', '4')
    server = hall.servers.daphne()
    hall.servers.worker('--threads', '4')
    return server


def page(port, seconds=0, size=0):
    """Return how many bytes a page has that takes some seconds, for a client that reads no faster than it must."""
    with contextlib.closing(http.client.HTTPConnection('127.0.0.1', port, timeout=20)) as connection:
        connection.request('GET', f'/page/?seconds={seconds}&size={size}')
        response = connection.getresponse()
        assert response.status == 200
        count, part = 0, True
        while part:
            if size:
                time.sleep(0.05)
            part = response.read(1000000)
            count += len(part)
        return count


async def knock(port):
    """Return what becomes of a client that connects now."""
    try:
        connection = await fleet.Connection.open(port, '/hall/')
    except fleet.Refused as error:
        return error.args[0]
    except ConnectionRefusedError:
        return 'nobody listens'
    except ConnectionError as error:
        return f'cut off: {error!r}'
    return await connection.receive()


@pytest.mark.channels1(
    'its pages, and consumers of the project; tests/live/channels4/test_servers.py has those of Channels 4'
)
@pytest.mark.parametrize('shape', [SERVER, PAIR])
def test_a_server_with_frames_pages_and_newcomers_is_told_to_stop(hall, shape):
    async def scenario():
        server = start(hall, shape)
        loop = asyncio.get_event_loop()
        connections = await hall.open(40, server)
        # Not only frames: what a project sends to consumers of its own.
        await connections[0].ask({'type': 'LATER', 'seconds': 2.5, 'ref': 0})
        busy, idle = connections[:20], connections[20:]
        for n, connection in enumerate(busy):
            for m in range(2):
                connection.send({'type': 'WORK', 'connection': n, 'n': m, 'seconds': 0.25, 'ref': m})
        pages = [loop.run_in_executor(None, page, server.port, *what) for what in ((1, 0), (0, 3e7))]
        await fleet.eventually(lambda: hall.servers.pid_at_work('page', 0) and hall.servers.pid_at_work('0', 0), 5)
        knocks = []

        async def keep_knocking():
            while True:
                knocks.append(asyncio.ensure_future(knock(server.port)))
                await asyncio.sleep(0.005)

        knocking = asyncio.ensure_future(keep_knocking())
        await asyncio.sleep(0.3)
        since = hall.kill(server, signal.SIGTERM)
        # Who has nothing to wait for is told at once ...
        assert await asyncio.gather(*(connection.receive() for connection in idle)) == [1012] * 20
        told = time.monotonic() - since
        # ... and the others when they have been answered.
        for connection in busy:
            assert [
                frame if isinstance(frame, int) else frame['ref']
                for frame in [await connection.receive() for _ in range(3)]
            ] == [0, 1, 1012]
        assert [size >= wanted for size, wanted in zip(await asyncio.gather(*pages), (5, 3e7))] == [True, True]
        await fleet.eventually(lambda: not server.is_running, 10)
        took = time.monotonic() - since
        assert server.process.returncode == 0, server.log
        if shape == SERVER:
            assert ['background', '1'] in [words[:2] for words in hall.servers.notes()]
        knocking.cancel()
        counts = collections.Counter(await asyncio.gather(*knocks))
        # The kernel lets in who comes between our last accept and the close of the port, and resets it.
        unheard = [what for what in counts.elements() if 'ConnectionResetError' in str(what)]
        assert len(unheard) <= 1 and set(counts) <= {1012, 503, 'nobody listens', *unheard}, counts
        assert counts['nobody listens'] > 10, 'new connections are let in'
        assert told < 1.5 and took < 9
        hall.killed.add(server)
        await hall.rows_are(0, 5)
        await hall.came_true(
            'SIGTERM to a server with frames and pages under way, while clients connect',
            shape,
            connections,
            f'nothing; it ends after {took:.0f} s',
            told,
        )

    asyncio.run(scenario())


@pytest.mark.channels1('its workers')
def test_a_daphne_whose_workers_are_gone_stops_within_its_time(hall):
    async def scenario():
        server = hall.servers.daphne()
        worker = hall.servers.worker()
        busy, idle = await hall.open(2, server)
        hall.kill(worker)
        busy.send({'type': 'ECHO', 'ref': 1})
        knocking = asyncio.ensure_future(knock(server.port))
        await asyncio.sleep(0.5)
        since = hall.kill(server, signal.SIGTERM)
        assert await idle.receive() == 1012
        assert time.monotonic() - since < 1
        assert await busy.receive() == 1012
        assert await knocking == 503
        await fleet.eventually(lambda: not server.is_running, 5)
        assert 8 < time.monotonic() - since < 12
        assert server.process.returncode == 0, server.log

    asyncio.run(scenario())


@pytest.mark.channels1('its workers')
@pytest.mark.parametrize('fault', ['stops', 'hangs'])
def test_a_daphne_without_redis_stops_within_its_time(hall, redis, fault):
    async def scenario():
        server = hall.servers.daphne()
        worker = hall.servers.worker()
        (connection,) = await hall.open(1, server)
        hall.kill(worker)
        loop = asyncio.get_event_loop()
        if fault == 'stops':
            await loop.run_in_executor(None, redis.stop)
        else:
            redis.program.process.send_signal(signal.SIGSTOP)
        try:
            since = hall.kill(server, signal.SIGTERM)
            assert await connection.receive() == 1012
            await fleet.eventually(lambda: not server.is_running, 10)
            assert time.monotonic() - since < 17
            assert server.process.returncode == 0, server.log
        finally:
            if fault == 'stops':
                await loop.run_in_executor(None, redis.start)
            else:
                redis.program.process.send_signal(signal.SIGCONT)

    asyncio.run(scenario())


@pytest.mark.parametrize('shape', ['2 ' + SERVER, '2 ' + PAIR])
def test_servers_are_restarted_one_after_the_other_while_clients_ask(hall, shape):
    def start_one():
        if SERVER in shape:
            return hall.servers.runsockets()
        if not ON_CHANNELS_1:
            hall.servers.environment['LAYER'] = 'pubsub'
        return hall.servers.daphne()

    async def scenario():
        loop = asyncio.get_event_loop()
        servers = [start_one(), start_one()]
        if SERVER not in shape and ON_CHANNELS_1:
            hall.servers.worker('--threads', '4')
        is_over = asyncio.Event()
        asked, clients = [0], 40

        async def client(number):
            # As sockets.js does: what was not answered is sent again on the next connection.
            n, turn = 0, number
            while not is_over.is_set():
                turn += 1
                try:
                    connection = await fleet.Connection.open(servers[turn % 2].port, '/hall/')
                except (ConnectionError, fleet.Refused):
                    await asyncio.sleep(0.2)
                    continue
                frame = None
                while not (is_over.is_set() or isinstance(frame, int)):
                    connection.send({'type': 'WORK', 'connection': number, 'n': n, 'seconds': 0.01, 'ref': n})
                    frame = await connection.receive()
                    if not isinstance(frame, int):
                        assert frame['ref'] == n
                        n += 1
                        await asyncio.sleep(0.05)
                if is_over.is_set():
                    await connection.close()
            asked[0] += n

        asking = [asyncio.ensure_future(client(number)) for number in range(clients)]
        await asyncio.sleep(1)
        for index in (0, 1):
            hall.kill(servers[index], signal.SIGTERM)
            await fleet.eventually(lambda: not servers[index].is_running, 12)
            assert servers[index].process.returncode == 0
            servers[index] = await loop.run_in_executor(None, start_one)
            await asyncio.sleep(1)
        is_over.set()
        await asyncio.gather(*asking)
        handled = collections.Counter(tuple(words[1:3]) for words in hall.servers.notes() if words[0] == 'start')
        doubled = [key for key, count in handled.items() if count > 1]
        assert len(handled) == asked[0] > 1000
        assert doubled == []
        hall.report.append(
            (
                f'two servers are restarted, one after the other, while {clients} clients ask',
                shape,
                str(clients),
                f'nothing; 0 of {asked[0]} requests are handled twice',
                '-',
            )
        )

    asyncio.run(scenario())
