"""Clients that send too much, too small or too late, against a whole server: its memory, and what the others notice."""

import asyncio
import contextlib
import json
import signal
import socket
import threading
import time

import pytest

from .. import servers as programs
from ..wire import REQUEST, frame
from . import fleet
from .documents import Document

pytestmark = pytest.mark.timed

ONE, PAIR = '`runsockets`', 'daphne and a worker'
PINGS = '--ping-interval', '2', '--ping-timeout', '3'


def start(hall, shape, *options):
    if shape == ONE:
        return hall.servers.runsockets(*options)
    server = hall.servers.daphne(*options)
    hall.servers.worker()
    return server


def connect(server, path='/hall/'):
    """Return a socket on which the handshake is done."""
    client = socket.create_connection(('127.0.0.1', server.port), timeout=20)
    client.sendall(REQUEST.replace(b'/page/?a=1', path.encode()) + b'\r\n')
    head = b''
    while not head.endswith(b'\r\n\r\n'):
        head += client.recv(1)
    assert head.startswith(b'HTTP/1.1 101')
    return client


class Flood(threading.Thread):
    """Sends ``chunk`` as fast as it goes, and reads nothing, until it is cut off or told to stop."""

    def __init__(self, client, chunk):
        super().__init__(daemon=True)
        self.client, self.chunk = client, chunk
        self.sent, self.is_cut_off, self.is_over = 0, False, False

    def run(self):
        self.client.settimeout(0.2)
        while not self.is_over:
            try:
                self.sent += self.client.send(self.chunk)
            except socket.timeout:
                pass
            except OSError:
                self.is_cut_off = True
                break

    def stop(self):
        self.is_over = True
        self.join()
        self.client.close()


async def talk(talkers, seconds):
    """Echo on all of ``talkers`` for so long and return the p99 in seconds."""
    loop = asyncio.get_event_loop()
    times, end = [], loop.time() + seconds

    async def one(talker):
        n = 0
        while loop.time() < end:
            begin, n = loop.time(), n + 1
            assert await talker.ask({'type': 'ECHO', 'ref': n}) == {'type': 'ECHO', 'ref': n}
            times.append(loop.time() - begin)
            await asyncio.sleep(0.02)

    await asyncio.gather(*map(one, talkers))
    return sorted(times)[int(len(times) * 0.99)]


@pytest.mark.parametrize('shape', [ONE, PAIR])
def test_a_client_sends_pings_without_end_and_reads_nothing(hall, shape):
    # 851 MB of pongs after 75 s, from one client.
    async def scenario():
        server = start(hall, shape, *PINGS)
        await hall.warm_up(server)
        talkers = await hall.open(10, server)
        before = hall.memory_of(server)
        flood = Flood(connect(server), frame(b'x' * 125, 9) * 500)
        flood.start()
        most, since = before, time.monotonic()
        # That takes longer where the other tests keep both cores busy.
        while flood.is_alive() and time.monotonic() - since < 60:
            await talk(talkers, 0.2)
            most = max(most, hall.memory_of(server))
        assert flood.is_cut_off
        cut_off = time.monotonic() - since
        flood.stop()
        assert most - before < 10 * 1024, f'it grew by {most - before} kB'
        took = await hall.rows_are(10, 5)
        await hall.came_true(
            'one client sends pings of 125 bytes without end and reads nothing',
            '{}, `{}`'.format(shape, ' '.join(PINGS)),
            talkers,
            f'its own; {(most - before) / 1024:.1f} MB more while it lasted, cut off after {cut_off:.0f} s',
            took,
        )

    asyncio.run(scenario())


# It measures milliseconds.
@pytest.mark.alone
@pytest.mark.parametrize('shape', [ONE, PAIR])
def test_one_message_comes_in_fragments_of_two_bytes_and_tiny_frames_without_end(hall, shape):
    # 109 MB for one message, and others waited 580 ms: each frame copied all that was behind it.
    async def scenario():
        server = start(hall, shape)
        await hall.warm_up(server)
        talkers = await hall.open(20, server)
        calm = await talk(talkers, 2)
        before = hall.memory_of(server)
        client = connect(server)
        client.sendall(frame(b'', 1, fin=False))
        # 2 MB of a message of at most 4 MB, then fragments that hold nothing.
        most = before
        loop = asyncio.get_event_loop()
        for _ in range(64):
            await loop.run_in_executor(None, client.sendall, frame(b'ab', 0, fin=False) * 16384)
            most = max(most, hall.memory_of(server))
        floods = [Flood(client, frame(b'', 0, fin=False) * 10000)]
        floods[0].start()
        during = await talk(talkers, 4)
        most = max(most, hall.memory_of(server))
        for flood in floods:
            assert not flood.is_cut_off
            flood.stop()
        assert most - before < 10 * 1024, f'it grew by {most - before} kB'
        assert during < 0.1 + calm
        took = await hall.rows_are(20, 5)
        await hall.came_true(
            'one client sends a million fragments of two bytes, then empty ones without end, while 20 talk',
            shape,
            talkers,
            f'nothing; {(most - before) / 1024:.1f} MB more; p99 of the 20: {during * 1000:.0f} ms, {calm * 1000:.0f} ms before',
            took,
        )

    asyncio.run(scenario())


@pytest.mark.parametrize('shape', [ONE, PAIR])
def test_frames_go_on_coming_while_a_server_is_told_to_stop(hall, shape):
    # A frame that came after our close was executed, could not be answered, and was sent again to the next server.
    async def scenario():
        first = start(hall, shape)
        second = hall.servers.runsockets() if shape == ONE else hall.servers.daphne()
        await hall.warm_up(first, second)
        answered, codes = set(), []

        async def come_back():
            for _ in range(5):
                # One worker has the frames of all, and a handshake has 5 s.
                with contextlib.suppress(ConnectionError):
                    return await fleet.Connection.open(second.port, '/hall/')
            raise ConnectionError('the other server lets nobody in')

        async def client(name):
            """Send frames, some at a time, and send again on the next server what was not answered by the first."""
            n, open_ = 0, {}
            connection = await fleet.Connection.open(first.port, '/hall/')
            end = time.monotonic() + 5
            while open_ or time.monotonic() < end:
                while len(open_) < 3 and time.monotonic() < end:
                    ref = f'{name}-{n}'
                    n += 1
                    open_[ref] = {'type': 'WORK', 'connection': name, 'n': n, 'ref': ref}
                    connection.send(open_[ref])
                got = await connection.receive()
                if isinstance(got, int):
                    # With 1013 the other server says that it has no time yet.
                    codes.extend([got] if got != 1013 else [])
                    await asyncio.sleep(1 if got == 1013 else 0)
                    connection = await come_back()
                    for content in open_.values():
                        connection.send(content)
                elif got.get('ref') in open_:
                    answered.add(open_.pop(got['ref'])['ref'])
            return connection

        clients = [asyncio.ensure_future(client(f'c{number}')) for number in range(20)]
        await asyncio.sleep(2)
        hall.kill(first, signal.SIGTERM)
        connections = await asyncio.gather(*clients)
        await fleet.eventually(lambda: not first.is_running)
        begun = [tuple(words[1:3]) for words in hall.servers.notes() if words[0] == 'start']
        twice = len(begun) - len(set(begun))
        assert codes == [1012] * 20
        assert (twice, len(set(begun))) == (0, len(answered))
        took = await hall.rows_are(20, 5)
        await hall.came_true(
            'SIGTERM to the server while 20 clients go on sending, and send again what was not answered',
            '2 `runsockets`' if shape == ONE else '2 daphne, a worker',
            connections,
            f'nothing; {len(begun)} frames, none executed twice',
            took,
        )

    asyncio.run(scenario())


SEPARATORS = [b'\x85', b'\x0b', b'\x0c', b'\x1c', b'\x1d', b'\x1e', b'\xe2\x80\xa8', b'\n', b'\r', b'\x00']


@contextlib.contextmanager
def nginx(directory, port):
    """Run nginx as docs/how-to/deploy.md has it, without TLS, before ``port``; yields its own."""
    site, front = Document('docs/how-to/deploy.md').file('/etc/nginx/conf.d/mysite.conf'), programs.free_port()
    lines = [line for line in site.splitlines() if 'ssl_' not in line]
    site = (
        '\n'.join(lines)
        .replace('listen 443 ssl', f'listen 127.0.0.1:{front}')
        .replace('server 127.0.0.1:8000', f'server 127.0.0.1:{port}')
    )
    (directory / 'nginx.conf').write_text(
        f'user root; daemon off; pid pid; error_log stderr; events {{}} http {{ access_log off; {site} }}'
    )
    program = programs.Program(
        [programs.find_program('nginx', '/usr/sbin'), '-p', directory, '-c', 'nginx.conf'], directory / 'nginx.log'
    )
    try:
        programs.wait_for_port(front, program.process, program.log_path)
        yield front
    finally:
        program.stop()


@pytest.mark.parametrize('shape', [ONE, PAIR])
def test_no_header_comes_within_another_one(hall, tmp_path, shape):
    hall.servers.environment['TRUSTED_PROXIES'] = '127.0.0.1'
    server = start(hall, shape)

    def user_ip(port, lines, source='127.0.0.1'):
        client = socket.create_connection(('127.0.0.1', port), timeout=10, source_address=(source, 0))
        client.sendall(REQUEST.replace(b'/page/?a=1', b'/soak/') + lines + b'\r\n')
        head = b''
        while not head.endswith(b'\r\n\r\n'):
            head += client.recv(1) or pytest.fail('no answer')
        if not head.startswith(b'HTTP/1.1 101'):
            return int(head.split()[1])
        client.sendall(frame(b'{"type": "HELLO"}'))
        size = client.recv(2)[1]
        if size == 126:
            size = int.from_bytes(client.recv(2), 'big')
        answer = b''
        while len(answer) < size:
            answer += client.recv(size - len(answer))
        client.close()
        return json.loads(answer.decode())['user_ip']

    with nginx(tmp_path, server.port) as front:
        # It is believed where it is a header of its own.
        assert user_ip(server.port, b'X-Forwarded-For: 6.6.6.6\r\n') == '6.6.6.6'
        for separator in SEPARATORS:
            for name in (b'X-Forwarded-For', b'X-Real-IP', b'Host', b'Cookie'):
                lines = b'X-Foo: a' + separator + name + b': 6.6.6.6\r\n'
                assert user_ip(front, lines, '127.0.0.2') in ('127.0.0.2', 400), lines
                assert user_ip(server.port, lines) in ('127.0.0.1', 400), lines
        assert user_ip(server.port, b'Cookie: a=\xc3\x85; b=1\r\n') == '127.0.0.1'
