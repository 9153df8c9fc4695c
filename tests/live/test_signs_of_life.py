"""Signs of life on each database, and two processes that write those of the same connections in opposite orders."""

import sys

import pytest

from .. import servers as programs

# What a process does: it has heard of all 600 connections, and writes that, twenty times.
WRITER = """
import sys, time
import django
django.setup()
from sockets.connection import signs_of_life
from sockets.connection.memory import memories
from sockets.models import Socket
signs, raised = signs_of_life.signs, 0
signs._is_open = True
class Connection:
    keeps_order = True
    def __init__(self, name):
        self.name = name
names = list(Socket.objects.order_by(sys.argv[1]).values_list('channel_name', flat=True))
for turn in range(20):
    for place, name in enumerate(names):
        memory = memories.get(name)
        # Others have been told a moment ago.
        memory.heard = memory.noted = time.monotonic() + place / 1e6
        signs.take(Connection(name), memory)
    # One by one: whoever locks several in any order must expect a deadlock.
    for key in list(Socket.objects.values_list('pk', flat=True))[turn::20]:
        Socket.objects.filter(pk=key).update(last_ping='2020-01-01T00:00Z')
    while len(signs):
        try:
            signs.write()
        except Exception as error:
            raised += 1
            print(type(error).__name__, error)
print(len(names), 'written', raised, 'raised')
"""

MAKER = """
import django
django.setup()
from django.core.management import call_command
call_command('migrate', verbosity=0)
from sockets.models import Socket
Socket.objects.bulk_create([Socket(channel_name=f'a!{n * 7919 % 600}', path='/', server='a!') for n in range(600)])
"""

COUNT = """
import django
django.setup()
from sockets.models import Socket
print(Socket.objects.filter(last_ping__gt='2021-01-01T00:00Z').count())
"""


@pytest.fixture(params=['postgresql', 'mariadb', 'sqlite'])
def url(request, tmp_path):
    if request.param == 'sqlite':
        yield f'sqlite://{tmp_path}/rows'
        return
    if request.param == 'mariadb':
        pytest.importorskip('pymysql')
    with programs.postgres_server() if request.param == 'postgresql' else programs.mariadb_server() as found:
        yield found


# On SQLite, the unit tests do.
@pytest.mark.parametrize('url', ['postgresql', 'mariadb'], indirect=True)
def test_what_rows_are_told_holds_on_each_database(url):
    printed = programs.run_python(
        *('-m', 'pytest', '-q', '-p', 'no:cacheprovider', 'tests/test_signs_of_life.py'), env={'TEST_DATABASE_URL': url}
    )
    assert ' passed' in printed and 'failed' not in printed


def test_two_processes_that_write_in_opposite_orders_lose_nothing(url, tmp_path):
    env = {'TEST_DATABASE_URL': url, 'DJANGO_SETTINGS_MODULE': 'tests.settings'}
    programs.run_python('-c', MAKER, env=env)
    writers = [
        programs.Program([sys.executable, '-W', 'ignore', '-c', WRITER, order], tmp_path / order, env)
        for order in ('pk', '-pk', 'channel_name')
    ]
    for writer in writers:
        writer.process.wait(60)
        assert '600 written 0 raised' in writer.log, writer.log
    assert programs.run_python('-c', COUNT, env=env).split() == ['600']
