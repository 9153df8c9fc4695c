"""``manage.py runsockets``: who serves what, what survives what, and how it ends."""

import asyncio
import contextlib
import http.client
import json
import os
import resource
import signal
import socket
import ssl
import subprocess
import time

import pytest
import websocket

from .. import servers as programs
from . import fleet

pytestmark = pytest.mark.timed


@pytest.fixture
def servers(tmp_path, redis, database_url):
    servers = fleet.Fleet(tmp_path, database_url, redis)
    yield servers
    servers.stop()


@pytest.fixture
def alone(tmp_path, database_url):
    """Servers with the in-memory layer, which have no Redis to lean on."""
    servers = fleet.Fleet(tmp_path, database_url)
    yield servers
    servers.stop()


def page(port, seconds=0):
    """Return what a page that takes some seconds says."""
    with contextlib.closing(http.client.HTTPConnection('127.0.0.1', port, timeout=20)) as connection:
        connection.request('GET', f'/page/?seconds={seconds}')
        response = connection.getresponse()
        assert response.status == 200
        return response.read().decode()


def is_running(pid):
    """Whether the process ``pid``, which is not our child, is there and no zombie."""
    try:
        with open(f'/proc/{pid}/stat') as stat:
            return stat.read().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


async def who(port, count=30):
    """Return the processes that serve ``count`` connections."""
    connections = await fleet.open_many(count, port)
    pids = {(await connection.ask({'type': 'WHO'}))['pid'] for connection in connections}
    await fleet.close_many(connections)
    return pids


def children(process):
    # It returns 1 where there are none.
    listed = subprocess.run(['ps', '-o', 'pid=', '--ppid', str(process.pid)], stdout=subprocess.PIPE).stdout
    return {int(pid) for pid in listed.split()}


# One process.


def test_a_slow_page_delays_no_frame(alone):
    async def scenario():
        server = alone.runsockets()
        connection = await fleet.Connection.open(server.port)
        loop = asyncio.get_event_loop()
        pages = [loop.run_in_executor(None, page, server.port, 2) for _ in range(5)]
        await asyncio.sleep(0.3)
        begin = loop.time()
        for n in range(20):
            assert (await connection.ask({'type': 'ECHO', 'n': n}))['n'] == n
        assert loop.time() - begin < 1
        # There are four threads for pages, so the fifth had to wait for one.
        assert set(await asyncio.gather(*pages)) == {f'pid {server.process.pid}'}
        assert 3 < loop.time() - begin < 10

    asyncio.run(scenario())


def test_frames_of_a_connection_are_handled_in_order_by_four_threads_and_those_of_others_at_once(alone):
    async def scenario():
        server = alone.runsockets('--threads', '4')
        connections = await fleet.open_many(4, server.port)
        begin = time.monotonic()
        for n in range(25):
            for index, connection in enumerate(connections):
                connection.send({'type': 'WORK', 'connection': index, 'n': n, 'seconds': 0.04, 'ref': n})
        for connection in connections:
            assert [(await connection.receive())['ref'] for _ in range(25)] == list(range(25))
        took = time.monotonic() - begin
        notes = alone.notes()
        for index in range(4):
            mine = [(what, int(n)) for what, connection, n, _ in notes if connection == str(index)]
            assert mine == [(what, n) for n in range(25) for what in ('start', 'end')]
        # One after the other would be four seconds.
        assert took < 3

    asyncio.run(scenario())


def test_a_worker_thread_that_dies_is_replaced_and_its_connection_goes_on(servers):
    async def scenario():
        server = servers.runsockets('--threads', '1')
        connection = await fleet.Connection.open(server.port)
        # No function ends a thread, whatever it raises ...
        answer = await connection.ask({'type': 'EXIT', 'ref': 1})
        assert (answer['code'], answer['ref']) == ('server_error', 1)
        assert await connection.ask({'type': 'ECHO', 'n': 1}) == {'type': 'ECHO', 'n': 1}
        # ... but the flush of Channels after it may.
        for n in range(2):
            connection.send({'type': 'OVERFLOW'})
            assert await connection.ask({'type': 'ECHO', 'n': n}) == {'type': 'ECHO', 'n': n}
        await fleet.eventually(lambda: server.log.count('died and is restarted') == 2)
        assert 'Failed to send queued message' in server.log
        await connection.close()
        await fleet.eventually(lambda: servers.rows() == 0)

    asyncio.run(scenario())


def test_a_client_that_floods_is_closed_with_1013_and_its_row_goes(servers):
    async def scenario():
        server = servers.runsockets()
        bystander = await fleet.Connection.open(server.port)
        flood = await fleet.Connection.open(server.port)
        flood.send({'type': 'WORK', 'connection': 'flood', 'n': 0, 'seconds': 1.5})
        for n in range(1, 200):
            flood.send({'type': 'WORK', 'connection': 'flood', 'n': n})
        # A client that had more to send when autobahn's one second was over was reset by it, and never saw the code.
        await asyncio.sleep(0)
        time.sleep(2.5)
        flood.send({'type': 'ECHO'})
        assert await flood.receive() == 1013
        assert await bystander.ask({'type': 'ECHO'}) == {'type': 'ECHO'}
        await fleet.eventually(lambda: servers.rows() == 1)
        # What had been accepted was handled, in order.
        assert [int(n) for what, _, n, _ in servers.notes() if what == 'start'] == list(range(101))
        await bystander.close()

    asyncio.run(scenario())


def test_frames_are_put_together_and_what_is_no_utf8_closes_its_connection_with_1007(alone):
    async def scenario():
        server = alone.runsockets()
        cut, wrong = await fleet.open_many(2, server.port)
        text = json.dumps({'type': 'ECHO', 'text': 'ü' * 50000}, ensure_ascii=False).encode()
        # In the middle of a letter, and the frame after it in two packets.
        cut._write(0x01, text[:101])
        cut._write(0x80, text[101:])
        assert await cut.receive() == json.loads(text.decode())
        wrong._write(0x81, b'{"type": "ECHO", "text": "\xff"}')
        assert await wrong.receive() == 1007
        assert await cut.ask({'type': 'ECHO'}) == {'type': 'ECHO'}
        await fleet.eventually(lambda: alone.rows() == 1)

    asyncio.run(scenario())


def test_a_frame_over_the_limit_is_an_error_and_one_far_over_it_is_not_even_read(alone):
    async def scenario():
        server = alone.runsockets()
        connection = await fleet.Connection.open(server.port)
        assert (await connection.ask({'type': 'ECHO', 'text': 'x' * (2 * 1024 * 1024)}))['code'] == 'too_large'
        assert await connection.ask({'type': 'ECHO'}) == {'type': 'ECHO'}
        # Its length is all that is sent of it.
        connection.writer.write(bytes([0x81, 0x80 | 127]) + (5 * 1024 * 1024).to_bytes(8, 'big') + bytes(4))
        assert await connection.receive() == 1009
        await fleet.eventually(lambda: alone.rows() == 0, 5)

    asyncio.run(scenario())


def test_a_message_for_another_channel_is_consumed(alone):
    # A project may have consumers of its own, which runserver runs as well.
    async def scenario():
        server = alone.runsockets()
        connection = await fleet.Connection.open(server.port)
        assert (await connection.ask({'type': 'LATER', 'ref': 1}))['type'] == 'ACK'
        await fleet.eventually(lambda: any(words[0] == 'background' for words in alone.notes()), 5)

    asyncio.run(scenario())


def test_it_listens_on_a_unix_socket(alone):
    async def scenario():
        path = str(alone.directory / 'sockets.sock')
        server = alone.start('runsockets', '-m', 'django', 'runsockets', '--unix-socket', path)
        await fleet.eventually(lambda: os.path.exists(path))
        connection = await fleet.Connection.open(path)
        assert (await connection.ask({'type': 'HELLO'}))['user_ip'] is None
        await connection.close()
        server.stop()
        assert server.process.returncode == 0

    asyncio.run(scenario())


def test_it_speaks_tls_and_nothing_else_where_it_is_told_to(alone):
    # Frames went around Twisted's TLS, to the transport beneath.
    key, certificate = (str(alone.directory / name) for name in ('key.pem', 'certificate.pem'))
    programs.make_certificate(key, certificate, 'localhost')
    port = programs.free_port()
    endpoint = f'ssl:{port}:privateKey={key}:certKey={certificate}:interface=127.0.0.1'
    alone.start('runsockets', '-m', 'django', 'runsockets', '-e', endpoint, port=port)
    client = websocket.create_connection(
        f'wss://127.0.0.1:{port}/soak/', timeout=10, suppress_origin=True, sslopt={'cert_reqs': ssl.CERT_NONE}
    )
    for size in (0, 1, 100, 300000):
        client.send(json.dumps({'type': 'ECHO', 'text': 'x' * size}))
        assert json.loads(client.recv()) == {'type': 'ECHO', 'text': 'x' * size}
    # More than a turn's frames at once, and more than a transport takes at once.
    for n in range(90):
        client.send(json.dumps({'type': 'ECHO', 'n': n, 'text': 'x' * 5000}))
    assert [json.loads(client.recv())['n'] for _ in range(90)] == list(range(90))
    client.close()


@pytest.mark.parametrize('options', [[], ['--processes', '2']])
def test_it_listens_on_ipv6(servers, options):
    try:
        with contextlib.closing(socket.socket(socket.AF_INET6)) as probe:
            probe.bind(('::1', 0))
            port = probe.getsockname()[1]
    except OSError:
        pytest.skip('no IPv6 here')

    async def connects():
        with contextlib.suppress(ConnectionError):
            connection = await fleet.Connection.open(port, host='::1')
            return connection

    async def scenario():
        server = servers.start('runsockets', '-m', 'django', 'runsockets', f'[::1]:{port}', *options)
        for _ in range(100):
            connection = await connects()
            if connection:
                break
            await asyncio.sleep(0.1)
        assert connection, server.log
        hello = await connection.ask({'type': 'HELLO'})
        assert hello['user_ip'] == '::1'
        await connection.close()

    asyncio.run(scenario())


# How it ends.


def test_sigterm_lets_functions_finish_answers_their_clients_and_leaves_no_row(servers):
    async def scenario():
        server = servers.runsockets()
        busy, *idle = await fleet.open_many(20, server.port)
        busy.send({'type': 'WORK', 'connection': 'busy', 'n': 0, 'seconds': 1.5, 'ref': 'last words'})
        loop = asyncio.get_event_loop()
        slow = loop.run_in_executor(None, page, server.port, 1.5)
        await fleet.eventually(lambda: servers.pid_at_work('busy', 0) and servers.pid_at_work('page', 0))
        server.process.send_signal(signal.SIGTERM)
        begin = loop.time()
        assert [await connection.receive() for connection in idle] == [1012] * 19
        assert loop.time() - begin < 1, 'who has nothing to wait for is told at once'
        assert await busy.receive() == {'type': 'ACK', 'ref': 'last words'}
        assert await busy.receive() == 1012
        assert (await slow).startswith('pid')
        await fleet.eventually(lambda: not server.is_running, 5)
        assert server.process.returncode == 0, server.log
        assert servers.rows() == 0
        assert [what for what, connection, _, _ in servers.notes() if connection == 'busy'] == ['start', 'end']

    asyncio.run(scenario())


def test_sigterm_ends_it_in_time_though_a_function_hangs_and_a_client_does_not_answer(servers):
    async def scenario():
        server = servers.runsockets()
        hung = await fleet.Connection.open(server.port)
        # This client reads nothing, so it never answers the close.
        await fleet.Connection.open(server.port)
        hung.send({'type': 'WORK', 'connection': 'hung', 'n': 0, 'seconds': 60})
        await fleet.eventually(lambda: servers.pid_at_work('hung', 0))
        begin = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        await fleet.eventually(lambda: not server.is_running, 15)
        # sockets.engines.channels1.shutdown.DRAIN_TIMEOUT
        assert 9 < time.monotonic() - begin < 13
        assert server.process.returncode == 0

    asyncio.run(scenario())


# Several processes.


def test_several_processes_share_a_port_and_one_that_is_killed_is_replaced(servers):
    async def scenario():
        parent = servers.runsockets('--processes', '2')
        await fleet.eventually(lambda: len(children(parent.process)) == 2)
        pids = set()
        for _ in range(20):
            pids |= await who(parent.port)
            if len(pids) == 2:
                break
        assert pids == children(parent.process)
        victim = min(pids)
        os.kill(victim, signal.SIGKILL)
        await fleet.eventually(lambda: victim not in children(parent.process) and len(children(parent.process)) == 2)
        assert f'Process {victim} ended with -9 and is replaced' in parent.log
        both, served = children(parent.process), set()
        for _ in range(20):
            served |= await who(parent.port)
            if served == both:
                break
            await asyncio.sleep(0.3)
        assert served == both
        connection = await fleet.Connection.open(parent.port)
        parent.process.send_signal(signal.SIGTERM)
        assert await connection.receive() == 1012
        await fleet.eventually(lambda: not parent.is_running)
        assert parent.process.returncode == 0, parent.log
        assert not any(map(is_running, both))

    asyncio.run(scenario())


def test_children_end_when_their_parent_is_killed(servers):
    async def scenario():
        parent = servers.runsockets('--processes', '2')
        await fleet.eventually(lambda: len(children(parent.process)) == 2)
        await who(parent.port)
        both = children(parent.process)
        parent.stop(signal.SIGKILL)
        await fleet.eventually(lambda: not any(map(is_running, both)), 8)
        with pytest.raises(ConnectionError):
            await fleet.Connection.open(parent.port)

    asyncio.run(scenario())


@pytest.mark.parametrize('delay', [0, 0.3, 0.6, 0.9])
def test_a_parent_that_is_told_to_stop_while_it_starts_stops(servers, delay):
    port = programs.free_port()
    parent = servers.start('runsockets', '-m', 'django', 'runsockets', str(port), '--processes', '4')
    programs.wait_for_port(port, parent.process, parent.log_path)
    time.sleep(delay)
    parent.process.send_signal(signal.SIGTERM)
    try:
        parent.process.wait(15)
    except subprocess.TimeoutExpired:
        pytest.fail('it hangs')
    assert not children(parent.process)


# Misuse.


@pytest.mark.parametrize(
    'arguments, text',
    [
        (['nowhere'], "'nowhere' is not an ADDR:PORT"),
        (['127.0.0.1:99999'], "'127.0.0.1:99999' is not an ADDR:PORT"),
        (['127.0.0.1:²'], 'is not an ADDR:PORT'),
        (['--threads', '0'], '--threads, --connect-threads and --page-threads are 1 or more'),
        (['--processes', '0'], '--processes, --threads'),
        (['--processes', '2'], 'Several processes cannot share the in-memory layer'),
        (['--endpoint', 'nonsense:1'], 'nonsense'),
        (['TAKEN'], 'Cannot listen on'),
        (['--unix-socket', '/nowhere/at.all'], 'Cannot listen on'),
    ],
)
def test_misuse_is_one_sentence(alone, arguments, text):
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen(1)
        arguments = [
            f'127.0.0.1:{taken.getsockname()[1]}' if argument == 'TAKEN' else argument for argument in arguments
        ]
        program = alone.start('misuse', '-m', 'django', 'runsockets', *arguments)
        try:
            program.process.wait(10)
        except subprocess.TimeoutExpired:
            pytest.fail('it runs: ' + program.log)
    assert program.process.returncode == 1
    assert program.log.startswith('CommandError: ') and text in program.log and 'Traceback' not in program.log


def test_several_processes_need_an_address(servers):
    program = servers.start('misuse', '-m', 'django', 'runsockets', '--processes', '2', '--unix-socket', '/tmp/x')
    assert program.process.wait(10) == 1
    assert 'leave out --unix-socket' in program.log


def test_an_abbreviated_option_starts_no_avalanche(servers):
    async def scenario():
        port = programs.free_port()
        parent = servers.start('runsockets', '-m', 'django', 'runsockets', str(port), '--process', '2', port=port)
        await fleet.eventually(lambda: len(children(parent.process)) == 2)
        assert await who(port) <= children(parent.process)
        assert 'and is replaced' not in parent.log

    asyncio.run(scenario())


# Beside others, and many.


def test_a_message_crosses_from_and_to_a_daphne_with_workers(servers):
    async def scenario():
        server, daphne = servers.runsockets('--threads', '4'), servers.daphne()
        servers.worker(), servers.worker()
        connections = await fleet.open_many(10, server.port) + await fleet.open_many(10, daphne.port)
        for sender in (connections[0], connections[-1]):
            sender.send({'type': 'SHOUT', 'content': {'type': 'NEWS'}})
            for connection in connections:
                frames = [await connection.receive() for _ in range(1 + (connection is sender))]
                assert {'type': 'NEWS'} in frames
        assert (await connections[0].ask({'type': 'ECHO'})) == {'type': 'ECHO'}
        await fleet.close_many(connections)
        await fleet.eventually(lambda: servers.rows() == 0)

    asyncio.run(scenario())


def test_three_thousand_connections_get_every_message_once_while_others_echo(servers, capsys):
    # Ours and those of the servers, which inherit it.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
    if wanted < 4096:
        pytest.skip(f'at most {hard} files may be open')
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

    async def scenario():
        loop = asyncio.get_event_loop()
        both = [servers.runsockets(), servers.runsockets()]
        begin = loop.time()
        crowd = [
            connection
            for group in await asyncio.gather(*(fleet.open_many(1500, server.port, '/crowd/', 50) for server in both))
            for connection in group
        ]
        opened = loop.time() - begin
        echoing = [connection for server in both for connection in await fleet.open_many(10, server.port)]
        echoes = []
        is_over = asyncio.Event()

        # Cancelling it would not do: up to Python 3.11, wait_for() may lose a cancellation.
        async def echo(connection):
            while not is_over.is_set():
                sent = loop.time()
                assert (await connection.ask({'type': 'ECHO', 'ref': sent}))['ref'] == sent
                echoes.append(loop.time() - sent)
                await asyncio.sleep(0.02)

        echoers = [asyncio.ensure_future(echo(connection)) for connection in echoing]
        received = [[] for _ in crowd]
        last = [0]

        async def listen(connection, mine):
            while True:
                frame = await connection.receive(600)
                mine.append(frame if isinstance(frame, int) else frame.get('n', frame))
                last[0] = loop.time()

        listeners = [asyncio.ensure_future(listen(*pair)) for pair in zip(crowd, received)]
        times = []

        async def wait_for(count):
            deadline = loop.time() + 30
            while sum(map(len, received)) < count and loop.time() < deadline:
                await asyncio.sleep(0.05)

        # From a process that serves nobody.
        counted = await loop.run_in_executor(
            None,
            servers.python,
            (
                'import time; time.sleep(1)\n'
                'for n in range(3): print(Socket.objects.filter(path="/crowd/").send_json({"n": n}))'
            ),
        )
        assert counted.split() == ['3000'] * 3
        await wait_for(9000)
        # From a handler, whose own connections are half of them.
        speaker = await fleet.Connection.open(both[0].port, '/crowd/')
        for n in range(3, 6):
            sent = loop.time()
            speaker.send({'type': 'SHOUT', 'content': {'n': n}, 'ref': 'shout'})
            frames = [await speaker.receive(), await speaker.receive()]
            assert {'type': 'HEARD', 'by': 3001, 'ref': 'shout'} in frames
            await wait_for(3000 * (n + 1))
            times.append(last[0] - sent)
        await asyncio.sleep(0.5)
        is_over.set()
        await asyncio.gather(*echoers)
        for listener in listeners:
            listener.cancel()
        await asyncio.wait(listeners)
        assert all(listener.cancelled() for listener in listeners)
        with capsys.disabled():
            print(
                '\n3000 connects in {:.1f} s; a message to all took {} s; {} echoes meanwhile, the slowest {:.2f} s'.format(
                    opened, ', '.join(f'{seconds:.2f}' for seconds in times), len(echoes), max(echoes)
                )
            )
        wrong = [mine for mine in received if sorted(mine) != list(range(6))]
        assert (len(wrong), wrong[:3]) == (0, [])
        # Those of one sender arrive in the order in which they were sent.
        assert all(mine == list(range(6)) for mine in received)
        assert len(echoes) > 100

    try:
        asyncio.run(scenario())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
