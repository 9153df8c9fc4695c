"""Everybody comes back at once: ``benchmarks/storm.py`` with few clients, and with as many as it likes."""

import asyncio
import json
import signal
import subprocess
import sys

import pytest

from .. import servers
from . import fleet
from .hall import CLASSIC, RUNSOCKETS
from .stack import ON_CHANNELS_1

pytestmark = pytest.mark.alone

SHAPES = {'runsockets': RUNSOCKETS, 'classic': '2 daphnes, 2 workers' if ON_CHANNELS_1 else CLASSIC}


def play(tmp_path, report, shape, clients, milliseconds, *args):
    path = tmp_path / 'storm.json'
    program = subprocess.run(
        [
            sys.executable,
            'benchmarks/storm.py',
            '--shape',
            shape,
            '--clients',
            str(clients),
            '--milliseconds',
            str(milliseconds),
            '--json',
            str(path),
            *args,
        ],
        cwd=str(servers.ROOT),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    print(program.stdout.decode())
    assert program.returncode == 0, program.stdout.decode()
    (result,) = json.loads(path.read_text())
    report.append(
        (
            f'SIGKILL to one of two servers, started again: {clients} clients come back to a connect function of {milliseconds} ms',
            SHAPES[shape],
            str(clients + 100),
            'what was under way in it; all back after {:.1f} s'.format(result['back']),
            '{:.1f} s'.format(result['found'] + result['true']),
        )
    )


@pytest.mark.parametrize('shape', sorted(SHAPES))
def test_all_are_back_soon_and_nobody_connects_twice(tmp_path, report, shape):
    play(tmp_path, report, shape, 300, 10, '--down', '3')


@pytest.mark.long
@pytest.mark.parametrize('clients, milliseconds', [(1500, 0), (1500, 10), (1500, 30), (1500, 100), (5000, 10)])
def test_a_storm_is_over_when_its_connect_functions_have_run(tmp_path, report, clients, milliseconds):
    play(tmp_path, report, 'runsockets', clients, milliseconds)


@pytest.mark.long
@pytest.mark.parametrize('clients, milliseconds', [(1500, 10), (1500, 30)])
def test_a_storm_on_daphne_and_workers_is_over_as_soon(tmp_path, report, clients, milliseconds):
    play(tmp_path, report, 'classic', clients, milliseconds)


@pytest.fixture
def slow(tmp_path, database_url):
    """A server on which one connect function runs at a time, for a second."""
    found = fleet.Fleet(tmp_path, database_url, CONNECT_SECONDS='1')
    yield found
    found.stop()


async def knock(server, count):
    """Send the handshakes of so many clients, one after another, and return what reads and writes for each."""
    clients = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection('127.0.0.1', server.port)
        writer.write(
            b'GET /storm/ HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
            b'Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n'
        )
        await asyncio.sleep(0.05)
        clients.append((reader, writer))
    return clients


@pytest.mark.channels1('uvicorn tells nobody that a client has left before it was accepted')
def test_a_client_that_has_gone_before_its_connect_was_taken_costs_nothing(slow):
    async def scenario():
        server = slow.runsockets('--connect-threads', '1')
        clients = await knock(server, 6)
        for _, writer in clients[1:5]:
            writer.close()
        for reader in clients[0][0], clients[5][0]:
            assert (await asyncio.wait_for(reader.readuntil(b'\r\n\r\n'), 10)).startswith(b'HTTP/1.1 101')
        await asyncio.sleep(1.5)
        assert [words[0] for words in slow.notes()] == ['open', 'open'] and slow.rows() == 2
        for _, writer in clients:
            writer.close()

    asyncio.run(scenario())


def test_who_was_not_let_in_yet_is_told_to_come_back_when_the_server_stops(slow):
    async def scenario():
        server = slow.runsockets('--connect-threads', '1')
        clients = await knock(server, 4)
        server.process.send_signal(signal.SIGTERM)
        for reader, writer in clients[1:]:
            data = await asyncio.wait_for(reader.readuntil(b'retry=1.0'), 5)
            assert data.startswith(b'HTTP/1.1 101') and data.endswith(b'\x03\xf5retry=1.0')
            writer.close()
        data = await asyncio.wait_for(clients[0][0].readuntil(b'restart'), 5)
        assert data.endswith(b'\x03\xf4restart')
        clients[0][1].close()
        assert [words[0] for words in slow.notes()] == ['open']
        assert server.process.wait(10) == 0 and slow.rows() == 0

    asyncio.run(scenario())
