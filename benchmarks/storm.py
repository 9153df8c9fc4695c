"""A reconnect storm: a server with many clients is killed, stays away, and is started again. When is everybody back?

``python benchmarks/storm.py`` starts PostgreSQL (SQLite if there is none), Redis and the servers on loopback, plays the
cases one after another, prints a table and stops what it has started. It ends with 1 if a mark is missed. The clients
behave as ``sockets.js`` does, in this process; the connect function sleeps. 50 clients talk on the restarted server
once they are in, and 50 on another server of the same site all the time.
"""

import argparse
import asyncio
import base64
import bisect
import collections
import contextlib
import json
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import servers  # noqa: E402
from tests.live import fleet, stack  # noqa: E402

PATH = '/storm/'
TALKERS = 50
# Seconds between two frames of a talker.
PACE = 0.5
# What everybody's return may take however few they are, and how many times the ideal.
SHORTEST, FACTOR = 7.5, 1.5
FUNCTIONS = 1.1
P99 = 0.15
# Seconds for the rows of the dead server to go once it is found.
PURGE = 5
# What is under way is in the database a moment before its client knows, or a moment after.
MOMENT = 0.5

# Of sockets.js.
OPEN_TIMEOUT, MIN_DELAY, MAX_DELAY, LONGEST_SLOT = 10, 1, 5, 300

Case = collections.namedtuple('Case', 'clients milliseconds')
CASES = [Case(1500, 0), Case(1500, 10), Case(1500, 30), Case(1500, 100), Case(5000, 10)]


class Client(asyncio.Protocol):
    """A page with ``sockets.js``: connects, comes back, obeys ``retry=``; a talker asks for an echo now and then."""

    def __init__(self, crowd, port, talks=False):
        self.crowd, self.port, self.talks = crowd, port, talks
        self.failures = 0
        self.transport = self.timer = self.talk = None
        self.is_open = False

    def connect(self):
        self.crowd.attempts += 1
        self.buffer = b''
        self.timer = self.crowd.loop.call_later(OPEN_TIMEOUT, self.leave)
        self.task = self.crowd.loop.create_task(self.dial())

    async def dial(self):
        try:
            await self.crowd.loop.create_connection(lambda: self, '127.0.0.1', self.port)
        except OSError:
            self.leave()

    def connection_made(self, transport):
        self.transport = transport
        transport.write(
            f'GET {PATH} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
            f'Sec-WebSocket-Key: {self.crowd.key}\r\nSec-WebSocket-Version: 13\r\n\r\n'.encode()
        )

    def data_received(self, data):
        self.buffer += data
        if not self.is_open:
            head, end, rest = self.buffer.partition(b'\r\n\r\n')
            if not end:
                return
            status = head.split(b' ', 2)[1].decode()
            if status != '101':
                self.crowd.codes[status] += 1
                return self.leave()
            self.buffer = rest
            if rest[:1] != b'\x88':
                self.opened()
        while len(self.buffer) >= 2:
            size, start = self.buffer[1] & 0x7F, 2
            if size == 126:
                size, start = int.from_bytes(self.buffer[2:4], 'big'), 4
            if len(self.buffer) < start + size:
                return
            payload, opcode = self.buffer[start : start + size], self.buffer[0]
            self.buffer = self.buffer[start + size :]
            if opcode == 0x88:
                return self.closed(int.from_bytes(payload[:2], 'big'), payload[2:].decode())
            if opcode == 0x89:
                self.write(0x8A, payload)
            elif opcode == 0x81:
                self.failures = 0
                self.heard()

    def opened(self):
        self.timer.cancel()
        self.is_open = True
        self.crowd.count(1)
        if self.talks:
            self.talk = self.crowd.loop.call_later(random.random() * PACE, self.say)

    def say(self):
        self.asked = time.monotonic()
        self.write(0x81, b'{"type": "ECHO", "ref": 1}')

    def heard(self):
        if self.talks:
            now = time.monotonic()
            self.crowd.echoes.append((now, now - self.asked))
            self.talk = self.crowd.loop.call_later(max(0, self.asked + PACE - now), self.say)

    def closed(self, code, reason):
        slot = re.match(r'retry=(\d+(?:\.\d+)?)$', reason) if code == 1013 else None
        self.crowd.codes['1013 {}'.format(reason.partition('=')[0]) if code == 1013 else str(code)] += 1
        self.leave(None if slot is None else min(float(slot.group(1)), LONGEST_SLOT) + random.random() / 4)

    def connection_lost(self, error):
        if self.transport is not None:
            self.crowd.codes['1006'] += 1
            self.leave()

    def leave(self, delay=None):
        if self.is_open:
            self.is_open = False
            self.crowd.count(-1)
        if self.talk is not None:
            self.talk.cancel()
        self.timer.cancel()
        self.task.cancel()
        if self.transport is not None:
            transport, self.transport = self.transport, None
            transport.abort()
        if delay is None:
            delay = random.random() * min(MAX_DELAY, MIN_DELAY * 2**self.failures)
            self.failures += 1
        if not self.crowd.is_over:
            self.timer = self.crowd.loop.call_later(delay, self.connect)

    def write(self, opcode, payload):
        # A mask of zeros leaves the payload as it is.
        self.transport.write(bytes([opcode, 0x80 | len(payload)]) + bytes(4) + payload)


class Crowd:
    """Clients of a server: how many are in, since when, and how long their echoes took."""

    def __init__(self, port, count, talkers):
        self.loop = asyncio.get_event_loop()
        self.key = base64.b64encode(os.urandom(16)).decode()
        self.clients = [Client(self, port, n < talkers) for n in range(count)]
        self.open = self.attempts = 0
        self.history = [(time.monotonic(), 0)]
        self.echoes = []
        self.codes = collections.Counter()
        self.is_over = False

    def count(self, change):
        self.open += change
        self.history.append((time.monotonic(), self.open))

    def within(self, since, until):
        """Return how many were in at least, and at most, between two times."""
        first = max(bisect.bisect(self.history, (since, float('inf'))) - 1, 0)
        last = bisect.bisect(self.history, (until, float('inf')))
        counts = [count for _, count in self.history[first:last]]
        return min(counts), max(counts)

    async def come(self, per_second):
        for client in self.clients:
            client.connect()
            await asyncio.sleep(1 / per_second)
        while self.open < len(self.clients):
            await asyncio.sleep(0.05)

    def go(self):
        self.is_over = True
        for client in self.clients:
            client.leave()

    def p(self, share, since):
        took = sorted(seconds for at, seconds in self.echoes if at >= since)
        return took[min(int(len(took) * share), len(took) - 1)] if took else float('nan')


class Site:
    """Two servers with one Redis and one database, one of which will be killed."""

    def __init__(self, directory, database_url, redis, args):
        self.args = args
        self.seconds = directory / 'seconds'
        self.seconds.write_text('0')
        # On Channels 4, daphne has no workers, and stands for the other layer of channels_redis as well.
        layer = 'pubsub' if args.shape == 'classic' else 'core'
        self.fleet = fleet.Fleet(directory, database_url, redis, CONNECT_SECONDS=str(self.seconds), LAYER=layer)
        self.database_url = database_url
        self.port = servers.free_port()
        if args.shape == 'classic' and stack.ON_CHANNELS_1:
            for _ in range(args.threads):
                self.fleet.worker(*args.worker_options.split())
            for _ in range(args.frame_workers):
                self.fleet.worker('--exclude-channels', 'websocket.connect')
        self.start()
        self.other = servers.free_port()
        (self.daphne if args.shape == 'classic' else self.runsockets)(self.other)

    def start(self):
        self.server = self.daphne(self.port) if self.args.shape == 'classic' else self.runsockets(self.port)

    def daphne(self, port):
        return self.fleet.start('daphne', *stack.daphne(port, '-v', '0'), port=port)

    def runsockets(self, port):
        return self.fleet.start(
            'runsockets',
            '-m',
            'django',
            'runsockets',
            f'127.0.0.1:{port}',
            '--connect-threads',
            str(self.args.threads),
            port=port,
        )

    def functions(self):
        return sum(path.read_bytes().count(b'open ') for path in self.fleet.notes_directory.iterdir())

    def rows(self):
        """Return what counts the rows."""
        if self.database_url.startswith('sqlite'):
            import sqlite3

            database = sqlite3.connect(
                self.database_url[len('sqlite://') :], isolation_level=None, timeout=20, check_same_thread=False
            )
        else:
            import psycopg2

            database = psycopg2.connect(self.database_url)
            database.autocommit = True

        def count():
            cursor = database.cursor()
            cursor.execute('select count(*) from sockets_socket')
            return cursor.fetchone()[0]

        return count


async def play(site, case, args):
    """Play a case; return what came of it, a dict."""
    loop = asyncio.get_event_loop()
    crowd = Crowd(site.port, case.clients + TALKERS, TALKERS)
    others = Crowd(site.other, TALKERS, TALKERS)
    total = case.clients + 2 * TALKERS
    count_rows, samples, is_over = site.rows(), [], []

    async def watch():
        while not is_over:
            before = time.monotonic()
            rows = await loop.run_in_executor(None, count_rows)
            samples.append((before, time.monotonic(), rows))
            await asyncio.sleep(0.2)

    await others.come(50)
    await crowd.come(200)
    site.seconds.write_text(str(case.milliseconds / 1000))
    watching = loop.create_task(watch())
    await asyncio.sleep(2)
    functions = site.functions()
    killed = time.monotonic()
    site.server.process.send_signal(signal.SIGKILL)
    site.server.process.wait()
    crowd.codes.clear()
    await asyncio.sleep(args.down)
    # The time-out of what starts it is 30 s.
    await loop.run_in_executor(None, site.start)
    listens = time.monotonic()
    crowd.attempts = 0
    limit = max(FACTOR * case.clients * case.milliseconds / 1000 / args.threads, SHORTEST)
    back = None
    while time.monotonic() < listens + max(3 * limit, 30):
        await asyncio.sleep(0.05)
        if crowd.open < len(crowd.clients):
            back = None
        elif back is None:
            back = crowd.history[-1][0]
        elif time.monotonic() > back + 3:
            break
    is_over.append(True)
    await watching
    found = next((at for at, _, rows in samples if at > killed and rows < total), None)
    worst, wrong_until = 0, None
    for since, until, rows in samples:
        if since < killed:
            continue
        least, most = (
            a + b
            for a, b in zip(crowd.within(since - MOMENT, until + MOMENT), others.within(since - MOMENT, until + MOMENT))
        )
        apart = max(least - rows, rows - most, 0)
        if apart and found is not None and since > found:
            wrong_until = until
            if since > found + PURGE:
                worst = max(worst, apart)
        if args.verbose:
            print(f'{since - listens:6.1f} s: {rows} rows, {least} to {most} connections')
    if args.verbose:
        print('attempts', crowd.attempts, dict(crowd.codes), dict(others.codes))
        print('longest echoes', crowd.p(1, listens), others.p(1, listens))
    result = {
        'back': None if back is None else back - listens,
        'limit': limit,
        'functions': (site.functions() - functions) / len(crowd.clients),
        'found': None if found is None else found - killed,
        'true': None if found is None else (wrong_until or found) - found,
        'apart': worst,
        'here': (crowd.p(0.5, listens), crowd.p(0.99, listens)),
        'there': (others.p(0.5, listens), others.p(0.99, listens)),
        'attempts': crowd.attempts,
        'told': crowd.codes['1013 retry'],
        'failed': sum(crowd.codes.values()) - crowd.codes['1013 retry'] - len(crowd.clients),
        'left': len(crowd.clients) - crowd.open,
    }
    crowd.go()
    others.go()
    await asyncio.sleep(0.2)
    return result


def line(case, args, result):
    """Return the words of a line of the table, and whether all marks were met."""
    marks = [
        (
            '{:.1f} s of {:.1f}'.format(result['back'], result['limit'])
            if result['back'] is not None
            else '{} are not'.format(result['left']),
            result['back'] is not None and result['back'] <= result['limit'],
        ),
        ('{:.2f}'.format(result['functions']), result['functions'] <= FUNCTIONS),
        (
            '{:.1f} s after {:.1f}'.format(result['true'], result['found']) if result['found'] is not None else 'never',
            result['found'] is not None and result['true'] <= PURGE and not result['apart'],
        ),
        ('{:.0f} / {:.0f} ms'.format(*(1000 * seconds for seconds in result['here'])), result['here'][1] <= P99),
        ('{:.0f} / {:.0f} ms'.format(*(1000 * seconds for seconds in result['there'])), result['there'][1] <= P99),
    ]
    words = [
        str(case.clients),
        f'{case.milliseconds} ms',
        args.shape,
        str(args.threads),
        *(text + ('' if met else ' MISSED') for text, met in marks),
        str(result['told']),
        str(result['failed']),
    ]
    return words, all(met for _, met in marks)


HEADS = (
    'Clients',
    'Connect',
    'Shape',
    'Threads',
    'All back',
    'Functions',
    'Rows true',
    'Echo p50/p99 here',
    'elsewhere',
    'Told when',
    'Failed',
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--clients', type=int, help='one case only: how many clients')
    parser.add_argument('--milliseconds', type=int, default=10, help='... and what a connect function takes')
    parser.add_argument('--down', type=float, default=10, help='seconds between the kill and the start')
    parser.add_argument('--shape', choices=('runsockets', 'classic'), default='runsockets')
    parser.add_argument('--threads', type=int, default=2, help='--connect-threads of runsockets, or workers')
    parser.add_argument('--frame-workers', type=int, default=0, help='workers besides that take no connects (classic)')
    parser.add_argument('--worker-options', default='', help='options of the other workers (classic)')
    parser.add_argument('--sqlite', action='store_true', help='SQLite, also where PostgreSQL is installed')
    parser.add_argument('--json', metavar='FILE', help='write all results there')
    parser.add_argument('--verbose', action='store_true', help='print rows and connections over time')
    args = parser.parse_args()
    cases = CASES if args.clients is None else [Case(args.clients, args.milliseconds)]
    # Each client is a file here, and one in its server.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    lines, results, is_good = [HEADS], [], True
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix='sockets-storm-')))
        has_postgres = not args.sqlite and any(Path('/usr/lib/postgresql').glob('*/bin/initdb'))
        database_url = (
            stack.enter_context(servers.postgres_server())
            if has_postgres
            else 'sqlite://{}'.format(directory / 'db.sqlite3')
        )
        for number, case in enumerate(cases):
            place = directory / str(number)
            place.mkdir()
            redis = fleet.Redis(place)
            stack.callback(redis.stop)
            site = Site(place, database_url, redis, args)
            stack.callback(site.fleet.stop)
            result = asyncio.run(play(site, case, args))
            words, met = line(case, args, result)
            lines.append(words)
            results.append(dict(result, met=met, line=words, **case._asdict()))
            is_good = is_good and met
            print(' | '.join(words), flush=True)
            site.fleet.stop()
            redis.stop()
    print()
    print('\n'.join(' | '.join(words) for words in lines))
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1))
    return 0 if is_good else 1


if __name__ == '__main__':
    sys.exit(main())
