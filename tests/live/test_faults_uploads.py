"""Pictures over slow lines, against a whole server."""

import asyncio
import json
import time

import pytest

from ..wire import frame
from .test_faults_protocol import ONE, PAIR, PINGS, connect, start

pytestmark = pytest.mark.timed

SIZE, PIECES, SECONDS = 500000, 40, 10


def upload(client):
    """Send one binary frame piece by piece and return what answers it. No ping is answered meanwhile."""
    data = b'\0{"ref":"picture"}\0' + b'x' * SIZE
    sent = frame(data, 2)
    step = len(sent) // PIECES + 1
    for begin in range(0, len(sent), step):
        client.sendall(sent[begin : begin + step])
        time.sleep(SECONDS / PIECES)
    received = b''
    while b'"ref":"picture"' not in received:
        more = client.recv(65536)
        assert more, f'It was closed: {received!r}'
        received += more
    return json.loads(received[received.index(b'{"') : received.index(b'}') + 1].decode())


@pytest.mark.parametrize('shape', [ONE, pytest.param(PAIR, marks=pytest.mark.long)])
def test_a_large_frame_comes_over_a_slow_line(hall, shape):
    async def run():
        server = start(hall, shape, *PINGS)
        client = await asyncio.get_event_loop().run_in_executor(None, connect, server)
        try:
            began = time.monotonic()
            # The hall takes no bytes; but it has got them, and says so.
            answer = await asyncio.get_event_loop().run_in_executor(None, upload, client)
            took = time.monotonic() - began
        finally:
            client.close()
        assert (answer['code'], answer['ref']) == ('invalid_message', 'picture')
        assert took >= SECONDS
        await hall.rows_are(0, 10)
        # Those of a fleet answer pings only while they are asked for something.
        others = await hall.open(1, server)
        await hall.came_true(
            f'A client takes {SECONDS} s for one frame of {SIZE // 1000} kB and answers no ping meanwhile',
            shape,
            others,
            'none',
            0,
        )

    asyncio.run(run())
