"""Servers that die, are stopped, or lose their database, on Channels 4: real processes of uvicorn."""

import asyncio
import contextlib
import signal
import sys
import time

import pytest

from ... import servers
from ..fleet import open_many

pytest.importorskip('channels', minversion='4')

CLIENTS = 20

# Seconds within which a server is found dead, and those in which its rows go and the functions of its connections run.
FOUND_WITHIN = 5
HANDLED_WITHIN = 1


class Site:
    """Processes of ``presence_site`` on one database."""

    def __init__(self, directory, database_url):
        self.directory = directory
        self.notes = directory / 'notes'
        self.notes.mkdir()
        self.environment = {
            'DJANGO_SETTINGS_MODULE': 'tests.live.channels4.presence_site',
            'DATABASE_URL': database_url,
            'NOTES': str(self.notes),
        }
        self.programs = []
        self.manage('migrate', '--verbosity', '0')

    def manage(self, *args):
        return servers.run_python('-m', 'django', *args, env=self.environment)

    def start(self):
        """Start a server and return it, with its ``port``."""
        port = servers.free_port()
        log = self.directory / f'uvicorn-{len(self.programs)}.log'
        program = servers.Program(
            [
                sys.executable,
                *('-m', 'uvicorn', '--port', str(port), '--log-level', 'warning'),
                'tests.live.channels4.presence_site:application',
            ],
            log,
            self.environment,
        )
        self.programs.append(program)
        program.port = port
        servers.wait_for_port(port, program.process, log)
        return program

    def ask(self, program):
        """Return what ``program`` prints in a shell of the site."""
        return self.manage('shell', '-c', 'from sockets.models import *; ' + program).splitlines()[-1]

    def ended(self):
        """Return the connections whose disconnect functions have run, and when."""
        lines = [line.split() for path in self.notes.iterdir() for line in path.read_text().splitlines()]
        return [(words[1], float(words[2])) for words in lines if words[0] == 'ended']

    def stop(self):
        for program in self.programs:
            with contextlib.suppress(ProcessLookupError):
                program.process.send_signal(signal.SIGCONT)
            program.stop(signal.SIGKILL)


@pytest.fixture(params=['postgres', 'sqlite'])
def site(request, tmp_path):
    with contextlib.ExitStack() as stack:
        if request.param == 'postgres':
            url = stack.enter_context(servers.postgres_server())
        else:
            url = f'sqlite:///{tmp_path}/db.sqlite3'
        site = Site(tmp_path, url)
        stack.callback(site.stop)
        yield site


async def names_of(connections):
    return [(await connection.ask({'type': 'NAME'}))['name'] for connection in connections]


async def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f'not within {seconds} s'
        await asyncio.sleep(0.05)


def test_the_rows_of_a_killed_server_go_and_its_functions_run_once(site):
    async def run():
        one, two = site.start(), site.start()
        here, there = await open_many(CLIENTS, one.port), await open_many(CLIENTS, two.port)
        alive, dead = await names_of(here), await names_of(there)
        two.process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        await wait_until(lambda: len(site.ended()) >= CLIENTS, FOUND_WITHIN + HANDLED_WITHIN)
        print('after', round(max(at for _, at in site.ended()) - killed, 2), 's')
        assert site.ask("print(sorted(Socket.objects.values_list('channel_name', flat=True)))") == str(sorted(alive))
        assert site.ask('print(Server.objects.count())') == '1'
        # Nobody runs them again.
        await asyncio.sleep(2)
        assert sorted(name for name, _ in site.ended()) == sorted(dead)
        assert await names_of(here) == alive

    asyncio.run(run())


def test_a_server_that_is_stopped_and_wakes_closes_its_clients_and_serves_again(site):
    async def run():
        one, two = site.start(), site.start()
        here, there = await open_many(CLIENTS, one.port), await open_many(CLIENTS, two.port)
        alive, dead = await names_of(here), await names_of(there)
        two.process.send_signal(signal.SIGSTOP)
        for connection in there:
            # It waits there when the server wakes.
            connection.send({'type': 'NAME'})
        await asyncio.sleep(8)
        assert sorted(name for name, _ in site.ended()) == sorted(dead)
        before = sum(path.read_text().count('handled') for path in site.notes.iterdir())
        two.process.send_signal(signal.SIGCONT)
        for connection in there:
            assert (await connection.receive())['type'] == 'RECONNECT'
            assert await connection.receive() == 1012
        assert sum(path.read_text().count('handled') for path in site.notes.iterdir()) == before
        new = await open_many(CLIENTS, two.port)
        again = await names_of(new)
        await asyncio.sleep(FOUND_WITHIN + HANDLED_WITHIN)
        rows = site.ask("print(sorted(Socket.objects.values_list('channel_name', flat=True)))")
        assert rows == str(sorted(alive + again))
        assert len(site.ended()) == CLIENTS and await names_of(here) == alive and await names_of(new) == again

    asyncio.run(run())


def test_nobody_is_found_dead_while_the_database_is_away(tmp_path):
    async def run():
        with servers.postgres_cluster() as (url, start):
            with start():
                site = Site(tmp_path, url)
                one, two = site.start(), site.start()
                here = [*await open_many(CLIENTS, one.port), *await open_many(CLIENTS, two.port)]
                names = await names_of(here)
                await asyncio.sleep(2)
            try:
                await asyncio.sleep(6)
                with start():
                    await asyncio.sleep(FOUND_WITHIN + 3)
                    assert await names_of(here) == names and site.ended() == []
                    assert site.ask('print(Socket.objects.count(), Server.objects.exclude(beats=None).count())') == (
                        f'{2 * CLIENTS} 2'
                    )
            finally:
                site.stop()

    asyncio.run(run())


def test_the_async_orm_works_again_when_the_database_is_back(tmp_path):
    """Nobody closed the connection of Django's one thread for it: each query failed until the server was started anew."""

    async def run():
        with servers.postgres_cluster() as (url, start):
            with start():
                site = Site(tmp_path, url)
                one = site.start()
                (here,) = await open_many(1, one.port)
                assert await here.ask({'type': 'COUNT'}) == {'type': 'COUNTED', 'n': 1}
            try:
                assert (await here.ask({'type': 'COUNT'}))['code'] == 'server_error'
                with start():
                    await asyncio.sleep(2)
                    assert await here.ask({'type': 'COUNT'}) == {'type': 'COUNTED', 'n': 1}
            finally:
                site.stop()

    asyncio.run(run())


def test_a_server_that_ends_in_good_order_leaves_nothing(site):
    async def run():
        one = site.start()
        there = await open_many(CLIENTS, one.port)
        dead = await names_of(there)
        one.process.send_signal(signal.SIGTERM)
        for connection in there:
            assert await connection.receive() == 1012
        await asyncio.get_running_loop().run_in_executor(None, one.process.wait, 10)
        assert sorted(name for name, _ in site.ended()) == sorted(dead)
        assert site.ask('print(Socket.objects.count(), Server.objects.count())') == '0 0'

    asyncio.run(run())


def test_a_purge_by_hand_finds_the_dead_where_nobody_else_is(site):
    async def run():
        one = site.start()
        there = await open_many(CLIENTS, one.port)
        await names_of(there)
        one.process.send_signal(signal.SIGKILL)
        assert len(there) == CLIENTS and f'Removed {CLIENTS} rows.' in site.manage('sockets', 'purge')
        assert site.ask('print(Socket.objects.count(), Server.objects.count())') == '0 0'

    asyncio.run(run())


def test_an_idle_process_asks_at_most_three_queries_a_second(tmp_path):
    async def run():
        with servers.postgres_cluster() as (url, start), start() as postgres:
            site = Site(tmp_path, url)
            try:
                site.ask(
                    'from django.db import connection; cursor = connection.cursor(); '
                    """cursor.execute("alter system set log_statement = 'all'"); """
                    "cursor.execute('select pg_reload_conf()'); print()"
                )
                one = site.start()
                here = await open_many(CLIENTS, one.port)
                names = await names_of(here)
                await asyncio.sleep(3)
                before, began = postgres.log.count('LOG:  '), time.monotonic()
                await asyncio.sleep(32)
                per_second = (postgres.log.count('LOG:  ') - before) / (time.monotonic() - began)
                print(round(per_second, 2), 'queries a second')
                assert 2 < per_second <= 3 and await names_of(here) == names
            finally:
                site.stop()

    asyncio.run(run())
