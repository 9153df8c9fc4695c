"""The client of the benchmarks, a process of its own. Standard library only, and little of it.

``websockets`` would cost more per frame than the servers that it measures. This one knows as much of the protocol as
the benchmarks need, so it stays ahead of them; ``serve`` is the echo that shows how far.

It prints one line of JSON when its connections are open, then one per line that it reads: the result of a round.
"""
import argparse
import asyncio
import base64
import hashlib
import json
import os
import random
import resource
import statistics
import sys
import time
from urllib.parse import urlsplit

TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A
PATIENCE = 30


def masked(payload, mask):
    """Return ``payload`` with ``mask`` put on, or taken off."""
    key = (mask * (len(payload) // 4 + 1))[:len(payload)]
    return (int.from_bytes(payload, 'big') ^ int.from_bytes(key, 'big')).to_bytes(len(payload), 'big')


def frame(opcode, payload, mask=b''):
    """Return a frame of at most 65535 bytes of ``payload``."""
    size = len(payload)
    head = bytes([size if size < 126 else 126]) + (b'' if size < 126 else size.to_bytes(2, 'big'))
    if mask:
        head = bytes([head[0] | 0x80]) + head[1:] + mask
        payload = masked(payload, mask)
    return bytes([opcode]) + head + payload


def frames(buffer):
    """Yield opcode, mask and payload, as it came, of each whole frame in ``buffer`` and remove them from it."""
    while len(buffer) >= 2:
        size, start = buffer[1] & 0x7F, 2
        if size == 126:
            size, start = int.from_bytes(buffer[2:4], 'big'), 4
        mask = bytes(buffer[start:start + 4]) if buffer[1] & 0x80 else b''
        start += len(mask)
        if len(buffer) < start + size:
            return
        opcode, payload = buffer[0], bytes(buffer[start:start + size])
        del buffer[:start + size]
        yield opcode, mask, payload


class Protocol(asyncio.Protocol):
    """What both ends share: an HTTP head, then frames."""

    def __init__(self):
        self.buffer = bytearray()
        self.is_open = False

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.buffer += data
        if not self.is_open:
            if b'\r\n\r\n' not in self.buffer:
                return
            head, _, self.buffer = self.buffer.partition(b'\r\n\r\n')
            self.is_open = True
            self.head_received(bytes(head))
        for opcode, mask, payload in frames(self.buffer):
            self.frame_received(opcode, mask, payload)


class Connection(Protocol):
    """A client's connection. ``on_text`` is called with each text that arrives."""

    mask = b'\x5a\xa5\x3c\xc3'
    on_text = None

    def __init__(self, url):
        super().__init__()
        self.url = url
        self.opened = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        super().connection_made(transport)
        transport.write((
            'GET {0.path} HTTP/1.1\r\nHost: {0.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
            'Sec-WebSocket-Key: {1}\r\nSec-WebSocket-Version: 13\r\n\r\n'
        ).format(self.url, base64.b64encode(os.urandom(16)).decode()).encode())

    def head_received(self, head):
        if head.startswith(b'HTTP/1.1 101'):
            self.opened.set_result(None)
        else:
            self.opened.set_exception(ConnectionError(head.decode('latin1')))

    def frame_received(self, opcode, mask, payload):
        if opcode == PING:
            self.transport.write(frame(PONG, payload, self.mask))
        elif opcode == TEXT and self.on_text:
            self.on_text(payload)

    def connection_lost(self, error):
        if not self.opened.done():
            self.opened.set_exception(ConnectionError('closed'))

    def close(self):
        self.transport.write(frame(CLOSE, (1000).to_bytes(2, 'big'), self.mask))


class Echo(Protocol):
    """The server's end of a connection that sends back what it gets."""

    def head_received(self, head):
        key = next(line for line in head.split(b'\r\n') if line.lower().startswith(b'sec-websocket-key:'))
        accept = hashlib.sha1(key.split(b':')[1].strip() + b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest()
        self.transport.write(b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
                             b'Sec-WebSocket-Accept: ' + base64.b64encode(accept) + b'\r\n\r\n')

    def frame_received(self, opcode, mask, payload):
        if opcode == CLOSE:
            self.transport.close()
        else:
            self.transport.write(frame(opcode, masked(payload, mask)))


async def connect(url, count):
    """Return ``count`` open connections, made twenty at a time."""
    url, loop, connections = urlsplit(url), asyncio.get_running_loop(), []

    async def open_one():
        _, connection = await loop.create_connection(lambda: Connection(url), url.hostname, url.port)
        connections.append(connection)
        await asyncio.wait_for(connection.opened, PATIENCE)

    for start in range(0, count, 20):
        await asyncio.gather(*(open_one() for _ in range(min(20, count - start))))
    return connections


async def next_line():
    """Wait for a line of our standard input; ``''`` when there are no more."""
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


def tell(**result):
    print(json.dumps(result), flush=True)


async def echo(connections, seconds):
    """Send, wait for the answer, send again, on all ``connections`` at once; return rate and latencies."""
    content = {'type': 'ECHO', 'text': 'Is there anybody going to listen to my story?'}
    request = frame(TEXT, json.dumps(content).encode(), Connection.mask)
    latencies, expected, echoes = [], set(), 0
    clock = time.perf_counter
    started = clock()
    measured_from, until = started + seconds / 5, started + seconds * 6 / 5

    def start(connection):
        def send():
            nonlocal sent
            sent = clock()
            connection.transport.write(request)

        def on_text(payload):
            nonlocal echoes
            now = clock()
            echoes += 1
            if payload not in expected:
                # Decoding each would measure us. There are as many texts as ways to write this JSON: one a server.
                assert json.loads(payload.decode()) == content, payload
                expected.add(payload)
            if measured_from <= now < until:
                latencies.append(now - sent)
            if now < until:
                send()

        sent = None
        connection.on_text = on_text
        send()

    for connection in connections:
        start(connection)
    await asyncio.sleep(seconds * 6 / 5 + 0.2)
    latencies.sort()
    return {
        'echoes': echoes,
        'rate': len(latencies) / seconds,
        'p50': statistics.median(latencies) * 1000,
        'p99': latencies[int(len(latencies) * 0.99)] * 1000,
    }


async def fanout(connections, seconds):
    """Ask the first connection for a fan-out; return how many it reached, and when the first and last, in ms."""
    clock = time.perf_counter
    number = random.randrange(10 ** 9)
    arrivals, twice, everyone = {}, 0, asyncio.Event()

    def listen(connection):
        def on_text(payload):
            nonlocal twice
            # What was late for the last round is not this one's.
            if json.loads(payload.decode())['n'] != number:
                return
            twice += connection in arrivals
            arrivals[connection] = clock() - started
            if len(arrivals) == len(connections):
                everyone.set()
        connection.on_text = on_text

    for connection in connections:
        listen(connection)
    started = clock()
    connections[0].transport.write(frame(TEXT, json.dumps({'type': 'SHOUT', 'n': number}).encode(), Connection.mask))
    try:
        await asyncio.wait_for(everyone.wait(), seconds)
    except asyncio.TimeoutError:
        pass
    times = sorted(arrivals.values()) or [seconds]
    return {'delivered': len(arrivals), 'expected': len(connections), 'twice': twice,
            'first': times[0] * 1000, 'last': times[-1] * 1000}


async def run(args):
    started = time.perf_counter()
    connections = await connect(args.url, args.clients)
    tell(connect_seconds=time.perf_counter() - started)
    while await next_line():
        tell(**await {'echo': echo, 'fanout': fanout}[args.work](connections, args.seconds))
    for connection in connections:
        connection.close()
    await asyncio.sleep(0.5)


async def serve(port):
    server = await asyncio.get_running_loop().create_server(Echo, '127.0.0.1', port)
    await server.serve_forever()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('work', choices=['echo', 'fanout', 'serve'])
    parser.add_argument('--url')
    parser.add_argument('--port', type=int)
    parser.add_argument('--clients', type=int, default=1)
    parser.add_argument('--seconds', type=float, default=2)
    args = parser.parse_args()
    # Each connection is a file.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(serve(args.port) if args.work == 'serve' else run(args))


if __name__ == '__main__':
    main()
