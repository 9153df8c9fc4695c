"""``socket.session`` in real processes: the table in docs/how-to/handlers.md, of engines that two processes share."""

import asyncio

import pytest

from . import fleet
from .hall import CLASSIC, RUNSOCKETS, start
from .stack import ON_CHANNELS_1

PAGE = """
from importlib import import_module
from django.conf import settings
session = import_module(settings.SESSION_ENGINE).SessionStore({!r})
{}
session.save()
print(session.session_key)
"""


def page(hall, key, program):
    """Do what a page of another process does with the session ``key``; return its key."""
    return asyncio.get_event_loop().run_in_executor(
        None, lambda: hall.servers.python(PAGE.format(key, program)).split()[-1]
    )


@pytest.mark.parametrize('shape', [RUNSOCKETS, CLASSIC])
@pytest.mark.parametrize('engine', ['db', 'file', 'signed_cookies'])
def test_a_session_counts_what_frames_and_pages_do_with_it(hall, redis, shape, engine, tmp_path):
    async def scenario():
        redis.client().flushall()
        hall.servers.environment.update(
            SESSION_ENGINE='django.contrib.sessions.backends.' + engine, TMPDIR=str(tmp_path)
        )
        server = start(hall, shape)[0]
        key = await page(hall, None, "session['page'] = 1")
        mine = await fleet.Connection.open(server.port, '/soak/', cookie='sessionid=' + key)
        stranger = await fleet.Connection.open(server.port, '/soak/')
        keys = await mine.ask({'type': 'KEYS'})
        if engine != 'db' and shape == CLASSIC and ON_CHANNELS_1:
            # The session is a file or a cookie of another process.
            assert keys['code'] == 'server_error'
            assert 'Use runsockets, or the engine' in ''.join(program.log for program in hall.servers.programs)
            assert (await stranger.ask({'type': 'COUNT'}))['code'] == 'server_error'
            return
        assert keys == {'type': 'KEYS', 'keys': ['page']}
        assert (await stranger.ask({'type': 'KEYS'})) == {'type': 'KEYS', 'keys': []}
        assert (await stranger.ask({'type': 'COUNT', 'ref': 1}))['code'] == 'server_error'
        if engine == 'signed_cookies':
            assert (await mine.ask({'type': 'COUNT', 'ref': 1}))['code'] == 'server_error'
            return
        assert await mine.ask({'type': 'COUNT'}) == {'type': 'COUNT', 'n': 1}
        await page(hall, key, "session['n'] += 10; session['other'] = 1")
        assert await mine.ask({'type': 'COUNT'}) == {'type': 'COUNT', 'n': 12}
        assert await mine.ask({'type': 'KEYS'}) == {'type': 'KEYS', 'keys': ['n', 'other', 'page']}

    asyncio.run(scenario())


def test_frames_of_two_servers_and_of_one_user_merge_what_they_write(hall, redis):
    """The row of the session is locked: two that add keys of their own lose none."""

    async def scenario():
        redis.client().flushall()
        servers = start(hall, RUNSOCKETS)
        key = await page(hall, None, "session['page'] = 1")
        tabs = [
            await fleet.Connection.open(server.port, '/soak/', cookie='sessionid=' + key)
            for server in servers
            for _ in range(2)
        ]
        names = [[f'tab{number}-{n}' for n in range(50)] for number in range(len(tabs))]

        async def fill(tab, names):
            for name in names:
                assert (await tab.ask({'type': 'SET', 'name': name, 'ref': name}))['type'] == 'ACK'

        await asyncio.gather(*map(fill, tabs, names))
        keys = (await tabs[0].ask({'type': 'KEYS'}))['keys']
        assert keys == sorted(['page', *(name for part in names for name in part)])

    asyncio.run(scenario())
