"""The servers and writers of the tests of streams: those of ``soak_site``, with a handler that follows what it is told.

``DROP``: which part of the messages of streams gets lost on its way to a connection. ``COUNT``: note each query that reads
streams.
"""

import os
import random
import sys
import threading
import time
import uuid
from pathlib import Path

from tests.live import stack
from tests.live.soak_site import *  # noqa: F403
from tests.live.soak_site import SOCKETS, note

DROP = float(os.environ.get('DROP', 0))
CHANNEL_LAYERS = stack.channel_layers(
    'tests.live.streams_site.routing', os.environ.get('REDIS_URL', ''), prefix='streams:'
)
SOCKETS = {**SOCKETS, **stack.routed('tests.live.streams_site.routing')}

# Streams that keep few messages. The others lose none.
SHORT = ('stream:0', 'stream:1')
KEPT = 2


def lose_some():
    """Have this process lose messages of streams on their way to connections, wherever these are."""
    from sockets import fanout

    hand_over = fanout.hand_over

    def lossy(way, names, message):
        if '"kept":{' in message.get('text', ''):
            names = [name for name in names if random.random() >= DROP]
        return hand_over(way, names, message) if names else 0

    fanout.hand_over = lossy


def count_queries():
    """Note each query of this process that reads streams."""
    from django.db.backends.signals import connection_created

    def count(execute, sql, params, many, context):
        # Not what the housekeeper asks each second, whoever comes.
        if 'IS NULL' not in sql and '_at" <=' not in sql:
            for table in ('streamhead', 'streammessage'):
                if sql.startswith('SELECT ') and f'FROM "sockets_{table}"' in sql:
                    note('query', table)
        return execute(sql, params, many, context)

    def wrap(connection, **kwargs):
        connection.execute_wrappers.append(count)

    connection_created.connect(wrap, weak=False)


def stream_of(number):
    """Return the stream of that number."""
    from sockets.streams import Stream

    name = f'stream:{number}'
    return Stream(name, max_messages=KEPT) if name in SHORT else Stream(name)


class Rollback(Exception):
    """Ends a transaction that is to leave nothing."""


def write(writer, streams, stop, pace):
    """Send to some of the streams, in transactions of which a fifth roll back, and note what became of each message.

    What was begun and neither committed nor rolled back has an unknown end: its process or the database went away.
    """
    from django.db import Error, connection, transaction

    while not stop.exists():
        numbers = [random.randrange(streams) for _ in range(random.randint(1, 3))]
        # The first part is the name of the stream.
        ids = [f'stream:{number}|{writer}|{uuid.uuid4().hex[:12]}' for number in numbers]
        for each in ids:
            note('begun', each)
        try:
            try:
                with transaction.atomic():
                    for number, each in zip(numbers, ids):
                        stream_of(number).send_action('SAID', id=each)
                        if random.random() < 0.2:
                            # A savepoint that is rolled back.
                            try:
                                with transaction.atomic():
                                    other = f'{each}-savepoint'
                                    note('rolled', other)
                                    stream_of(number).send_action('SAID', id=other)
                                    raise Rollback
                            except Rollback:
                                pass
                        time.sleep(random.random() * 0.05)
                    if random.random() < 0.2:
                        raise Rollback
            except Rollback:
                for each in ids:
                    note('rolled', each)
            else:
                for each in ids:
                    note('committed', each)
        except Error:
            connection.close()
            time.sleep(0.2)
        time.sleep(random.random() * 2 * pace)


def __getattr__(name):
    if name == 'routing':
        from sockets import RoutedSocketHandler
        from sockets.routing import route_class

        if DROP:
            lose_some()
        if 'COUNT' in os.environ:
            count_queries()

        class Following(RoutedSocketHandler):
            routes = (
                *RoutedSocketHandler.routes,
                ('FOLLOW', lambda socket, content: [socket.follow(each) for each in content['names']] and None),
            )

        # Asked for more than once.
        globals()[name] = [route_class(Following, path=r'^/streams/$')]
        return globals()[name]
    raise AttributeError(name)


if __name__ == '__main__':
    # NAME THREADS STREAMS STOP PACE
    import django

    django.setup()
    if DROP:
        lose_some()
    first, threads, streams, stop, pace = sys.argv[1:]
    at_work = [
        threading.Thread(target=write, args=(f'{first}.{n}', int(streams), Path(stop), float(pace)))
        for n in range(int(threads))
    ]
    for thread in at_work:
        thread.start()
    for thread in at_work:
        thread.join()
    # For what is numbered in the background.
    time.sleep(1)
