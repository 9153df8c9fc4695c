"""Many servers on one Redis and one database, and a client for thousands of connections in one thread."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import psycopg2

from .. import servers
from . import stack

# The databases that fleets of this process have migrated. There may be a hundred fleets on one, and it takes a second.
_migrated = set()


def empty(database_url):
    """Delete all rows but those of ``migrate`` itself, as ``manage.py flush`` does, which takes a second."""
    with contextlib.closing(psycopg2.connect(database_url)) as database, database, database.cursor() as cursor:
        cursor.execute(
            "SELECT string_agg(quote_ident(tablename), ', ') FROM pg_tables WHERE schemaname = 'public' "
            "AND tablename NOT IN ('auth_permission', 'django_content_type', 'django_migrations')"
        )
        cursor.execute(f'TRUNCATE {cursor.fetchone()[0]} RESTART IDENTITY')


class Redis:
    """A Redis of our own that can be stopped and started on the same port. It keeps nothing on disk."""

    def __init__(self, directory):
        self.directory = directory
        self.port = servers.free_port()
        self.url = f'redis://127.0.0.1:{self.port}/0'
        self.starts = 0
        self.start()

    def start(self):
        self.starts += 1
        self.program = servers.Program(
            [
                servers.find_program('redis-server'),
                '--port',
                self.port,
                '--bind',
                '127.0.0.1',
                '--save',
                '',
                '--appendonly',
                'no',
                '--dir',
                self.directory,
            ],
            self.directory / f'redis-{self.starts}.log',
        )
        servers.wait_for_port(self.port, self.program.process, self.program.log_path)

    def stop(self):
        # A SIGSTOPped one heeds nothing else.
        self.program.stop(signal.SIGKILL)

    def client(self):
        import redis

        return redis.StrictRedis.from_url(self.url)


class Fleet:
    """Servers of ``tests.live.soak_site``."""

    def __init__(self, directory, database_url, redis=None, **environment):
        self.directory = Path(str(directory))
        self.notes_directory = self.directory / 'notes'
        self.notes_directory.mkdir()
        self.environment = dict(
            environment,
            DJANGO_SETTINGS_MODULE='tests.live.soak_site',
            DATABASE_URL=database_url,
            NOTES=str(self.notes_directory),
            REDIS_URL=redis.url if redis else '',
        )
        self.programs = []
        if database_url not in _migrated:
            self.manage('migrate', '--verbosity', '0')
            _migrated.add(database_url)
        # Rows of fleets before us.
        if database_url.startswith('postgres'):
            empty(database_url)
        else:
            self.manage('flush', '--no-input', '--verbosity', '0')

    def start(self, name, *args, port=None, environment=(), **kwargs):
        log = self.directory / f'{name}-{len(self.programs)}.log'
        program = servers.Program([sys.executable, *args], log, dict(self.environment, **dict(environment)), **kwargs)
        program.port = port
        self.programs.append(program)
        if port is not None:
            servers.wait_for_port(port, program.process, log)
        return program

    def runsockets(self, *args, port=None, **kwargs):
        port = port or servers.free_port()
        return self.start('runsockets', '-m', 'django', 'runsockets', f'127.0.0.1:{port}', *args, port=port, **kwargs)

    def daphne(self, *args, port=None, **kwargs):
        port = port or servers.free_port()
        return self.start('daphne', *stack.daphne(port, *map(str, args)), port=port, **kwargs)

    def worker(self, *args):
        worker = self.start('worker', '-m', 'django', 'runworker', *args)
        worker.wait_for_log('Listening on channels')
        return worker

    def manage(self, *args):
        return servers.run_python('-m', 'django', *args, env=self.environment)

    def python(self, program):
        """Run ``program`` in ``manage.py shell`` and return what it printed."""
        return self.manage('shell', '-v', '0', '-c', 'from sockets.models import Socket; ' + program)

    def rows(self):
        return int(self.python('print(Socket.objects.count())'))

    def notes(self):
        """Return what the handlers noted: lists of words, the last one being the time, in order of time."""
        lines = [line.split() for path in self.notes_directory.iterdir() for line in path.read_text().splitlines()]
        return sorted(([*words, float(at)] for *words, at in lines), key=lambda words: words[-1])

    def pid_at_work(self, connection, n):
        """Return the process that began with the frame ``n`` of ``connection``, or ``None``."""
        for path in self.notes_directory.iterdir():
            if f'start {connection} {n} ' in path.read_text():
                return int(path.name)

    def stop(self):
        for program in self.programs:
            if program.is_running:
                program.process.send_signal(signal.SIGTERM)
        for program in self.programs:
            program.stop()


class Refused(Exception):
    """The server answered a handshake with this status."""


class Connection:
    """A client's end of a websocket, for asyncio: as much of RFC 6455 as the tests need."""

    @classmethod
    async def open(cls, port, path='/soak/', host='127.0.0.1', cookie='', **options):
        self = cls()
        if isinstance(port, str):
            self.reader, self.writer = await asyncio.open_unix_connection(port)
        else:
            self.reader, self.writer = await asyncio.open_connection(host, port, **options)
        key = base64.b64encode(os.urandom(16)).decode()
        self.writer.write(
            f'GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
            f'Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nCookie: {cookie}\r\n\r\n'.encode()
        )
        try:
            head = await asyncio.wait_for(self.reader.readuntil(b'\r\n\r\n'), 30)
        except asyncio.IncompleteReadError as error:
            raise ConnectionError(error)
        status = head.split(b' ', 2)[1]
        if status != b'101':
            self.writer.close()
            raise Refused(int(status))
        return self

    def send(self, content):
        """Send ``content`` as JSON; what cannot be sent shows where the close is received."""
        self._write(0x81, json.dumps(content).encode())

    async def receive(self, seconds=15):
        """Return the content of the next message, or the close code: 1006 if there was none."""
        return await asyncio.wait_for(self._receive(), seconds)

    async def ask(self, content, seconds=15):
        self.send(content)
        return await self.receive(seconds)

    async def close(self):
        self._write(0x88, (1000).to_bytes(2, 'big'))
        try:
            while not isinstance(await self.receive(5), int):
                pass
        except asyncio.TimeoutError:
            pass
        self.writer.close()

    async def _receive(self):
        try:
            while True:
                head = await self.reader.readexactly(2)
                size = head[1] & 0x7F
                if size > 125:
                    size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), 'big')
                payload = await self.reader.readexactly(size)
                if head[0] == 0x81:
                    return json.loads(payload.decode())
                if head[0] == 0x89:
                    self._write(0x8A, payload)
                elif head[0] == 0x88:
                    self._write(0x88, payload[:2])
                    self.writer.close()
                    return int.from_bytes(payload[:2], 'big')
        except (asyncio.IncompleteReadError, ConnectionError):
            self.writer.close()
            return 1006

    def _write(self, opcode, payload):
        size = len(payload)
        head = (
            bytes([opcode, 0x80 | size])
            if size < 126
            else bytes([opcode, 0x80 | 126]) + size.to_bytes(2, 'big')
            if size < 65536
            else bytes([opcode, 0x80 | 127]) + size.to_bytes(8, 'big')
        )
        # A mask of zeros leaves the payload as it is.
        self.writer.write(head + bytes(4) + payload)


async def open_many(count, port, path='/soak/', at_once=20):
    """Return ``count`` open connections."""
    gate = asyncio.Semaphore(at_once)

    async def open_one():
        async with gate:
            return await Connection.open(port, path)

    return await asyncio.gather(*(open_one() for _ in range(count)))


async def open_patiently(port, path='/soak/'):
    """Return an open connection, for which this comes again as often as the server says that it has no time yet."""
    while True:
        connection = await Connection.open(port, path)
        answer = await connection.ask({'type': 'ECHO', 'ref': 'open'})
        if answer != 1013:
            assert answer == {'type': 'ECHO', 'ref': 'open'}, answer
            return connection
        await asyncio.sleep(1)


async def open_many_patiently(count, port, path, at_once=20):
    """Return ``count`` open connections, each of which has been answered once, however busy the machine is."""
    gate = asyncio.Semaphore(at_once)

    async def open_one():
        async with gate:
            return await open_patiently(port, path)

    return await asyncio.gather(*(open_one() for _ in range(count)))


async def close_many(connections):
    await asyncio.gather(*(connection.close() for connection in connections))


async def eventually(condition, seconds=15):
    """Wait until ``condition()``, which may block, is true and return what it returned."""
    loop = asyncio.get_event_loop()
    deadline = loop.time() + seconds
    while True:
        result = await loop.run_in_executor(None, condition)
        if result:
            return result
        assert loop.time() < deadline, f'not within {seconds} s: {condition}'
        await asyncio.sleep(0.1)


if __name__ == '__main__':

    async def hold():
        """Hold some connections open in a process that can be stopped or killed: ``PORT PATH COUNT``."""
        connections = await open_many(int(sys.argv[3]), int(sys.argv[1]), sys.argv[2])
        print('open', flush=True)
        await asyncio.gather(*(listen(connection) for connection in connections))

    async def listen(connection):
        while not isinstance(await connection.receive(3600), int):
            pass

    asyncio.run(hold())
