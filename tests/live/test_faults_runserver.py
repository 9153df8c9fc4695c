"""``runserver``: what its rows say after it has loaded the code anew, and after it was killed."""

import asyncio
import os
import signal
import time

import pytest

from .. import servers as programs
from . import fleet
from .hall import Hall
from .stack import ON_CHANNELS_1

pytestmark = pytest.mark.timed

# What runserver prints each time.
STARTS = 'Starting Channels development server' if ON_CHANNELS_1 else 'Starting ASGI/Daphne version'
SITE = '"""A module that is touched, as by an editor."""\nfrom tests.live.soak_site import *  # noqa: F401,F403\n'
if not ON_CHANNELS_1:
    # Whose runserver has websockets there.
    SITE += "INSTALLED_APPS = ['daphne', 'django.contrib.staticfiles', *INSTALLED_APPS]\n"


class Developer(fleet.Fleet):
    """A site on a developer's machine, whose settings are a file that may be touched."""

    def __init__(self, directory, database_url, **environment):
        self.settings = directory / 'touched_site.py'
        self.settings.write_text(SITE)
        super().__init__(directory, database_url, **environment)
        self.environment.update(DJANGO_SETTINGS_MODULE='touched_site', PYTHONPATH=str(directory))

    def runserver(self, *args, port=None):
        port = port or programs.free_port()
        # A group of its own: the process that watches, and the one that it starts anew.
        program = self.start(
            'runserver', '-m', 'django', 'runserver', f'127.0.0.1:{port}', *args, port=port, start_new_session=True
        )
        return program

    def save(self, seconds=40):
        """Touch a file until the server loads the code anew, which has to have seen it once before."""
        program = self.programs[-1]
        starts = program.log.count(STARTS)
        now = time.time() + 1000 * starts
        deadline = time.monotonic() + seconds
        while program.log.count(STARTS) == starts:
            assert time.monotonic() < deadline, program.log
            now += 1
            os.utime(str(self.settings), (now, now))
            # It looks once a second.
            for _ in range(30):
                if program.log.count(STARTS) == starts:
                    time.sleep(0.1)
        programs.wait_for_port(program.port, program.process, program.log_path)

    def kill(self, program):
        os.killpg(program.process.pid, signal.SIGKILL)
        program.process.wait()

    def doctor(self):
        """Return what the doctor says about the servers."""
        try:
            text = self.manage('sockets', 'doctor')
        except Exception as error:
            text = error.output.decode()
        return '\n'.join(line for line in text.splitlines() if line.split()[1:2] == ['server'])

    def stop(self):
        for program in self.programs:
            if program.is_running:
                self.kill(program)


@pytest.fixture
def hall(tmp_path, report):
    url = f'sqlite://{tmp_path}/db.sqlite3'
    servers = Developer(tmp_path, url)
    yield Hall(servers, url, report)
    servers.stop()


async def rows_stay(hall, count, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert hall.rows() == count
        await asyncio.sleep(0.2)


@pytest.mark.parametrize('saves', [1, pytest.param(3, marks=pytest.mark.long)])
def test_a_file_is_saved_under_runserver(hall, saves):
    # Rows of the process before stayed: 2, 4, 6 for two clients.
    async def scenario():
        server = hall.servers.runserver()
        connections = await hall.open(2, server)
        for _ in range(saves):
            hall.servers.save()
            codes = await asyncio.gather(*(connection.receive() for connection in connections))
            assert codes == [1006 if ON_CHANNELS_1 else 1012] * 2
            connections = await hall.open(2, server)
            took = await hall.rows_are(2, 10)
        await rows_stay(hall, 2, 3)
        assert 'BAD' not in hall.servers.doctor()
        fault = 'A file is saved, and the code loaded anew' + ', three times' * (saves > 1)
        await hall.came_true(fault, '`runserver`', connections, 'what was under way in it', took)

    asyncio.run(scenario())


def test_runserver_is_killed_and_started_again_and_nobody_connects(hall):
    async def scenario():
        server = hall.servers.runserver()
        connections = await hall.open(2, server)
        hall.kill(server)
        hall.servers.kill(server)
        assert await asyncio.gather(*(connection.receive() for connection in connections)) == [1006] * 2
        assert hall.rows() == 2
        lines = hall.servers.doctor()
        assert '\nBAD' in lines and '2 rows' in lines and 'sockets purge' in lines
        hall.servers.runserver('--noreload')
        took = await hall.rows_are(0, 10)
        await hall.came_true(
            'SIGKILL, and it is started again',
            '`runserver`, to which nobody connects',
            connections,
            'what was under way in it',
            took,
        )

    asyncio.run(scenario())


def test_a_purge_finds_the_rows_of_a_runserver_that_was_killed(hall):
    async def scenario():
        server = hall.servers.runserver('--noreload')
        await hall.open(2, server)
        # A server that lives keeps what it has, whoever purges, and however silent its clients are.
        hall.database.execute("update sockets_socket set last_ping = '2020-01-01 00:00:00', active = 0")
        assert hall.servers.manage('sockets', 'purge') == 'Removed 0 rows.\n'
        hall.kill(server)
        hall.servers.kill(server)
        assert hall.servers.manage('sockets', 'purge') == 'Removed 2 rows.\n'
        assert hall.rows() == 0
        assert 'BAD' not in hall.servers.doctor()

    asyncio.run(scenario())
