"""A server on a layer in memory, and somebody who would speak to its connections from another process."""

import asyncio
import subprocess

import pytest

from .. import servers as programs
from . import fleet
from .stack import ON_CHANNELS_1

# What is recommended.
LAYER = 'sockets.layers.RedisChannelLayer' if ON_CHANNELS_1 else 'channels_redis.pubsub.RedisPubSubChannelLayer'


@pytest.fixture
def alone(tmp_path, database_url):
    running = fleet.Fleet(tmp_path, database_url)
    yield running
    running.stop()


def run(alone, *args):
    """Return the exit code of a command and what it printed."""
    process = subprocess.run(
        programs.python_module('django', *args),
        cwd=str(programs.ROOT),
        env=programs.environment(**alone.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )
    return process.returncode, process.stdout.decode()


def test_another_process_says_that_it_reaches_nobody_and_the_server_reaches_everybody(alone):
    async def scenario():
        loop = asyncio.get_event_loop()
        server = alone.runsockets()
        connections = await fleet.open_many(2, server.port)
        shout = {'type': 'SHOUT', 'content': {'type': 'NEWS'}}
        assert [await connections[0].ask(shout), await connections[0].receive(), await connections[1].receive()] == [
            {'type': 'NEWS'},
            {'type': 'HEARD', 'by': 2},
            {'type': 'NEWS'},
        ]
        # It said "Handed to 2 connections."
        for args in (['send', '{"type": "NEWS"}'], ['close']):
            code, said = await loop.run_in_executor(None, run, alone, 'sockets', *args, '--all')
            assert code == 1 and LAYER in said and 'Traceback' not in said
        code, said = await loop.run_in_executor(
            None,
            run,
            alone,
            'shell',
            '-c',
            'from sockets.models import Socket; Socket.objects.update(last_ping='
            '"2020-01-01T00:00Z"); print(Socket.objects.send_action("A"), Socket.objects.send_action("B"))',
        )
        assert code == 0 and said.splitlines()[-1] == '0 0' and said.count('2 of 2 connections get nothing') == 1
        # Nor are they taken for silent, whom nobody has asked.
        assert (await loop.run_in_executor(None, run, alone, 'sockets', 'purge')) == (0, 'Removed 0 rows.\n')
        assert int(alone.python('print(Socket.objects.filter(active=True).count())')) == 2
        for connection in connections:
            assert await connection.ask({'type': 'ECHO'}) in ({'type': 'ECHO'}, {'type': 'PING'})

    asyncio.run(scenario())
