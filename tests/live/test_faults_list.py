"""What an operator sees of a server that is no more."""

import asyncio
import json
import signal

import pytest

from .hall import CLASSIC, RUNSOCKETS, start

pytestmark = pytest.mark.timed


@pytest.mark.parametrize('shape', [RUNSOCKETS, pytest.param(CLASSIC, marks=pytest.mark.long)])
def test_messages_that_wait_for_a_dead_server_are_not_listed(hall, redis, shape):
    async def scenario():
        loop = asyncio.get_event_loop()
        server, *others = start(hall, shape)
        connections = await hall.open(5, server)
        bystanders = [connection for other in others for connection in await hall.open(5, other)]

        async def waiting():
            listed = json.loads(await loop.run_in_executor(None, hall.servers.manage, 'sockets', '--json'))
            return {channel: count for channel, count in listed['layer']['waiting'].items() if channel.endswith('!')}

        prefix = hall.sql("select server from sockets_socket where path = '/hall/' order by id limit 1")[0][0]
        # At once: a server that is silent for seconds is found dead, and nothing is sent to it. The first message is handed
        # to it by Redis, as it waits for one.
        await loop.run_in_executor(
            None,
            hall.servers.python,
            (
                'import os; os.kill({}, {}){}'.format(
                    server.process.pid, int(signal.SIGSTOP), "; Socket.objects.send_action('NEWS')" * 3
                )
            ),
        )
        since = hall.kill(server)
        took = await hall.rows_are(len(bystanders), 18, since)
        # They are kept for a while: it might have been a network that was away.
        assert [key for key in redis.client().keys('*queue:*') if key.decode().endswith(prefix)]
        assert await waiting() == {}
        assert await asyncio.gather(*(connection.receive() for connection in connections)) == [1006] * 5
        for connection in bystanders:
            assert [(await connection.receive())['type'] for _ in range(3)] == ['NEWS'] * 3
        await hall.came_true(
            'SIGKILL to a server for which messages wait', shape, connections + bystanders, 'what waited', took
        )

    asyncio.run(scenario())
