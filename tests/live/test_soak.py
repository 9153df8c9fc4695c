"""Hours of trouble in a minute: two ``runsockets`` and one daphne on one Redis, which restarts, while what runs frames is
killed in the middle of one; and an account of every frame. ``SOAK_SECONDS`` makes it longer.

On Channels 1, that is one of three workers. On Channels 4, it is a server, with all of its connections.
"""

import asyncio
import collections
import math
import os
import random
import signal
import time

import pytest

from . import fleet
from .stack import ON_CHANNELS_1

pytestmark = pytest.mark.alone

SECONDS = int(os.environ.get('SOAK_SECONDS', 60))
CLIENTS = int(os.environ.get('SOAK_CLIENTS', 200))
# Seconds between two bursts of one client, each of one to three frames. 200 clients send about 300 frames a second.
PACE = float(os.environ.get('SOAK_PACE', 1.3))
# RedisChannelLayer's: how long a worker that was killed holds up the connection whose frame it had.
LEASE = 10
OUTAGE = 3


@pytest.fixture
def servers(tmp_path, redis, database_url):
    servers = fleet.Fleet(tmp_path, database_url, redis)
    yield servers
    servers.stop()


class Client:
    """A client that connects again when it is sent away, under another name. It notes what it sent and got."""

    def __init__(self, kind, number, port):
        self.kind = kind
        self.number = number
        self.port = port
        self.lives = 0
        self.connection = None
        # (name, n) -> seconds; (name, n) -> type of the answer; name -> (close code, seconds)
        self.sent, self.answers, self.closed = {}, {}, {}
        self.refusals = []
        self.duplicates = []

    @property
    def name(self):
        return f'{self.kind}.{self.number}.{self.lives}'

    async def run(self, until):
        dice = random.Random(self.number)
        await asyncio.sleep(dice.random() * 3)
        while time.monotonic() < until:
            self.lives += 1
            try:
                self.connection = await fleet.Connection.open(self.port)
            except (fleet.Refused, ConnectionError) as error:
                self.refusals.append(error)
                await asyncio.sleep(0.5)
                continue
            self.row = asyncio.get_event_loop().create_future()
            self.listener = asyncio.ensure_future(self.listen(self.connection, self.name))
            n = 0
            while time.monotonic() < until and self.name not in self.closed:
                for _ in range(dice.randint(1, 3)):
                    self.sent[self.name, n] = time.monotonic()
                    self.connection.send(
                        {
                            'type': 'WORK',
                            'connection': self.name,
                            'n': n,
                            'ref': n,
                            'seconds': dice.random() * 0.01,
                            'raises': dice.random() < 0.05,
                        }
                    )
                    n += 1
                await asyncio.sleep(PACE * (0.5 + dice.random()))

    async def listen(self, connection, name):
        while True:
            frame = await connection.receive(3600)
            if isinstance(frame, int):
                self.closed[name] = frame, time.monotonic()
                return
            if frame['type'] == 'ME':
                self.row.set_result(frame['id'])
                continue
            key = name, frame.get('ref')
            if key in self.answers:
                self.duplicates.append(key)
            self.answers[key] = frame.get('code', frame['type'])

    @property
    def is_open(self):
        return self.lives > 0 and self.connection is not None and self.name not in self.closed


class Account:
    """What became of each frame."""

    def __init__(self, clients, notes, killed, stopped, back):
        self.clients, self.stopped, self.back = clients, stopped, back
        # (name, n) -> seconds
        self.starts, self.ends = {}, {}
        self.twice = []
        self.order = collections.defaultdict(list)
        for what, name, n, at in notes:
            key = name, int(n)
            seen = self.starts if what == 'start' else self.ends
            if key in seen:
                self.twice.append(key)
            seen[key] = at
            if what == 'start':
                self.order[name].append(key)
        self.killed = killed
        self.fates = collections.Counter()
        self.unexplained = []
        for client in clients:
            for key, sent in client.sent.items():
                fate = self.fate(client, key, sent)
                self.fates[client.kind, fate] += 1
                if fate == 'lost, unexplained':
                    self.unexplained.append((key, sent - stopped))

    def fate(self, client, key, sent):
        closing = client.closed.get(key[0])
        if not ON_CHANNELS_1:
            return self.fate_on_channels_4(client, key, closing)
        during_outage = self.stopped - 2 < sent < self.back + 2
        if key in self.ends:
            if key in client.answers:
                return 'handled, answered'
            # The worker could not hand its answer to a Redis that was away.
            return (
                'handled, answer lost by the restart'
                if (client.kind == 'daphne' and self.stopped - 1 < self.ends[key] < self.back + 2)
                else 'lost, unexplained'
            )
        if key in self.starts:
            return 'cut off by the kill' if key == self.killed[0] else 'lost, unexplained'
        if (
            client.kind == 'daphne'
            and closing is not None
            and closing[0] == 1013
            and (self.stopped < closing[1] < self.back + 2)
        ):
            return 'refused with 1013 in the outage'
        return 'lost by the restart' if client.kind == 'daphne' and during_outage else 'lost, unexplained'

    def fate_on_channels_4(self, client, key, closing):
        """No frame goes through Redis, and a server that is killed takes with it what was under way."""
        if key in client.answers:
            return 'handled, answered' if key in self.ends else 'lost, unexplained'
        if closing is not None and closing[0] == 1013 and key not in self.starts:
            return 'sent by one that was told to come back'
        if closing is None or closing[0] != 1006 or not 0 <= closing[1] - self.killed[1] < 2:
            return 'lost, unexplained'
        if key in self.ends:
            return 'handled, answer lost by the kill'
        return 'cut off by the kill' if key in self.starts else 'lost by the kill'

    def out_of_order(self):
        return [
            (before, after)
            for keys in self.order.values()
            for before, after in zip(keys, keys[1:])
            if before[1] >= after[1]
        ]

    def overlaps(self):
        """Return the pairs of frames of one connection that were handled at once."""
        ends = dict(self.ends)
        ends.setdefault(*self.killed)
        return [
            (before, after)
            for keys in self.order.values()
            for before, after in zip(keys, keys[1:])
            if ends.get(before, math.inf) > self.starts[after]
        ]

    def __str__(self):
        kinds = sorted({client.kind for client in self.clients})
        lines = ['{:40}'.format('frames') + ''.join(f'{kind:>12}' for kind in kinds + ['all'])]
        fates = sorted({fate for _, fate in self.fates})
        for fate in ['sent', *fates]:
            counts = [
                sum(
                    count for (kind, which), count in self.fates.items() if kind == expected and fate in (which, 'sent')
                )
                for expected in kinds
            ]
            lines.append(f'{fate:40}' + ''.join(f'{count:>12}' for count in counts + [sum(counts)]))
        return '\n'.join(lines)


# What is killed.
VICTIMS = ['worker'] if ON_CHANNELS_1 else ['second', 'daphne']


@pytest.mark.parametrize('doomed', VICTIMS)
def test_every_frame_is_handled_once_and_in_order_or_its_loss_has_a_reason(servers, redis, capsys, doomed):
    programs = {'first': servers.runsockets(), 'second': servers.runsockets(), 'daphne': servers.daphne()}
    ports = {kind: program.port for kind, program in programs.items()}
    if ON_CHANNELS_1:
        programs.update((f'worker {n}', servers.worker()) for n in range(3))
    kinds = list(ports)
    clients = [Client(kinds[number % 3], number, ports[kinds[number % 3]]) for number in range(CLIENTS)]

    async def soak():
        loop = asyncio.get_event_loop()
        begin = time.monotonic()
        running = [asyncio.ensure_future(client.run(begin + SECONDS)) for client in clients]

        # The process is killed in the middle of a frame, whose connection has sent the next one already.
        await asyncio.sleep(SECONDS * 0.2)
        victim = await fleet.Connection.open(ports['daphne' if ON_CHANNELS_1 else doomed])
        for n, seconds in enumerate([0, 30, 0]):
            victim.send({'type': 'WORK', 'connection': 'victim', 'n': n, 'ref': n, 'seconds': seconds})
        pid = await fleet.eventually(lambda: servers.pid_at_work('victim', 1))
        await asyncio.sleep(1)
        killed = next(kind for kind, program in programs.items() if program.process.pid == pid)
        programs[killed].stop(signal.SIGKILL)
        died = time.monotonic()
        await asyncio.sleep(1)
        again = {
            'worker': servers.worker,
            'second': lambda: servers.runsockets(port=ports['second']),
            'daphne': lambda: servers.daphne(port=ports['daphne']),
        }[doomed]
        programs[killed] = await loop.run_in_executor(None, again)
        assert (await victim.receive())['ref'] == 0
        if ON_CHANNELS_1:
            assert (await victim.receive(LEASE + 15))['ref'] == 2
        else:
            assert await victim.receive() == 1006
        held_up = time.monotonic() - died
        await victim.close()

        # Redis restarts and has forgotten everything.
        await asyncio.sleep(begin + SECONDS * 0.55 - time.monotonic())
        stopped = time.monotonic()
        await loop.run_in_executor(None, redis.stop)
        await asyncio.sleep(OUTAGE)
        await loop.run_in_executor(None, redis.start)
        back = time.monotonic()

        await asyncio.gather(*running)
        outstanding = []
        try:
            for _ in range(int(LEASE * 20)):
                outstanding = [
                    key
                    for client in clients
                    for key in client.sent
                    if key not in client.answers
                    and key[0] not in client.closed
                    and not stopped - 2 < client.sent[key] < back + 2
                ]
                if not outstanding:
                    break
                await asyncio.sleep(0.1)
        finally:
            finished = time.monotonic()
        stayed = [client for client in clients if client.is_open]
        rows = await loop.run_in_executor(None, servers.rows)
        ids = []
        for client in stayed:
            client.connection.send({'type': 'WHO', 'ref': 'who'})
        for client in stayed:
            ids.append(await asyncio.wait_for(client.row, 15))
        for client in stayed:
            client.listener.cancel()
            await asyncio.wait([client.listener])
        await fleet.close_many([client.connection for client in stayed])
        # On Channels 4, these are clients that had to come back later, and they never had a row.
        sent_away = sum(ON_CHANNELS_1 and code == 1013 for client in clients for code, _ in client.closed.values())
        await fleet.eventually(lambda: servers.rows() <= sent_away)
        left = await loop.run_in_executor(None, servers.rows)
        return (('victim', 1), died), held_up, stopped, back, finished - begin, stayed, rows, ids, sent_away, left

    killed, held_up, stopped, back, took, stayed, rows, ids, sent_away, left = asyncio.run(soak())
    account = Account(clients, servers.notes(), killed, stopped, back)
    busy = [
        key
        for key in account.starts
        if account.starts[key] < back and account.ends.get(key, stopped) > stopped and key[0].startswith('daphne')
    ]
    with capsys.disabled():
        print(f'\n{account}\n')
        print(
            f'{took:.0f} s, {len(account.ends) / took:.0f} frames a second; {len(stayed)} of {CLIENTS} clients stayed, {sent_away} were sent away with 1013, {sum(len(client.refusals) for client in clients)} connects '
            'refused'
        )
        print(
            f'the kill of {doomed} held its connection up for {held_up:.1f} s; Redis was away for {back - stopped:.1f} s'
            + f' and forgot {len(busy)} frames at work' * ON_CHANNELS_1
        )
        print(
            f'out of order {len(account.out_of_order())}, twice {len(account.twice)}, at once {len(account.overlaps())}'
        )
        print(f'rows {rows} for {len(stayed)} open connections, {left} left when all had gone')

    assert account.unexplained == []
    assert account.out_of_order() == []
    assert account.twice == []
    assert [client.duplicates for client in clients if client.duplicates] == []
    # Redis forgot who was at work on what: only frames that were at work then may have company.
    assert [pair for pair in account.overlaps() if pair[0] not in busy] == []
    assert not ON_CHANNELS_1 or LEASE / 2 < held_up < LEASE + 5
    assert [program.log for program in programs.values() if not program.is_running] == []
    # What a runsockets holds does not depend on Redis, nor does anything on Channels 4.
    suffers = 'daphne' if ON_CHANNELS_1 else doomed
    assert [client.closed for client in clients if client.kind != suffers and client.closed] == []
    assert len(set(ids)) == len(stayed) == CLIENTS
    # daphne tells nobody of a connection that it sends away while Redis is.
    assert len(stayed) <= rows <= len(stayed) + sent_away
