"""Redis, PostgreSQL, the servers of one contender at a time, and the client process that asks them."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from contenders import CORE, MEMORY
from virtualenvs import ROOT

sys.path.insert(0, str(ROOT))

# With more clients than that, several share one.
VISITORS = 1000


class Failed(Exception):
    """A contender did not do what it was asked for."""


class Database:
    """A database with the tables of a stack, and with visitors who have logged in."""

    def __init__(self, url, stack, path, directory, root):
        self.url, self.stack, self.root = url, stack, root
        self.python = str(path / 'bin/python')
        _run(self, '-m', 'django', 'migrate', '--verbosity', '0')
        keys = _run(self, '-m', 'benchmarks.visitors', str(VISITORS)).split()
        self.visitors = Path(directory) / '{}.visitors'.format(url.rpartition('/')[2])
        self.visitors.write_text('\n'.join(keys[:-1]))
        self.stranger = Path(directory) / '{}.stranger'.format(url.rpartition('/')[2])
        self.stranger.write_text(keys[-1])


def _run(database, *args):
    process = subprocess.run(
        [database.python, *args],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=str(database.root),
        env=dict(os.environ, **environment(database.stack, None, 'redis://127.0.0.1:1/0', database.url, database.root)),
    )
    return process.stdout


def environment(stack, layer, redis_url, database_url, root=ROOT):
    """Return the environment variables with which the servers of a contender run; ``root`` is what they import from."""
    return {
        'PYTHONPATH': str(root),
        'LAYER': layer or (CORE if stack == 'channels4' else MEMORY),
        'REDIS_URL': redis_url,
        'DATABASE_URL': database_url,
        'DJANGO_SETTINGS_MODULE': f'benchmarks.{stack}.settings',
    }


class Site:
    """Redis, a database for each stack, and the servers of one contender at a time.

    ``roots`` are the directories that the code of a stack comes from, where it is not this checkout.
    """

    def __init__(self, virtualenvs, directory, redis_url, server_url, roots=None):
        import redis

        self.virtualenvs = virtualenvs
        self.directory = Path(directory)
        self.redis_url = redis_url
        self.server_url = server_url
        self.redis = redis.StrictRedis.from_url(redis_url)
        self.roots = roots or {}
        self.databases = {}
        self.failed = []
        self.programs = []

    def database(self, name, stack):
        """Return the ``Database`` called ``name``, made when it is first asked for."""
        if name not in self.databases:
            import psycopg2

            connection = psycopg2.connect(self.server_url)
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f'create database "{name}"')
            connection.close()
            self.databases[name] = Database(
                '{}/{}'.format(self.server_url.rpartition('/')[0], name),
                stack,
                self.virtualenvs[stack],
                self.directory,
                self.roots.get(name, ROOT),
            )
        return self.databases[name]

    @contextlib.contextmanager
    def running(self, contender, side=None):
        """Run the servers of ``contender``, with the code and the database of ``side``, and yield what asks them."""
        from tests import servers

        self.redis.flushall()
        database = self.database(side or contender.stack, contender.stack)
        variables = environment(contender.stack, contender.layer, self.redis_url, database.url, database.root)
        port = servers.free_port()
        programs = self.programs = []
        try:
            for number, command in enumerate(contender.programs):
                name, *args = command.format(port=port).split()
                programs.append(
                    servers.Program(
                        [
                            self.virtualenvs[contender.stack] / 'bin' / name,
                            *(ROOT / arg if arg.startswith('benchmarks/') else arg for arg in args),
                        ],
                        self.directory / f'{number}.log',
                        variables,
                        cwd=database.root,
                    )
                )
            servers.wait_for_port(port, programs[0].process, programs[0].log_path)
            for program, command in zip(programs, contender.programs):
                if command.endswith('runworker'):
                    program.wait_for_log('Listening on channels')
            if contender.programs[0].startswith('uvicorn'):
                refuse_slow_uvicorn(port)
            yield Door(contender, database, port)
        except Failed as error:
            # It will be missing from the table, and the benchmark fails in the end; the others go on.
            self.failed.append(contender.name)
            print(f'{contender.name}: {error}', file=sys.stderr)
            for program in programs:
                print(program.log[-2000:], file=sys.stderr)
        finally:
            for program in programs:
                program.stop()

    def exit(self):
        """End the benchmark: with an error if a contender did not do what it was asked for."""
        if self.failed:
            sys.exit('Failed: {}'.format(', '.join(dict.fromkeys(self.failed))))

    def cpu_seconds(self):
        """Return the processor time that the servers have used: it depends less on what else the machine does."""
        times = [
            (Path('/proc') / str(pid) / 'stat').read_text().rpartition(')')[2].split()[11:13] for pid in self.pids()
        ]
        return sum(int(user) + int(system) for user, system in times) / os.sysconf('SC_CLK_TCK')

    def settle(self, seconds=60):
        """Wait until the servers have nothing left to do: a thousand connections that end are work for seconds."""
        deadline, before = time.monotonic() + seconds, self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(0.5)
            now = self.cpu_seconds()
            if now - before < 0.05:
                return
            before = now
        raise Failed(f'it is still busy after {seconds} seconds')

    def resident_bytes(self):
        """Return how much memory the servers have of their own."""
        return sum(
            int(line.split()[1]) * 1024
            for pid in self.pids()
            for line in (Path('/proc') / str(pid) / 'smaps_rollup').read_text().splitlines()
            if line.startswith(('Private_Clean', 'Private_Dirty'))
        )

    def pids(self):
        """Yield the process ids of the servers and of their children."""
        pids = [program.process.pid for program in self.programs]
        while pids:
            pid = pids.pop()
            yield pid
            for task in (Path('/proc') / str(pid)).glob('task/*/children'):
                pids += map(int, task.read_text().split())

    def redis_commands(self):
        """Return how many commands Redis has run, those inside of scripts included."""
        return sum(
            stats['calls']
            for name, stats in self.redis.info('commandstats').items()
            if name not in ('cmdstat_info', 'cmdstat_client')
        )


def refuse_slow_uvicorn(port):
    """End the benchmark if uvicorn does not run on uvloop and httptools, as ``uvicorn[standard]`` does."""
    with urllib.request.urlopen(f'http://127.0.0.1:{port}/', timeout=10) as response:
        used = json.loads(response.read().decode())
    if 'uvloop' not in used['loop'] or 'httptools' not in used['http']:
        sys.exit(
            'uvicorn runs on {loop} and {http}. People install uvicorn[standard], which brings uvloop and '
            'httptools.'.format(**used)
        )


class Door:
    """A websocket of a running contender, and who asks it."""

    def __init__(self, contender, database, port):
        self.contender, self.database, self.port = contender, database, port
        self.is_checked = False

    def client(self, work, clients, seconds, path=None, asks=None, at_once=20):
        """Return a ``Client``; ``path`` and ``asks`` are those of another handler on the same server."""
        if not self.is_checked:
            self.check_that_it_refuses()
        asks = self.contender.asks if asks is None else asks
        return Client(work, self.url(path), clients, seconds, self.database.visitors if asks else None, at_once)

    def url(self, path=None):
        return f'ws://127.0.0.1:{self.port}{path or self.contender.path}'

    def check_that_it_refuses(self):
        """Fail unless who may not send a frame is refused: an echo without its guard would be a faster one."""
        self.is_checked = True
        if self.contender.asks:
            check_that_it_refuses(self.url(), None)
        if self.contender.asks == 'permission':
            check_that_it_refuses(self.url(), self.database.stranger)


def check_that_it_refuses(url, visitors):
    """Raise ``Failed`` if ``url`` echoes what a visitor of the file ``visitors``, or an anonymous one, sends."""
    with Client('knock', url, 1, 5, visitors) as client:
        answer = client.result()['answer']
    if answer == 'echo':
        raise Failed('it answers {}'.format('somebody without the permission' if visitors else 'who has not logged in'))


@contextlib.contextmanager
def site(virtualenvs, roots=None):
    """Yield a ``Site``; everything it starts is stopped and deleted."""
    from tests import servers

    with tempfile.TemporaryDirectory(prefix='sockets-benchmark-') as directory:
        with servers.redis_server(directory) as redis_url, servers.postgres_server() as server_url:
            yield Site(virtualenvs, directory, redis_url, server_url, roots)


class Client:
    """The client process, connected to ``url``; each connection has a session key of the file ``visitors``, if given."""

    def __init__(self, work, url, clients, seconds, visitors=None, at_once=20):
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(ROOT / 'benchmarks/client.py'),
                work,
                '--url',
                url,
                '--clients',
                str(clients),
                '--seconds',
                str(seconds),
                '--at-once',
                str(at_once),
                *(['--visitors', str(visitors)] if visitors else []),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            universal_newlines=True,
        )
        try:
            self.connect_seconds = self._read()['connect_seconds']
        except BaseException:
            self.__exit__()
            raise

    def measure(self, site):
        """Return the result of a round, with the Redis commands and the processor time that it took."""
        redis, cpu = site.redis_commands(), site.cpu_seconds()
        result = self.result()
        return dict(result, cpu=site.cpu_seconds() - cpu, redis=site.redis_commands() - redis)

    def result(self):
        """Return the result of a round."""
        self.process.stdin.write('\n')
        self.process.stdin.flush()
        return self._read()

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            raise Failed('the client ended')
        result = json.loads(line)
        if 'failure' in result:
            raise Failed(result['failure'])
        return result

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
