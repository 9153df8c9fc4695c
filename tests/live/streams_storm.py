"""Writers of streams who do all that a page may do, in threads and processes, some of which are killed.

``python -m tests.live.streams_storm ISOLATION`` with ``TEST_DATABASE_URL`` prints what came of it, as JSON. With
``IN_OPTIONS``, the settings say the isolation, and not each session.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import django
from django.db import DatabaseError, connection, connections, transaction
from django.db.backends.signals import connection_created

SECONDS = 4
STREAMS = [f'stream {n}' for n in range(4)]
# Of another one: it is cleared while others write.
CLEARED = 'cleared'
LAST_OF_CLEARER = 'after the last clear()'
STATEMENTS = {
    'postgresql': 'SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL ',
    'mysql': 'SET SESSION TRANSACTION ISOLATION LEVEL ',
}


def set_up(isolation):
    os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')
    django.setup()
    if os.environ.get('IN_OPTIONS'):
        return connections.databases['default'].setdefault('OPTIONS', {}).update(isolation_level=option_of(isolation))

    def isolate(connection, **kwargs):
        if connection.vendor in STATEMENTS:
            with connection.cursor() as cursor:
                cursor.execute(STATEMENTS[connection.vendor] + isolation)

    connection_created.connect(isolate, weak=False)


def option_of(isolation):
    """Return ``isolation`` as ``OPTIONS`` of ``DATABASES`` have it."""
    if connection.vendor == 'mysql':
        return isolation.lower()
    try:
        from psycopg import IsolationLevel

        return IsolationLevel[isolation.replace(' ', '_')]
    except ImportError:
        from psycopg2 import extensions

        return getattr(extensions, 'ISOLATION_LEVEL_' + isolation.replace(' ', '_'))


class RolledBack(Exception):
    """What a page raises."""


class Writer:
    """A page that is asked for again and again; it notes what was committed, as (stream, text)."""

    def __init__(self, name, note):
        self.name, self.note = name, note
        self.random = random.Random(name)
        self.count = 0
        self.raised, self.refused = [], 0

    def text(self):
        self.count += 1
        return f'{self.name} {self.count}'

    def send(self, sent, stream=None):
        from sockets.streams import Stream

        stream, text = stream or self.random.choice([*STREAMS, CLEARED]), self.text()
        Stream(stream).send_action('SAID', text=text)
        sent.append([stream, text])

    def page(self, sent):
        from sockets.streams import Stream

        kind = self.random.randrange(10)
        if kind == 0:
            Stream(STREAMS[0]).position()
        for stream in self.random.sample(STREAMS, self.random.randint(1, 3)):
            self.send(sent, stream)
        if kind == 1:
            time.sleep(0.3)
        if kind in (2, 3):
            try:
                with transaction.atomic():
                    self.send([], STREAMS[1])
                    raise RolledBack
            except RolledBack:
                pass
        if kind in (4, 5):
            raise RolledBack
        if kind == 6:
            later = []
            # A hook that sends has no transaction.
            transaction.on_commit(lambda: (self.send(later), self.note(later)))

    def work(self, end):
        while time.monotonic() < end:
            sent, committed = [], []
            try:
                if self.random.random() < 0.3:
                    self.send(sent)
                    self.note(sent)
                    continue
                with transaction.atomic():
                    transaction.on_commit(lambda: (committed.append(1), self.note(sent)))
                    self.page(sent)
            except RolledBack:
                pass
            except DatabaseError as error:
                if committed:
                    self.raised.append(repr(error))
                # SERIALIZABLE says to try again, and so does a busy SQLite.
                self.refused += 1
        connections.close_all()


def write_and_die(name, isolation):
    """Write, and print what was committed, until a process dies between its commit and its numbering.

    However long that takes: a busy SQLite let three processes wait for four seconds, and nobody was killed.
    """
    set_up(isolation)
    from sockets.streams import numbering

    look, looks = numbering._look, []

    def die(*args, **kwargs):
        looks.append(1)
        if len(looks) == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return look(*args, **kwargs)

    numbering._look = die
    Writer(name, lambda sent: sent and print(json.dumps(sent), flush=True)).work(time.monotonic() + 60)


class Watcher:
    """Looks whether there is a gap, and keeps house."""

    def __init__(self):
        self.gaps, self.looks, self.is_over, self.unnumbered_for = [], 0, False, 0

    def run(self):
        from sockets.models import StreamMessage
        from sockets.streams import Stream, housekeeping, numbering, retention

        while not self.is_over:
            for name in STREAMS:
                # One query: what is visible at a time.
                rows = StreamMessage.objects.filter(key=Stream(name).key, offset__gt=0)
                offsets = list(rows.order_by('offset').values_list('offset', flat=True))
                self.looks += 1
                if offsets != list(range(1, len(offsets) + 1)):
                    self.gaps.append([name, offsets])
            try:
                housekeeping.STEPS['unnumbered']()
                retention.trim()
            except DatabaseError:
                pass
            assert numbering.LATE == 2
            time.sleep(0.1)
        connections.close_all()


def clear(end):
    """Clear a stream now and then, in a transaction and without one, and send one message after that."""
    from sockets.streams import Stream

    times = 0
    # SQLite may let it wait until all others are done.
    while time.monotonic() < end or times < 4:
        times += 1
        try:
            if times % 2:
                Stream(CLEARED).clear()
            else:
                with transaction.atomic():
                    Stream(CLEARED).clear()
                    Stream(CLEARED).send_action('SAID', text=f'clear {times}')
        except DatabaseError:
            pass
        time.sleep(0.05)
    while True:
        try:
            with transaction.atomic():
                Stream(CLEARED).send_action('SAID', text=LAST_OF_CLEARER)
            break
        except DatabaseError:
            time.sleep(0.05)
    connections.close_all()


def storm(isolation):
    """Write for some seconds, wait until all is numbered, and return what is wrong and how much there was."""
    set_up(isolation)
    from django.core.management import call_command

    call_command('migrate', verbosity=0)
    if connection.vendor == 'sqlite':
        with connection.cursor() as cursor:
            cursor.execute('pragma journal_mode = wal')
    from sockets.models import StreamHead, StreamMessage

    committed = []
    end = time.monotonic() + SECONDS
    writers = [Writer(f'thread {n}', committed.extend) for n in range(5)]
    watcher = Watcher()
    watching = threading.Thread(target=watcher.run)
    watching.start()
    threads = [threading.Thread(target=writer.work, args=(end,)) for writer in writers]
    programs = [
        subprocess.Popen([sys.executable, '-m', __spec__.name, isolation, f'process {n}'], stdout=subprocess.PIPE)
        for n in range(3)
    ]
    threads.append(threading.Thread(target=clear, args=(end,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    killed = 0
    for program in programs:
        for line in program.communicate()[0].decode().splitlines():
            committed += json.loads(line)
        killed += program.returncode == -signal.SIGKILL
    began = time.monotonic()
    while StreamMessage.objects.filter(offset=None).exists() and time.monotonic() < began + 15:
        time.sleep(0.05)
    waited = time.monotonic() - began
    watcher.is_over = True
    watching.join()
    found, disorder = [], 0
    cleared = StreamHead.objects.get(name=CLEARED)
    left = list(StreamMessage.objects.filter(name=CLEARED).order_by('offset').values_list('offset', flat=True))
    left = [offset for offset in left if offset > cleared.trimmed]
    if left != list(range(cleared.trimmed + 1, cleared.offset + 1)):
        watcher.gaps.append([CLEARED, cleared.trimmed, cleared.offset, left])
    # Nobody clears after that.
    if not StreamMessage.objects.filter(name=CLEARED, text__contains=LAST_OF_CLEARER).exists():
        watcher.gaps.append([CLEARED, 'what was sent after the last clear() is gone'])
    kept = {json.loads(row.text)['text'] for row in StreamMessage.objects.filter(name=CLEARED)}
    # Some of them before they had a number.
    gone = sum(stream == CLEARED and text not in kept for stream, text in committed)
    committed = [entry for entry in committed if entry[0] != CLEARED]
    for head in StreamHead.objects.exclude(name=CLEARED):
        rows = list(StreamMessage.objects.filter(key=head.key).order_by('offset'))
        last = {}
        if [row.offset for row in rows] != list(range(1, head.offset + 1)):
            watcher.gaps.append([head.name, head.offset])
        for row in rows:
            text = json.loads(row.text)['text']
            found.append([head.name, text])
            writer, _, count = text.rpartition(' ')
            disorder += int(count) <= last.get(writer, 0)
            last[writer] = int(count)
    found, committed = sorted(found), sorted(committed)
    # A process that is killed may have committed what it had no time to note.
    noted = {tuple(entry) for entry in committed}
    more = [entry for entry in found if tuple(entry) not in noted]
    seen = {tuple(entry) for entry in found}
    return {
        'messages': len(found),
        'missing': [entry for entry in committed if tuple(entry) not in seen],
        'twice': len(found) - len(seen),
        'not_noted_by_threads': [entry for entry in more if entry[1].startswith('thread')],
        'not_noted': len(more),
        'gaps': watcher.gaps[:3],
        'cleared': gone,
        'disorder': disorder,
        'raised': [error for writer in writers for error in writer.raised],
        'refused': sum(writer.refused for writer in writers),
        'killed': killed,
        'waited': waited,
        'looks': watcher.looks,
    }


if __name__ == '__main__':
    if len(sys.argv) > 2:
        write_and_die(sys.argv[2], sys.argv[1])
    else:
        print(json.dumps(storm(sys.argv[1])))
