"""Streams on each database and isolation: no gap, no message lost, nobody who waits for a page that takes long."""

import json

import pytest

from .. import servers as programs

LEVELS = ['READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE']


def storm(url, isolation, **environment):
    printed = programs.run_python(
        '-m', 'tests.live.streams_storm', isolation, env={'TEST_DATABASE_URL': url, **environment}
    )
    came = json.loads(printed.splitlines()[-1])
    print(isolation, came)
    assert came['messages'] > 50 and came['killed'] == 3 and came['looks'] > 10
    assert came['missing'] == came['gaps'] == came['raised'] == came['not_noted_by_threads'] == []
    assert came['cleared']
    assert came['twice'] == came['disorder'] == 0
    # What a process that was killed has left is found after two seconds.
    assert came['waited'] < 6


@pytest.mark.parametrize('isolation', LEVELS)
def test_streams_have_no_gaps_on_postgresql(isolation):
    with programs.postgres_server() as url:
        storm(url, isolation)


@pytest.mark.parametrize('isolation', LEVELS)
def test_streams_have_no_gaps_on_mariadb(isolation):
    pytest.importorskip('pymysql')
    with programs.mariadb_server() as url:
        storm(url, isolation)


def test_streams_have_no_gaps_if_the_settings_say_the_isolation():
    with programs.postgres_server() as url:
        storm(url, 'REPEATABLE READ', IN_OPTIONS='1')


def test_streams_have_no_gaps_on_mariadb_if_the_settings_say_the_isolation():
    pytest.importorskip('pymysql')
    with programs.mariadb_server() as url:
        storm(url, 'SERIALIZABLE', IN_OPTIONS='1')


def test_streams_have_no_gaps_on_sqlite(tmp_path):
    storm(f'sqlite://{tmp_path}/rows', LEVELS[0])


def test_who_holds_the_row_of_a_stream_keeps_nobody_waiting():
    # The housekeeper of each process waited to note a reminder, and looked after no other row.
    with programs.postgres_server() as url:
        printed = programs.run_python('-m', 'tests.live.streams_held', env={'TEST_DATABASE_URL': url})
    came = json.loads(printed.splitlines()[-1])
    assert [what for what, is_held, _ in came['done'] if not is_held] == []
    assert len(came['done']) == 5 and came['reminded'] and came['held'] == 5


AGES = """
import os
import sys
from datetime import timedelta
import django
os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')
django.setup()
from django.core.management import call_command
from django.db import connection
from django.utils import timezone
from sockets.models import StreamHead, StreamMessage
from sockets.models.ends import in_seconds
from sockets.streams import Stream, retention

connection.cursor().execute(f"SET GLOBAL time_zone = '{sys.argv[1]}'")
connection.close()
call_command('migrate', verbosity=0)
stream = Stream('tea', max_age=7200)

def due_within(low, high):
    due = StreamHead.objects.filter(trim_at__gt=in_seconds(low - 10), trim_at__lte=in_seconds(high + 10))
    assert due.count() == 1, (low, high, StreamHead.objects.values())

stream.send_action('SAID')
due_within(7200, 7200)
StreamMessage.objects.update(created=timezone.now() - timedelta(seconds=5000))
stream.send_action('SAID')
due_within(7200, 7200)
StreamHead.objects.update(trim_at=in_seconds(-5))
retention.trim()
assert StreamMessage.objects.count() == 2
due_within(2200, 2200)
# A lower one holds from the next message on.
Stream('tea', max_age=600).send_action('SAID')
due_within(600, 600)
StreamHead.objects.update(trim_at=in_seconds(-5))
retention.trim()
assert StreamMessage.objects.count() == 2
due_within(600, 600)
"""


@pytest.mark.parametrize('zone', ['+05:00', '-05:00'])
def test_the_age_of_messages_does_not_depend_on_the_time_zone_of_mariadb(zone):
    # They were removed hours too early, or too late.
    pytest.importorskip('pymysql')
    with programs.mariadb_server() as url:
        programs.run_python('-W', 'ignore', '-c', AGES, zone, env={'TEST_DATABASE_URL': url})
