"""Rows of connections that are inserted together while somebody holds the row of a user, on the databases that wait for it."""

import json

import pytest

from .. import servers as programs

HELD = """
import json, os, threading, time
import django
os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')
django.setup()
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection, connections, transaction
from sockets.models import Socket, insertion

call_command('migrate', verbosity=0)
users = [get_user_model().objects.create(username=str(n)) for n in range(3)]
is_held, may_end = threading.Event(), threading.Event()

def hold():
    with transaction.atomic():
        get_user_model().objects.select_for_update().get(pk=users[1].pk)
        is_held.set()
        may_end.wait(30)
    connections.close_all()

threading.Thread(target=hold).start()
is_held.wait(10)
found = [insertion.Insertion(Socket(channel_name=f'server!{n}', path='/', user=user)) for n, user in enumerate(users)]
began = time.monotonic()
insertion.insert(found)
rows = [found[n].finish().pk for n in (0, 2)]
took = time.monotonic() - began
# It waits as it would have waited alone.
threading.Timer(2, may_end.set).start()
found[1].finish()
waited = time.monotonic() - began - took
with connection.cursor() as cursor:
    cursor.execute({'mysql': 'SELECT @@innodb_lock_wait_timeout', 'postgresql': 'SHOW lock_timeout'}[connection.vendor])
    print(json.dumps([rows, took, waited, Socket.objects.count(), cursor.fetchone()[0]]))
"""


@pytest.mark.parametrize('server, patience', [('postgres_server', '0'), ('mariadb_server', 50)])
def test_who_holds_the_row_of_one_user_keeps_no_other_from_connecting(server, patience):
    if server == 'mariadb_server':
        pytest.importorskip('pymysql')
    # All that were inserted together waited until that transaction had ended, and their clients were gone by then.
    with getattr(programs, server)() as url:
        printed = programs.run_python('-W', 'ignore', '-c', HELD, env={'TEST_DATABASE_URL': url})
    rows, took, waited, count, left = json.loads(printed.splitlines()[-1])
    assert all(rows) and took < 1.9 < waited + 0.2 and count == 3 and left == patience
