"""What happens to threads and processes that handle frames, and to servers that are told to go."""

import asyncio
import functools
import re
import signal
import time

import pytest

from . import fleet

pytestmark = pytest.mark.timed

# What a sample shows as well.
SELDOM = functools.partial(pytest.param, marks=pytest.mark.long)
PAIR = 'daphne, `runworker --threads {}`'


def start_pair(hall, threads, **environment):
    hall.servers.environment.update(environment)
    return hall.servers.daphne(), hall.servers.worker('--threads', str(threads))


# Threads that die.


@pytest.mark.parametrize('threads', [SELDOM(1), 4])
def test_a_thread_of_a_worker_dies(hall, threads):
    async def scenario():
        server, worker = start_pair(hall, threads)
        connections = await hall.open(2 * threads, server)
        for n, connection in enumerate(connections):
            # An exception of the flush after a consumer, which Channels does not catch: it tries for two seconds.
            connection.send({'type': 'OVERFLOW', 'ref': n})
            connection.send({'type': 'ECHO', 'ref': 'after'})
        for n, connection in enumerate(connections):
            assert [(await connection.receive())['ref'] for _ in range(2)] == [n, 'after']
        assert worker.log.count('died and is restarted') == 2 * threads
        assert 'Failed to send queued message' in worker.log
        # All of them are at work again.
        for n, connection in enumerate(connections[:threads]):
            connection.send({'type': 'WORK', 'connection': n, 'n': 0, 'seconds': 1, 'ref': n})
        began = time.monotonic()
        for n, connection in enumerate(connections[:threads]):
            assert (await connection.receive())['ref'] == n
        assert time.monotonic() - began < 1.9
        await hall.came_true(
            'each thread of a worker dies, twice',
            PAIR.format(threads),
            connections,
            'nothing',
            await hall.rows_are(2 * threads, 5),
        )

    asyncio.run(scenario())


# Workers that are told to stop.


@pytest.mark.parametrize('threads', [1, 4])
@pytest.mark.parametrize('number', [signal.SIGTERM, SELDOM(signal.SIGINT)])
def test_a_worker_with_threads_is_told_to_stop(hall, threads, number):
    async def scenario():
        server, worker = start_pair(hall, threads)
        hall.servers.worker()
        connections = await hall.open(20, server)
        # More frames than threads: what waits goes to the other worker.
        for n, connection in enumerate(connections):
            for m in range(3):
                connection.send({'type': 'WORK', 'connection': n, 'n': m, 'seconds': 0.3, 'ref': m})
        await fleet.eventually(lambda: any(words[0] == 'start' for words in hall.servers.notes()), 5)
        since = hall.kill(worker, number)
        await fleet.eventually(lambda: not worker.is_running, 10)
        took = time.monotonic() - since
        assert worker.process.returncode == 0, worker.log
        assert took < 4
        for connection in connections:
            assert [(await connection.receive(30))['ref'] for _ in range(3)] == [0, 1, 2]
        counts = {}
        for what, *which, _ in hall.servers.notes():
            counts[(what, *which)] = counts.get((what, *which), 0) + 1
        assert set(counts.values()) == {1}, 'a frame was handled twice'
        if number == signal.SIGTERM:
            await hall.came_true(
                'SIGTERM to a worker with a frame in each thread',
                PAIR.format(threads) + ' and another worker',
                connections,
                f'nothing; it ends within {took:.1f} s',
                await hall.rows_are(20, 5),
            )

    asyncio.run(scenario())


@pytest.mark.parametrize('threads', [SELDOM(1), 4])
def test_workers_are_told_to_stop_again_and_again_while_frames_come(hall, threads):
    # In whatever moment: also in that in which Redis hands them one.
    async def scenario():
        server, worker = start_pair(hall, threads)
        connections = await hall.open(10, server)
        is_over, asked, answered = asyncio.Event(), [0], [0]

        async def talk(connection):
            while not is_over.is_set():
                asked[0] += 1
                # A lost frame or answer would be waited for until the lease ends, or for ever.
                assert (await connection.ask({'type': 'ECHO', 'ref': asked[0]}, 8))['type'] == 'ECHO'
                answered[0] += 1
                await asyncio.sleep(0.001)

        talking = [asyncio.ensure_future(talk(connection)) for connection in connections]
        for _ in range(6):
            fresh = await asyncio.get_event_loop().run_in_executor(
                None, lambda: hall.servers.worker('--threads', str(threads))
            )
            await asyncio.sleep(0.2)
            hall.kill(worker, signal.SIGTERM)
            await fleet.eventually(lambda: not worker.is_running, 10)
            assert worker.process.returncode == 0, worker.log
            worker = fresh
        is_over.set()
        await asyncio.gather(*talking)
        assert answered == asked and answered[0] > 500
        await hall.came_true(
            '6 workers are replaced, one after another, while 10 clients talk',
            PAIR.format(threads),
            connections,
            f'nothing of {answered[0]} frames',
            await hall.rows_are(10, 5),
        )

    asyncio.run(scenario())


@pytest.mark.parametrize('shape', [SELDOM('`runsockets`'), SELDOM(PAIR.format(1)), PAIR.format(4)])
def test_a_function_hangs_and_its_process_is_told_to_stop(hall, shape):
    async def scenario():
        if shape == '`runsockets`':
            server = process = hall.servers.runsockets()
        else:
            server, process = start_pair(hall, re.search(r'\d', shape).group())
        (hung,) = await hall.open(1, server)
        hung.send({'type': 'WORK', 'connection': 'hung', 'n': 0, 'seconds': 60})
        await fleet.eventually(lambda: hall.servers.pid_at_work('hung', 0), 5)
        since = hall.kill(process, signal.SIGTERM)
        await fleet.eventually(lambda: not process.is_running, 16)
        took = time.monotonic() - since
        assert process.process.returncode == 0, process.log
        assert 9 < took < 13
        assert 'time.sleep(content.get' in process.log, 'the stack of the thread is in the log'
        hall.report.append(
            (
                'SIGTERM to a process with a function that hangs',
                shape,
                '1',
                f'that frame; it ends after {took:.0f} s',
                '-',
            )
        )

    asyncio.run(scenario())


# Functions that take too long.


@pytest.mark.parametrize('shape', ['`runsockets`', SELDOM(PAIR.format(1)), SELDOM(PAIR.format(4))])
def test_a_function_hangs(hall, shape):
    hall.servers.environment['MAX_HANDLING_TIME'] = '2'

    async def scenario():
        if shape == '`runsockets`':
            server = process = hall.servers.runsockets()
        else:
            server, process = start_pair(hall, re.search(r'\d', shape).group())
        hung, *others = await hall.open(5, server)
        since = time.monotonic()
        hung.send({'type': 'WORK', 'connection': 'hung', 'n': 0, 'seconds': 8, 'ref': 'hung'})
        hung.send({'type': 'WORK', 'connection': 'hung', 'n': 1})
        # Who asked is answered, or it would ask again on its next connection.
        answer = await hung.receive()
        assert (answer['code'], answer['ref']) == ('server_error', 'hung')
        assert await hung.receive() == 1011
        took = await hall.rows_are(4, 5, since)
        assert 2 <= took < 4
        await fleet.eventually(lambda: [words for words in hall.servers.notes() if words[0] == 'close'], 2)
        assert process.log.count("longer than SOCKETS['MAX_HANDLING_TIME']") == 1
        assert 'time.sleep(content.get' in process.log, 'the stack of the thread is in the log'
        # Another thread has taken its place, so that one more or less is not missed.
        for n in range(20):
            assert (await others[n % 4].ask({'type': 'ECHO', 'ref': n}, 2))['ref'] == n
        # At last it returns, and does no harm.
        await fleet.eventually(lambda: ('end', 'hung') in [tuple(words[:2]) for words in hall.servers.notes()], 10)
        await asyncio.sleep(0.5)
        assert not [words for words in hall.servers.notes() if words[:3] == ['start', 'hung', '1']]
        assert 'Traceback' not in process.log
        await hall.came_true(
            'a function hangs for longer than `MAX_HANDLING_TIME` (2 s)',
            shape,
            [hung] + others,
            'what it would have said; its client gets 1011',
            took,
        )
        if process is not server:
            assert not process.stop() and process.process.returncode == 0
            hall.killed.add(process)

    asyncio.run(scenario())


@pytest.mark.parametrize('shape', [SELDOM('`runsockets`'), SELDOM(PAIR.format(4))])
def test_a_connect_function_hangs_and_its_client_goes(hall, shape):
    hall.servers.environment['MAX_HANDLING_TIME'] = '2'

    async def scenario():
        if shape == '`runsockets`':
            server = process = hall.servers.runsockets()
        else:
            server, process = start_pair(hall, 4)
        for path in ('/slow/?after=6', '/slow/?before=6'):
            since = time.monotonic()
            if 'after' in path:
                connection = await fleet.Connection.open(server.port, path)
                connection.writer.close()
                assert hall.sql('select count(*) from sockets_socket')[0][0] == 1
            else:
                with pytest.raises((fleet.Refused, ConnectionError)):
                    await fleet.Connection.open(server.port, path)
            while hall.sql('select count(*) from sockets_socket')[0][0]:
                assert time.monotonic() - since < 5
                await asyncio.sleep(0.05)
            await asyncio.sleep(max(0, since + 7 - time.monotonic()))
            assert hall.sql('select count(*) from sockets_socket')[0][0] == 0, 'it opened when it returned'
        assert process.log.count("longer than SOCKETS['MAX_HANDLING_TIME']") == 2

    asyncio.run(scenario())


# What the pair stands on.


def test_redis_refuses_connections_while_clients_send(hall, redis):
    async def scenario():
        server = hall.servers.daphne()
        hall.servers.worker('--threads', '4')
        connections = await hall.open(20, server)
        loop = asyncio.get_event_loop()
        await loop.run_in_executor(None, redis.stop)
        try:
            for connection in connections[:10]:
                connection.send({'type': 'ECHO', 'ref': 1})
            assert await asyncio.gather(*(connection.receive() for connection in connections[:10])) == [1013] * 10
            assert server.log.count('Closing with 1013 ') == 10
        finally:
            await loop.run_in_executor(None, redis.start)
        since = time.monotonic()
        await hall.came_true(
            'Redis refuses connections while 10 clients send',
            PAIR.format(4),
            connections,
            'those 10 frames: 1013, and a line in the log, for each, by design',
            await hall.rows_are(10, 10, since),
        )

    asyncio.run(scenario())
