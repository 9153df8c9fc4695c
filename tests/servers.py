"""Real servers for tests: each starts on a free port of loopback and is stopped by whoever started it."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def free_port():
    """Return a TCP port of loopback that nothing listens on, and that no client gets for its own end.

    Linux gives clients ports from 32768 on. One that reconnects to a server which was killed can get the port of that
    server, and even be connected to itself. Tests that run two at a time choose from different ports.
    """
    worker = int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0')[2:])
    while True:
        port = random.randrange(20000 + worker % 2, 32000, 2)
        with contextlib.closing(socket.socket()) as probe:
            try:
                probe.bind(('127.0.0.1', port))
            except OSError:
                continue
            return port


def is_answered(port):
    """Return whether something listens on ``port``."""
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(('127.0.0.1', port)) == 0


def find_program(name, *directories):
    """Return the path of ``name``; without it the test is skipped, or fails where nothing may be skipped."""
    path = shutil.which(name, path=os.pathsep.join([os.environ.get('PATH', ''), *directories]))
    if path is None:
        give_up(f'{name} is not installed')
    return path


def make_certificate(key, certificate, name):
    """Write a self-signed certificate of the host ``name`` and its key into the files of these paths."""
    subprocess.check_call(
        [
            find_program('openssl'),
            *('req', '-x509', '-newkey', 'rsa:2048', '-nodes'),
            *('-subj', '/CN=' + name, '-addext', 'subjectAltName=DNS:' + name),
            *('-keyout', str(key), '-out', str(certificate)),
        ],
        stderr=subprocess.DEVNULL,
    )


def give_up(message):
    """Skip the test for want of something that is none of ours; fail it where nothing may be skipped."""
    if os.environ.get('SOCKETS_REQUIRE_LIVE'):
        pytest.fail(message)
    pytest.skip(message)


def wait_for_port(port, process, log, seconds=30):
    """Wait until something listens on ``port``; show the log if the process ended or time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if is_answered(port):
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    pytest.fail(f'{process.args} does not listen on {port}:\n{Path(log).read_text()}')


def environment(**variables):
    """Return our environment with ``variables``, without the settings that pytest-django puts into it."""
    inherited = {key: value for key, value in os.environ.items() if key != 'DJANGO_SETTINGS_MODULE'}
    return dict(inherited, **variables)


class Program:
    """A running program and what it printed."""

    def __init__(self, args, log, env=None, cwd=ROOT, **kwargs):
        self.log_path = Path(str(log))
        with self.log_path.open('w') as output:
            self.process = subprocess.Popen(
                [str(arg) for arg in args],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(PYTHONUNBUFFERED='1', **(env or {})),
                cwd=str(cwd),
                **kwargs,
            )

    @property
    def log(self):
        return self.log_path.read_text()

    @property
    def is_running(self):
        return self.process.poll() is None

    def wait_for_log(self, text, seconds=30):
        """Wait until the program has printed ``text``."""
        deadline = time.monotonic() + seconds
        while text not in self.log:
            assert self.is_running and time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def stop(self, signal=signal.SIGTERM):
        if self.is_running:
            self.process.send_signal(signal)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextlib.contextmanager
def redis_server(directory, port=None):
    """Run a Redis without persistence, on a free port if none is given, and yield its URL."""
    port = port or free_port()
    program = Program(
        [
            find_program('redis-server'),
            '--port',
            port,
            '--bind',
            '127.0.0.1',
            '--save',
            '',
            '--appendonly',
            'no',
            '--dir',
            directory,
        ],
        Path(str(directory)) / 'redis.log',
    )
    try:
        wait_for_port(port, program.process, program.log_path)
        yield f'redis://127.0.0.1:{port}/0'
    finally:
        program.stop(signal.SIGKILL)


@contextlib.contextmanager
def postgres_server():
    """Run a PostgreSQL cluster of its own and yield the URL of an empty database."""
    with postgres_cluster() as (url, start):
        with start():
            yield url


@contextlib.contextmanager
def postgres_cluster():
    """Make a PostgreSQL cluster and yield the URL of an empty database, and what runs its server for a while."""
    initdb, postgres = _postgres_program('initdb'), _postgres_program('postgres')
    port = free_port()
    directory = tempfile.mkdtemp(prefix='sockets-postgres-')
    kwargs = _owner_of(directory, 'postgres')
    try:
        subprocess.run(
            [initdb, '-D', directory + '/data', '-U', 'sockets', '--auth=trust', '-E', 'UTF8', '--locale=C'],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd='/',
            **kwargs,
        )

        @contextlib.contextmanager
        def start():
            with tempfile.NamedTemporaryFile(suffix='.log') as log:
                program = Program(
                    [
                        postgres,
                        '-D',
                        directory + '/data',
                        '-p',
                        port,
                        '-k',
                        directory,
                        '-c',
                        'listen_addresses=127.0.0.1',
                        '-c',
                        'fsync=off',
                    ],
                    log.name,
                    cwd='/',
                    **kwargs,
                )
                try:
                    wait_for_port(port, program.process, program.log_path)
                    # Its port opens before it is ready to speak.
                    program.wait_for_log('ready to accept connections')
                    yield program
                finally:
                    program.stop(signal.SIGINT)

        yield f'postgres://sockets@127.0.0.1:{port}/postgres', start
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def postgres_standby(url, delay='1s'):
    """Run a standby of the PostgreSQL at ``url``, read-only and that far behind, and yield its URL."""
    port = free_port()
    directory = tempfile.mkdtemp(prefix='sockets-postgres-')
    kwargs = _owner_of(directory, 'postgres')
    try:
        subprocess.run(
            [
                _postgres_program('pg_basebackup'),
                '-D',
                directory + '/data',
                '-d',
                url,
                '-R',
                '-X',
                'stream',
                '-c',
                'fast',
            ],
            check=True,
            cwd='/',
            **kwargs,
        )
        with tempfile.NamedTemporaryFile(suffix='.log') as log:
            program = Program(
                [
                    _postgres_program('postgres'),
                    '-D',
                    directory + '/data',
                    '-p',
                    port,
                    '-k',
                    directory,
                    '-c',
                    'listen_addresses=127.0.0.1',
                    '-c',
                    'recovery_min_apply_delay=' + delay,
                ],
                log.name,
                cwd='/',
                **kwargs,
            )
            try:
                program.wait_for_log('ready to accept read')
                yield f'postgres://sockets@127.0.0.1:{port}/postgres'
            finally:
                program.stop(signal.SIGINT)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def mariadb_server():
    """Run a MariaDB of its own and yield the URL of an empty database."""
    install, mariadbd = find_program('mariadb-install-db'), find_program('mariadbd', '/usr/sbin')
    port = free_port()
    directory = tempfile.mkdtemp(prefix='sockets-mariadb-')
    kwargs = _owner_of(directory, 'mysql')
    # What its tables are of: the connection says utf8mb4.
    options = [
        '--no-defaults',
        '--datadir=' + directory + '/data',
        '--character-set-server=utf8mb4',
        '--innodb-flush-log-at-trx-commit=0',
        '--innodb-buffer-pool-size=32M',
        '--innodb-log-file-size=16M',
    ]
    try:
        with tempfile.NamedTemporaryFile(suffix='.log') as log:
            sql = Path(directory) / 'first.sql'
            sql.write_text(
                "create database sockets;\ncreate user sockets@'127.0.0.1';\ngrant all on *.* to sockets@'127.0.0.1';\n"
            )
            sql.chmod(0o644)
            subprocess.run(
                [install, *options, '--skip-test-db', '--auth-root-authentication-method=normal'],
                check=True,
                stdout=log,
                stderr=log,
                cwd='/',
                **kwargs,
            )
            program = Program(
                [
                    mariadbd,
                    *options,
                    f'--init-file={sql}',
                    f'--port={port}',
                    '--bind-address=127.0.0.1',
                    '--socket=' + directory + '/socket',
                    '--skip-name-resolve',
                ],
                log.name,
                cwd='/',
                **kwargs,
            )
            try:
                program.wait_for_log('ready for connections')
                yield f'mysql://sockets@127.0.0.1:{port}/sockets'
            finally:
                program.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _postgres_program(name):
    return find_program(name, *sorted(str(path) for path in Path('/usr/lib/postgresql').glob('*/bin')))


def _owner_of(directory, name):
    """Give ``directory`` to the user ``name`` if we are root, and return what makes a program run as that user.

    Database servers refuse to run as root, and the user that they run as must own their directory.
    """
    if os.geteuid() != 0:
        return {}
    import pwd

    account = pwd.getpwnam(name)
    os.chown(directory, account.pw_uid, account.pw_gid)

    def become():
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)

    return {'preexec_fn': become}


def run_python(*args, env):
    """Run our interpreter with ``args`` and return what it printed."""
    return subprocess.check_output([sys.executable, *args], cwd=str(ROOT), env=environment(**env)).decode()


def python_module(*args):
    """Return the command line of ``python -m ...`` with the interpreter of the tests."""
    return [sys.executable, '-m', *args]
