"""What a server holds after minutes of clients that come, go and are spoken to: nothing grows.

The long form is ten minutes on Channels 1 and three on each server of Channels 4, with 200 clients, a thousand connects and
100,000 pushes in a minute; ``SOCKETS_ENDURANCE=3600`` makes it an hour at the same pace.
"""

import asyncio
import contextlib
import json
import os
import random
import time
from urllib.request import urlopen

import psycopg2
import pytest
from django.apps import apps

from . import fleet
from .hall import ONE_CLASSIC, ONE_RUNSOCKETS
from .stack import ON_CHANNELS_1

pytestmark = pytest.mark.alone

# Bytes that an allocation site may be larger by without anybody calling it growth: what is under way differs.
NOISE = 100 * 1024
# Connects and pushes in a second, and clients: 10,000 and a million in ten minutes.
CONNECTS, PUSHES, CLIENTS = 10000 / 600, 1000000 / 600, 200
# Seconds that everybody is quiet before a look, so that no look sees what is only under way.
QUIET = 3

LONG = int(os.environ.get('SOCKETS_ENDURANCE', 600 if ON_CHANNELS_1 else 180))
FORMS = [
    pytest.param(36, (1 / 3, 2 / 3, 1), id='half a minute'),
    pytest.param(LONG, (0.1, 0.5, 1), id='minutes', marks=pytest.mark.long),
]
# Behind a daphne of Channels 1 are workers, which hold nothing for longer than a frame.
SERVERS = [ONE_RUNSOCKETS] if ON_CHANNELS_1 else [ONE_RUNSOCKETS, ONE_CLASSIC]
# The tables in which something may be left of who has gone.
TABLES = [model._meta.db_table for model in apps.get_app_config('sockets').get_models()]


class Crowd:
    """Clients that connect, listen for a while, and leave, and one that speaks to all of them."""

    def __init__(self, servers):
        self.ports = [server.port for server in servers]
        self.connects = self.received = self.handed_over = 0
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def come_and_go(self, number):
        chance = random.Random(number)
        while True:
            await self.may_go_on.wait()
            connection = await fleet.Connection.open(self.ports[number % len(self.ports)], '/crowd/')
            self.connects += 1
            leaves_at = time.monotonic() + chance.uniform(0.5, 1.5) * CLIENTS / CONNECTS
            while time.monotonic() < leaves_at:
                with contextlib.suppress(asyncio.TimeoutError):
                    frame = await connection.receive(min(1, max(0.01, leaves_at - time.monotonic())))
                    assert not isinstance(frame, int), f'closed with {frame}'
                    self.received += 1
                    continue
                # Nobody leaves while nobody speaks.
                leaves_at += await self.pause()
            await connection.close()

    async def pause(self):
        """Wait until all may go on; return the seconds that took."""
        began = time.monotonic()
        await self.may_go_on.wait()
        return time.monotonic() - began

    async def speak(self):
        speaker = await fleet.Connection.open(self.ports[0], '/crowd/')
        n, begin = 0, time.monotonic()
        while True:
            begin += await self.pause()
            speaker.send(
                {'type': 'SHOUT', 'content': {'type': 'NEWS', 'n': n, 'text': 'x' * random.randrange(500)}, 'ref': n}
            )
            while True:
                frame = await speaker.receive()
                if frame['type'] == 'HEARD':
                    self.handed_over += frame['by']
                    break
            n += 1
            await asyncio.sleep(max(0, begin + n * CLIENTS / PUSHES - time.monotonic()))


@pytest.mark.parametrize('server', SERVERS)
@pytest.mark.parametrize('seconds, looks', FORMS)
def test_nothing_grows_while_clients_come_and_go(tmp_path, redis, database_url, server, seconds, looks, capsys):
    servers = fleet.Fleet(tmp_path, database_url, redis, LAYER='core' if server == ONE_RUNSOCKETS else 'pubsub')
    servers.environment['DJANGO_SETTINGS_MODULE'] = 'tests.live.endurance_site'
    start = servers.runsockets if server == ONE_RUNSOCKETS else servers.daphne
    plain = start()
    # A look at the allocations is an allocation itself: the size is that of the other one.
    servers.environment['TRACED'] = '1'
    traced = start()
    database = psycopg2.connect(database_url)
    database.autocommit = True

    def holdings(server):
        with urlopen(f'http://127.0.0.1:{server.port}/holdings/', timeout=60) as answer:
            return json.loads(answer.read().decode())

    def look():
        found, sites = holdings(plain), holdings(traced)
        found['sites'] = sites['sites']
        cursor = database.cursor()
        cursor.execute(
            "select count(*) from pg_stat_activity where pid != pg_backend_pid() and backend_type = 'client backend'"
        )
        found['database connections'] = cursor.fetchone()[0]
        cursor.execute('select ' + ' + '.join(f'(select count(*) from {table})' for table in TABLES))
        return dict(found, **{'rows': cursor.fetchone()[0], 'Redis keys': redis.client().dbsize()})

    async def scenario():
        loop = asyncio.get_event_loop()
        crowd = Crowd([plain, traced])
        running = [asyncio.ensure_future(crowd.come_and_go(number)) for number in range(CLIENTS)]
        running.append(asyncio.ensure_future(crowd.speak()))
        begin, found = time.monotonic(), []
        for at in [share * seconds for share in looks]:
            while time.monotonic() < begin + at:
                await asyncio.sleep(0.2)
                for task in running:
                    assert not task.done(), task.exception()
            crowd.may_go_on.clear()
            await asyncio.sleep(QUIET)
            found.append(dict(await loop.run_in_executor(None, look), seconds=at))
            crowd.may_go_on.set()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        return crowd, found

    try:
        crowd, (first, middle, last) = asyncio.run(scenario())
    finally:
        database.close()
        servers.stop()
    names = [name for name in first if name != 'sites']
    slope = (last['resident kB'] - middle['resident kB']) / 1024 / ((last['seconds'] - middle['seconds']) / 60)
    grown = sorted(((last['sites'][site] - middle['sites'].get(site, 0), site) for site in last['sites']), reverse=True)
    with capsys.disabled():
        print('\n{:24}'.format('') + ''.join(f'{name:>12}' for name in ('first', 'middle', 'last')))
        for name in names:
            print(f'{name:24}' + ''.join(f'{look[name]:>12.0f}' for look in (first, middle, last)))
        print(
            f'{crowd.connects} connects, {crowd.handed_over} pushes handed over, {crowd.received} heard; {slope:.2f} MB a minute from the middle to the end'
        )
        for size, site in grown[:5]:
            print(f'{size:>+12} bytes since the middle at {site}')
    for name in ('threads', 'files', 'Redis keys', 'database connections', 'rows'):
        # What is made when it is first needed is no growth, nor is a client that was just away at one look.
        assert last[name] <= middle[name] + 5, name
    assert crowd.connects > 0.5 * CONNECTS * seconds
    # What a client that is about to leave does not hear any more is no loss. A busy machine does less.
    assert crowd.handed_over > 0.25 * PUSHES * seconds and crowd.received > 0.8 * crowd.handed_over
    if seconds >= 180:
        assert [entry for entry in grown if entry[0] > NOISE] == []
        assert slope < 1
