"""What clients that connect are told while a database or the store of sessions is away: to come back, and then they are let in."""

import contextlib
import signal
import socket
import sqlite3
import sys
import time

import psycopg2
import pytest

from ... import servers as programs
from .test_servers import HANDSHAKE

SERVERS = ['uvicorn', 'uvicorn-wsproto', 'daphne', 'runsockets']


def answer(server, cookie=''):
    """Return the answer to a client that asks for a websocket: the status, and the headers as a text."""
    with socket.create_connection(('127.0.0.1', server.port), timeout=20) as client:
        client.sendall(HANDSHAKE[:-2] + cookie.encode() + b'\r\n')
        head = b''
        while b'\r\n\r\n' not in head:
            more = client.recv(4096)
            assert more, head
            head += more
    return int(head.split()[1]), head.decode().lower()


def is_asked_to_come_back(server, cookie=''):
    status, head = answer(server, cookie)
    assert status == 503, head
    seconds = int(head.partition('retry-after: ')[2].split()[0])
    return 1 <= seconds <= 5


def is_let_in(server, seconds=10, cookie=''):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer(server, cookie)[0] == 101:
            return True
        time.sleep(0.2)
    return False


def start(site, kind, **environment):
    kind, _, implementation = kind.partition('-')
    options = ['--ws', implementation] if implementation else []
    environment['DJANGO_SETTINGS_MODULE'] = 'tests.live.channels4.outages_site'
    return site.start(kind, *options, **environment)


@pytest.fixture(scope='module')
def postgres():
    with programs.postgres_cluster() as (url, run):
        yield url, run


@contextlib.contextmanager
def full(url):
    """Have all connections that the database allows."""
    held = []
    try:
        for _ in range(5):
            with contextlib.suppress(psycopg2.OperationalError):
                while True:
                    held.append(psycopg2.connect(url))
            # Those that the server has had.
            pids = [connection.info.backend_pid for connection in held]
            with held[0].cursor() as cursor:
                cursor.execute(
                    'SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IS NOT NULL AND pid != ALL(%s)',
                    [pids],
                )
        yield
    finally:
        for connection in held:
            connection.close()


@pytest.mark.parametrize('kind', SERVERS)
def test_a_database_that_is_away_or_full_has_clients_come_back(site, postgres, kind):
    url, run = postgres
    environment = {'DATABASE_URL': url, 'DJANGO_SETTINGS_MODULE': 'tests.live.channels4.outages_site'}
    with run():
        migrate = site.run('migrate', [sys.executable, '-m', 'django', 'migrate', '--verbosity', '0'], **environment)
        assert migrate.process.wait(60) == 0, migrate.log
        server = start(site, kind, DATABASE_URL=url)
        assert is_let_in(server)
        with full(url):
            assert is_asked_to_come_back(server)
        assert is_let_in(server)
    assert is_asked_to_come_back(server)
    with run():
        assert is_let_in(server)
        with contextlib.closing(psycopg2.connect(url)) as database, database.cursor() as cursor:
            database.autocommit = True
            deadline = time.monotonic() + 20
            while True:
                cursor.execute('SELECT COUNT(*) FROM sockets_socket')
                if cursor.fetchone() == (0,):
                    break
                assert time.monotonic() < deadline, server.log
                time.sleep(0.2)
        server.stop(signal.SIGTERM)


@pytest.mark.parametrize('kind', SERVERS)
def test_a_locked_database_has_clients_come_back(site, kind):
    server = start(site, kind)
    assert is_let_in(server)
    with contextlib.closing(sqlite3.connect(site.database, timeout=20, isolation_level=None)) as database:
        database.execute('BEGIN IMMEDIATE')
        assert is_asked_to_come_back(server)
        database.execute('ROLLBACK')
    assert is_let_in(server)


@pytest.mark.parametrize('kind', SERVERS)
def test_a_store_of_sessions_that_is_away_has_clients_come_back(site, tmp_path, kind):
    port, cookie = programs.free_port(), 'Cookie: sessionid=abcdefghijklmnopqrstuvwxyz012345\r\n'
    server = start(site, kind, CACHE=f'redis://127.0.0.1:{port}/0')
    assert is_asked_to_come_back(server, cookie)
    with programs.redis_server(tmp_path, port):
        assert is_let_in(server, cookie=cookie)


@pytest.mark.parametrize('kind', SERVERS)
def test_who_has_left_while_its_connect_waited_is_not_let_in(site, kind):
    """Each of a thousand pages that were closed again, as a browser does after a few seconds, took its time all the same."""
    # Two threads have time for connects, and each takes a second.
    server = start(site, kind)
    request = HANDSHAKE.replace(b'/live/', b'/live/?connect=1')
    clients = [socket.create_connection(('127.0.0.1', server.port), timeout=20) for _ in range(8)]
    for client in clients:
        client.sendall(request)
    time.sleep(0.5)
    for client in clients[2:]:
        client.close()
    time.sleep(3)
    for client in clients[:2]:
        client.close()
    assert answer(server)[0] == 101
    time.sleep(1)
    assert server.log.count('OPENED') == 3
