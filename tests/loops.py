"""An event loop with a ``Server`` of Channels 4, for unit tests of what runs on it."""

import asyncio

from sockets.engines.channels4 import server


def run(coroutine):
    """Run ``coroutine``, a function of a ``Server``, on an event loop that has one."""

    async def with_server():
        found = server.server()
        try:
            return await asyncio.wait_for(coroutine(found), 5)
        finally:
            found.pool.stop()

    return asyncio.run(with_server())
