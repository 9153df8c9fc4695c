"""A site that each test runs on a server of its choice, as people start it."""

import asyncio
import contextlib
import json
import signal
import sqlite3
import sys
import time

import channels
import pytest

from ... import servers as programs

if channels.__version__.startswith('1.'):
    # All of it is of the engine of Channels 4.
    collect_ignore_glob = ['test_*']
else:
    from websockets.asyncio.client import connect as open_websocket

BIN = sys.executable.rpartition('/')[0]


class Site:
    """A database, and servers of the site on it."""

    def __init__(self, directory):
        self.directory = directory
        self.database = str(directory / 'db.sqlite3')
        self.environment = {
            'DJANGO_SETTINGS_MODULE': 'tests.live.channels4.site',
            'DATABASE': self.database,
            'PYTHONPATH': str(programs.ROOT),
        }
        self.servers = []
        migrate = self.run('migrate', [sys.executable, '-m', 'django', 'migrate', '--verbosity', '0'])
        assert migrate.process.wait(60) == 0, migrate.log
        with contextlib.closing(sqlite3.connect(self.database)) as database:
            database.execute('PRAGMA journal_mode=WAL')

    def run(self, name, args, **environment):
        log = self.directory / f'{name}-{len(self.servers)}.log'
        program = programs.Program(args, log, {**self.environment, **environment})
        self.servers.append(program)
        return program

    def start(self, kind, *options, **environment):
        """Start a server: ``uvicorn``, ``daphne``, ``runserver`` or ``runsockets``, which has ``port`` then."""
        port = programs.free_port()
        manage = [sys.executable, '-m', 'django']
        application = 'tests.live.channels4.{}:application'.format(environment.get('ASGI', 'asgi'))
        args = {
            'uvicorn': [f'{BIN}/uvicorn', application, '--port', port, *options],
            'daphne': [f'{BIN}/daphne', '-b', '127.0.0.1', '-p', port, *options, application],
            'runserver': [*manage, 'runserver', f'127.0.0.1:{port}', *options],
            'runsockets': [*manage, 'runsockets', f'127.0.0.1:{port}', *options],
        }[kind]
        if kind == 'runserver':
            environment.setdefault('DAPHNE', '1')
        program = self.run(kind, args, **environment)
        program.port = port
        programs.wait_for_port(port, program.process, program.log_path)
        return program

    def pings(self, kind, interval, timeout):
        """Return the options with which a server pings its clients."""
        name = '--ws-ping' if kind == 'uvicorn' else '--ping'
        return [f'{name}-interval', interval, f'{name}-timeout', timeout]

    def rows(self):
        """Return how many connections have a row."""
        with contextlib.closing(sqlite3.connect(self.database, timeout=20)) as database:
            return database.execute('SELECT COUNT(*) FROM sockets_socket').fetchone()[0]

    def stop(self):
        for server in self.servers:
            server.stop(signal.SIGKILL)


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    yield site
    site.stop()


class Client:
    """A client that speaks JSON, on top of ``connection``."""

    def __init__(self, connection):
        self.connection = connection

    @classmethod
    async def open(cls, server, query='', path='/live/', **options):
        options = {'max_size': None, 'open_timeout': 20, 'ping_interval': None, 'compression': None, **options}
        return cls(await open_websocket(f'ws://127.0.0.1:{server.port}{path}{query}', **options))

    async def send(self, content):
        await self.connection.send(json.dumps(content))

    async def receive(self, seconds=10):
        return json.loads(await asyncio.wait_for(self.connection.recv(), seconds))

    async def ask(self, content, seconds=10):
        await self.send(content)
        return await self.receive(seconds)

    async def closed(self, seconds=15):
        """Wait for the end; return the close code that the server has sent, ``None`` if it has sent none."""
        await asyncio.wait_for(self.connection.wait_closed(), seconds)
        received = self.connection.protocol.close_rcvd
        return None if received is None else received.code

    async def close(self):
        await self.connection.close()


async def eventually(condition, seconds=10):
    """Wait until ``condition()`` is true and return what it returned."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f'not within {seconds} s: {condition}'
        await asyncio.sleep(0.05)
