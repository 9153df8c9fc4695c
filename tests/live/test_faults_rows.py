"""Connections without a row and rows without a connection, whatever made them, and for how long they stay."""

import asyncio
import collections
import os
import random
import signal
import time

import pytest

from . import fleet
from .hall import ALL, CLASSIC, CUT_OFF, LOG_IN, ONE_RUNSOCKETS, RUNSOCKETS, SESSION, start
from .stack import ON_CHANNELS_1
from .wire import Wire

pytestmark = pytest.mark.timed

BOTH = pytest.mark.parametrize('shape', [RUNSOCKETS, CLASSIC])
# Long enough to be found dead, and what an operator would see.
SECONDS = pytest.mark.parametrize('seconds', [8, pytest.param(75, marks=pytest.mark.long)])


class Talker:
    """A client that has something handled all the time, whether it is answered or not, and notes what it is told."""

    def __init__(self, name, connection, pause):
        self.name = name
        self.pause = pause
        self.connection = connection
        self.told = None
        self.code = None
        # How many frames it has sent.
        self.sent = 0
        self.tasks = [asyncio.ensure_future(self.talk()), asyncio.ensure_future(self.listen())]

    async def talk(self):
        while self.code is None:
            self.sent += 1
            self.connection.send({'type': 'WORK', 'connection': self.name, 'n': self.sent, 'ref': self.sent})
            await asyncio.sleep(self.pause)

    async def listen(self):
        while self.code is None:
            frame = await self.connection.receive(120)
            if isinstance(frame, int):
                self.code, self.ended = frame, time.monotonic()
            elif frame['type'] == 'RECONNECT':
                self.told = frame['details']

    @classmethod
    async def several(cls, hall, name, count, server, seconds):
        # In so many seconds, no more than may wait of one connection.
        return [
            cls(f'{name}{n}', connection, max(0.2, seconds / 50))
            for n, connection in enumerate(await hall.open(count, server))
        ]


async def all_told(talkers, seconds, may_wait=False):
    """Wait until all are told to come back and closed with 1012; return when the last one was.

    Frames that daphne could not bring to Redis for ten seconds end their connection with 1013: ``may_wait``.
    """
    await asyncio.wait_for(asyncio.gather(*(task for talker in talkers for task in talker.tasks)), seconds)
    assert {talker.code for talker in talkers} <= ({1012, 1013} if may_wait else {1012})
    assert all(talker.told for talker in talkers if talker.code == 1012)
    return max(talker.ended for talker in talkers)


def codes(talkers):
    """Return with which codes ``talkers`` were closed, as text."""
    counts = collections.Counter(talker.code for talker in talkers)
    return ', '.join(f'{count} get {code}' for code, count in sorted(counts.items()))


def handled(hall, talkers, since):
    """Return what functions began to handle for ``talkers`` after ``since``."""
    names = {talker.name for talker in talkers}
    return [words for words in hall.servers.notes() if words[0] == 'start' and words[1] in names and words[-1] > since]


async def nothing_under_way(hall, talkers):
    """Return when functions have begun to handle all that ``talkers`` have sent.

    A frame that has been taken when its process is stopped goes on when that does.
    """
    deadline = time.monotonic() + 10
    while len(handled(hall, talkers, 0)) != sum(talker.sent for talker in talkers):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def wait(seconds, bystanders):
    """Wait, while ``bystanders`` hear the server's pings and are served."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        await asyncio.sleep(min(5, max(0, deadline - time.monotonic())))
        for connection in bystanders:
            assert await connection.ask({'type': 'ECHO', 'ref': 'there'}) == {'type': 'ECHO', 'ref': 'there'}


async def come_back(hall, count, server, seconds=15):
    """Return ``count`` new connections to ``server``, which may still say 503."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await hall.open(count, server)
        except (fleet.Refused, AssertionError):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)


def start_on(wire, hall, shape):
    """Start a server that reaches Redis by ``wire``, and others; return them."""
    direct = hall.servers.environment['REDIS_URL']
    hall.servers.environment['REDIS_URL'] = f'redis://127.0.0.1:{wire.port}/0'
    if not ON_CHANNELS_1 and shape == CLASSIC:
        hall.servers.environment['LAYER'] = 'pubsub'
    server = hall.servers.runsockets() if shape == RUNSOCKETS else hall.servers.daphne()
    hall.servers.environment['REDIS_URL'] = direct
    if shape == RUNSOCKETS:
        return server, hall.servers.runsockets()
    if not ON_CHANNELS_1:
        return server, hall.servers.daphne()
    hall.servers.worker(), hall.servers.worker()
    return (server,)


@BOTH
@SECONDS
def test_a_server_is_stopped_and_goes_on(hall, redis, shape, seconds):
    wire = Wire(redis.port)

    async def scenario():
        server, *others = start_on(wire, hall, shape)
        talkers = await Talker.several(hall, 'stopped', 20, server, seconds)
        bystanders = [connection for other in others for connection in await hall.open(10, other)]
        await asyncio.sleep(2)
        assert len(handled(hall, talkers, 0)) >= 20
        await nothing_under_way(hall, talkers)
        server.process.send_signal(signal.SIGSTOP)
        await hall.rows_are(len(bystanders), 8)
        await wait(seconds - 5, bystanders)
        # It cannot ask at once how it stands.
        wire.cut()
        since = time.monotonic()
        server.process.send_signal(signal.SIGCONT)
        await asyncio.sleep(1)
        assert handled(hall, talkers, since) == []
        wire.mend()
        took = await all_told(talkers, 10, ON_CHANNELS_1 and shape == CLASSIC and seconds > 10) - since
        assert handled(hall, talkers, since) == []
        back = await come_back(hall, 20, server)
        await hall.rows_are(len(bystanders) + 20, 5)
        await hall.came_true(
            f'SIGSTOP to the server, SIGCONT after {seconds} s',
            shape,
            [talker.connection for talker in talkers] + bystanders + back,
            'what was said to it meanwhile; ' + codes(talkers),
            took,
        )

    try:
        asyncio.run(scenario())
    finally:
        wire.close()


@pytest.mark.channels1('its servers live as long as Redis hears of them; those of Channels 4 need the database')
@BOTH
@SECONDS
def test_a_server_is_cut_off_from_redis(hall, redis, shape, seconds):
    wire = Wire(redis.port)

    async def scenario():
        server, *others = start_on(wire, hall, shape)
        talkers = await Talker.several(hall, 'cut', 20, server, seconds)
        bystanders = [connection for other in others for connection in await hall.open(10, other)]
        await asyncio.sleep(1)
        wire.cut()
        cut = time.monotonic()
        await hall.rows_are(len(bystanders), 8)
        came = []
        if shape == RUNSOCKETS and seconds > 20:
            # It has the database, and sees that its connections have no rows any more.
            await all_told(talkers, 15)
            came = await come_back(hall, 5, server)
        await wait(seconds - (time.monotonic() - cut), bystanders)
        wire.mend()
        since = time.monotonic()
        took = await all_told(talkers, 15, ON_CHANNELS_1 and shape == CLASSIC and seconds > 10) - since
        for connection in came:
            while not isinstance(await connection.receive(), int):
                pass
            took = time.monotonic() - since
        # Until it has heard from Redis, it takes in who comes.
        await asyncio.sleep(2)
        assert handled(hall, talkers, since + 1) == []
        back = await come_back(hall, 20, server)
        await hall.rows_are(len(bystanders) + 20, 10)
        lost = 'what was said to it meanwhile; ' if shape == CLASSIC else ''
        await hall.came_true(
            f'a server is cut off from Redis for {seconds} s',
            shape,
            [talker.connection for talker in talkers] + came + bystanders + back,
            lost + codes(talkers),
            max(0, took),
        )

    try:
        asyncio.run(scenario())
    finally:
        wire.close()


@BOTH
@pytest.mark.parametrize(
    'process', ['a process that goes on', pytest.param('a process that ends', marks=pytest.mark.long)]
)
def test_somebody_logs_out_while_redis_is_away(hall, redis, shape, process):
    async def scenario():
        loop = asyncio.get_event_loop()
        servers = start(hall, shape)
        key = (await loop.run_in_executor(None, hall.servers.python, LOG_IN)).split()[0]
        mine = [
            await fleet.Connection.open(server.port, '/hall/', cookie='sessionid=' + key)
            for server in servers
            for _ in range(3)
        ]
        for connection in mine:
            assert (await connection.ask({'type': 'HELLO'}))['user_id'] is not None
        others = await hall.open(3, *servers)
        await loop.run_in_executor(None, redis.stop)
        ends = asyncio.gather(*(all_of(connection) for connection in mine))
        program = (
            SESSION
            + """
from django.contrib.auth import logout
request = HttpRequest()
request.session, request.user = Store('{}'), user
logout(request)
{}""".format(key, 'import time; time.sleep(10)' if process == 'a process that goes on' else '')
        )
        ends_of_program = loop.run_in_executor(None, hall.servers.python, program)
        await hall.rows_are(len(others), 10)
        await asyncio.sleep(3)
        await loop.run_in_executor(None, redis.start)
        since = time.monotonic()
        took = 0
        for frames, code, ended in await asyncio.wait_for(ends, 15):
            assert frames[-1]['type'] == 'RECONNECT' and code in (4401, 1012)
            took = max(took, ended - since)
        assert took < 10
        await ends_of_program
        await hall.rows_are(len(others), 5)
        await hall.came_true(
            'somebody logs out while Redis is away for 3 s, in ' + process, shape, mine + others, 'nothing', took
        )

    asyncio.run(scenario())


async def all_of(connection):
    """Return what a connection gets until it is closed, the code, and when that was."""
    frames = []
    while True:
        frame = await connection.receive(60)
        if isinstance(frame, int):
            return frames, frame, time.monotonic()
        frames.append(frame)


@pytest.mark.parametrize('shape', ALL)
def test_rows_are_deleted_by_sql(hall, shape):
    async def scenario():
        servers = start(hall, shape)
        connections = await hall.open(10, *servers)
        victims = [
            (connection, (await connection.ask({'type': 'HELLO'}))['socket_id']) for connection in connections[::3]
        ]
        ids = ', '.join(str(pk) for _, pk in victims)
        hall.sql(f'delete from sockets_socket where id in ({ids}) returning id')
        since = time.monotonic()
        for connection, pk in victims:
            frames, code, ended = await all_of(connection)
            assert (frames[-1]['type'], code) == ('RECONNECT', 1012)
            # Nobody could have run its disconnect function: whoever deleted the row did not tell.
            hall.servers.notes_directory.joinpath('0').open('a').write(f'close {pk} {time.monotonic()}\n')
        assert ended - since < 12
        await hall.came_true('rows are deleted by SQL', shape, connections, 'their disconnect functions', ended - since)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    'shape', [pytest.param(shape, marks=pytest.mark.long) if shape == CUT_OFF else shape for shape in ALL]
)
def test_rows_without_a_connection(hall, shape):
    async def scenario():
        server, *_ = start(hall, shape)
        connections = await hall.open(10, server)
        columns = 'server, layer, path, active, last_ping, created, modified, handshake'
        ids = [
            pk
            for (pk,) in hall.sql(
                f'insert into sockets_socket (channel_name, {columns}) select channel_name || id, {columns} from sockets_socket '
                "where path = '/hall/' limit 3 returning id"
            )
        ]
        took = await hall.rows_are(10, 15)
        await fleet.eventually(
            lambda: {str(pk) for pk in ids} <= {words[1] for words in hall.servers.notes() if words[0] == 'close'}, 2
        )
        await hall.came_true('3 rows have no connection', shape, connections, 'nothing', took)

    asyncio.run(scenario())


# daphne 4 drops a handshake after 5 s, and has two threads for connects.
@pytest.mark.parametrize(
    'shape', [RUNSOCKETS, *([pytest.param(CLASSIC, marks=pytest.mark.long)] if ON_CHANNELS_1 else [])]
)
def test_a_row_in_an_open_transaction_is_no_fault(hall, shape):
    """Nobody is closed whose row is long in coming: an hour of it with SOCKETS_CHURN=3600."""
    seconds = float(os.environ.get('SOCKETS_CHURN', 20))

    async def scenario():
        loop = asyncio.get_event_loop()
        if shape == RUNSOCKETS:
            server = hall.servers.runsockets('--threads', '4', '--connect-threads', '12')
        else:
            server = hall.servers.daphne()
            for _ in range(2):
                hall.servers.worker('--threads', '6')
        deadline, visits = loop.time() + seconds, []

        async def visit(path, stay):
            while loop.time() < deadline:
                connection = await fleet.Connection.open(server.port, path)
                at = loop.time()
                assert await connection.ask({'type': 'ECHO'}, 60) == {'type': 'ECHO'}
                if path == '/late/':
                    assert loop.time() - at > 7
                await asyncio.sleep(random.uniform(0, stay))
                assert await connection.ask({'type': 'ECHO'}, 60) == {'type': 'ECHO'}
                await connection.close()
                visits.append(path)

        await asyncio.gather(*(visit('/late/', 4) for _ in range(6)), *(visit('/hall/', 8) for _ in range(20)))
        assert 'without a' not in server.log
        await hall.rows_are(0, 10)
        await fleet.eventually(lambda: hall.servers.rows() == 0)
        assert visits.count('/late/') >= 6
        hall.report.append(
            (
                f'connects in transactions of 8 s for {seconds:.0f} s',
                ONE_RUNSOCKETS if shape == RUNSOCKETS else CLASSIC,
                str(len(visits)),
                'nothing',
                '0.0 s',
            )
        )

    asyncio.run(scenario())


@pytest.mark.parametrize('shape', [pytest.param(RUNSOCKETS, marks=pytest.mark.long), CLASSIC])
def test_a_server_is_killed_while_redis_restarts(hall, redis, shape):
    async def scenario():
        loop = asyncio.get_event_loop()
        server, *others = start(hall, shape)
        connections = await hall.open(20, server)
        bystanders = [connection for other in others for connection in await hall.open(5, other)]
        await loop.run_in_executor(None, redis.stop)
        hall.kill(server)
        await loop.run_in_executor(None, redis.start)
        since = time.monotonic()
        assert await asyncio.gather(*(connection.receive() for connection in connections)) == [1006] * 20
        # On Channels 1, ten seconds in which whom Redis does not know may speak, and then as for any other. On Channels 4, the
        # database says who lives.
        took = await hall.rows_are(len(bystanders), 18 if ON_CHANNELS_1 else 8, since)
        assert took > 9 or not ON_CHANNELS_1
        await hall.came_true(
            'SIGKILL to the server while Redis restarts',
            shape,
            connections + bystanders,
            'what was under way in it, and in Redis',
            took,
        )

    asyncio.run(scenario())
