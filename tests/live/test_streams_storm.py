"""All clients of a stream come back at once, and one that has missed more than any buffer holds: what it costs, and that
nothing is missing.
"""

import asyncio
import signal
import time

import pytest

from .. import servers as programs
from . import fleet
from .stream_follower import Follower

pytestmark = pytest.mark.timed

NAME = 'stream5'
# For manage.py shell, in which a comprehension does not see what was imported.
SEND = """
from sockets.streams import Stream
for n in range({2}):
    Stream({0!r}).send_action('SAID', id=str(n), filler='x' * {1})
"""


class Site:
    """One server of ``streams_site``, and what writes when it is away."""

    def __init__(self, directory, database_url, redis=None):
        self.fleet = fleet.Fleet(directory, database_url, redis, COUNT='1')
        self.fleet.environment['DJANGO_SETTINGS_MODULE'] = 'tests.live.streams_site'
        self.port = programs.free_port()
        self.start()

    def start(self):
        self.server = self.fleet.start('server', '-m', 'django', 'runsockets', f'127.0.0.1:{self.port}', port=self.port)

    def send(self, count, size):
        self.fleet.python(SEND.format(NAME, size, count))

    def queries(self, since):
        """Return how many queries read heads, and how many messages, since then."""
        tables = [words[1] for words in self.fleet.notes() if words[0] == 'query' and words[-1] >= since]
        return tables.count('streamhead'), tables.count('streammessage')


@pytest.fixture
def make_site(tmp_path, database_url):
    sites = []

    def make(redis=None):
        sites.append(Site(tmp_path, database_url, redis))
        return sites[-1]

    yield make
    for site in sites:
        site.fleet.stop()


async def until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f'not within {seconds} s'
        await asyncio.sleep(0.1)


async def stay(site, client):
    """Have ``client`` be connected, and come back whenever its connection ends."""
    await asyncio.sleep(client.dice.random() * 2)
    while True:
        try:
            await client.stay(site.port, lambda: False)
        except (fleet.Refused, OSError, asyncio.TimeoutError):
            pass
        for following in client.streams.values():
            following.is_greeted = False
        await asyncio.sleep(0.3 + client.dice.random() * 0.5)


async def storm(site, count):
    """Have the server die under so many clients, twice: they miss nothing, and then 50 messages."""
    loop = asyncio.get_event_loop()
    await loop.run_in_executor(None, site.send, 3, 100)
    clients = [Follower(n, [NAME]) for n in range(count)]
    tasks = [asyncio.ensure_future(stay(site, client)) for client in clients]
    streams = [client.streams[NAME] for client in clients]
    found = []
    try:
        await until(lambda: all(stream.is_greeted for stream in streams), 60)
        for missed in (0, 50):
            site.server.stop(signal.SIGKILL)
            if missed:
                await loop.run_in_executor(None, site.send, missed, 100)
            start = time.monotonic()
            await loop.run_in_executor(None, site.start)
            await until(lambda: all(each.is_greeted and each.offset == 3 + missed for each in streams), 60)
            seconds = time.monotonic() - start
            await asyncio.sleep(0.5)
            found.append((seconds, *site.queries(start)))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert not any(client.errors for client in clients) and not any(stream.lost for stream in streams)
    assert all([offset for _, offset, _ in stream.given] == list(range(4, 54)) for stream in streams)
    return found


def show_a_storm(site, count):
    (calm, calm_heads, calm_messages), (busy, busy_heads, busy_messages) = asyncio.run(storm(site, count))
    print(
        f'\n{count} clients are back after {calm:.1f} s: {calm_heads} queries for where the stream stands, {calm_messages} '
        f'for messages; with 50 messages missed after {busy:.1f} s: {busy_heads} and {busy_messages}'
    )
    # One a second.
    assert 0 < calm_heads <= calm + 2 and not calm_messages
    # Those that are told together ask together.
    assert 0 < busy_messages <= 2 * (busy + 2)
    assert busy_heads <= 2 * (busy + 2)


def test_a_storm_costs_a_query_a_second_and_a_handful_of_replays(make_site):
    show_a_storm(make_site(), 300)


@pytest.mark.long
def test_a_storm_of_a_thousand_costs_no_more(make_site):
    show_a_storm(make_site(), 1000)


@pytest.mark.parametrize('has_redis', [False, True])
def test_who_has_missed_300_messages_of_a_megabyte_gets_them_part_by_part(make_site, request, has_redis):
    site = make_site(request.getfixturevalue('redis') if has_redis else None)
    client = Follower(1, [NAME])
    stream = client.streams[NAME]

    async def come_back():
        site.send(300, 1024 * 1024)
        begun = time.monotonic()
        stream.begin('', 0)
        task = asyncio.ensure_future(stay(site, client))
        await until(lambda: stream.offset == 300, 100)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return time.monotonic() - begun

    seconds = asyncio.run(come_back())
    print(f'\n300 MiB in {client.counts["resumed"]} parts, in {seconds:.1f} s')
    assert [(offset, content['id']) for _, offset, content in stream.given] == [(n + 1, str(n)) for n in range(300)]
    assert client.counts['connects'] == 1 and not stream.lost and not client.errors
    assert client.counts['resumed'] == 300
