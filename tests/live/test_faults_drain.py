"""What becomes of a connection when its server is told to stop, in whatever state it is."""

import asyncio
import signal
import time

import pytest

from . import fleet
from .hall import IN_MEMORY, ONE_CLASSIC, ONE_RUNSOCKETS
from .stack import ON_CHANNELS_1

pytestmark = pytest.mark.timed

SERVER, MEMORY, PAIR = ONE_RUNSOCKETS, IN_MEMORY, 'daphne, `runworker --threads 40`' if ON_CHANNELS_1 else ONE_CLASSIC


def start(hall, shape):
    if shape == MEMORY:
        hall.servers.environment['REDIS_URL'] = ''
    if shape != PAIR:
        return hall.servers.runsockets('--threads', '40')
    if not ON_CHANNELS_1:
        return hall.servers.daphne(environment={'LAYER': 'pubsub', 'THREADS': '40'})
    server = hall.servers.daphne()
    hall.servers.worker('--threads', '40')
    return server


# States. Nobody in them answers a close.


def rest(connection, n):
    connection.writer.transport.pause_reading()


def say_too_much(connection, n):
    """Be told 1009."""
    connection.writer.transport.pause_reading()
    connection.writer.write(b'\x81\xff' + (1 << 40).to_bytes(8, 'big') + bytes(4))


def speak_no_more(connection, n):
    """Be in the middle of a frame."""
    connection.writer.write(b'\x81\x85' + bytes(5))


def read_no_more(connection, n):
    connection.writer.transport.pause_reading()
    for _ in range(30):
        connection.send({'type': 'ECHO', 'text': 'x' * 60000})


def close_and_read_no_more(connection, n):
    read_no_more(connection, n)
    connection._write(0x88, (1000).to_bytes(2, 'big'))


def work(connection, n):
    """Have a function run that returns shortly before the end."""
    connection.writer.transport.pause_reading()
    connection.send({'type': 'WORK', 'connection': n, 'n': 0, 'seconds': 8.5, 'ref': 0})


def work_and_speak_no_more(connection, n):
    work(connection, n)
    speak_no_more(connection, n)


STATES = [rest, say_too_much, speak_no_more, read_no_more, close_and_read_no_more, work, work_and_speak_no_more]


@pytest.mark.parametrize(
    'shape', [pytest.param(SERVER, marks=pytest.mark.long), MEMORY, pytest.param(PAIR, marks=pytest.mark.long)]
)
def test_a_server_that_stops_leaves_no_row_of_those_who_answer_no_close(hall, shape):
    async def scenario():
        server = start(hall, shape)
        connections = await hall.open(5 * len(STATES), server)
        for n, connection in enumerate(connections):
            STATES[n % len(STATES)](connection, n)
        await fleet.eventually(lambda: len([words for words in hall.servers.notes() if words[0] == 'start']) == 10)
        # They have been told, too.
        await asyncio.sleep(0.5)
        since = hall.kill(server, signal.SIGTERM)
        await fleet.eventually(lambda: not server.is_running, 13)
        took = time.monotonic() - since
        assert server.process.returncode == 0, server.log
        # The workers of a daphne live on.
        await hall.rows_are(0, 2 if shape == PAIR else 0.1)
        assert took < 12, took
        for connection in connections:
            connection.writer.transport.abort()
        await hall.came_true(
            'SIGTERM to a server whose clients answer no close',
            shape,
            connections,
            f'the rest of what they did not read; it ends after {took:.0f} s',
            time.monotonic() - since,
        )

    asyncio.run(scenario())
