"""What a thread that served somebody else has left for who comes next: languages, prefixes, dead database sessions."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket

import psycopg2
import pytest

from . import fleet
from .documents import Document
from .hall import ONE_CLASSIC, ONE_RUNSOCKETS, start_one
from .stack import ON_CHANNELS_1

pytestmark = pytest.mark.timed

SERVER, PAIR = ONE_RUNSOCKETS, 'daphne, `runworker`' if ON_CHANNELS_1 else ONE_CLASSIC


def start(hall, shape, *args):
    """Start servers that have one thread for what comes first, so that it serves everybody."""
    if shape == SERVER:
        one = ['--threads', '1', '--connect-threads', '1']
        return hall.servers.runsockets(*one, *(['--page-threads', '1'] if ON_CHANNELS_1 else []), *args)
    return start_one(hall, ONE_CLASSIC, *args)


def page(port, path='/item/1/'):
    with contextlib.closing(http.client.HTTPConnection('127.0.0.1', port, timeout=10)) as connection:
        connection.request('GET', path)
        return json.loads(connection.getresponse().read().decode())


# What belongs to a request.


@pytest.mark.parametrize('shape', [SERVER, PAIR])
@pytest.mark.parametrize('forced, args, begins', [('/shop', [], '/shop'), (None, ['--root-path', '/shop'], '/shop')])
def test_pages_and_functions_begin_with_the_prefix_and_without_what_was_left_by_others(
    hall, shape, forced, args, begins
):
    hall.servers.environment['DJANGO_SETTINGS_MODULE'] = 'tests.live.threads_site'
    if forced:
        hall.servers.environment['FORCE_SCRIPT_NAME'] = forced
    expected = {
        'url': begins + '/item/7/',
        'language': 'en-us',
        'zone': 'America/Chicago',
        'secure': False,
        'script': begins,
    }

    async def scenario():
        server = start(hall, shape, *args)
        loop = asyncio.get_event_loop()
        connections = []
        for _ in range(2):
            assert await loop.run_in_executor(None, page, server.port) == expected
            connections.append(await fleet.Connection.open(server.port, '/look/'))
            assert await connections[-1].receive() == dict(expected, type='OPENED')
            for connection in connections:
                for type in ('LOOK', 'LOOK_ASYNC'):
                    assert await connection.ask({'type': type}) == dict(expected, type='SEEN')
        await fleet.close_many(connections[:1])
        # Ended by another process, which runs its disconnect function.
        hall.servers.python(
            "from django.utils import translation; translation.activate('de'); Socket.objects.all().revoke()"
        )
        await fleet.eventually(lambda: len(hall.servers.notes()) == 2, 10)
        assert {tuple(words[2:5]) for words in hall.servers.notes()} == {(expected['url'], 'en-us', 'America/Chicago')}
        assert 'Traceback' not in ''.join(program.log for program in hall.servers.programs)

    asyncio.run(scenario())


# Database sessions.


@pytest.mark.parametrize('shape', [SERVER, PAIR])
def test_the_first_frame_after_a_silence_that_was_too_long_for_the_database(hall, shape):
    # libpq hands it on. All sessions of the servers end after half a second in which nothing was asked.
    hall.servers.environment['PGOPTIONS'] = '-c idle_session_timeout=500'
    if int(hall.sql('show server_version_num')[0][0]) < 140000:
        pytest.skip('PostgreSQL 14 brought idle_session_timeout')

    async def scenario():
        server = start(hall, shape)
        connections = await hall.open(2, server)
        for _ in range(2):
            await asyncio.sleep(1.3)
            for connection in connections:
                assert (await connection.ask({'type': 'WHO'}))['type'] == 'ME'
            await asyncio.sleep(1.3)
            connections += await hall.open(1, server)
        await check(hall, server, shape, connections, 'The database ends sessions that are idle for half a second')

    asyncio.run(scenario())


@pytest.mark.parametrize('shape', [SERVER, PAIR])
def test_all_database_sessions_are_ended_while_nobody_asks(hall, shape):
    async def scenario():
        server = start(hall, shape)
        connections = await hall.open(2, server)
        for _ in range(2):
            for connection in connections:
                assert (await connection.ask({'type': 'WHO'}))['type'] == 'ME'
            ended = hall.sql(
                'select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() '
                "and pid <> pg_backend_pid() and state = 'idle'"
            )
            assert ended
            await asyncio.sleep(0.3)
            connections += await hall.open(1, server)
        await check(hall, server, shape, connections, '`pg_terminate_backend` of every session, twice')

    asyncio.run(scenario())


def test_the_keepalives_of_the_deployment_page_reach_the_line(database_url):
    text = Document('docs/how-to/deploy.md').file('mysite/behind_firewall.py')
    names = {'DATABASES': {'default': {}}}
    exec(text.replace('from mysite.production import *', ''), names)
    database = psycopg2.connect(database_url, **names['DATABASES']['default']['OPTIONS'])
    with socket.socket(fileno=os.dup(database.fileno())) as line:
        assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert [
            line.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        ] == [30, 10, 3, 20000]
    database.close()


async def check(hall, server, shape, connections, fault):
    """See that nobody has noticed, neither clients nor who keeps house, nor who runs the last functions."""
    await asyncio.sleep(1)
    assert not [connection for connection in connections if connection.writer.is_closing()]
    logs = ''.join(program.log for program in hall.servers.programs)
    assert 'Traceback' not in logs and 'waits' not in logs and 'could not be told' not in logs, logs
    await hall.came_true(fault, shape, connections, 'nothing', 0)
    # And once more when it goes.
    connections = await hall.open(3, server)
    await asyncio.sleep(1.3)
    hall.kill(server, signal.SIGTERM)
    assert [await connection.receive() for connection in connections] == [1012] * 3
    await fleet.eventually(lambda: not server.is_running, 10)
    await hall.rows_are(0, 5)
    logs = ''.join(program.log for program in hall.servers.programs)
    assert 'Traceback' not in logs and 'waits' not in logs and 'could not be told' not in logs, logs
