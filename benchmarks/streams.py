"""How many messages streams take a second, on PostgreSQL and SQLite, and what it costs to give clients what they missed.

Run it with ``python benchmarks/streams.py`` where the package and its tests can be imported; it starts a PostgreSQL of
its own, and takes two minutes. Ten threads in two processes write, on the cores that the database has, too. A message
counts once it is numbered and pushed.
"""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import figures

ROOT = Path(__file__).resolve().parent.parent
PROCESSES, THREADS = 2, 5
SECONDS = 8
FOLLOWERS = 20
CLIENTS = 1000
MISSED = 100


def set_up(url):
    sys.path.insert(0, str(ROOT))
    os.environ.update(DJANGO_SETTINGS_MODULE='tests.settings', TEST_DATABASE_URL=url)
    import django

    django.setup()
    if url.startswith('sqlite'):
        from django.db.backends.signals import connection_created

        connection_created.connect(_like_a_site, weak=False)


def _like_a_site(connection, **kwargs):
    with connection.cursor() as cursor:
        cursor.execute('pragma journal_mode = wal')
        cursor.execute('pragma synchronous = normal')


def write(streams, seconds, in_transactions):
    """Write to so many streams at random from ``THREADS`` threads; print how many messages that were."""
    from django.db import connections, transaction

    from sockets.streams import Stream

    counts, failures = [], []
    names = [f'stream {n}' for n in range(streams)]
    end = time.monotonic() + seconds

    def work():
        count = 0
        try:
            while time.monotonic() < end:
                stream = Stream(random.choice(names))
                if in_transactions:
                    with transaction.atomic():
                        stream.send_action('SAID', text='x' * 100)
                else:
                    stream.send_action('SAID', text='x' * 100)
                count += 1
        except Exception as error:
            failures.append(f'{type(error).__name__}: {error}')
        counts.append(count)
        connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while any(thread.name == 'sockets-streams' for thread in threading.enumerate()):
        time.sleep(0.01)
    print(json.dumps([sum(counts), failures]))


def rate(url, streams, seconds=SECONDS, in_transactions=False):
    """Return how many messages a second were numbered."""
    from sockets.models import StreamMessage

    before = StreamMessage.objects.filter(offset__gt=0).count()
    began = time.monotonic()
    command = [sys.executable, __file__, '--write', str(streams), '--database', url, '--seconds', str(seconds)]
    command += ['--in-transactions'] if in_transactions else []
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(PROCESSES)]
    results = [json.loads(writer.communicate()[0].decode()) for writer in writers]
    # Without what it takes to start Python.
    took = max(seconds, time.monotonic() - began - 0.5)
    numbered = StreamMessage.objects.filter(offset__gt=0).count() - before
    written = sum(count for count, _ in results)
    failures = [failure for _, those in results for failure in those]
    if failures or written != numbered:
        print(f'{written} written, {numbered} numbered, {failures[:3]}')
    return numbered / took


def follow(streams):
    """Have connections of another server follow the streams."""
    from sockets.models import Membership, Socket
    from sockets.streams import Stream
    from sockets.streams.tables import membership_key

    rows = [Socket.objects.create(channel_name=f'away!{n}', path='/', server='away!') for n in range(FOLLOWERS)]
    Membership.objects.bulk_create(
        Membership(socket_id=row.pk, key=membership_key(name, None), name=name, stream=Stream(name).key)
        for name in (f'stream {n}' for n in range(streams))
        for row in rows
    )


def replay():
    """Return how many clients a second get what they have missed: all of the same, and each of something else."""
    from sockets.streams import Stream, replays

    stream = Stream('stream 0')
    position = stream.position()

    def clients(offset):
        began = time.monotonic()
        for n in range(CLIENTS):
            found = replays.cache.read(stream.key, position['epoch'], position['offset'] - offset(n))
            answer = [replays.content_of(stream.name, position['epoch'], row) for row in found.rows]
            assert len(json.dumps(answer)) > 100
        return CLIENTS / (time.monotonic() - began)

    return clients(lambda n: MISSED), clients(lambda n: 1 + n % (2 * MISSED))


def measure(name, url):
    set_up(url)
    from django.core.management import call_command

    call_command('migrate', verbosity=0)
    rows = []
    for streams in (1, 100):
        rows.append([name, f'{streams} streams', f'{rate(url, streams):.0f} messages/s'])
    rows.append([name, '100 streams, in transactions', f'{rate(url, 100, in_transactions=True):.0f} messages/s'])
    same, others = replay()
    rows.append([name, f'{CLIENTS} clients miss the same {MISSED}', f'{same:.0f} clients/s'])
    rows.append([name, f'{CLIENTS} clients miss 1 to {2 * MISSED}', f'{others:.0f} clients/s'])
    follow(100)
    for streams in (1, 100):
        rows.append([name, f'{streams} streams, {FOLLOWERS} followers', f'{rate(url, streams):.0f} messages/s'])
    figures.print_table(['database', 'what', 'how many'], rows)


@contextlib.contextmanager
def sqlite_file():
    with tempfile.TemporaryDirectory() as directory:
        yield f'sqlite://{directory}/rows'


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--database', help='the URL of an empty one, instead of one of its own')
    parser.add_argument('--write', type=int, metavar='STREAMS', help=argparse.SUPPRESS)
    parser.add_argument('--seconds', type=float, default=SECONDS)
    parser.add_argument('--in-transactions', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:
        set_up(args.database)
        return write(args.write, args.seconds, args.in_transactions)
    if args.database:
        return measure(args.database.partition(':')[0], args.database)
    sys.path.insert(0, str(ROOT))
    from tests import servers

    for start in (servers.postgres_server, sqlite_file):
        with start() as url:
            # In a process of its own: Django is set up once.
            subprocess.check_call([sys.executable, __file__, '--database', url])


if __name__ == '__main__':
    main()
