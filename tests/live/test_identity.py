"""What is kept of a user between frames, in a real server with threads for frames and for pages."""

import asyncio
import urllib.request

from . import fleet
from .hall import LOG_IN


def test_frames_and_pages_of_one_process_lose_no_update_of_each_other(hall, redis):
    """Each reads what it adds to. A copy that is kept too long would take back what was saved in between."""

    async def scenario():
        redis.client().flushall()
        loop = asyncio.get_event_loop()
        server = hall.servers.runsockets()
        cookie = 'sessionid=' + (await loop.run_in_executor(None, hall.servers.python, LOG_IN)).split()[0]
        mine = await fleet.Connection.open(server.port, '/soak/', cookie=cookie)
        request = urllib.request.Request(f'http://127.0.0.1:{server.port}/score/', headers={'Cookie': cookie})

        def page():
            return urllib.request.urlopen(request, timeout=10).read().decode()

        for n in range(0, 1000, 4):
            for step in (1, 2, 3):
                assert await mine.ask({'type': 'SCORE'}) == {'type': 'SCORE', 'score': str(n + step)}
            assert await loop.run_in_executor(None, page) == str(n + 4)

    asyncio.run(scenario())
