"""The client of the benchmarks, a process of its own. Standard library only, and little of it.

``websockets`` would cost more per frame than the servers that it measures. This one knows as much of the protocol as
the benchmarks need, so it stays ahead of them; ``serve`` is the echo that shows how far.

It prints one line of JSON when its connections are open, then one per line that it reads: the result of a round.
"""

import argparse
import asyncio
import base64
import hashlib
import itertools
import json
import os
import random
import resource
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from figures import percentile

TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A
PATIENCE = 30
# The seconds between two frames of a connection that talks.
INTERVAL = 10


def masked(payload, mask):
    """Return ``payload`` with ``mask`` put on, or taken off."""
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
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
        mask = bytes(buffer[start : start + 4]) if buffer[1] & 0x80 else b''
        start += len(mask)
        if len(buffer) < start + size:
            return
        opcode, payload = buffer[0], bytes(buffer[start : start + size])
        del buffer[: start + size]
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
    failure = None
    is_closing = False

    def __init__(self, url, key=None):
        super().__init__()
        self.url = url
        self.key = key
        self.opened = asyncio.get_running_loop().create_future()
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        super().connection_made(transport)
        lines = [
            f'GET {self.url.path} HTTP/1.1',
            f'Host: {self.url.netloc}',
            'Upgrade: websocket',
            'Connection: Upgrade',
            f'Origin: http://{self.url.netloc}',
            f'Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}',
            'Sec-WebSocket-Version: 13',
            *([f'Cookie: sessionid={self.key}'] if self.key else []),
        ]
        transport.write('\r\n'.join([*lines, '', '']).encode())

    def head_received(self, head):
        if head.startswith(b'HTTP/1.1 101'):
            self.opened.set_result(None)
        else:
            self.opened.set_exception(ConnectionError(head.decode('latin1')))

    def frame_received(self, opcode, mask, payload):
        if opcode == PING:
            self.transport.write(frame(PONG, payload, self.mask))
        elif opcode == TEXT and self.on_text:
            try:
                self.on_text(payload)
            except Exception as error:
                # asyncio would log it and go on without this connection.
                self.fail(str(error))
        elif opcode == CLOSE and not self.is_closing:
            self.fail('closed with {}'.format(int.from_bytes(payload[:2], 'big')))

    def connection_lost(self, error):
        if not self.opened.done():
            self.opened.set_exception(ConnectionError('closed'))
        elif not self.is_closing:
            self.fail('the connection was lost')

    def fail(self, text):
        """Remember the first thing that went wrong."""
        self.failure = self.failure or text
        if not self.ended.done():
            self.ended.set_result(None)
        self.transport.abort()

    def close(self):
        self.is_closing = True
        self.transport.write(frame(CLOSE, (1000).to_bytes(2, 'big'), self.mask))


class Echo(Protocol):
    """The server's end of a connection that sends back what it gets."""

    def head_received(self, head):
        key = next(line for line in head.split(b'\r\n') if line.lower().startswith(b'sec-websocket-key:'))
        accept = hashlib.sha1(key.split(b':')[1].strip() + b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest()
        self.transport.write(
            b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
            b'Sec-WebSocket-Accept: ' + base64.b64encode(accept) + b'\r\n\r\n'
        )

    def frame_received(self, opcode, mask, payload):
        if opcode == CLOSE:
            self.transport.close()
        else:
            self.transport.write(frame(opcode, masked(payload, mask)))


class Failure(Exception):
    """The server did something else than what it was asked for."""


def check(connections):
    """Raise ``Failure`` if one of ``connections`` was closed or got an answer that is none."""
    failures = [connection.failure for connection in connections if connection.failure]
    if failures:
        raise Failure(f'{len(failures)} of {len(connections)} connections failed, the first: {failures[0]}')


async def connect(url, count, keys=(), at_once=20):
    """Return ``count`` open connections, made ``at_once`` at a time, each with the next session key of ``keys``."""
    url, loop, connections = urlsplit(url), asyncio.get_running_loop(), []
    cookies = itertools.cycle(keys or [None])

    async def open_one():
        _, connection = await loop.create_connection(lambda: Connection(url, next(cookies)), url.hostname, url.port)
        connections.append(connection)
        await asyncio.wait_for(connection.opened, PATIENCE)

    for start in range(0, count, at_once):
        await asyncio.gather(*(open_one() for _ in range(min(at_once, count - start))))
    return connections


async def next_line():
    """Wait for a line of our standard input; ``''`` when there are no more."""
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


def tell(**result):
    print(json.dumps(result), flush=True)


CONTENT = {'type': 'ECHO', 'text': 'Is there anybody going to listen to my story?'}
REQUEST = frame(TEXT, json.dumps(CONTENT).encode(), Connection.mask)
_seen = set()


def check_echo(payload):
    """Raise ``Failure`` if ``payload`` is not the echo of ``CONTENT``."""
    # Decoding each would measure us. There are as many texts as ways to write this JSON: one a server.
    if payload not in _seen:
        if json.loads(payload.decode()) != CONTENT:
            raise Failure(f'no echo: {payload[:500]!r}')
        _seen.add(payload)


async def echo(connections, seconds):
    """Send, wait for the answer, send again, on all ``connections`` at once; return rate and latencies."""
    latencies, echoes = [], 0
    clock = time.perf_counter
    started = clock()
    measured_from, until = started + seconds / 5, started + seconds * 6 / 5

    def start(connection):
        def send():
            nonlocal sent
            sent = clock()
            connection.transport.write(REQUEST)

        def on_text(payload):
            nonlocal echoes
            now = clock()
            echoes += 1
            check_echo(payload)
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
    check(connections)
    return dict(percentiles(latencies), echoes=echoes, rate=len(latencies) / seconds)


def percentiles(latencies):
    """Return p50, p95 and p99 of ``latencies``, in milliseconds."""
    if not latencies:
        raise Failure('nothing was answered in time')
    latencies.sort()
    return {f'p{share}': percentile(latencies, share / 100) * 1000 for share in (50, 95, 99)}


async def talk(connections, seconds):
    """Send a frame on each of ``connections`` every ten seconds, each at its own time; return latencies."""
    loop, clock = asyncio.get_running_loop(), time.perf_counter
    # The same times for every server.
    moments = random.Random(1)
    latencies, sent, messages = [], {}, 0
    until = loop.time() + seconds

    def start(connection):
        def send():
            nonlocal messages
            if loop.time() >= until or connection.failure:
                return
            if connection in sent:
                connection.fail(f'no answer in {INTERVAL} seconds')
                return
            messages += 1
            sent[connection] = clock()
            connection.transport.write(REQUEST)
            loop.call_later(INTERVAL, send)

        def on_text(payload):
            latencies.append(clock() - sent.pop(connection))
            check_echo(payload)

        connection.on_text = on_text
        loop.call_later(moments.uniform(0, min(INTERVAL, seconds)), send)

    for connection in connections:
        start(connection)
    await asyncio.sleep(seconds)
    deadline = loop.time() + PATIENCE
    while sent and loop.time() < deadline and not any(connection.failure for connection in sent):
        await asyncio.sleep(0.1)
    check(connections)
    if sent:
        raise Failure(f'{len(sent)} of {messages} messages were not answered')
    return dict(percentiles(latencies), echoes=messages)


async def knock(url, keys):
    """Return what somebody who perhaps may not is answered: ``'echo'``, or something else."""
    try:
        [connection] = await connect(url, 1, keys)
    except ConnectionError as error:
        return str(error).splitlines()[0]

    def on_text(payload):
        check_echo(payload)
        raise Failure('echo')

    connection.on_text = on_text
    connection.transport.write(REQUEST)
    done, _ = await asyncio.wait([connection.ended], timeout=PATIENCE)
    return connection.failure if done else 'no answer'


async def fanout(connections, seconds):
    """Ask the first connection for a fan-out; return how many it reached, and when the first and last, in ms."""
    clock = time.perf_counter
    number = random.randrange(10**9)
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
    return {
        'delivered': len(arrivals),
        'expected': len(connections),
        'twice': twice,
        'first': times[0] * 1000,
        'last': times[-1] * 1000,
    }


async def run(args):
    keys = Path(args.visitors).read_text().split() if args.visitors else []
    if args.work == 'knock':
        tell(connect_seconds=0)
        while await next_line():
            tell(answer=await knock(args.url, keys))
        return
    started = time.perf_counter()
    connections = await connect(args.url, args.clients, keys, args.at_once)
    connect_seconds = time.perf_counter() - started
    if args.work == 'talk':
        # What is read once, with the first frame of a connection, is no matter of those that follow.
        try:
            await talk(connections, INTERVAL / 2)
        except Failure as failure:
            tell(failure=str(failure))
            return
    tell(connect_seconds=connect_seconds)
    while await next_line():
        try:
            tell(**await {'echo': echo, 'fanout': fanout, 'talk': talk}[args.work](connections, args.seconds))
        except Failure as failure:
            tell(failure=str(failure))
    for connection in connections:
        connection.close()
    await asyncio.sleep(0.5)


async def serve(port):
    server = await asyncio.get_running_loop().create_server(Echo, '127.0.0.1', port)
    await server.serve_forever()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('work', choices=['echo', 'talk', 'fanout', 'knock', 'serve'])
    parser.add_argument('--url')
    parser.add_argument('--port', type=int)
    parser.add_argument('--clients', type=int, default=1)
    parser.add_argument('--at-once', type=int, default=20, help='how many connections are opened at a time')
    parser.add_argument('--seconds', type=float, default=2)
    parser.add_argument('--visitors', metavar='FILE', help='session keys, one a line: connect with these cookies')
    args = parser.parse_args()
    # Each connection is a file.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(serve(args.port) if args.work == 'serve' else run(args))


if __name__ == '__main__':
    main()
