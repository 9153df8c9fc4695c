"""Who may do what, and how often, where several processes have to agree."""

import asyncio
import time

import pytest

from sockets.conf import DEFAULTS

from . import fleet
from .hall import CLASSIC, LOG_IN, RUNSOCKETS, SESSION, start
from .stack import ON_CHANNELS_1

pytestmark = pytest.mark.timed

BOTH = pytest.mark.parametrize('shape', [RUNSOCKETS, CLASSIC])
MAY = (
    SESSION
    + """
from django.contrib.auth.models import Permission
user.user_permissions.{}(Permission.objects.get(codename='delete_socket'))
"""
)


def python(hall, program):
    return asyncio.get_event_loop().run_in_executor(None, hall.servers.python, program)


async def log_in(hall):
    """Return the cookie of alice's browser."""
    return 'sessionid=' + (await python(hall, LOG_IN)).split()[0]


@BOTH
def test_a_user_sends_as_many_frames_as_it_may_over_all_of_its_tabs(hall, redis, shape):
    async def scenario():
        # Of the test before.
        redis.client().flushall()
        servers = start(hall, shape)
        cookie = await log_in(hall)
        tabs = [
            await fleet.Connection.open(server.port, '/hall/', cookie=cookie)
            for server in servers
            for _ in range(6 // len(servers))
        ]
        began = time.monotonic()
        answers = []
        for n in range(8):
            answers += await asyncio.gather(*(tab.ask({'type': 'TEN', 'ref': n}) for tab in tabs))
        refused = [answer for answer in answers if answer['type'] == 'ERROR']
        # It was ten for each tab, and as often as there are workers. On Channels 4, each process counts for itself.
        allowed = 10 if ON_CHANNELS_1 else 10 * len(servers)
        assert len(answers) - len(refused) == allowed
        assert {answer['details'] for answer in refused} == {'At most 10/h per user.'}
        assert all(0 < answer['retry_after'] <= 360 for answer in refused)
        (stranger,) = await hall.open(1, servers[-1])
        assert (await stranger.ask({'type': 'TEN'}))['type'] == 'TEN'
        await hall.came_true(
            'a user sends 48 frames over 6 tabs where `10/h` per user are allowed',
            shape,
            [*tabs, stranger],
            f'{48 - allowed} of 48, as told',
            time.monotonic() - began,
        )

    asyncio.run(scenario())


@BOTH
def test_a_permission_counts_at_the_connect_and_from_the_next_frame_after_it_was_taken(hall, shape):
    async def scenario():
        servers = start(hall, shape)
        cookie = await log_in(hall)
        for cookies in ('', cookie):
            refused = await fleet.Connection.open(servers[0].port, '/staff/', cookie=cookies)
            assert (await refused.receive())['code'] == 'not_allowed'
            assert await refused.receive() == 4403
        await python(hall, MAY.format('add'))
        staff = [
            await fleet.Connection.open(server.port, '/staff/', cookie=cookie) for server in servers for _ in range(2)
        ]
        for connection in staff:
            assert await connection.ask({'type': 'ECHO', 'ref': 1}) == {'type': 'ECHO', 'ref': 1}
        await python(hall, MAY.format('remove'))
        began = time.monotonic()
        # So old may a user be that another process has changed.
        await asyncio.sleep(DEFAULTS['IDENTITY_MAX_AGE'])
        for connection in staff:
            assert (await connection.ask({'type': 'ECHO', 'ref': 2}))['code'] == 'not_allowed'
            assert await connection.receive() == 4403
        await hall.came_true(
            'a permission is taken from who is connected',
            shape,
            staff,
            'each with its next frame after a second: 4403',
            await hall.rows_are(0, 5, began),
        )

    asyncio.run(scenario())
