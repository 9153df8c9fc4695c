"""A database router that reads from a replica, which takes no writes and is a second behind."""

import asyncio

import psycopg2
import pytest

from .. import servers as programs
from . import fleet
from .hall import CLASSIC, LOG_IN, RUNSOCKETS, start

pytestmark = pytest.mark.timed


@pytest.fixture
def hall_with_replica(hall, database_url):
    with programs.postgres_standby(database_url) as url:
        hall.servers.environment.update(DJANGO_SETTINGS_MODULE='tests.live.replica_site', REPLICA_URL=url)
        replica = psycopg2.connect(url)
        replica.autocommit = True
        hall.replica = replica.cursor()
        yield hall
        replica.close()
        hall.servers.stop()


@pytest.mark.parametrize('shape', [RUNSOCKETS, pytest.param(CLASSIC, marks=pytest.mark.long)])
def test_what_is_read_is_read_from_a_replica_that_is_behind(hall_with_replica, shape):
    hall = hall_with_replica

    async def scenario():
        loop = asyncio.get_event_loop()
        servers = start(hall, shape)
        # Each is answered at once.
        connections = await hall.open(10, *servers)
        hall.replica.execute('select count(*) from sockets_socket')
        assert hall.replica.fetchone()[0] < hall.rows() == len(connections)
        with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
            hall.replica.execute('delete from sockets_socket')
        # Somebody who has just logged in is somebody.
        key = (
            await loop.run_in_executor(
                None, hall.servers.python, LOG_IN.replace('get_or_create', 'using("default").get_or_create')
            )
        ).split()[0]
        mine = await fleet.Connection.open(servers[0].port, '/hall/', cookie='sessionid=' + key)
        assert (await mine.ask({'type': 'HELLO'}))['user_id'] is not None
        # One goes, three are revoked, and one logs out.
        leaver, *rest = connections
        await leaver.close()
        took = await hall.rows_are(len(rest) + 1, 5)
        said = await loop.run_in_executor(
            None, hall.servers.python, 'print(Socket.objects.filter(user=None).order_by("pk")[:3].revoke())'
        )
        assert said.split() == ['3']
        told = [connection for connection in rest if await asyncio.wait_for(_is_closed(connection, 4401), 5)]
        assert len(told) == 3
        await loop.run_in_executor(
            None,
            hall.servers.python,
            f"""
from django.contrib.sessions.models import Session
Session.objects.using('default').get(pk='{key}').delete()""",
        )
        assert await _is_closed(mine, 4401)
        took = max(took, await hall.rows_are(len(rest) - 3, 5))
        still = [connection for connection in rest if connection not in told]
        await hall.came_true('reads go to a replica: read-only and 1 s behind', shape, still, 'nothing', took)
        assert not any('Traceback' in program.log for program in hall.servers.programs)

    asyncio.run(scenario())


async def _is_closed(connection, code):
    """Whether ``connection`` is told to come back and closed with ``code`` by now."""
    try:
        frame = await connection.receive(0.5)
    except asyncio.TimeoutError:
        return False
    assert frame['type'] == 'RECONNECT'
    assert await connection.receive() == code
    return True
