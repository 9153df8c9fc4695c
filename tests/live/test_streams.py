"""Streams on real servers that are killed, with Redis and PostgreSQL that go away: every client has what the table has."""

import asyncio
import collections
import contextlib
import os
import random
import signal
import time

import psycopg2
import pytest

from .. import servers as programs
from . import fleet
from .stream_clients import Client

pytestmark = pytest.mark.alone

SERVERS, STREAMS, PROCESSES, THREADS = 3, 20, 2, 5
CLIENTS = int(os.environ.get('STREAMS_CLIENTS', 100))
# Seconds between two transactions of one writer, on average.
PACE = float(os.environ.get('STREAMS_PACE', 0.6))
SECONDS = int(os.environ.get('STREAMS_SECONDS', 45))
# Which part of all pushes gets lost.
DROP = os.environ.get('STREAMS_DROP', '0.05')
# Seconds after which all clients have all, once everything is back: followers are reminded 1, 4 and 16 s later.
SETTLE = 40


class Chaos:
    """Three servers and writers on a Redis and a PostgreSQL, all of which are stopped and started again."""

    def __init__(self, directory, database_url, start_postgres):
        self.database_url, self.start_postgres = database_url, start_postgres
        self.postgres = contextlib.ExitStack()
        self.postgres.enter_context(start_postgres())
        self.redis = fleet.Redis(directory)
        self.fleet = fleet.Fleet(directory, database_url, self.redis, DROP=DROP)
        self.fleet.environment['DJANGO_SETTINGS_MODULE'] = 'tests.live.streams_site'
        self.stop_file = directory / 'stop'
        self.ports = [programs.free_port() for _ in range(SERVERS)]
        self.servers = [self.serve(port) for port in self.ports]
        self.writers = [self.write(n) for n in range(PROCESSES)]
        self.faults = collections.Counter()
        self.dice = random.Random(7)

    def serve(self, port):
        return self.fleet.start('server', '-m', 'django', 'runsockets', f'127.0.0.1:{port}', port=port)

    def write(self, n):
        return self.fleet.start(
            'writer', '-m', 'tests.live.streams_site', f'w{n}', THREADS, STREAMS, self.stop_file, PACE
        )

    def kill_a_server(self):
        n = self.dice.randrange(SERVERS)
        self.servers[n].stop(signal.SIGKILL)
        time.sleep(self.dice.random() * 2)
        self.servers[n] = self.serve(self.ports[n])

    def kill_writers(self):
        n = self.dice.randrange(PROCESSES)
        self.writers[n].stop(signal.SIGKILL)
        self.writers[n] = self.write(n)

    def restart_redis(self):
        self.redis.stop()
        time.sleep(1)
        self.redis.start()

    def restart_postgres(self):
        self.postgres.close()
        time.sleep(1)
        self.postgres.enter_context(self.start_postgres())

    def run(self, seconds):
        """Do all of that, one thing after another, for so many seconds."""
        until = time.monotonic() + seconds
        todo = [self.kill_a_server, self.restart_redis, self.kill_writers, self.restart_postgres]
        time.sleep(4)
        while time.monotonic() < until:
            self.dice.shuffle(todo)
            for fault in todo:
                fault()
                self.faults[fault.__name__] += 1
                time.sleep(2 + self.dice.random() * 4)
        self.stop_file.write_text('')
        for writer in self.writers:
            writer.process.wait(30)

    def close(self):
        self.stop_file.write_text('')
        self.fleet.stop()
        self.redis.stop()
        self.postgres.close()

    def query(self, sql):
        with contextlib.closing(psycopg2.connect(self.database_url)) as database, database.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()


@pytest.fixture
def chaos(tmp_path):
    with programs.postgres_cluster() as (url, start):
        chaos = Chaos(tmp_path, url, start)
        yield chaos
        chaos.close()


class Account:
    """What the table has, what writers say, and what each client has had."""

    def __init__(self, chaos, clients):
        self.clients = clients
        self.heads = {
            name: (epoch, offset, trimmed)
            for name, epoch, offset, trimmed in chaos.query(
                'SELECT name, epoch, "offset", trimmed FROM sockets_streamhead'
            )
        }
        # (stream, offset) -> id
        rows = chaos.query('SELECT name, "offset", text::json->>\'id\' FROM sockets_streammessage')
        self.unnumbered = [(name, found) for name, offset, found in rows if offset is None]
        self.table = {(name, offset): found for name, offset, found in rows}
        self.notes = collections.defaultdict(set)
        for what, found, _ in chaos.fleet.notes():
            self.notes[what].add(found)

    def faults(self):
        """Return what is wrong, as lines."""
        yield from (f'{name}: {found} was never numbered' for name, found in self.unnumbered)
        ids = list(self.table.values())
        yield from (f'kept twice: {found}' for found, n in collections.Counter(ids).items() if n > 1)
        yield from (f'kept, though rolled back: {found}' for found in self.notes['rolled'].intersection(ids))
        for name, (_, offset, trimmed) in self.heads.items():
            kept = sorted(at for stream, at in self.table if stream == name)
            if kept != list(range(trimmed + 1, offset + 1)):
                yield f'{name}: the table has {kept}, not {trimmed + 1} to {offset}'
        agreed = dict(self.table)
        for client in self.clients:
            yield from (f'client {client.number}: {fault}' for fault in client.faults)
            for name, stream in client.streams.items():
                for fault in self._of(client, name, stream, agreed):
                    seen = '\n    '.join(stream.seen)
                    yield f'client {client.number}, {name}: {fault}; it saw last:\n    {seen}'
        yield from (
            f'delivered, though rolled back: {found}' for found in self.notes['rolled'].intersection(agreed.values())
        )
        # Its name begins with that of its stream. Of one that retention has been at, some are gone.
        for found in self.notes['committed'].difference(ids):
            name = found.partition('|')[0]
            if not self.heads.get(name, ('', 0, 0))[2]:
                yield f'{name}: committed, and not kept: {found}'

    def _of(self, client, name, stream, agreed):
        epoch, offset, trimmed = self.heads.get(name, ('', 0, 0))
        if (stream.epoch, stream.offset) != (epoch, offset):
            yield f'it is at {stream.epoch} {stream.offset}, the stream at {epoch} {offset}'
        for begun, had in stream.parts:
            if [at for at, _ in had] != list(range(begun + 1, begun + 1 + len(had))):
                yield f'from {begun} it had {[at for at, _ in had]}'
            for at, found in had:
                if agreed.setdefault((name, at), found) != found:
                    yield f'its {at} is {found}, and that of others {agreed[name, at]}'
        # What a client begins with after lost must be what retention has taken.
        for lost, _, position in client.lost:
            if lost == name and not position < trimmed:
                yield f'lost from {position}, and the table has all after {trimmed}'
        if len(stream.parts) - 1 != sum(1 for lost, _, _ in client.lost if lost == name):
            yield f'it has begun {len(stream.parts)} times'


async def play(chaos, seconds):
    over = []
    dice = random.Random(5)
    names = [f'stream:{n}' for n in range(STREAMS)]
    clients = [Client(n, dice.sample(names, dice.randint(2, 6))) for n in range(CLIENTS)]
    tasks = [asyncio.ensure_future(client.run(chaos.ports, lambda: bool(over))) for client in clients]
    loop = asyncio.get_event_loop()
    await loop.run_in_executor(None, chaos.run, seconds)
    over.append(True)
    deadline = time.monotonic() + SETTLE
    while time.monotonic() < deadline:
        await asyncio.sleep(1)
        heads = await loop.run_in_executor(None, chaos.query, 'SELECT name, "offset" FROM sockets_streamhead')
        heads = dict(heads)
        if all(
            stream.is_told and stream.offset == heads.get(name, 0)
            for client in clients
            for name, stream in client.streams.items()
        ):
            break
    for task in tasks:
        if task.done():
            # It has raised.
            task.result()
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return clients


def run_chaos(chaos, seconds):
    start = time.monotonic()
    clients = asyncio.run(play(chaos, seconds))
    account = Account(chaos, clients)
    counts = sum((client.counts for client in clients), collections.Counter())
    lost = [lost for client in clients for lost in client.lost]
    messages = sum(head[1] for head in account.heads.values())
    print(
        f'\nin {time.monotonic() - start:.0f} s: {messages} messages, {len(account.notes["rolled"])} rolled back, '
        f'{counts["deliveries"]} deliveries, {counts["duplicates"]} duplicates on the wire, '
        f'{counts["gaps filled"]} gaps filled with {counts["replayed"]} messages, {len(lost)} lost, '
        f'{counts["connections"]} connections, {counts["errors"]} errors; {dict(chaos.faults)}'
    )
    faults = list(account.faults())
    assert not faults, f'{len(faults)} faults:\n' + '\n'.join(faults[:20])
    # It was a test.
    assert messages > seconds and counts['gaps filled'] > CLIENTS and lost
    assert len(chaos.faults) == 4


def test_every_client_has_what_the_table_has_whatever_is_killed(chaos):
    run_chaos(chaos, SECONDS)


@pytest.mark.long
def test_every_client_has_what_the_table_has_after_ten_minutes(chaos):
    run_chaos(chaos, 600)
