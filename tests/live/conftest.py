"""Real servers: PostgreSQL, Redis, daphne, a worker, and a client that is none of ours."""

import functools
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import websocket

from .. import servers
from . import fleet, stack
from .hall import BEGIN, END, Hall, table_of
from .stack import ON_CHANNELS_1

# What runs on Channels 1 only, and why. The folder channels4 has what runs on Channels 4 only.
ONLY_ON_CHANNELS_1 = {
    'test_docs.py': 'the pages show its settings, workers and layers',
    'test_faults_list.py': 'what its layer keeps in Redis for a server',
    'test_faults_pages.py': 'pages have servers of their own, which are not ours on Channels 4',
    'test_faults_protocol.py': 'its protocol code is ours; that of Channels 4 is of uvicorn and daphne',
    'test_faults_redis.py': 'how its layer stands a Redis that hangs, and several of them',
    'test_faults_tls.py': 'its protocol code is ours',
    'test_faults_uploads.py': 'pages have servers of their own, which are not ours on Channels 4',
    'test_faults_workers.py': 'its workers',
    'test_fuzz.py': 'its protocol code is ours',
    'test_packaging.py': 'it makes environments of both stacks by itself',
    'test_readme.py': 'the README is for it first; test_five_minutes.py and test_packaging.py run what differs',
    'test_redis_faults.py': 'its layer',
    'test_runsockets.py': 'its options and its server; tests/live/channels4/test_servers.py has those of Channels 4',
}
collect_ignore = [] if ON_CHANNELS_1 else sorted(ONLY_ON_CHANNELS_1)

# Of the tests of faults, which take minutes, those that run on Channels 4 each time; the others do with the long ones.
SAMPLE_ON_CHANNELS_4 = (
    'test_half_of_the_clients_close',
    'test_a_server_is_told_to_stop',
    'test_a_server_is_killed',
    'test_the_only_server_is_killed_and_started_again',
    'test_redis_restarts_or_hangs',
    'test_postgresql_is_away_for_ten_seconds',
    'test_a_right_ends',
    'test_a_client_never_reads',
    'test_a_server_is_stopped_and_goes_on',
    'test_rows_are_deleted_by_sql',
    'test_the_document_has_a_line_for_each_fault',
)

# Of the other live tests, those that CI runs on Channels 4 beside these.
PAGES_OF_THE_SAMPLE = (
    'test_two_people_chat[uvicorn]',
    'test_no_message_that_the_page_said_was_sent_is_lost_when_the_server_is_killed[uvicorn]',
    'test_a_client_gets_what_the_readme_says',
    'test_a_page_speaks_in_bytes[daphne]',
)


def pytest_collection_modifyitems(items):
    """On Channels 4, mark tests of faults that are not of the sample as long ones, and the pages that are of it."""
    if ON_CHANNELS_1:
        return
    for item in items:
        if item.name in PAGES_OF_THE_SAMPLE:
            item.add_marker(pytest.mark.sample)
        is_of_faults = item.path.parent == Path(__file__).parent and item.path.name.startswith('test_faults')
        if is_of_faults and item.originalname not in SAMPLE_ON_CHANNELS_4:
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope='session')
def database_url():
    """The URL of a real PostgreSQL."""
    with servers.postgres_server() as url:
        yield url


@pytest.fixture(scope='module')
def redis(tmp_path_factory):
    """A Redis that a module may stop and start."""
    redis = fleet.Redis(tmp_path_factory.mktemp('redis'))
    yield redis
    redis.stop()


@pytest.fixture(scope='session')
def report():
    """A list of what was measured, one line for each fault. It is printed, and written where it is asked for."""
    lines = []
    yield lines
    if lines:
        print('\n' + table_of(lines))
    if lines and os.environ.get('SOCKETS_FAULTS'):
        path = Path(os.environ['SOCKETS_FAULTS'])
        before, _, rest = path.read_text().partition(BEGIN)
        path.write_text(before + BEGIN + table_of(lines) + END + rest.partition(END)[2])


@pytest.fixture
def hall(tmp_path, redis, database_url, report):
    servers = fleet.Fleet(tmp_path, database_url, redis)
    hall = Hall(servers, database_url, report)
    yield hall
    hall.database.close()
    servers.stop()


class Site:
    """daphne, and on Channels 1 one worker, of ``tests.live.site``."""

    def __init__(self, environment, directory):
        self.environment = dict(environment, DJANGO_SETTINGS_MODULE='tests.live.site')
        self.directory = directory
        self.port = servers.free_port()
        self.unix_socket = str(directory / 'daphne.sock')
        self.manage('migrate', '--verbosity', '0')
        self.daphne = self.start('daphne', *stack.daphne(self.port, '-u', self.unix_socket))
        servers.wait_for_port(self.port, self.daphne.process, self.daphne.log_path)
        # What runs the handlers.
        self.worker = self.daphne
        if ON_CHANNELS_1:
            self.worker = self.start('worker', '-m', 'django', 'runworker')
            self.worker.wait_for_log('Listening on channels')

    def start(self, name, *args):
        return servers.Program([sys.executable, *args], self.directory / (name + '.log'), self.environment)

    def manage(self, *args):
        """Run a management command and return what it printed."""
        return subprocess.check_output(
            servers.python_module('django', *args), cwd=str(servers.ROOT), env=servers.environment(**self.environment)
        ).decode()

    def python(self, program):
        """Run ``program`` in ``manage.py shell`` and return what it printed."""
        return self.manage('shell', '-v', '0', '-c', program)

    def rows(self):
        """Return how many connections have a row."""
        return int(self.python('from sockets.models import Socket; print(Socket.objects.count())'))

    def wait_for_rows(self, count, seconds=10):
        deadline = time.monotonic() + seconds
        while self.rows() != count:
            assert time.monotonic() < deadline, f'{self.rows()} rows, not {count}\n{self.worker.log}'

    def connect(self, path='/live/', unix=False, **kwargs):
        """Return an open connection to ``path``."""
        if unix:
            kwargs['socket'] = socket.socket(socket.AF_UNIX)
            kwargs['socket'].connect(self.unix_socket)
        return Client(
            websocket.create_connection(f'ws://127.0.0.1:{self.port}{path}', timeout=10, suppress_origin=True, **kwargs)
        )

    def stop(self):
        self.daphne.stop()
        self.worker.stop()


class Client:
    """A websocket client that speaks JSON."""

    def __init__(self, connection):
        self.connection = connection

    def send(self, content):
        """Send a frame: ``bytes`` as a binary one, ``str`` as it is, anything else as JSON."""
        if isinstance(content, bytes):
            self.connection.send_binary(content)
        else:
            self.connection.send(content if isinstance(content, str) else json.dumps(content))

    def receive(self):
        """Return the content of the next frame, or the close code if it is a close."""
        opcode, data = self.connection.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return int.from_bytes(data[:2], 'big')
        return json.loads(data.decode())

    def ask(self, content):
        self.send(content)
        return self.receive()

    def close(self):
        self.connection.close()


@pytest.fixture(scope='session')
def site(redis_url, database_url, tmp_path_factory):
    """A running site; whatever a test did to it, its processes must have survived."""
    site = Site({'REDIS_URL': redis_url, 'DATABASE_URL': database_url}, tmp_path_factory.mktemp('site'))
    yield site
    survived = site.daphne.is_running, site.worker.is_running
    site.stop()
    assert survived == (True, True), site.daphne.log + site.worker.log


@pytest.fixture
def bystander(site):
    """A connection that must not notice what another one does."""
    connection = site.connect()
    yield connection
    assert connection.ask({'type': 'ECHO', 'n': 1}) == {'type': 'ECHO', 'n': 1}
    connection.close()


@pytest.fixture
def open_browser(tmp_path_factory):
    """A function that opens a Chromium window of its own, without cookies."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    windows = []

    def open_window(width=1000, height=700, arguments=()):
        options = webdriver.ChromeOptions()
        options.binary_location = servers.find_program('chromium')
        for argument in (
            '--headless=new',
            '--no-sandbox',
            '--disable-gpu',
            '--disable-quic',
            '--no-first-run',
            '--disable-background-networking',
            '--disable-component-update',
            '--disable-sync',
            '--disable-dev-shm-usage',
            f'--window-size={width},{height}',
            '--user-data-dir={}'.format(tmp_path_factory.mktemp('chromium')),
            *arguments,
        ):
            options.add_argument(argument)
        options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
        windows.append(webdriver.Chrome(options=options, service=Service(servers.find_program('chromedriver'))))
        return windows[-1]

    yield open_window
    for window in windows:
        window.quit()


@pytest.fixture(scope='session')
def npm_packages(tmp_path_factory):
    """A function that installs a package of npm, such as ``'axe-core@4.10.3'``, and returns its directory."""

    def install(package):
        directory = tmp_path_factory.mktemp('npm')
        # What has been fetched before is good: it has a version.
        fetched = subprocess.run(
            [
                servers.find_program('npm'),
                'install',
                '--no-audit',
                '--no-fund',
                '--prefer-offline',
                '--prefix',
                str(directory),
                package,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if fetched.returncode:
            servers.give_up(fetched.stdout.decode())
        return directory / 'node_modules' / package.rpartition('@')[0]

    return functools.lru_cache(maxsize=None)(install)


@pytest.fixture
def run(tmp_path):
    """A function that starts a program that listens on ``port``, and stops it after the test."""
    programs = []

    def start(args, port=None, **kwargs):
        programs.append(servers.Program(args, tmp_path / f'program-{len(programs)}.log', **kwargs))
        if port is not None:
            servers.wait_for_port(port, programs[-1].process, programs[-1].log_path)
        return programs[-1]

    yield start
    for program in reversed(programs):
        program.stop()


def eventually(condition, seconds=15):
    """Wait until ``condition()`` is true and return what it returned."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f'not within {seconds} s: {condition}'
        time.sleep(0.1)
