"""What PostgreSQL does to find messages of streams: ``python -m`` with ``TEST_DATABASE_URL`` prints it, as JSON.

Each line: what was done, the query, the indexes that it has used, the tables that were read whole, and how many rows were read
for nothing.
"""

import json
import os
import re
from datetime import timedelta

STREAMS, EACH = 100, 300
FILL = """
    INSERT INTO sockets_streammessage (key, name, "offset", text, created)
    SELECT head.key, head.name, n, '{}', now() - interval '2 days' + n * interval '1 s'
    FROM generate_series(%s, %s) n, sockets_streamhead head ORDER BY n, head.key
"""


def set_up():
    import django

    os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')
    django.setup()
    from django.core.management import call_command
    from django.db import connection

    from sockets.models import StreamHead
    from sockets.streams import Stream

    call_command('migrate', verbosity=0)
    names = [f's{n}' for n in range(STREAMS)]
    StreamHead.objects.bulk_create(
        StreamHead(key=Stream(name).key, name=name, epoch='epoch', offset=2 * EACH) for name in names
    )
    with connection.cursor() as cursor:
        # Half of them are newer than what the database knows of the table, as it is between two looks of its own.
        cursor.execute(FILL, [1, EACH])
        cursor.execute('ANALYZE')
        cursor.execute(FILL, [EACH + 1, 2 * EACH])


class Plans:
    """Notes how each query is done that is about messages."""

    def __init__(self):
        self.found, self.what = [], ''

    def __call__(self, execute, sql, params, many, context):
        from django.db import connection, transaction

        if 'sockets_streammessage' in sql and sql.split()[0] in ('SELECT', 'UPDATE', 'DELETE'):
            with transaction.atomic(), connection.cursor() as cursor:
                # Not with Django's, which would ask here again.
                cursor.cursor.execute('EXPLAIN (ANALYZE, TIMING OFF) ' + sql, params)
                self.note(sql, '\n'.join(line for (line,) in cursor.cursor.fetchall()))
                transaction.set_rollback(True)
        return execute(sql, params, many, context)

    def note(self, sql, plan):
        indexes = re.findall(r'(?:using|Bitmap Index Scan on) (\w+)', plan)
        removed = sum(map(int, re.findall(r'Rows Removed by (?:Filter|Index Recheck): (\d+)', plan)))
        self.found.append((self.what, sql, indexes, re.findall(r'Seq Scan on (\w+)', plan), removed))


def do_all(plans):
    from django.db.models.functions import Now
    from django.utils import timezone

    from sockets.models import StreamHead, StreamMessage
    from sockets.streams import Stream, numbering, replays, retention

    stream = Stream('s7')
    for offset in (0, EACH // 2, EACH, 2 * EACH - 3):
        plans.what = f'resume from {offset}'
        replays.read(stream.key, 'epoch', offset)
        plans.what = f'history from {offset}'
        stream.history({'epoch': 'epoch', 'offset': offset}, limit=10)
    plans.what = 'history'
    stream.history()
    plans.what = 'clear'
    stream.clear()
    for what, limits in (('number', {'max_messages': 10}), ('age', {'max_age': 3600}), ('no age', {'max_age': 10**6})):
        plans.what = f'trim by {what}'
        key = Stream(f's{len(what)}').key
        StreamHead.objects.filter(pk=key).update(trim_at=Now() - timedelta(seconds=1), **limits)
        for _ in range(2):
            retention._trim_part(key)
    plans.what = 'fill'
    late = timezone.now() - timedelta(seconds=9)
    StreamMessage.objects.bulk_create(
        StreamMessage(key=Stream('s8').key, name='s8', text='{}', created=late) for _ in range(2000)
    )
    plans.what = 'number'
    Stream('s9').send_action('SAID')
    StreamMessage.objects.filter(name='s8', offset=None).delete()
    plans.what = 'housekeeper'
    numbering.unnumbered().exists()
    numbering.number_left(Stream)


def main():
    set_up()
    from django.db import connection

    plans = Plans()
    with connection.execute_wrapper(plans):
        do_all(plans)
    for line in plans.found:
        if line[0] != 'fill':
            print(json.dumps(line))


if __name__ == '__main__':
    main()
