import os
import subprocess
import sys

from sockets.layers import leases
from sockets.layers.leases import FileLeases

from .servers import ROOT

HOLD = """
import sys
from sockets.layers.leases import FileLeases
leases = FileLeases(sys.argv[1])
leases.hold('server!')
print(leases.dead(['server!', 'other!']), flush=True)
sys.stdin.read()
"""


def test_a_server_is_dead_when_its_process_is_and_not_before(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=str(ROOT)
    )
    assert holder.stdout.readline() == b'[]\n'
    leases = FileLeases(str(tmp_path))
    leases.hold('mine!')
    assert leases.dead(['server!', 'mine!', 'unheard of!']) == []
    assert leases.alive(['server!', 'mine!', 'unheard of!']) == ['server!', 'mine!']
    holder.kill()
    holder.communicate()
    assert leases.dead(['server!', 'mine!', 'unheard of!']) == ['server!'] == leases.dead()
    assert leases.alive(['server!', 'mine!', 'unheard of!']) == ['mine!']
    leases.forget('server!'), leases.forget('server!')
    assert leases.dead(['server!']) == leases.dead() == []


def test_a_process_without_connections_also_finds_dead_servers_but_only_those_with_a_file(tmp_path):
    # As manage.py sockets purge, which found nobody dead.
    (tmp_path / 'server_').write_text('')
    assert FileLeases(str(tmp_path)).dead(['server!', 'elsewhere!']) == ['server!']


def test_where_files_cannot_be_locked_no_server_is_found_dead(tmp_path, monkeypatch, caplog):
    def flock(file, operation):
        raise OSError('no locks available')

    monkeypatch.setattr(leases.fcntl, 'flock', flock)
    FileLeases(str(tmp_path)).hold('mine!')
    assert 'mine! has no lease' in caplog.text and not list(tmp_path.iterdir())
    (tmp_path / 'server_').write_text('')
    other = FileLeases(str(tmp_path))
    assert other.dead(['mine!', 'server!']) == other.alive(['mine!', 'server!']) == []


def test_what_is_left_of_the_long_dead_is_swept_away(tmp_path):
    for name, age in (('old', 8 * 86400), ('new', 86400)):
        (tmp_path / name).write_text('')
        then = os.stat(str(tmp_path / name)).st_mtime - age
        os.utime(str(tmp_path / name), (then, then))
    FileLeases(str(tmp_path)).hold('mine!')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['mine_', 'new']


def test_a_server_that_cannot_take_a_lease_serves_without_one_and_finds_none_dead(tmp_path, caplog):
    (tmp_path / 'a file').write_text('')
    leases = FileLeases(str(tmp_path / 'a file' / 'directory'))
    leases.hold('mine!'), leases.hold('mine!')
    assert caplog.text.count('mine! has no lease') == 1
    assert leases.dead(['server!']) == []
