"""``manage.py sockets doctor``, against what it is for: servers, workers and a Redis that are there, or not."""

import re
import signal
import subprocess
import time

import pytest

from .. import servers
from . import fleet
from .conftest import eventually
from .stack import ON_CHANNELS_1

DOCS = (servers.ROOT / 'docs/checks.md').read_text()


@pytest.fixture(scope='module')
def running(tmp_path_factory, redis, database_url):
    running = fleet.Fleet(tmp_path_factory.mktemp('fleet'), database_url, redis)
    yield running
    running.stop()


def examine(environment, *args):
    """Return the doctor's exit code and its lines, by what they are about."""
    process = subprocess.run(
        servers.python_module('django', 'sockets', 'doctor', *args),
        cwd=str(servers.ROOT),
        env=servers.environment(**environment),
        stdout=subprocess.PIPE,
        # A server that is found dead is logged as well.
        stderr=subprocess.DEVNULL,
        timeout=30,
    )
    lines = process.stdout.decode().splitlines()
    assert all(re.match(r'(ok  |BAD |--  ) \S+ +\S', line) for line in lines), lines
    return process.returncode, {line.split()[1]: line for line in lines}


def anonymous(text):
    """Return the output of the doctor without what differs from one run to the next."""
    text = re.sub(r'daphne\.response\.\w+!', 'SERVER', text)
    text = re.sub(r'[\d.]+ ms', 'N ms', text)
    text = re.sub(r'Redis [\d.]+\.', 'Redis N.', text)
    text = re.sub(r'Process \d+ on \S+ ', 'Process N on HOST ', text)
    text = re.sub(r'ws://\S+', 'URL', text)
    return re.sub(r'\(\d+ connections\)|\d+ connections', 'N connections', text)


@pytest.mark.channels1('its workers, and the page shows what it says there')
def test_a_site_that_works_is_green_and_one_without_its_worker_is_not(running):
    daphne, worker = running.daphne(), running.worker()
    code, lines = examine(running.environment, '--url', f'ws://127.0.0.1:{daphne.port}/soak/')
    # It is what the documentation shows.
    shown = re.search(r'^```text\n(.*?)^```$', DOCS, re.MULTILINE | re.DOTALL).group(1)
    assert anonymous('\n'.join(lines.values())) == anonymous(shown.strip())
    assert code == 0 and f'Process {worker.process.pid} on ' in lines['worker']
    worker.stop(signal.SIGKILL)
    code, lines = examine(running.environment)
    assert code == 1 and lines['worker'].startswith('BAD') and 'manage.py runsockets' in lines['worker']
    assert [name for name in lines if lines[name].startswith('ok')] == ['checks', 'database', 'layer', 'server']
    daphne.stop(signal.SIGKILL)
    runsockets = running.runsockets()
    code, lines = examine(running.environment)
    assert code == 0 and f'Process {runsockets.process.pid} on ' in lines['worker']
    runsockets.stop()


@pytest.mark.channels4('its servers are asked, there are no workers')
def test_a_site_on_channels_4_is_green_and_one_whose_server_was_killed_is_not(running):
    server = running.runsockets()
    code, lines = examine(running.environment, '--url', f'ws://127.0.0.1:{server.port}/soak/')
    assert code == 0, lines
    names = [name for name in lines if lines[name].startswith('ok')]
    assert names == ['checks', 'database', 'layer', 'worker', 'server', 'websocket']
    assert f'process {server.process.pid} on ' in lines['worker']
    server.stop(signal.SIGKILL)
    code, lines = examine(running.environment)
    assert code == 1 and lines['worker'].startswith('BAD'), lines


def test_a_redis_and_a_database_that_hang_or_are_away_are_red_within_seconds(running, redis):
    redis.program.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    code, lines = examine(running.environment)
    assert code == 1 and 'No answer within 5 s' in lines['layer'] and time.monotonic() - began < 15
    redis.stop()
    code, lines = examine(dict(running.environment, DATABASE_URL='postgres://sockets@127.0.0.1:1/postgres'))
    redis.start()
    refused = 'Connection refused' if ON_CHANNELS_1 else 'Connect call failed'
    assert code == 1 and refused in lines['layer'] and 'Start Redis' in lines['layer']
    assert lines['database'].startswith('BAD') and 'Start the database' in lines['database']
    assert lines['worker'].split()[0] == lines['server'].split()[0] == '--'


@pytest.mark.channels1('Channels 4 has stock layers only')
def test_a_stock_layer_has_its_workers_asked_and_knows_no_servers(site):
    code, lines = examine(site.environment, '--url', f'ws://127.0.0.1:{site.port}/members/')
    assert code == 0, lines
    assert 'sockets.W005' in lines and lines['worker'].startswith('ok')
    assert 'Not known on a stock layer' in lines['server'] and 'asks for a login' in lines['websocket']
    # Nothing is left of it.
    eventually(lambda: site.rows() == 0)
