"""What a second and each event cost Redis and PostgreSQL, counted: the unit costs in docs/explanation/scaling.md.

Run it with ``python benchmarks/costs.py``; it prepares and cleans up as ``echo.py`` does, and takes ten minutes. Counts
do not depend on what else the machine does, and processor time hardly does.
"""

import os
import time
from pathlib import Path

import contenders
import figures
import sites
from contenders import CLASSIC, REDIS, RUNSOCKETS, Contender

CONNECTIONS = 500
# Two looks of the housekeeper at what is told to nobody (presence.THOROUGH_INTERVAL).
IDLE_SECONDS = 60
# PostgreSQL tells of what a session did when it has been idle for ten.
STATISTICS_LAG = 12

DAPHNE = Contender('daphne', 'channels1', REDIS, CLASSIC[:1], '/routed/')
PARTICIPANTS = [
    Contender('runsockets', 'channels1', REDIS, RUNSOCKETS, '/routed/'),
    Contender('daphne + runworker', 'channels1', REDIS, CLASSIC, '/routed/'),
]
HEAD = ['round trips', 'commands', 'CPU, us', 'transactions', 'rows written', 'CPU, us']


class Meter:
    """Counters of Redis (what is sent to it, what it runs) and of PostgreSQL."""

    def __init__(self, site):
        import psycopg2

        self.redis = site.redis
        self.database = psycopg2.connect(site.database('channels1', 'channels1').url)
        self.database.autocommit = True
        self.postmaster = _parent(self.ask('select pg_backend_pid()'))

    def ask(self, question):
        with self.database.cursor() as cursor:
            cursor.execute(question)
            return cursor.fetchone()[0]

    def read(self):
        commands = {
            name: stats['calls']
            for name, stats in self.redis.info('commandstats').items()
            if name not in ('cmdstat_info', 'cmdstat_client')
        }
        # All else runs inside of a script.
        trips = sum(commands.get('cmdstat_' + name, 0) for name in ('evalsha', 'eval', 'blpop'))
        cpu = self.redis.info('cpu')
        return [
            trips,
            sum(commands.values()),
            (cpu['used_cpu_user'] + cpu['used_cpu_sys']) * 1e6,
            self.ask('select xact_commit + xact_rollback from pg_stat_database where datname = current_database()'),
            self.ask(
                "select n_tup_ins + n_tup_upd + n_tup_del from pg_stat_user_tables where relname = 'sockets_socket'"
            ),
            sum(map(_cpu, [self.postmaster, *_children(self.postmaster)])) * 1e6,
        ]

    def cost(self, work, idle=None):
        """Return what ``work`` costs, divided by what it returns, without what the time it takes costs anyway."""
        before, began = self.read(), time.monotonic()
        count = work()
        took = time.monotonic() - began
        costs = [after - start for start, after in zip(before, self.read())]
        # Our own two questions.
        costs[3] -= 2
        return [(cost - took * rest) / count for cost, rest in zip(costs, idle or [0] * len(costs))]


def _stat(pid):
    return (Path('/proc') / str(pid) / 'stat').read_text().rpartition(')')[2].split()


def _parent(pid):
    return int(_stat(pid)[1])


def _children(pid):
    return [
        int(child) for path in (Path('/proc') / str(pid)).glob('task/*/children') for child in path.read_text().split()
    ]


def _cpu(pid):
    # Its own and that of its children that have ended, in seconds.
    try:
        return sum(map(int, _stat(pid)[11:15])) / os.sysconf('SC_CLK_TCK')
    except FileNotFoundError:
        return 0


def rest():
    time.sleep(IDLE_SECONDS)
    return IDLE_SECONDS


def measure(site, door, alone):
    """Yield what a second and each event cost, with its name; ``alone`` is what a second costs without us."""
    from sockets.models import Socket

    meter = Meter(site)
    # What the last contender left is nobody's to remove.
    Socket.objects.all()._raw_delete('default')
    # The first connection of all finds everything still to be imported.
    with door.client('echo', 8, 1):
        pass
    time.sleep(STATISTICS_LAG)
    idle = meter.cost(rest)
    yield 'a second', [cost - rest for cost, rest in zip(idle, alone)]

    def repeat(times, function):
        for number in range(times):
            function(number)
        time.sleep(STATISTICS_LAG)
        return times

    def come_and_go():
        with door.client('echo', CONNECTIONS, 1):
            pass
        time.sleep(STATISTICS_LAG)
        return CONNECTIONS

    yield 'a connection that comes and goes', meter.cost(come_and_go, idle)
    for clients in (1, 32):
        with door.client('echo', clients, 5) as client:
            time.sleep(STATISTICS_LAG)
            yield (
                'an echo, {} client{}'.format(clients, '' if clients == 1 else 's'),
                meter.cost(lambda: client.measure(site)['echoes'], idle),
            )
    for count, times in ((1, 3000), (1000, 300), (3000, 200)):
        with door.client('echo', count, 1):
            time.sleep(STATISTICS_LAG)
            # From this process, which is no server.
            yield (
                'a message to {} connection{}'.format(count, '' if count == 1 else 's'),
                meter.cost(
                    lambda: repeat(times, lambda n: Socket.objects.send_json({'type': 'NEWS', 'text': 'x' * 100})), idle
                ),
            )
            if count == 3000:
                rows = [
                    Socket.objects.filter(channel_name=name)
                    for name in Socket.objects.values_list('channel_name', flat=True)
                ]
                keys = list(Socket.objects.values_list('pk', flat=True))
                yield (
                    'a sign of life that is noted, one of 500',
                    meter.cost(lambda: repeat(count // 500, lambda n: note(keys[500 * n : 500 * n + 500])) * 500, idle),
                )
                yield (
                    'a frame that asks for its user',
                    meter.cost(lambda: repeat(count, lambda n: rows[n].select_related('user', 'session').get()), idle),
                )


def note(keys):
    """Write signs of life of the rows ``keys`` as a server does."""
    from django.utils import timezone

    from sockets.connection import signs_of_life
    from sockets.models import Socket

    # None of them says so yet.
    signs_of_life._update(Socket.objects.all(), sorted(keys), timezone.now(), timezone.now())


def bytes_of_a_row(meter, count=100000):
    from sockets.models import Socket

    with meter.database.cursor() as cursor:
        # Rows that have come and gone leave room behind.
        cursor.execute('truncate sockets_socket')
    Socket.objects.bulk_create(
        [
            Socket(
                channel_name=f'daphne.response.{n // 1000:010d}!{n:010d}',
                path=f'/room/{n // 10}/',
                server=f'daphne.response.{n // 1000:010d}!',
                user_ip='203.0.113.9',
            )
            for n in range(count)
        ]
    )
    return meter.ask("select pg_total_relation_size('sockets_socket')") / count


def print_costs(name, costs):
    figures.print_table(
        [name, *HEAD], [[event, *(f'{round(cost, 2) + 0:.2f}' for cost in row)] for event, row in costs]
    )


def main():
    args = contenders.parser(__doc__, rounds=1).parse_args()
    virtualenvs = contenders.prepare(args)
    print('The first three columns are of Redis, the others of PostgreSQL, which does not wait for its disk here.\n')
    with sites.site(virtualenvs) as site:
        os.environ.update(
            sites.environment('channels1', REDIS, site.redis_url, site.database('channels1', 'channels1').url)
        )
        import django

        django.setup()
        meter = Meter(site)
        alone = meter.cost(rest)
        with site.running(DAPHNE):
            daphne = meter.cost(rest, alone)
        print_costs('idle', [('Redis and PostgreSQL, a second', alone), ('daphne, a second', daphne)])
        for contender in contenders.chosen(PARTICIPANTS, args):
            with site.running(contender) as door:
                print_costs(contender.name, list(measure(site, door, alone)))
        print(f'A row takes {bytes_of_a_row(meter):.0f} bytes with its indexes.')
        site.exit()


if __name__ == '__main__':
    main()
