"""Somebody holds the row of a stream for long: ``python -m`` with ``TEST_DATABASE_URL`` prints what goes on meanwhile, as JSON."""

import json
import os
import threading
import time
from datetime import timedelta

# Whatever waits for the row is not done by then.
HELD_FOR = 30


def main():
    import django

    os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')
    django.setup()
    from django.core.management import call_command
    from django.db import connections, transaction
    from django.utils import timezone

    from sockets.models import StreamHead, StreamMessage
    from sockets.presence import Housekeeper
    from sockets.streams import Stream

    call_command('migrate', verbosity=0)
    held, other = Stream('held'), Stream('other')
    for stream in (held, other):
        stream.send_action('SAID')
    StreamHead.objects.update(remind_at=timezone.now() - timedelta(seconds=9))
    StreamHead.objects.filter(pk=held.key).update(trim_at=timezone.now() - timedelta(seconds=9), max_messages=1)
    is_held, is_over = threading.Event(), threading.Event()

    def hold():
        with transaction.atomic():
            StreamHead.objects.select_for_update().get(pk=held.key)
            is_held.set()
            is_over.wait(HELD_FOR)
        connections.close_all()

    holder = threading.Thread(target=hold)
    holder.start()
    is_held.wait(10)
    began, done = time.monotonic(), []

    def note(what):
        done.append((what, holder.is_alive(), time.monotonic() - began))

    with transaction.atomic():
        held.send_action('SAID')
        other.send_action('SAID')
    note('a page that writes into both')
    for _ in range(3):
        other.send_action('SAID')
        held.send_action('SAID')
    note('writers')
    for _ in range(2):
        Housekeeper().look()
    note('the housekeeper')
    held.history(), held.position()
    note('readers')
    while other.position()['offset'] < 5 and holder.is_alive():
        time.sleep(0.05)
    note('the numbers of the other')
    reminded = (
        StreamHead.objects.get(pk=other.key).reminders or StreamHead.objects.get(pk=other.key).remind_at is not None
    )
    is_over.set()
    holder.join()
    # What the process has given up is late then.
    StreamMessage.objects.filter(offset=None).update(created=timezone.now() - timedelta(seconds=9))
    Housekeeper().look()
    deadline = time.monotonic() + 20
    while held.position()['offset'] < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    print(json.dumps({'done': done, 'reminded': reminded, 'held': held.position()['offset']}))


if __name__ == '__main__':
    main()
