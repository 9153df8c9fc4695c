"""Nothing is missed: clients come and go, servers are killed, Redis is emptied, PostgreSQL restarts, and pushes get lost.

At the end each client has of each stream exactly what the table has, from where it began, in order, none twice, or it was
told ``lost`` where retention or a new epoch says so.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time

import psycopg2
import pytest

from .. import servers as programs
from . import fleet
from .stack import ON_CHANNELS_1
from .stream_follower import Count, Follower

pytestmark = pytest.mark.timed

CLIENTS = int(os.environ.get('CHAOS_CLIENTS', 100))
WRITERS = 10
FOLLOWED = 3
# As the site calls them: one that keeps little, and one that is cleared now and then. The third one loses its rows. Of the
# last ones a client is to have all, whenever it comes.
SHORT, CLEARED, RENEWED = 'short', 'cleared', 'renewed'
WHOLE = ('s0', 's1', 's2', 's3', 's4', 's5')
NAMES = [SHORT, CLEARED, RENEWED, *(f's{n}' for n in range(17))]
# What is lost of all pushes.
LOST = 0.1
# Seconds between two faults, and those that everybody has at the end.
FAULT_EVERY = 6
SETTLE = 90

FORMS = [
    pytest.param(int(os.environ.get('CHAOS_SECONDS', 60)), id='a minute'),
    pytest.param(600, id='ten minutes', marks=pytest.mark.long),
]

# What every message was numbered as, also those that are removed later.
LEDGER = """
    DROP TABLE IF EXISTS ledger;
    CREATE TABLE ledger (epoch text, name text, "offset" bigint, text text);
    CREATE OR REPLACE FUNCTION note_it() RETURNS trigger AS $$ BEGIN
        INSERT INTO ledger
            SELECT head.epoch, NEW.name, NEW."offset", NEW.text FROM sockets_streamhead head WHERE head.key = NEW.key;
        RETURN NULL;
    END $$ LANGUAGE plpgsql;
    CREATE TRIGGER noted AFTER UPDATE OF "offset" ON sockets_streammessage
        FOR EACH ROW EXECUTE FUNCTION note_it();
"""


class Chaos:
    """Servers, what befalls them, and those who write and listen."""

    def __init__(self, directory, seconds):
        self.seconds = seconds
        self.dice = random.Random(os.environ.get('CHAOS_SEED', '15'))
        self.resources = contextlib.ExitStack()
        self.database_url, self.start_postgres = self.resources.enter_context(programs.postgres_cluster())
        self.postgres = contextlib.ExitStack()
        self.postgres.enter_context(self.start_postgres())
        self.redis = fleet.Redis(directory)
        self.drop, self.stop_writing = directory / 'drop', directory / 'stop'
        self.drop.write_text('0')
        self.servers = fleet.Fleet(directory, self.database_url, self.redis, DROP=str(self.drop))
        self.servers.environment.update(
            DJANGO_SETTINGS_MODULE='tests.live.streams_chaos_site',
            STOP=str(self.stop_writing),
            PACE=os.environ.get('PACE', '0.3'),
        )
        self.sql(LEDGER)
        self.faults = Count()

    def sql(self, query, *args):
        with contextlib.closing(psycopg2.connect(self.database_url)) as database, database, database.cursor() as cursor:
            cursor.execute(query, args)
            return cursor.fetchall() if cursor.description else None

    def start(self):
        self.kinds = ['runsockets', 'runsockets', 'daphne']
        self.up = [self.start_one(n) for n in range(3)]
        if ON_CHANNELS_1:
            self.worker = self.servers.worker()
        self.writers = [
            self.servers.start('writers', '-m', 'tests.live.streams_chaos_site', str(first), str(WRITERS // 2), *NAMES)
            for first in (0, WRITERS // 2)
        ]

    def start_one(self, n):
        return getattr(self.servers, self.kinds[n])()

    def fault(self, number):
        """Do one thing to somebody, and set it right."""
        kind = ('kill', 'redis', 'kill', 'postgres', 'kill', 'emptied', 'stopped', 'renew')[number % 8]
        self.faults[kind] += 1
        if kind == 'kill':
            n = self.dice.randrange(3)
            self.up[n].stop(signal.SIGKILL)
            time.sleep(1)
            self.up[n] = self.start_one(n)
        elif kind == 'stopped':
            n = self.dice.randrange(3)
            self.up[n].process.send_signal(signal.SIGSTOP)
            time.sleep(3)
            self.up[n].process.send_signal(signal.SIGCONT)
        elif kind == 'redis':
            self.redis.stop()
            time.sleep(1)
            self.redis.start()
        elif kind == 'emptied':
            self.redis.client().flushall()
        elif kind == 'postgres':
            self.postgres.close()
            time.sleep(1)
            self.postgres.enter_context(self.start_postgres())
        else:
            # As after a restored backup, or a cleared database: the numbers begin anew. Under the lock of who numbers.
            self.sql(
                'BEGIN; SELECT 1 FROM sockets_streamhead WHERE name = %s FOR UPDATE;'
                'DELETE FROM sockets_streammessage WHERE name = %s; DELETE FROM sockets_streamhead WHERE name = %s',
                *[RENEWED] * 3,
            )

    def stop(self):
        self.stop_writing.write_text('')
        with contextlib.suppress(Exception):
            self.servers.stop()
        self.redis.stop()
        self.postgres.close()
        self.resources.close()


async def come_and_go(chaos, client, is_over, is_done):
    """Have ``client`` come and go until ``is_over()``, and stay then until ``is_done()``."""
    dice = client.dice
    await asyncio.sleep(dice.random() * 3)
    while not is_done():
        leaves_at = time.monotonic() + 1 + dice.expovariate(1 / 8)
        try:
            code = await client.stay(
                dice.choice(chaos.up).port, lambda: is_done() or (not is_over() and time.monotonic() > leaves_at)
            )
        except (fleet.Refused, OSError, asyncio.TimeoutError):
            client.counts['refused'] += 1
            await asyncio.sleep(0.3 + 0.5 * dice.random())
            continue
        client.counts['sent away' if code is not None else 'left'] += 1
        if not is_over():
            await asyncio.sleep(dice.expovariate(1 / (0.5 if code is not None else 3)))
        elif code is not None:
            await asyncio.sleep(dice.random())


def heads(chaos):
    return {
        name: (epoch, offset, trimmed)
        for name, epoch, offset, trimmed in chaos.sql('SELECT name, epoch, "offset", trimmed FROM sockets_streamhead')
    }


def behind(chaos, clients):
    """Return what keeps us from the end: what is not numbered, and who is not where the streams stand."""
    found = []
    ((waiting,),) = chaos.sql('SELECT count(*) FROM sockets_streammessage WHERE "offset" IS NULL')
    if waiting:
        found.append(f'{waiting} messages without a number')
    stand = heads(chaos)
    for client in clients:
        for following in client.streams.values():
            epoch, offset, _ = stand.get(following.name, ('', 0, 0))
            if (following.epoch, following.offset) != (epoch, offset):
                found.append(
                    f'client {client.number} ({"connected" if client.connection else "away"}), {following.name}: is at '
                    f'{following.epoch} {following.offset}, not {epoch} {offset}; head {following.head}, '
                    f'early {sorted(following.early)[:5]}, asks {client.asking.get(following.name)}, errors {client.errors[-2:]}'
                )
    return found


def misses(chaos, clients):
    """Return what is not as it was promised, a text for each: which client, stream and offsets."""
    found, ledger = [], {}
    for epoch, name, offset, text in chaos.sql('SELECT epoch, name, "offset", text FROM ledger'):
        if (epoch, name, offset) in ledger:
            found.append(f'{name} {epoch}: {offset} was given twice')
        ledger[epoch, name, offset] = json.loads(text)
    stand = heads(chaos)
    for name, (epoch, offset, _) in stand.items():
        for missing in [n for n in range(1, offset + 1) if (epoch, name, n) not in ledger]:
            found.append(f'{name} {epoch}: there is no {missing}')
    regretted = [where for where, content in ledger.items() if content['regretted']]
    if regretted:
        found.append(f'messages that were rolled back were numbered: {regretted[:5]}')
    for client in clients:
        for following in client.streams.values():
            who = f'client {client.number}, {following.name}'
            found += [f'{who}: {text}' for text in misses_of(following, ledger, stand.get(following.name))]
    return found


def misses_of(following, ledger, head):
    if not following.begun:
        return ['never heard of it']
    found = []
    if following.name in WHOLE and following.begins[0] != ('', 0):
        found.append(f'began at {following.begins[0]}, and not with the first message')
    # From each place where it began to where that ended: where it was told that something is lost, or the end.
    ends = [end for end, _ in following.lost] + [(following.epoch, following.offset)]
    if len(ends) != len(following.begins):
        return [f'begins {following.begins}, ends {ends}']
    expected = []
    for (epoch, first), (end_epoch, last) in zip(following.begins, ends):
        if epoch not in ('', end_epoch):
            found.append(f'began in {epoch} and ended in {end_epoch}')
        expected += [(end_epoch, offset) for offset in range(first + 1, last + 1)]
    given = [(epoch, offset) for epoch, offset, _ in following.given]
    if given != expected:
        wrong = [pair for pair in zip(given, expected) if pair[0] != pair[1]]
        found.append(f'has {len(given)}, not {len(expected)}; first (has, should have): {wrong[:1]}')
    for epoch, offset, content in following.given:
        content = dict(content)
        kept = content.pop('kept')
        if kept != {'stream': following.name, 'epoch': epoch, 'offset': offset}:
            found.append(f'{epoch} {offset} says that it is {kept}')
        if ledger.get((epoch, following.name, offset)) != content:
            found.append(f'{epoch} {offset} is {content}, not {ledger.get((epoch, following.name, offset))}')
    for (epoch, offset), (new_epoch, new_offset) in following.lost:
        is_renewed = epoch not in ('', new_epoch) and following.name == RENEWED
        is_trimmed = following.name in (SHORT, CLEARED) and new_offset > offset and head and head[2] > offset
        if not is_renewed and not is_trimmed:
            found.append(f'was told that it lost something after {epoch} {offset}, it is at {new_epoch} {new_offset}')
    return found[:5]


async def scenario(chaos, clients):
    loop = asyncio.get_event_loop()
    over = done = False
    until = time.monotonic() + chaos.seconds
    tasks = [asyncio.ensure_future(come_and_go(chaos, client, lambda: over, lambda: done)) for client in clients]

    def check():
        for task in tasks:
            if task.done() and task.exception():
                raise task.exception()

    try:
        number = 0
        await asyncio.sleep(4)
        while time.monotonic() < until:
            next_fault = time.monotonic() + FAULT_EVERY * chaos.dice.uniform(0.7, 1.3)
            await loop.run_in_executor(None, chaos.fault, number)
            number += 1
            while time.monotonic() < min(next_fault, until):
                check()
                await asyncio.sleep(0.2)
        chaos.stop_writing.write_text('')
        over = True
        # Pushes get lost to the end: what has nothing after it must be noticed.
        for writers in chaos.writers:
            await loop.run_in_executor(None, writers.process.wait, 60)
        chaos.drop.write_text('0')
        began, left = time.monotonic(), ['?']
        while left and time.monotonic() < began + SETTLE:
            check()
            await asyncio.sleep(0.5)
            left = await loop.run_in_executor(None, behind, chaos, clients)
        chaos.settled = time.monotonic() - began
        return left
    finally:
        done = True
        await asyncio.wait(tasks, timeout=10)


@pytest.mark.parametrize('seconds', FORMS)
def test_clients_that_come_and_go_miss_nothing_whatever_befalls_the_servers(tmp_path, seconds, capsys):
    chaos = Chaos(tmp_path, seconds)
    clients = [Follower(n, sorted(random.Random(n).sample(NAMES, FOLLOWED))) for n in range(CLIENTS)]
    try:
        chaos.start()
        chaos.drop.write_text(str(LOST))
        left = asyncio.run(scenario(chaos, clients))
        found = misses(chaos, clients)
        ((messages,),) = chaos.sql('SELECT count(*) FROM ledger')
    finally:
        chaos.stop()
    total = sum((client.counts for client in clients), Count())
    with capsys.disabled():
        print(
            f'\n{seconds} s, {sum(chaos.faults.values())} faults {dict(chaos.faults)}: {messages} messages, '
            f'{total["deliveries"]} deliveries ({total["resumed messages"]} of them by RESUMED), '
            f'{total["duplicates"]} duplicates on the wire, {total["gaps"]} gaps filled, {total["lost"]} lost; '
            f'{total["connects"]} connects, {total["resumes"]} RESUME, {total["begun late"]} begun late, settled after {chaos.settled:.1f} s'
        )
        print(dict(total), file=sys.stderr)
        errors = Count(str(error.get('code')) for client in clients for error in client.errors)
        if errors:
            print(f'errors: {dict(errors)}')
    if found or left:
        for program in chaos.servers.programs:
            print(program.log_path.name, program.log[-3000:])
    assert found == [], '\n'.join(found[:40])
    assert left == [], '\n'.join(left[:40])
    # There was something to see.
    assert messages > 5 * seconds and total['lost'] and total['gaps'] and total['duplicates']
