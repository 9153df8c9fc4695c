"""What a Redis can do to a site that has one or three of them, and what two sites do to each other's rows."""

import asyncio
import signal
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

from sockets.engine import server_of
from sockets.layers import RedisChannelLayer

from .. import servers as programs
from . import fleet
from .hall import CLASSIC, RUNSOCKETS, Hall, start

pytestmark = pytest.mark.timed


async def talk(connections, seconds, times, every=0.1):
    """Have each of ``connections`` echo for some seconds; add how long each echo took to ``times``."""
    deadline = time.monotonic() + seconds

    async def one(connection):
        while time.monotonic() < deadline:
            sent = time.monotonic()
            assert await connection.ask({'type': 'ECHO', 'ref': sent}) == {'type': 'ECHO', 'ref': sent}
            times.append(time.monotonic() - sent)
            await asyncio.sleep(every)

    await asyncio.gather(*(one(connection) for connection in connections))


def milliseconds(times, share):
    return f'{sorted(times)[int(len(times) * share)] * 1000:.0f} ms'


@pytest.mark.long
def test_redis_hangs_for_45_s_while_clients_connect_and_talk_to_runsockets(hall, redis):
    async def scenario():
        both = start(hall, RUNSOCKETS)
        await hall.warm_up(*both)
        connections = await hall.open(20, *both)
        echoes, connects = [], []
        redis.program.process.send_signal(signal.SIGSTOP)
        talking = [asyncio.ensure_future(talk(list(connections), 45, echoes))]
        try:
            for n in range(45):
                began = time.monotonic()
                connections += await hall.open(1, both[n % 2])
                connects.append(time.monotonic() - began)
                # Who listens answers the server's pings.
                talking.append(asyncio.ensure_future(talk(connections[-1:], 44 - n, echoes, 1)))
                await asyncio.sleep(max(0, 1 - connects[-1]))
            await asyncio.gather(*talking)
        finally:
            redis.program.process.send_signal(signal.SIGCONT)
        since = time.monotonic()
        assert max(echoes) < 1 and max(connects) < 1
        # Nobody is taken for dead who was only not heard, and who comes late is told what is said from now on.
        for _ in range(60):
            assert hall.rows() == 85
            await asyncio.sleep(0.1)
        connections[0].send({'type': 'SHOUT', 'content': {'type': 'NEWS'}, 'ref': 1})
        for connection in connections[1:]:
            assert (await connection.receive())['type'] == 'NEWS'
        assert {(await connections[0].receive())['type'] for _ in range(2)} == {'NEWS', 'HEARD'}
        await hall.came_true(
            'Redis hangs for 45 s while 40 clients talk and one a second connects',
            RUNSOCKETS,
            connections,
            f'nothing; slowest echo {milliseconds(echoes, 0.999999)}, slowest connect {milliseconds(connects, 0.999999)}',
            time.monotonic() - since - 6,
        )

    asyncio.run(scenario())


@pytest.mark.long
def test_redis_hangs_for_45_s_while_clients_connect_and_talk_to_daphne(hall, redis):
    async def scenario():
        (server,) = start(hall, CLASSIC)
        await hall.warm_up(server)
        connections = await hall.open(40, server)
        talkers, silent = connections[:10], connections[10:]
        # Who listens answers daphne's pings.
        listening = [asyncio.ensure_future(connection.receive(120)) for connection in silent]
        redis.program.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        codes = [asyncio.ensure_future(connection.ask({'type': 'ECHO', 'ref': 1}, 40)) for connection in talkers]
        refusals = []

        async def knock():
            knocked = time.monotonic()
            with pytest.raises((fleet.Refused, ConnectionError)) as raised:
                await fleet.Connection.open(server.port, '/hall/')
            refusals.append((knocked - began, time.monotonic() - knocked, str(raised.value)))

        knocks = []
        for _ in range(45):
            knocks.append(asyncio.ensure_future(knock()))
            await asyncio.sleep(1)
        redis.program.process.send_signal(signal.SIGCONT)
        since = time.monotonic()
        await asyncio.gather(*knocks)
        # They come back later, and wait for nobody meanwhile.
        assert await asyncio.gather(*codes) == [1013] * 10
        late = [took for at, took, _ in refusals if at > 12]
        assert len(late) > 30 and max(late) < 1 and {text for at, _, text in refusals if at > 12} == {'503'}
        took = await hall.rows_are(30, 10, since)
        for _ in range(60):
            assert hall.rows() == 30
            await asyncio.sleep(0.1)
        for connection in silent:
            connection.send({'type': 'ECHO', 'ref': 'still there'})
        assert {frame['ref'] for frame in await asyncio.gather(*listening)} == {'still there'}
        await hall.came_true(
            'Redis hangs for 45 s while 10 clients talk and one a second connects',
            CLASSIC,
            silent,
            'what was under way: 10 frames, closed with 1013; 45 connects, refused with 503 after the first 10 s',
            took,
        )

    asyncio.run(scenario())


class Shards:
    """Three Redis, as ``Fleet`` takes one."""

    def __init__(self, directory):
        self.all = []
        for n in range(3):
            (directory / f'redis-{n}').mkdir()
            self.all.append(fleet.Redis(directory / f'redis-{n}'))
        self.url = ' '.join(redis.url for redis in self.all)
        self.layer = RedisChannelLayer(hosts=self.url.split())

    def of(self, name):
        return self.layer.consistent_hash(name)

    def stop(self):
        for redis in self.all:
            redis.stop()


@contextmanager
def sharded_hall(tmp_path, database_url, report):
    shards = Shards(tmp_path)
    servers = fleet.Fleet(tmp_path, database_url, shards)
    hall = Hall(servers, database_url, report)
    try:
        yield hall, shards
    finally:
        hall.database.close()
        servers.stop()
        shards.stop()


@pytest.mark.parametrize('fault', [pytest.param('is killed', marks=pytest.mark.long), 'hangs'])
def test_one_redis_of_three(tmp_path, database_url, report, fault):
    with sharded_hall(tmp_path, database_url, report) as (hall, shards):
        asyncio.run(one_of_three(hall, shards, fault))


async def one_of_three(hall, shards, fault):
    loop = asyncio.get_event_loop()
    (server,) = start(hall, CLASSIC)
    local = hall.servers.runsockets()
    await hall.warm_up(server, local)
    connections, locals_ = await hall.open(40, server), await hall.open(10, local)
    names = dict(hall.sql("select id, channel_name from sockets_socket where path = '/hall/'"))
    of = {}
    for connection in connections + locals_:
        hello = await connection.ask({'type': 'HELLO'})
        of[connection] = names[hello['socket_id']]
    # A server's own mailbox is on one of them: if that is away, it is the whole server's trouble.
    homes = {shards.of(server_of(name)) for name in of.values()}
    victim = next(index for index in range(3) if index not in homes)
    redis = shards.all[victim]
    healthy = [connection for connection in connections if shards.of(of[connection]) != victim]
    ill = [connection for connection in connections if shards.of(of[connection]) == victim]
    assert healthy and len(ill) > 2
    # Who listens answers daphne's pings.
    quiet = [asyncio.ensure_future(connection.receive(60)) for connection in ill[1:]]

    async def pages(seconds, statuses):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                response = await loop.run_in_executor(
                    None, urllib.request.urlopen, f'http://127.0.0.1:{server.port}/page/'
                )
            except urllib.error.HTTPError as error:
                response = error
            statuses.append(response.code)
            await asyncio.sleep(0.1)

    async def everybody(seconds, under_way=0):
        """Have all talk that can, load pages, and return how long echoes took through daphne and in runsockets.

        Of the pages, ``under_way`` may have been on their way to a Redis that is gone: nobody knows whether it had them.
        """
        times, here, statuses = [], [], []
        await asyncio.gather(talk(healthy, seconds, times), talk(locals_, seconds, here), pages(seconds, statuses))
        assert statuses.count(200) >= len(statuses) - under_way, statuses
        return times, here

    before, _ = await everybody(3)
    if fault == 'is killed':
        await loop.run_in_executor(None, redis.stop)
    else:
        redis.program.process.send_signal(signal.SIGSTOP)
    first, here = await everybody(4, under_way=1)
    during, here_too = await everybody(6)
    # Who has said nothing is still connected; who speaks is told to come back.
    assert await ill[0].ask({'type': 'ECHO'}) == 1013
    if fault == 'is killed':
        await loop.run_in_executor(None, redis.start)
    else:
        redis.program.process.send_signal(signal.SIGCONT)
    since = time.monotonic()
    took = await hall.rows_are(49, 10, since)
    after, _ = await everybody(3)
    for connection in ill[1:]:
        connection.send({'type': 'ECHO', 'ref': 'again'})
    assert {frame['ref'] for frame in await asyncio.gather(*quiet)} == {'again'}
    print(
        '{}: p50 before {}, during {}, after {}; p99 before {}, during {}, after {}; longest in the first 4 s {}; '
        'runsockets p99 {}'.format(
            fault,
            *(milliseconds(times, 0.5) for times in (before, during, after)),
            *(milliseconds(times, 0.99) for times in (before, during, after)),
            milliseconds(first, 0.999999),
            milliseconds(here + here_too, 0.99),
        )
    )
    assert sorted(during)[int(len(during) * 0.99)] < max(0.15, 3 * sorted(before)[int(len(before) * 0.99)])
    assert max(here + here_too) < 1 and max(first) < 5
    hall.memory.clear()
    await hall.came_true(
        f'one Redis of three {fault} for 10 s',
        'daphne, 2 workers, `runsockets`',
        healthy + locals_ + ill[1:],
        f'{len(ill)} of 40 connections through daphne wait, and get 1013 if they speak; the others: p99 {milliseconds(during, 0.99)}, {milliseconds(before, 0.99)} before, once {milliseconds(first, 0.999999)}; '
        'pages: nothing',
        took,
    )


AHEAD = """
import sys, time
now = time.time
time.time = lambda: now() + 70
sys.argv = sys.argv[1:]
"""


@pytest.mark.parametrize('shape', [RUNSOCKETS, CLASSIC])
def test_the_clock_of_one_server_is_70_s_ahead(hall, shape):
    async def scenario():
        port = programs.free_port()
        if shape == RUNSOCKETS:
            run = 'from django.core.management import execute_from_command_line as run; run(["django", *sys.argv])'
            ahead = hall.servers.start('runsockets', '-c', AHEAD + run, 'runsockets', str(port), port=port)
            sender = hall.servers.runsockets()
        else:
            run = 'sys.argv.insert(0, "daphne")\nfrom daphne.cli import CommandLineInterface as C; C.entrypoint()'
            ahead = hall.servers.start(
                'daphne',
                '-c',
                AHEAD + run,
                '-b',
                '127.0.0.1',
                '-p',
                str(port),
                'tests.live.asgi:channel_layer',
                port=port,
            )
            hall.servers.worker(), hall.servers.worker()
            sender = hall.servers.daphne()
        theirs, (here,) = await hall.open(10, ahead), await hall.open(1, sender)
        for n in range(20):
            here.send({'type': 'SHOUT', 'content': {'type': 'NEWS', 'n': n}, 'ref': n})
            for connection in theirs:
                assert await connection.receive() == {'type': 'NEWS', 'n': n}
        loop = asyncio.get_event_loop()
        mine = (await ask_hello(here))['socket_id']

        async def end(connection):
            assert (await connection.receive(20))['type'] == 'RECONNECT'
            assert await connection.receive() == 4401
            return time.monotonic()

        ends = asyncio.gather(*(end(connection) for connection in theirs))
        done = float(
            await loop.run_in_executor(
                None,
                hall.servers.python,
                (f'import time; Socket.objects.exclude(pk={mine}).revoke(); print(time.monotonic())'),
            )
        )
        took = max(0, max(await ends) - done)
        assert took < 1.5
        await hall.rows_are(1, 5)
        while True:
            try:
                await here.receive(0.5)
            except asyncio.TimeoutError:
                break
        here = (await hall.open(1, sender))[0]
        await hall.came_true('the clock of one server is 70 s ahead', shape, [here], 'nothing', took)

    async def ask_hello(connection):
        connection.send({'type': 'HELLO'})
        while True:
            frame = await connection.receive()
            if frame['type'] == 'GOT_HELLO':
                return frame

    asyncio.run(scenario())


def test_servers_with_another_prefix_share_the_database(hall):
    async def scenario():
        one, two = start(hall, RUNSOCKETS)
        hall.servers.environment['PREFIX'] = 'another:'
        other = hall.servers.runsockets()
        connections = await hall.open(20, one, two, other)
        # They have ten seconds to speak before somebody who hears nothing takes them for dead.
        for _ in range(32):
            assert hall.rows() == 60
            await asyncio.sleep(0.5)
        since = hall.kill(one)
        took = await hall.rows_are(40, 10, since)
        for _ in range(30):
            assert hall.rows() == 40
            await asyncio.sleep(0.1)
        await hall.came_true(
            'servers with another prefix share the database, and one of them is killed',
            '2 `runsockets`, 1 with another prefix',
            connections[20:],
            'nothing of the others',
            took,
        )

    asyncio.run(scenario())
