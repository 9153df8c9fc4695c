"""A site under observation, and the table of faults in docs/reliability.md, of which each fault test makes a line.

``scripts/test -e long`` and ``-e long-channels4`` write their tables anew.
"""

import asyncio
import collections
import re
import signal
import time
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2

from .. import servers as programs
from . import fleet
from .stack import ON_CHANNELS_1

DOCUMENT = programs.ROOT / 'docs' / 'reliability.md'
# Each stack has a table of its own.
BEGIN, END = (
    ('<!-- faults -->\n', '<!-- end of faults -->\n')
    if ON_CHANNELS_1
    else ('<!-- faults on Channels 4 -->\n', '<!-- end of faults on Channels 4 -->\n')
)
HEADS = ('What was done', 'To what', 'Connections', 'Lost', 'Rows true again')


def table_of(lines):
    """Return the table of ``lines``, each a tuple of the texts under ``HEADS``."""
    table = '| {} |\n|{}\n'.format(' | '.join(HEADS), '---|' * len(HEADS))
    return table + ''.join('| {} |\n'.format(' | '.join(line)) for line in lines)


class Hall:
    """A site under observation: who is connected to ``/hall/``, what the rows say, and which hooks have run."""

    def __init__(self, servers, database_url, report):
        self.servers = servers
        self.report = report
        self.database_url = database_url
        self.database = self.connect_to_database()
        self.killed = set()
        self.memory = {}

    def connect_to_database(self):
        if self.database_url.startswith('sqlite'):
            import sqlite3

            return sqlite3.connect(self.database_url[len('sqlite://') :], isolation_level=None, timeout=20)
        if self.database_url.startswith('mysql'):
            import pymysql

            where = urlsplit(self.database_url)
            return pymysql.connect(
                host=where.hostname, port=where.port, user=where.username, database=where.path[1:], autocommit=True
            )
        database = psycopg2.connect(self.database_url)
        database.autocommit = True
        return database

    def sql(self, text):
        cursor = self.database.cursor()
        cursor.execute(text)
        return cursor.fetchall()

    def rows(self):
        return self.sql("select count(*) from sockets_socket where path = '/hall/'")[0][0]

    async def open(self, count, *servers):
        """Return ``count`` connections to each of ``servers``, each of which has been answered once."""
        found = []
        for server in servers:
            found += await fleet.open_many_patiently(count, server.port, '/hall/')
        return found

    async def warm_up(self, *servers):
        """Have each of ``servers`` at its working size, so that what it takes later can be seen."""
        for _ in range(3):
            await fleet.close_many(await self.open(100, *servers))
        await self.rows_are(0, 10)
        self.note_memory()

    def note_memory(self):
        self.memory = {program: self.memory_of(program) for program in self.servers.programs}

    def memory_of(self, program):
        status = Path(f'/proc/{program.process.pid}/status').read_text()
        return int(re.search(r'VmRSS:\s+(\d+)', status).group(1))

    def kill(self, program, number=signal.SIGKILL):
        self.killed.add(program)
        program.process.send_signal(number)
        return time.monotonic()

    async def rows_are(self, count, seconds, since=None):
        """Wait until there are ``count`` rows and return how long that was after ``since``."""
        since = time.monotonic() if since is None else since
        while self.rows() != count:
            assert time.monotonic() - since < seconds, '{} rows, not {}, after {} s\n{}'.format(
                self.rows(), count, seconds, '\n'.join(program.log[-2000:] for program in self.servers.programs)
            )
            await asyncio.sleep(0.05)
        return time.monotonic() - since

    async def came_true(self, fault, to_what, connections, lost, took):
        """Check what must be true after every fault, close what is open, and write the line of the report."""
        deadline = time.monotonic() + 2
        while True:
            hooks = collections.Counter(
                (words[0], words[1]) for words in self.servers.notes() if words[0] in ('open', 'close')
            )
            still_open = {words for what, words in hooks if what == 'open'} - {
                words for what, words in hooks if what == 'close'
            }
            rows = {str(pk) for (pk,) in self.sql("select id from sockets_socket where path = '/hall/'")}
            # A disconnect function runs when its row has gone.
            if still_open == rows or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.05)
        assert set(hooks.values()) <= {1}, f'A hook ran twice: {hooks.most_common(3)}'
        assert still_open == rows
        ended = [
            program.log for program in self.servers.programs if not program.is_running and program not in self.killed
        ]
        assert ended == []
        live = [connection for connection in connections if not connection.writer.is_closing()]
        for connection in live:
            assert await connection.ask({'type': 'ECHO', 'ref': 2}) == {'type': 'ECHO', 'ref': 2}
        await fleet.close_many(live)
        await self.rows_are(0, 10)
        for program, before in self.memory.items():
            if program.is_running:
                grown = self.memory_of(program) / before - 1
                assert grown < 0.1, f'{program.process.args} grew by {grown:.0%} to {self.memory_of(program)} kB'
        self.report.append((fault, to_what, str(len(connections)), lost, f'{took:.1f} s'))


# What is started. Channels 4 has no workers: there, daphne stands for the other layer of channels_redis as well.
if ON_CHANNELS_1:
    RUNSOCKETS, CLASSIC = '2 `runsockets`', 'daphne, 2 workers'
    # One server of each.
    ONE_RUNSOCKETS, ONE_CLASSIC = '`runsockets`', 'daphne and a worker'
    SERVER = ONE_RUNSOCKETS
else:
    RUNSOCKETS, CLASSIC = '2 `runsockets` (uvicorn), core', '2 daphne, pubsub'
    ONE_RUNSOCKETS, ONE_CLASSIC = '`runsockets` (uvicorn), core', 'daphne, pubsub'
    SERVER = '`runsockets` (uvicorn)'
IN_MEMORY = SERVER + ', in-memory layer'
# Its daphne finds nobody where the database should be. On Channels 4, daphne runs the handlers.
CUT_OFF = 'daphne without a database, 2 workers'
ALL = [RUNSOCKETS, CLASSIC, CUT_OFF] if ON_CHANNELS_1 else [RUNSOCKETS, CLASSIC]


def start(hall, shape):
    """Start what ``shape`` says and return the servers."""
    if shape == RUNSOCKETS:
        return [hall.servers.runsockets(), hall.servers.runsockets()]
    if not ON_CHANNELS_1:
        return [start_one(hall, ONE_CLASSIC), start_one(hall, ONE_CLASSIC)]
    nowhere = {'DATABASE_URL': 'postgres://nobody@127.0.0.1:1/nothing'}
    server = hall.servers.daphne(environment=nowhere if shape == CUT_OFF else {})
    hall.servers.worker(), hall.servers.worker()
    return [server]


def start_one(hall, shape, *options):
    """Start one server with ``options``, of the shape ``ONE_RUNSOCKETS`` or ``ONE_CLASSIC``, and return it."""
    if shape == ONE_RUNSOCKETS:
        return hall.servers.runsockets(*options)
    if not ON_CHANNELS_1:
        # For all who speak to it.
        hall.servers.environment['LAYER'] = 'pubsub'
    server = hall.servers.daphne(*options)
    if ON_CHANNELS_1:
        hall.servers.worker()
    return server


# Programs for manage.py shell.

SESSION = """
from django.contrib.auth import get_user_model, login
from django.contrib.auth.signals import user_logged_in
from django.http import HttpRequest
from importlib import import_module
from django.conf import settings
Store = import_module(settings.SESSION_ENGINE).SessionStore
user, _ = get_user_model().objects.get_or_create(username='alice')
user.is_active = True
user.save()
"""
LOG_IN = (
    SESSION
    + """
request = HttpRequest()
request.session = Store()
login(request, user, backend='django.contrib.auth.backends.ModelBackend')
request.session.save()
print(request.session.session_key)
"""
)
