"""A site on MariaDB, with the driver that needs no compiler."""

import asyncio

import pytest

from .. import servers as programs
from . import fleet
from .hall import Hall


@pytest.fixture(scope='module')
def mariadb_url():
    pytest.importorskip('pymysql')
    with programs.mariadb_server() as url:
        yield url


def test_what_the_models_promise_holds(mariadb_url):
    printed = programs.run_python(
        '-m',
        'pytest',
        '-q',
        '-p',
        'no:cacheprovider',
        'tests/test_models.py',
        'tests/test_rooms.py',
        'tests/test_once.py',
        'tests/test_claims.py',
        'tests/test_visits.py',
        '-k',
        'not Redis and not asgiref',
        env={'TEST_DATABASE_URL': mariadb_url},
    )
    assert ' passed' in printed and 'failed' not in printed


def test_connections_come_speak_and_go(mariadb_url, tmp_path, redis):
    hall = Hall(fleet.Fleet(tmp_path, mariadb_url, redis), mariadb_url, [])

    async def scenario():
        loop = asyncio.get_event_loop()
        server, other = hall.servers.runsockets(), hall.servers.runsockets()
        connections = await hall.open(5, server, other)
        crowd = await fleet.open_many(3, other.port, '/crowd/')
        assert await crowd[0].ask({'type': 'SHOUT', 'content': {'type': 'NEWS'}}) == {'type': 'NEWS'}
        assert await crowd[0].receive() == {'type': 'HEARD', 'by': 3}
        said = await loop.run_in_executor(
            None,
            hall.servers.python,
            'print(Socket.objects.filter(path="/HALL/").count(), Socket.objects.order_by("pk")[:2].revoke())',
        )
        assert said.split() == ['0', '2']
        await hall.rows_are(8, 5)
        hall.kill(server)
        await hall.rows_are(5, 8)
        await fleet.close_many(crowd)
        assert 'Traceback' not in server.log + other.log
        await hall.came_true('', '', connections[5:], '', 0)

    try:
        asyncio.run(scenario())
    finally:
        hall.database.close()
        hall.servers.stop()
