"""What Redis can do to us: restart, refuse, hang, forget its scripts, run out of memory. No process ends."""

import asyncio
import signal
import time

import pytest

from sockets.layers import RedisChannelLayer
from sockets.layers.redis import OutOfMemory

from . import fleet

pytestmark = pytest.mark.timed


@pytest.fixture(scope='module')
def running(tmp_path_factory, redis, database_url):
    """Two ``runsockets``, one daphne and one worker. Whatever Redis does, they must survive."""
    servers = fleet.Fleet(tmp_path_factory.mktemp('fleet'), database_url, redis)
    servers.both = [servers.runsockets(), servers.runsockets()]
    servers.daphne_, servers.worker_ = servers.daphne(), servers.worker()
    yield servers
    ended = [program.log for program in servers.programs if not program.is_running]
    servers.stop()
    assert ended == []


def said(program, text):
    return sum(text in line and 'Housekeeping waits' not in line for line in program.log.splitlines())


async def shout_reaches_everyone(servers):
    """A message from a handler of one ``runsockets`` reaches connections of all three servers, and so does one of a
    worker beside daphne."""
    connections = [await fleet.Connection.open(program.port, '/crowd/') for program in [*servers.both, servers.daphne_]]
    for sender in (connections[0], connections[2]):
        content = {'type': 'NEWS', 'n': time.time()}
        sender.send({'type': 'SHOUT', 'content': content})
        for connection in connections:
            frames = [await connection.receive()]
            if connection is sender:
                frames.append(await connection.receive())
                assert {'type': 'HEARD', 'by': 3} in frames
            assert content in frames
    await fleet.close_many(connections)
    # Or their rows are counted by who shouts next.
    await fleet.eventually(lambda: int(servers.python("print(Socket.objects.filter(path='/crowd/').count())")) == 0)


async def trouble(servers, redis, begin, end, seconds, expected_in_log):
    """Make trouble for some seconds while connections echo; return the longest time that an echo took."""
    loop = asyncio.get_event_loop()
    before = {
        program: [said(program, text) for text in ('Redis is away', 'Redis is back')] for program in servers.programs
    }
    await shout_reaches_everyone(servers)
    connections = [await fleet.Connection.open(program.port) for program in servers.both]
    await loop.run_in_executor(None, begin)
    slowest, deadline = 0, loop.time() + seconds
    while loop.time() < deadline:
        for connection in connections:
            sent = loop.time()
            assert await connection.ask({'type': 'ECHO', 'ref': sent}) == {'type': 'ECHO', 'ref': sent}
            slowest = max(slowest, loop.time() - sent)
        await asyncio.sleep(0.02)
    await loop.run_in_executor(None, end)
    for connection in connections:
        assert await connection.ask({'type': 'ECHO'}) == {'type': 'ECHO'}
    # Who waits longest tries again after a second.
    await asyncio.sleep(2.5)
    await shout_reaches_everyone(servers)
    await fleet.close_many(connections)
    for program in servers.programs:
        news = [said(program, text) - count for text, count in zip(('Redis is away', 'Redis is back'), before[program])]
        assert news in expected_in_log, program.log
    return slowest


def test_redis_refuses_connections_for_five_seconds(running, redis):
    slowest = asyncio.run(trouble(running, redis, redis.stop, redis.start, 5, [[1, 1]]))
    assert slowest < 1


def test_redis_restarts(running, redis):
    def restart():
        redis.stop()
        redis.start()

    asyncio.run(
        trouble(
            running,
            redis,
            restart,
            lambda: None,
            0.5,
            # Who has nothing to say meanwhile does not notice.
            [[0, 0], [1, 1]],
        )
    )


def test_redis_hangs_for_five_seconds(running, redis):
    slowest = asyncio.run(
        trouble(
            running,
            redis,
            lambda: redis.program.process.send_signal(signal.SIGSTOP),
            lambda: redis.program.process.send_signal(signal.SIGCONT),
            5,
            # Less than the time-out: it is slow, which nobody can tell from far away.
            [[0, 0]],
        )
    )
    assert slowest < 1


def test_redis_forgets_its_scripts(running, redis):
    asyncio.run(trouble(running, redis, lambda: redis.client().script_flush(), lambda: None, 0.1, [[0, 0]]))


def test_redis_drops_every_connection(running, redis):
    def drop():
        for client in redis.client().client_list():
            try:
                redis.client().client_kill(client['addr'])
            except Exception:
                pass

    # Somebody who connects again at once has no trouble.
    before = [said(program, 'Redis is away') for program in running.programs]
    asyncio.run(shout_reaches_everyone(running))
    drop()
    time.sleep(2.5)
    asyncio.run(shout_reaches_everyone(running))
    assert [said(program, 'Redis is away') - count for program, count in zip(running.programs, before)] <= [1] * 4


def test_who_sends_to_a_redis_without_memory_is_told_so(redis):
    layer = RedisChannelLayer(hosts=[redis.url])
    redis.client().config_set('maxmemory', 1)
    try:
        with pytest.raises(OutOfMemory, match='maxmemory'):
            layer.send('some', {'text': 'x'})
        with pytest.raises(OutOfMemory, match='maxmemory'):
            layer.send_many(['daphne.response.x!1', 'daphne.response.x!2'], {'text': 'x'})
    finally:
        redis.client().config_set('maxmemory', 0)
    layer.send('some', {'text': 'x'})
    assert layer.receive(['some']) == ('some', {'text': 'x'})


def test_a_redis_without_memory_ends_nobody_and_is_used_again_when_it_has_some(running, redis):
    async def scenario():
        held, distant = [await fleet.Connection.open(port) for port in (running.both[0].port, running.daphne_.port)]
        assert (await distant.ask({'type': 'ECHO', 'n': 1}))['n'] == 1
        # The worker has a frame in its hands when memory runs out, and another is waiting.
        for n in range(2):
            distant.send({'type': 'WORK', 'connection': 'memory', 'n': n, 'seconds': 1, 'ref': n})
        await fleet.eventually(lambda: running.pid_at_work('memory', 0))
        redis.client().config_set('maxmemory', 1)
        try:
            assert await held.ask({'type': 'ECHO', 'n': 2}) == {'type': 'ECHO', 'n': 2}
            await asyncio.sleep(3)
            # daphne has no room for the frame: it asks its client to come back later.
            distant.send({'type': 'ECHO', 'n': 3})
            frame = await distant.receive()
            while not isinstance(frame, int):
                frame = await distant.receive()
            assert frame == 1013
            with pytest.raises(fleet.Refused, match='503'):
                await fleet.Connection.open(running.daphne_.port)
        finally:
            redis.client().config_set('maxmemory', 0)
        await asyncio.sleep(1)
        await shout_reaches_everyone(running)
        await held.close()

    asyncio.run(scenario())


def test_one_shard_of_two_that_is_away_is_said_once(tmp_path, database_url):
    (tmp_path / 'one').mkdir(), (tmp_path / 'two').mkdir()
    one, two = fleet.Redis(tmp_path / 'one'), fleet.Redis(tmp_path / 'two')
    both = type('Both', (), {'url': one.url + ' ' + two.url})
    servers = fleet.Fleet(tmp_path, database_url, both)
    try:
        worker = servers.worker()
        two.stop()
        time.sleep(6)
        away = said(worker, 'Redis is away'), said(worker, 'Redis is back')
        two.start()
        time.sleep(3)
        assert worker.is_running and away == (1, 0), worker.log
        assert (said(worker, 'Redis is away'), said(worker, 'Redis is back')) == (1, 1), worker.log
    finally:
        servers.stop()
        one.stop()
        two.stop()
