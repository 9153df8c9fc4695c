"""uvicorn, daphne 4, runserver and runsockets: what each does with clients that are slow, gone or many, and how it stops."""

import asyncio
import signal
import time

import pytest
from websockets.exceptions import WebSocketException

from .conftest import Client, eventually

SERVERS = ['uvicorn', 'daphne', 'runsockets']


@pytest.mark.parametrize('kind', SERVERS)
def test_sigterm_lets_functions_finish_answers_and_leaves_no_row(site, kind):
    async def scenario():
        server = site.start(kind)
        clients = [await Client.open(server) for _ in range(6)]
        await clients[0].send({'type': 'SLEEP', 'seconds': 1, 'n': 0})
        await clients[1].send({'type': 'SLEEP_ASYNC', 'seconds': 1, 'n': 1})
        # What has come in behind a frame is handled, too.
        await clients[0].send({'type': 'SLEEP', 'seconds': 0.2, 'n': 2})
        await asyncio.sleep(0.3)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        with pytest.raises((OSError, WebSocketException)):
            await Client.open(server)
        assert (await clients[0].receive())['n'] == 0 and (await clients[0].receive())['n'] == 2
        assert (await clients[1].receive())['n'] == 1
        assert [await client.closed() for client in clients] == [1012] * 6
        await eventually(lambda: not server.is_running)
        assert time.monotonic() - began < 5
        assert site.rows() == 0 and server.log.count('LEFT') == 6 and 'Traceback' not in server.log
        assert server.log.count('LEFT') == server.log.count(' 1012\n')

    asyncio.run(scenario())
