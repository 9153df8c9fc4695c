"""Pages whose clients do not read, or leave: what it costs the server, and whom else."""

import asyncio
import contextlib
import hashlib
import http.client
import socket
import struct
import time

import pytest

from . import fleet

pytestmark = pytest.mark.timed

RUNSOCKETS, CLASSIC = '`runsockets`', 'daphne, `runworker --threads 4`'
SHAPES = pytest.mark.parametrize('shape', [RUNSOCKETS, CLASSIC])


def start(hall, shape, *options):
    if shape == RUNSOCKETS:
        return hall.servers.runsockets(*options)
    server = hall.servers.daphne(*options)
    hall.servers.worker('--threads', '4')
    return server


def ask(server, path, method='GET', version='1.1', headers=''):
    """Send a request and return the connection, of which nothing has been read."""
    connection = socket.create_connection(('127.0.0.1', server.port), timeout=20)
    connection.sendall(f'{method} {path} HTTP/{version}\r\nHost: localhost\r\n{headers}\r\n'.encode())
    return connection


def page(server, path='/page/', **kwargs):
    with contextlib.closing(http.client.HTTPConnection('127.0.0.1', server.port, timeout=20)) as connection:
        connection.request('GET', path, **kwargs)
        response = connection.getresponse()
        return response.status, response.read()


def read_all(connection):
    """Return what comes until the end, and whether the connection was broken."""
    found = b''
    try:
        while True:
            data = connection.recv(65536)
            if not data:
                return found, False
            found += data
    except ConnectionResetError:
        return found, True


def ended(hall, name):
    return [words[1] for words in hall.servers.notes() if words[0] == 'end' and words[1].startswith(name)]


@SHAPES
def test_pages_of_300_mb_that_nobody_reads(hall, shape):
    # They were held whole: 299 MB for each.
    async def scenario():
        server = start(hall, shape, '--http-timeout', '5')
        await hall.warm_up(server)
        connections = await hall.open(20, server)
        before, highest = hall.memory_of(server), 0
        unread = [ask(server, '/stream/?megabytes=300&name=unread') for _ in range(2)]
        since = time.monotonic()
        while len(ended(hall, 'unread')) < 2:
            highest = max(highest, hall.memory_of(server))
            assert time.monotonic() - since < 20
            await asyncio.sleep(0.05)
        took = time.monotonic() - since
        for connection in unread:
            assert read_all(connection)[1]
        grown = (highest - before) / 1024
        # The clients' bounds, and as much again for what is under way.
        assert grown < (40 if shape == RUNSOCKETS else 2 * 2 * 32)
        hall.memory.clear()
        await hall.came_true(
            '2 clients ask for pages of 300 MB and do not read',
            shape + ', `--http-timeout 5`',
            connections,
            f'their pages, cut off; the server grows by {grown:.0f} MB',
            took,
        )

    asyncio.run(scenario())


@SHAPES
def test_clients_leave_pages_without_end(hall, shape):
    # Four of them kept all threads for good, and no page was served any more.
    async def scenario():
        server = start(hall, shape, '--http-timeout', '3')
        await hall.warm_up(server)
        connections = await hall.open(20, server)
        loop = asyncio.get_event_loop()
        begin = time.monotonic()
        for way in ('fin', 'reset', 'vanishes'):
            left = [ask(server, f'/stream/?name={way}-{n}') for n in range(4)]
            await asyncio.sleep(0.5)
            for connection in left if way != 'vanishes' else ():
                if way == 'reset':
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
                connection.close()
            # Who says nothing is found by the time-out, which is looked at every two seconds.
            names = [f'{way}-{n}' for n in range(4)]
            await fleet.eventually(lambda: sorted(ended(hall, way)) == names, 3 if way != 'vanishes' else 8)
            since = time.monotonic()
            assert (await loop.run_in_executor(None, page, server))[0] == 200
            assert time.monotonic() - since < 1, way
            for connection in left:
                connection.close()
        took = time.monotonic() - begin
        hall.memory.clear()
        await hall.came_true(
            '12 clients leave pages without end: 4 close, 4 reset, 4 vanish',
            shape + ', `--http-timeout 3`',
            connections,
            'nothing; each generator is closed, and a page is served',
            took,
        )

    asyncio.run(scenario())


@SHAPES
def test_what_a_client_gets(hall, shape):
    server = start(hall, shape, '--http-timeout', '3')
    # As large as it is.
    expected = b''.join(b'%08d' % n * (128 * 1024) for n in range(50))
    assert hashlib.sha1(page(server, '/stream/?megabytes=50')[1]).digest() == hashlib.sha1(expected).digest()
    lines = page(server, '/lines/?count=3000')[1]
    assert lines == ''.join(f'line {n}\n' for n in range(3000)).encode()
    # A long one lasts as long as it is read, and one that fails half-way is cut.
    assert len(page(server, '/stream/?megabytes=8&seconds=0.7')[1]) == 8 * 1024 * 1024
    found, is_broken = read_all(ask(server, '/stream/?raises=3'))
    assert is_broken and not found.endswith(b'\r\n0\r\n\r\n')
    assert page(server, '/stream/?raises=0')[0] == 500
    # What follows the headers of a HEAD is the next response.
    connection = ask(server, '/stream/', 'HEAD')
    time.sleep(0.5)
    connection.sendall(b'GET /page/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
    found, _ = read_all(connection)
    assert found.count(b'HTTP/1.1 200 OK') == 2 and b'00000000' not in found
    # A client names no root path.
    assert page(server, '/x/root/', headers={'Daphne-Root-Path': '/x'}) == (200, b' 0')


def test_a_client_that_sends_and_does_not_read_is_not_read(hall):
    # The server kept 300 MB of it.
    server = start(hall, RUNSOCKETS)
    page(server)
    connection = ask(server, '/stream/')
    time.sleep(1)
    before = hall.memory_of(server)
    connection.settimeout(1)
    with contextlib.suppress(socket.timeout):
        for _ in range(1000):
            connection.send(bytes(100000))
        raise AssertionError('It reads on')
    assert hall.memory_of(server) - before < 10 * 1024
    connection.close()


def test_websockets_are_pinged_while_a_long_page_is_sent(hall):
    # An exception ended the pings of the server, for good.
    async def scenario():
        server = start(hall, RUNSOCKETS, '--http-timeout', '2', '--ping-interval', '1', '--ping-timeout', '2')
        loop = asyncio.get_event_loop()
        long = loop.run_in_executor(None, page, server, '/stream/?megabytes=8&seconds=0.7')
        await asyncio.sleep(4.5)
        connection = await fleet.Connection.open(server.port)
        head = await asyncio.wait_for(connection.reader.readexactly(2), 6)
        assert head[0] == 0x89
        assert len((await long)[1]) == 8 * 1024 * 1024
        connection.writer.close()

    asyncio.run(scenario())
