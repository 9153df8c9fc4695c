"""Connections whose ends are found by others: rows first, then their functions, once, whoever is killed meanwhile."""

import asyncio
import collections
import signal
import time

import pytest

from . import fleet
from .hall import RUNSOCKETS

pytestmark = pytest.mark.timed

# What a disconnect function takes, in seconds.
TAKES = 0.03

COUNTS = pytest.mark.parametrize('count', [200, pytest.param(1000, marks=pytest.mark.long)])


async def open_slowly_ending(hall, count, server):
    """Return ``count`` connections to ``server`` whose disconnect functions take ``TAKES``."""
    found = await fleet.open_many(count, server.port, '/ending/')
    for connection in found:
        assert await connection.ask({'type': 'ECHO', 'ref': 1}) == {'type': 'ECHO', 'ref': 1}
    return found


def handled(hall):
    """Return how often the disconnect function of each connection has begun and returned."""
    counts = {'begin': collections.Counter(), 'ended': collections.Counter()}
    for what, name, *_ in hall.servers.notes():
        if what in counts:
            counts[what][name] += 1
    return counts


async def rows_at_ending_are(hall, count, seconds, since):
    while hall.sql("select count(*) from sockets_socket where path = '/ending/'")[0][0] != count:
        assert time.monotonic() - since < seconds
        await asyncio.sleep(0.02)
    return time.monotonic() - since


async def all_have_run(hall, count, seconds, since):
    while len(handled(hall)['ended']) < count:
        assert time.monotonic() - since < seconds, len(handled(hall)['ended'])
        await asyncio.sleep(0.1)
    return time.monotonic() - since


@COUNTS
def test_a_server_is_killed_whose_disconnect_functions_take_their_time(hall, count):
    async def scenario():
        victim, other = hall.servers.runsockets(), hall.servers.runsockets()
        bystanders = await hall.open(10, other)
        victims = await open_slowly_ending(hall, count, victim)
        since = hall.kill(victim)
        took = await rows_at_ending_are(hall, 0, 5, since)
        ran = await all_have_run(hall, count, 10, since)
        await asyncio.sleep(1)
        counts = handled(hall)
        assert len(counts['ended']) == count and set(counts['ended'].values()) == {1} == set(counts['begin'].values())
        assert hall.sql('select count(*) from sockets_ending')[0][0] == 0
        assert hall.sql('select count(*) from sockets_membership')[0][0] == 0
        await asyncio.gather(*(connection.receive() for connection in victims))
        await hall.came_true(
            f'SIGKILL to the server; the disconnect functions of {count} connections take 30 ms',
            RUNSOCKETS,
            bystanders + victims,
            f'what was under way in it; all functions have run after {ran:.1f} s',
            took,
        )

    asyncio.run(scenario())


@COUNTS
def test_the_process_that_runs_the_disconnect_functions_is_killed_as_well(hall, count):
    # 81 of 90 functions were lost, and the rooms stayed.
    async def scenario():
        victim, second, third = (hall.servers.runsockets() for _ in range(3))
        bystanders = await hall.open(10, third)
        victims = await open_slowly_ending(hall, count, victim)
        since = hall.kill(victim)
        took = await rows_at_ending_are(hall, 0, 5, since)
        while len(handled(hall)['ended']) < count // 10:
            await asyncio.sleep(0.01)
        hall.kill(second, signal.SIGKILL)
        before = len(handled(hall)['ended'])
        assert before < count
        # What it had claimed is free again when its lease ends.
        ran = await all_have_run(hall, count, 35, since)
        await asyncio.sleep(1)
        counts = handled(hall)
        assert len(counts['ended']) == count
        # Only what each of its threads was in the middle of.
        again = sum(number - 1 for number in counts['begin'].values())
        assert again <= 10
        assert hall.sql('select count(*) from sockets_ending')[0][0] == 0
        assert hall.sql('select count(*) from sockets_membership')[0][0] == 0
        await asyncio.gather(*(connection.receive() for connection in victims))
        await hall.came_true(
            f'the same with {count} connections, and SIGKILL to a process that runs the functions',
            RUNSOCKETS.replace('2', '3'),
            bystanders + victims,
            f'no function, and {again} begin again; all have run after {ran:.1f} s',
            took,
        )

    asyncio.run(scenario())
