"""Who takes part in the benchmarks, what each needs, and how it is started."""
import argparse
import collections
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# matplotlib is for --plot; the rest is what a project would install.
PACKAGES = {
    'channels1': ['-e', '{}[postgres,test]'.format(ROOT), 'matplotlib'],
    'channels4': ['channels>=4,<5', 'channels_redis', 'daphne>=4', 'uvicorn', 'websockets', 'Django>=4.2'],
}
TOLD = ['Django', 'channels', 'daphne', 'uvicorn', 'asgi_redis', 'channels_redis', 'redis', 'msgpack_python', 'msgpack',
        'hiredis', 'autobahn', 'Twisted', 'websockets']

MEMORY = 'sockets.layers.InMemoryChannelLayer'
REDIS = 'sockets.layers.RedisChannelLayer'
STOCK = 'asgi_redis.RedisChannelLayer'
CORE = 'channels_redis.core.RedisChannelLayer'
PUBSUB = 'channels_redis.pubsub.RedisPubSubChannelLayer'

Contender = collections.namedtuple('Contender', 'name stack layer programs path')
Contender.__doc__ = """A server as people run it: ``programs`` on ``layer``, asked for ``path``."""

RUNSOCKETS = ('python -m django runsockets 127.0.0.1:{port} --threads 1',)
RUNSOCKETS_4_THREADS = ('python -m django runsockets 127.0.0.1:{port} --threads 4',)
CLASSIC = ('daphne -b 127.0.0.1 -p {port} benchmarks.channels1.asgi:channel_layer', 'python -m django runworker')
DAPHNE4 = ('daphne -b 127.0.0.1 -p {port} benchmarks.channels4.asgi:application',)
UVICORN = ('uvicorn --host 127.0.0.1 --port {port} --log-level warning benchmarks.channels4.asgi:application',)


def environment(stack, layer, redis_url, database_url):
    """Return the environment variables with which the servers of a contender run."""
    return dict(PYTHONPATH=str(ROOT), LAYER=layer or MEMORY, REDIS_URL=redis_url,
                DATABASE_URL=database_url, DJANGO_SETTINGS_MODULE='benchmarks.{}.settings'.format(stack))


# What both scripts do first


def parser(description, rounds):
    """Return a parser of the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=rounds)
    parser.add_argument('--only', default='', metavar='REGEX', help='run the contenders whose name it is found in')
    parser.add_argument('--json', metavar='FILE', help='write all results there')
    parser.add_argument('--plot', metavar='PNG', help='draw the medians there')
    parser.add_argument('--venvs', metavar='DIRECTORY', help='where the virtualenvs are kept',
                        default=os.path.join(tempfile.gettempdir(), 'sockets-benchmarks'))
    return parser


def prepare(args):
    """Make the virtualenvs, go on in ours, print what is measured, and return the path of each."""
    virtualenvs = enter_virtualenvs(args.venvs)
    print_versions(virtualenvs)
    return virtualenvs


def chosen(contenders, args):
    """Return those of ``contenders`` that were asked for."""
    return [contender for contender in contenders if re.search(args.only, contender.name)]


def turns(contenders, args):
    """Yield each contender in each round: what else the machine does meets all of them."""
    for number in range(args.rounds):
        print('round {} of {} ...'.format(number + 1, args.rounds), file=sys.stderr, flush=True)
        yield from contenders


# Virtualenvs


def enter_virtualenvs(directory):
    """Make the virtualenvs under ``directory``, go on in ours, and return the path of each."""
    virtualenvs = {stack: Path(directory).resolve() / stack for stack in PACKAGES}
    for stack, path in virtualenvs.items():
        stamp = path / 'stamp'
        if not stamp.exists() or stamp.read_text() != repr(PACKAGES[stack]):
            print('Installing into {}, which takes a minute once ...'.format(path), flush=True)
            subprocess.run([sys.executable, '-m', 'venv', '--clear', str(path)], check=True)
            subprocess.run([str(path / 'bin/python'), '-m', 'pip', 'install', '-qq', '--disable-pip-version-check',
                            *PACKAGES[stack]], check=True)
            stamp.write_text(repr(PACKAGES[stack]))
    if Path(sys.prefix) != virtualenvs['channels1']:
        python = str(virtualenvs['channels1'] / 'bin/python')
        os.execv(python, [python, *sys.argv])
    return virtualenvs


def print_versions(virtualenvs):
    """Print what is measured, on what."""
    print('{} CPUs, {}'.format(os.cpu_count(), sys.version.split()[0]))
    for stack, path in virtualenvs.items():
        command = [str(path / 'bin/python'), '-m', 'pip', 'list', '--format', 'json', '--disable-pip-version-check']
        listed = json.loads(subprocess.check_output(command).decode())
        versions = {entry['name'].replace('-', '_'): entry['version'] for entry in listed}
        print('{}: {}'.format(stack, ', '.join('{} {}'.format(name, versions[name])
                                               for name in TOLD if name in versions)))
    print(flush=True)


# Servers


class Site:
    """Redis, a database, and the servers of one contender at a time."""

    def __init__(self, virtualenvs, directory, redis_url, database_url):
        import redis
        self.virtualenvs = virtualenvs
        self.directory = Path(directory)
        self.redis_url = redis_url
        self.database_url = database_url
        self.redis = redis.StrictRedis.from_url(redis_url)
        subprocess.run([sys.executable, '-m', 'django', 'migrate', '--verbosity', '0'], check=True, cwd=str(ROOT),
                       env=dict(os.environ, **environment('channels1', MEMORY, redis_url, database_url)))

    @contextlib.contextmanager
    def running(self, contender):
        """Run the servers of ``contender`` and yield the URL of its websocket."""
        from tests import servers
        self.redis.flushall()
        port = servers.free_port()
        programs = self.programs = []
        try:
            for number, command in enumerate(contender.programs):
                name, *args = command.format(port=port).split()
                programs.append(servers.Program(
                    [self.virtualenvs[contender.stack] / 'bin' / name, *args],
                    self.directory / '{}.log'.format(number),
                    environment(contender.stack, contender.layer, self.redis_url, self.database_url)))
            servers.wait_for_port(port, programs[0].process, programs[0].log_path)
            for program, command in zip(programs, contender.programs):
                if command.endswith('runworker'):
                    program.wait_for_log('Listening on channels')
            yield 'ws://127.0.0.1:{}{}'.format(port, contender.path)
        except Failed as error:
            # It will be missing from the table; the others go on.
            print('{}: {}'.format(contender.name, error), file=sys.stderr)
            for program in programs:
                print(program.log[-2000:], file=sys.stderr)
        finally:
            for program in programs:
                program.stop()

    def cpu_seconds(self):
        """Return the processor time that the servers have used: it depends less on what else the machine does."""
        times = [(Path('/proc') / str(pid) / 'stat').read_text().rpartition(')')[2].split()[11:13]
                 for pid in self.pids()]
        return sum(int(user) + int(system) for user, system in times) / os.sysconf('SC_CLK_TCK')

    def resident_bytes(self):
        """Return how much memory the servers have of their own."""
        return sum(int(line.split()[1]) * 1024 for pid in self.pids()
                   for line in (Path('/proc') / str(pid) / 'smaps_rollup').read_text().splitlines()
                   if line.startswith(('Private_Clean', 'Private_Dirty')))

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
        return sum(stats['calls'] for name, stats in self.redis.info('commandstats').items()
                   if name not in ('cmdstat_info', 'cmdstat_client'))


@contextlib.contextmanager
def site(virtualenvs):
    """Yield a ``Site``; everything it starts is stopped and deleted."""
    from tests import servers
    with tempfile.TemporaryDirectory(prefix='sockets-benchmark-') as directory:
        with servers.redis_server(directory) as redis_url, servers.postgres_server() as database_url:
            yield Site(virtualenvs, directory, redis_url, database_url)


# The client


class Failed(Exception):
    """A contender did not do what it was asked for."""


class Client:
    """The client process, connected to ``url``."""

    def __init__(self, work, url, clients, seconds):
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / 'benchmarks/client.py'), work, '--url', url, '--clients', str(clients),
             '--seconds', str(seconds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True)
        self.connect_seconds = self._read()['connect_seconds']

    def measure(self, site):
        """Return the result of a round, with the Redis commands and the processor time that it took."""
        redis, cpu = site.redis_commands(), site.cpu_seconds()
        self.process.stdin.write('\n')
        self.process.stdin.flush()
        result = self._read()
        return dict(result, cpu=site.cpu_seconds() - cpu, redis=site.redis_commands() - redis)

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            raise Failed('the client ended')
        return json.loads(line)

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


# Results


def median(results, key):
    """Return the median of ``key`` over the rounds in ``results``."""
    return statistics.median(result[key] for result in results)


def print_table(head, rows):
    """Print ``rows`` under ``head``: names to the left, figures to the right."""
    rows = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        print('  '.join(cell.rjust(width) if column else cell.ljust(width)
                        for column, (cell, width) in enumerate(zip(row, widths))).rstrip())
    print(flush=True)


def print_targets(targets):
    """Print each target (text, figure, whether met); return whether all were met. A figure of None was not run."""
    print_table(['target', 'measured', 'met'], [
        [text, '-' if figure is None else '{:.2f}'.format(figure),
         'not run' if figure is None else 'yes' if met else 'NO'] for text, figure, met in targets])
    return all(met for _, figure, met in targets if figure is not None)


def save(args, results, draw):
    """Write the files that were asked for."""
    if args.json:
        Path(args.json).write_text(json.dumps(
            [{'contender': key, 'rounds': rounds} for key, rounds in results.items()], indent=1) + '\n')
    if args.plot:
        draw(results, args.plot)


def pyplot():
    """Return matplotlib's ``pyplot``, which then needs no display."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    return pyplot


def colour(name):
    """Return the colour of a contender's bar: ours stand out."""
    return 'tab:blue' if name.startswith('run') or 'our layer' in name else 'tab:grey'
