"""uvicorn, daphne 4, runserver and runsockets: what each does with clients that are slow, gone or many, and how it stops."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
import websocket
from websockets.asyncio.client import connect, unix_connect
from websockets.exceptions import WebSocketException

from ... import servers as programs
from .conftest import Client, eventually

HANDSHAKE = (
    b'GET /live/ HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
    b'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n'
)

STORM = """
import asyncio, sys
from websockets.asyncio.client import connect

async def storm(port, count):
    opened = await asyncio.gather(
        *(connect(f'ws://127.0.0.1:{port}/live/', open_timeout=30, compression=None) for _ in range(count)),
        return_exceptions=True,
    )
    opened = [connection for connection in opened if not isinstance(connection, Exception)]
    print(len(opened))
    for connection in opened:
        connection.transport.abort()

asyncio.run(storm(int(sys.argv[1]), int(sys.argv[2])))
"""

SERVERS = ['uvicorn', 'daphne', 'runsockets']


async def get(server, path):
    """Return what is answered to the request for a page."""
    reader, writer = await asyncio.open_connection('127.0.0.1', server.port)
    writer.write(f'GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n'.encode())
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    assert b' 200 ' in answer.partition(b'\r\n')[0], answer
    return answer


def memory(server):
    """Return how many bytes of memory ``server`` has."""
    return psutil.Process(server.process.pid).memory_info().rss


def connections(server):
    """Return how many connections ``server`` holds."""
    found = psutil.Process(server.process.pid).net_connections('tcp')
    return sum(1 for connection in found if connection.laddr.port == server.port and connection.status != 'LISTEN')


@pytest.mark.parametrize('kind', SERVERS)
def test_sigterm_lets_functions_finish_answers_and_leaves_no_row(site, kind):
    async def scenario():
        server = site.start(kind)
        clients = [await Client.open(server) for _ in range(6)]
        await clients[0].send({'type': 'SLEEP', 'seconds': 1, 'n': 0})
        await clients[1].send({'type': 'SLEEP_ASYNC', 'seconds': 1, 'n': 1})
        # What has come in behind a frame is handled, too.
        await clients[0].send({'type': 'SLEEP', 'seconds': 0.2, 'n': 2})
        await asyncio.sleep(0.3)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        with pytest.raises((OSError, WebSocketException)):
            await Client.open(server)
        assert (await clients[0].receive())['n'] == 0 and (await clients[0].receive())['n'] == 2
        assert (await clients[1].receive())['n'] == 1
        assert [await client.closed() for client in clients] == [1012] * 6
        await eventually(lambda: not server.is_running)
        assert time.monotonic() - began < 5
        assert site.rows() == 0 and server.log.count('LEFT') == 6 and 'Traceback' not in server.log
        assert server.log.count('LEFT') == server.log.count(' 1012\n')

    asyncio.run(scenario())


@pytest.mark.parametrize('kind', SERVERS)
def test_a_function_that_hangs_keeps_a_server_from_ending_for_ten_seconds_at_most(site, kind):
    async def scenario():
        server = site.start(kind)
        client, other = await Client.open(server), await Client.open(server)
        await client.send({'type': 'SLEEP', 'seconds': 60})
        await asyncio.sleep(0.2)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert await other.closed() == 1012 and time.monotonic() - began < 1
        assert await client.closed() == 1012
        await eventually(lambda: not server.is_running)
        assert 7 < time.monotonic() - began < 12
        assert site.rows() == 0 and server.log.count('LEFT') == 2

    asyncio.run(scenario())


@pytest.mark.parametrize('kind', ['uvicorn', 'runsockets'])
def test_a_second_ctrl_c_ends_it_at_once(site, kind):
    async def scenario():
        server = site.start(kind)
        client = await Client.open(server)
        await client.send({'type': 'SLEEP', 'seconds': 60})
        await asyncio.sleep(0.2)
        server.process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.5)
        assert server.is_running
        server.process.send_signal(signal.SIGINT)
        await eventually(lambda: not server.is_running, 3)

    asyncio.run(scenario())


@pytest.mark.parametrize('kind', SERVERS)
def test_a_second_sigterm_cuts_nothing_short(site, kind):
    """A process manager sends one to the whole group, and the parent of several processes another one."""

    async def scenario():
        server = site.start(kind)
        client = await Client.open(server)
        await client.send({'type': 'SLEEP', 'seconds': 1})
        await asyncio.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        assert (await client.receive())['type'] == 'SLEPT' and await client.closed() == 1012
        await eventually(lambda: not server.is_running)
        assert kind != 'runsockets' or server.process.returncode == 0

    asyncio.run(scenario())


def test_a_page_and_a_function_of_a_server_that_stops_finish_side_by_side(site):
    async def scenario():
        for kind in SERVERS:
            server = site.start(kind)
            client = await Client.open(server)
            page = asyncio.ensure_future(get(server, '/page/?seconds=1.5'))
            await client.send({'type': 'SLEEP', 'seconds': 1})
            await asyncio.sleep(0.5)
            server.process.send_signal(signal.SIGTERM)
            assert (await client.receive())['type'] == 'SLEPT' and await client.closed() == 1012
            assert b'a page' in await page, kind

    asyncio.run(scenario())


@pytest.mark.parametrize('kind', SERVERS)
def test_a_slow_page_delays_no_frame(site, kind):
    async def scenario():
        server = site.start(kind)
        client = await Client.open(server)
        pages = [asyncio.ensure_future(get(server, '/page/?seconds=1')) for _ in range(3)]
        await asyncio.sleep(0.2)
        began = time.monotonic()
        for _ in range(10):
            assert await client.ask({'type': 'ECHO'}) == {'type': 'ECHO'}
        assert time.monotonic() - began < 0.9 and not all(page.done() for page in pages)
        assert all(b'a page' in page for page in await asyncio.gather(*pages))

    asyncio.run(scenario())


@pytest.mark.parametrize('kind', SERVERS)
def test_a_client_that_does_not_read_is_cut_off_and_others_are_served(site, kind):
    async def scenario():
        server = site.start(kind)
        slow, other = await Client.open(server), await Client.open(server)
        before = memory(server)
        await slow.send({'type': 'FLOOD', 'size': 65536, 'times': 1500})
        await eventually(lambda: 'Cutting off' in server.log)
        assert await other.ask({'type': 'ECHO'}) == {'type': 'ECHO'}
        # 98 MB were for it.
        assert memory(server) - before < 40e6
        await eventually(lambda: site.rows() == 1 and server.log.count('LEFT') == 1)
        await eventually(lambda: connections(server) == 1)
        assert await other.ask({'type': 'ECHO'}) == {'type': 'ECHO'}

    asyncio.run(scenario())


@pytest.mark.parametrize('kind', SERVERS)
def test_a_client_that_sends_pings_and_does_not_read_is_cut_off(site, kind):
    async def scenario():
        server = site.start(kind)
        other = await Client.open(server)
        before = memory(server)
        reader, writer = await asyncio.open_connection('127.0.0.1', server.port, limit=1024)
        writer.write(HANDSHAKE)
        await reader.readuntil(b'\r\n\r\n')
        # Its buffer is full now, and no more is read from the socket.
        with pytest.raises(ConnectionError):
            for _ in range(4000):
                writer.write((b'\x89\xfd' + bytes(4) + b'x' * 125) * 500)
                await writer.drain()
        assert memory(server) - before < 60e6
        assert await other.ask({'type': 'ECHO'}) == {'type': 'ECHO'}
        await eventually(lambda: site.rows() == 1 and server.log.count('LEFT') == 1)

    asyncio.run(scenario())


@pytest.mark.parametrize('kind', SERVERS)
def test_a_frame_over_the_limit_is_answered_and_one_far_over_it_is_not_read(site, kind):
    async def scenario():
        server = site.start(kind)
        client = await Client.open(server)
        reply = await client.ask({'type': 'ECHO', 'ref': 1, 'text': 'x' * 1100000})
        assert (reply['type'], reply['code']) == ('ERROR', 'too_large')
        before = memory(server)
        with contextlib.suppress(WebSocketException):
            await client.send({'type': 'ECHO', 'text': 'x' * 40000000})
        assert await client.closed() == 1009
        assert memory(server) - before < 40e6

    asyncio.run(scenario())


@pytest.mark.parametrize('kind', SERVERS)
def test_a_slow_function_keeps_no_client_from_answering_pings(site, kind):
    async def scenario():
        server = site.start(kind, *site.pings(kind, 1, 2))
        client = await Client.open(server)
        await client.send({'type': 'SLEEP', 'seconds': 6, 'n': 1})
        await client.send({'type': 'ECHO', 'n': 2})
        # Not read before the function returns, on uvicorn: it reads no pongs behind a frame.
        await client.send({'type': 'ECHO', 'n': 3})
        assert [(await client.receive())['n'] for _ in range(3)] == [1, 2, 3]

    asyncio.run(scenario())


@pytest.mark.parametrize('kind', SERVERS)
def test_a_client_that_answers_no_ping_is_gone(site, kind):
    async def scenario():
        server = site.start(kind, *site.pings(kind, 1, 1))
        reader, writer = await asyncio.open_connection('127.0.0.1', server.port)
        writer.write(HANDSHAKE)
        assert b' 101 ' in await reader.readline()
        assert site.rows() == 1
        await eventually(lambda: site.rows() == 0 and server.log.count('LEFT') == 1, 15)
        writer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize('kind', SERVERS)
def test_frames_of_one_connection_are_answered_in_order(site, kind):
    async def scenario():
        client = await Client.open(site.start(kind))
        types = ['ECHO', 'ECHO_ASYNC', 'SLEEP', 'SLEEP_ASYNC', 'ECHO']
        for n in range(90):
            await client.send({'type': types[n % 5], 'n': n, 'seconds': 0.002})
        assert [(await client.receive())['n'] for _ in range(90)] == list(range(90))

    asyncio.run(scenario())


@pytest.mark.parametrize('kind', SERVERS)
def test_more_frames_than_the_mailbox_holds_end_the_connection(site, kind):
    async def scenario():
        server = site.start(kind)
        client, other = await Client.open(server), await Client.open(server)
        await client.send({'type': 'SLEEP', 'seconds': 3})
        with contextlib.suppress(WebSocketException):
            for n in range(300):
                await client.send({'type': 'ECHO', 'n': n})
        assert await client.closed() == 1013
        assert await other.ask({'type': 'ECHO'}) == {'type': 'ECHO'}
        await eventually(lambda: site.rows() == 1 and server.log.count('LEFT') == 1)

    asyncio.run(scenario())


@pytest.mark.parametrize('kind', SERVERS)
def test_large_frames_behind_a_slow_function_do_not_fill_the_memory(site, kind):
    async def scenario():
        server = site.start(kind)
        client = await Client.open(server)
        before = memory(server)
        await client.send({'type': 'SLEEP', 'seconds': 4})
        with contextlib.suppress(WebSocketException):
            for _ in range(60):
                await client.send({'type': 'ECHO', 'text': 'x' * 1000000})
        assert await client.closed() == 1013
        assert memory(server) - before < 40e6

    asyncio.run(scenario())


@pytest.mark.parametrize('kind', SERVERS)
def test_who_goes_in_the_middle_leaves_no_row_and_is_said_to_have_left_once(site, kind):
    async def scenario():
        server = site.start(kind)
        in_function, in_coroutine = await Client.open(server), await Client.open(server)
        await in_function.send({'type': 'SLEEP', 'seconds': 1, 'n': 'thread'})
        await in_coroutine.send({'type': 'SLEEP_ASYNC', 'seconds': 1, 'n': 'loop'})
        await asyncio.sleep(0.2)
        for client in (in_function, in_coroutine):
            client.connection.transport.abort()
        # In the middle of its frame, and of its connect.
        reader, writer = await asyncio.open_connection('127.0.0.1', server.port)
        writer.write(HANDSHAKE)
        await reader.readuntil(b'\r\n\r\n')
        writer.write(b'\x81\xfe\x01\x00\0\0\0\0{"type"')
        _, connecting = await asyncio.open_connection('127.0.0.1', server.port)
        connecting.write(HANDSHAKE.replace(b'/live/', b'/live/?connect=1'))
        await asyncio.sleep(0.3)
        for transport in (writer.transport, connecting.transport):
            transport.abort()
        await eventually(lambda: server.log.count('OPENED') == 4)
        await eventually(lambda: site.rows() == 0 and server.log.count('LEFT') == 4)
        assert 'SLEPT thread' in server.log and 'SLEPT loop' in server.log and 'Traceback' not in server.log
        await asyncio.sleep(0.3)
        assert server.log.count('LEFT') == 4

    asyncio.run(scenario())


@pytest.mark.parametrize('kind', SERVERS)
def test_a_hundred_handshakes_that_are_dropped_leave_nothing(site, kind):
    async def scenario():
        server = site.start(kind)
        writers = [(await asyncio.open_connection('127.0.0.1', server.port))[1] for _ in range(100)]
        for number, writer in enumerate(writers):
            writer.write(HANDSHAKE[: 20 + number * 3])
        for number, writer in enumerate(writers):
            if number % 3:
                writer.write(HANDSHAKE[20 + number * 3 :])
            if number % 2:
                writer.transport.abort()
        await asyncio.sleep(0.1)
        for writer in writers:
            writer.transport.abort()
        client = await Client.open(server)
        assert await client.ask({'type': 'ECHO'}) == {'type': 'ECHO'}
        await eventually(lambda: site.rows() == 1 and server.log.count('LEFT') == server.log.count('OPENED') - 1)
        assert 'Traceback' not in server.log

    asyncio.run(scenario())


@pytest.mark.parametrize('kind', SERVERS)
def test_what_takes_too_long_is_ended_on_a_thread_and_on_the_loop(site, kind):
    async def scenario():
        server = site.start(kind, MAX_HANDLING_TIME='1')
        clients = [await Client.open(server) for _ in range(7)]
        for client, name in zip(clients, ['SLEEP'] * 5 + ['SLEEP_ASYNC', 'STUBBORN']):
            await client.send({'type': name, 'seconds': 8, 'ref': 1})
        for client in clients:
            reply = await client.receive()
            assert (reply['type'], reply['code'], reply['ref']) == ('ERROR', 'server_error', 1)
            assert await client.closed() == 1011
        other = await Client.open(server)
        assert await other.ask({'type': 'ECHO'}) == {'type': 'ECHO'}
        await eventually(lambda: site.rows() == 1 and server.log.count('LEFT') == 7)
        assert 'in sleep_async' in server.log and 'SLEPT' not in server.log
        await asyncio.sleep(1)
        assert server.log.count('LEFT') == 7

    asyncio.run(scenario())


def test_a_blocked_loop_is_said_where_it_is(site):
    async def scenario():
        server = site.start('runsockets')
        client, other = await Client.open(server), await Client.open(server)
        await client.send({'type': 'BLOCK', 'seconds': 6})
        await eventually(lambda: 'The event loop has been blocked' in server.log)
        assert 'in block' in server.log
        assert await other.ask({'type': 'ECHO'}) == {'type': 'ECHO'}

    asyncio.run(scenario())


@pytest.mark.parametrize('kind', SERVERS)
def test_a_connection_is_closed_with_any_code(site, kind):
    async def scenario():
        server = site.start(kind)
        for code in (1000, 1001, 1011, 1012, 1013, 4400):
            client = await Client.open(server)
            await client.send({'type': 'CLOSE', 'code': code})
            assert await client.closed() == code
        await eventually(lambda: site.rows() == 0 and server.log.count('LEFT') == 6)

    asyncio.run(scenario())


@pytest.mark.parametrize('kind', SERVERS)
def test_a_storm_of_connects_delays_no_frame(site, kind):
    async def scenario():
        server = site.start(kind)
        client = await Client.open(server)
        # In a process of its own: its work is not to be measured as ours.
        storm = site.run('storm', [sys.executable, '-c', STORM, server.port, 300])
        slowest = 0
        while storm.is_running:
            began = time.monotonic()
            await client.ask({'type': 'ECHO'})
            slowest = max(slowest, time.monotonic() - began)
            await asyncio.sleep(0.01)
        # daphne resets who is not accepted within five seconds.
        assert int(storm.log) >= (300 if kind != 'daphne' else 30)
        assert slowest < 2
        await eventually(lambda: site.rows() == 1)

    asyncio.run(scenario())


@pytest.mark.parametrize('kind', SERVERS)
def test_consumers_of_channels_beside_ours_are_served_and_closed(site, kind):
    async def scenario():
        server = site.start(kind, ASGI='mixed')
        client, other = await Client.open(server), await Client.open(server, path='/echo/')
        # Its frames are its own affair, however many wait.
        for n in range(300):
            await other.send(n)
        assert [await other.receive() for _ in range(300)] == list(range(300))
        await client.send({'type': 'SLEEP', 'seconds': 1})
        await asyncio.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        assert (await client.receive())['type'] == 'SLEPT' and await client.closed() == 1012
        assert await other.closed() in (1012, None)
        await eventually(lambda: not server.is_running)
        assert site.rows() == 0 and 'Traceback' not in server.log

    asyncio.run(scenario())


def test_workers_of_uvicorn_stop_in_order(site, redis_url):
    async def scenario():
        server = site.start('uvicorn', '--workers', 2, REDIS_URL=redis_url)
        clients = [await Client.open(server) for _ in range(10)]
        await clients[0].send({'type': 'SLEEP', 'seconds': 1})
        await asyncio.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        assert (await clients[0].receive())['type'] == 'SLEPT'
        assert [await client.closed() for client in clients] == [1012] * 10
        await eventually(lambda: not server.is_running)
        assert site.rows() == 0

    asyncio.run(scenario())


# runserver.


def test_runserver_closes_its_connections_when_it_starts_again_and_when_it_ends(site, tmp_path):
    async def scenario():
        watched = tmp_path / 'watched.py'
        watched.write_text('')
        server = site.start('runserver', PYTHONPATH=f'{programs.ROOT}:{tmp_path}', WATCHED='watched')
        client = await Client.open(server)
        assert await client.ask({'type': 'ECHO'}) == {'type': 'ECHO'}
        await client.send({'type': 'SLEEP', 'seconds': 0.1})
        assert (await client.receive())['type'] == 'SLEPT'
        watched.write_text('again = True')
        assert await client.closed() == 1012
        await eventually(lambda: site.rows() == 0 and server.log.count('LEFT') == 1)
        client = await eventually_open(server)
        # As Ctrl-C does: Django's own parent leaves its child a quarter of a second.
        for process in (psutil.Process(server.process.pid).children()[0], server.process):
            process.send_signal(signal.SIGINT)
        assert await client.closed() == 1012
        await eventually(lambda: site.rows() == 0 and not server.is_running)

    asyncio.run(scenario())


# runsockets.


async def eventually_open(server):
    """Return a client of a server that is starting again."""
    deadline = time.monotonic() + 15
    while True:
        try:
            return await Client.open(server)
        except (OSError, WebSocketException):
            assert time.monotonic() < deadline, server.log
            await asyncio.sleep(0.2)


def test_several_processes_share_a_port_and_one_that_dies_is_replaced(site, redis_url):
    async def scenario():
        server = site.start('runsockets', '--processes', 2, REDIS_URL=redis_url)
        await eventually(lambda: len(psutil.Process(server.process.pid).children()) == 2)
        await asyncio.sleep(2)
        clients = [await Client.open(server) for _ in range(30)]
        pids = [(await client.ask({'type': 'WHO'}))['pid'] for client in clients]
        assert len(set(pids)) == 2 and server.process.pid not in pids
        # From one process to all connections of both.
        await clients[0].send({'type': 'ALL', 'text': 'hello'})
        for client in clients:
            assert (await client.receive())['type'] in ('SAID', 'SENT')
        psutil.Process(pids[0]).kill()
        survivor = next(client for client, pid in zip(clients, pids) if pid != pids[0])
        await eventually(lambda: 'and is replaced' in server.log)
        await eventually(lambda: len(psutil.Process(server.process.pid).children()) == 2)
        server.process.send_signal(signal.SIGTERM)
        assert await survivor.closed() == 1012
        assert server.process.wait(12) == 0

    asyncio.run(scenario())


def test_processes_end_with_their_parent(site, redis_url):
    async def scenario():
        server = site.start('runsockets', '--processes', 2, REDIS_URL=redis_url)
        client = await Client.open(server)
        children = psutil.Process(server.process.pid).children()
        server.process.kill()
        assert await client.closed() == 1012
        await eventually(lambda: not any(child.is_running() and child.status() != 'zombie' for child in children))

    asyncio.run(scenario())


def test_it_listens_on_a_unix_socket_and_on_an_inherited_one(site, tmp_path):
    async def scenario():
        path = str(tmp_path / 's')
        site.run('unix', [sys.executable, '-m', 'django', 'runsockets', '-u', path])
        await eventually(lambda: os.path.exists(path))
        async with unix_connect(path, 'ws://localhost/live/') as connection:
            await connection.send('{"type": "ECHO"}')
            assert json.loads(await connection.recv()) == {'type': 'ECHO'}
        with socket.create_server(('127.0.0.1', 0)) as listening:
            args = [sys.executable, '-m', 'django', 'runsockets', '--fd', listening.fileno()]
            with (tmp_path / 'fd.log').open('w') as log:
                inherited = subprocess.Popen(
                    [str(arg) for arg in args],
                    env={**os.environ, **site.environment},
                    pass_fds=[listening.fileno()],
                    stdout=log,
                    stderr=log,
                )
            try:
                url = f'ws://127.0.0.1:{listening.getsockname()[1]}/live/'
                async with connect(url, open_timeout=20) as connection:
                    await connection.send('{"type": "ECHO"}')
                    assert json.loads(await connection.recv()) == {'type': 'ECHO'}
            finally:
                inherited.terminate()
                inherited.wait(10)

    asyncio.run(scenario())


def test_with_debug_it_serves_static_files(site):
    async def scenario():
        server = site.start('runsockets', DEBUG='1')
        assert b'SocketRouter' in await get(server, '/static/sockets/sockets.js')
        assert b'a page' in await get(server, '/page/')

    asyncio.run(scenario())


@pytest.mark.parametrize(
    'options, said',
    [
        (['--threads', '0'], '--threads and --connect-threads are 1 or more.'),
        (['--processes', '2'], 'Several processes cannot share the in-memory layer.'),
        (['nowhere'], "'nowhere' is not an ADDR:PORT; write 127.0.0.1:8000 or 8000."),
        (['TAKEN'], 'Address already in use'),
    ],
)
def test_it_says_what_cannot_be(site, options, said):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        options = [option.replace('TAKEN', f'127.0.0.1:{taken.getsockname()[1]}') for option in options]
        program = site.run('refused', [sys.executable, '-m', 'django', 'runsockets', *options])
        assert program.process.wait(20) == 1
        assert program.log.strip().startswith('CommandError') and said in program.log


def test_without_uvicorn_it_runs_daphne_and_without_both_it_says_what_to_install(site):
    hidden = 'import sys; sys.modules.update(dict.fromkeys(sys.argv.pop().split("+")))\n'
    program = hidden + 'from django.core.management import execute_from_command_line as run; run(sys.argv)'

    async def scenario():
        port = programs.free_port()
        server = site.run(
            'fallback', [sys.executable, '-c', program, 'runsockets', f'127.0.0.1:{port}', '--threads', 1, 'uvicorn']
        )
        server.port = port
        client = await eventually_open(server)
        assert 'daphne). Stop with Ctrl-C.' in server.log
        await client.send({'type': 'SLEEP', 'seconds': 1})
        await asyncio.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        assert (await client.receive())['type'] == 'SLEPT' and await client.closed() == 1012
        assert server.process.wait(10) == 0 and site.rows() == 0

    asyncio.run(scenario())
    nothing = site.run('nothing', [sys.executable, '-c', program, 'runsockets', 'uvicorn+daphne'])
    assert nothing.process.wait(20) == 1
    assert 'There is no server to run: type "python -m pip install \'uvicorn[standard]\'".' in nothing.log


def test_who_connects_and_asks_for_nothing_is_disconnected(site):
    async def scenario():
        server = site.start('runsockets')
        client = await Client.open(server)
        readers = []
        for said in (b'', HANDSHAKE[:50]):
            reader, writer = await asyncio.open_connection('127.0.0.1', server.port)
            writer.write(said)
            readers.append(reader)
        for reader in readers:
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 9) == b''
        assert await client.ask({'type': 'ECHO'}) == {'type': 'ECHO'}

    asyncio.run(scenario())


def test_what_an_async_connect_raises_is_handled_where_the_database_may_be_asked(site):
    # It was handled on the event loop, where Django refuses queries: nobody noted that this person has not arrived.
    server = site.start('uvicorn')
    client = websocket.create_connection(f'ws://127.0.0.1:{server.port}/picky/', timeout=10, suppress_origin=True)
    assert json.loads(client.recv())['code'] == 'not_allowed'
    assert client.recv_data()[1][:2] == (4403).to_bytes(2, 'big')
    deadline = time.monotonic() + 5
    while site.rows():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert 'SynchronousOnlyOperation' not in server.log
    assert 'ARRIVED' not in server.log
