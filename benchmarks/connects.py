"""How fast clients who have logged in connect, and what a connect costs: ours, which write a row, beside a peer's.

Run it with ``python benchmarks/connects.py``; it prepares and cleans up as ``echo.py`` does. With the name of a commit, it
measures that one's package ``sockets`` as well. All servers run at once, on PostgreSQL, and take turns. The peer is a
consumer of Channels 4 in one group of ``channels_redis``, behind ``AuthMiddlewareStack``.
"""

import contextlib
import sys

import compare
import contenders
import figures
import sites
from contenders import CORE, REDIS, RUNSOCKETS, UVICORN, Contender
from virtualenvs import ROOT

PEER = 'Channels 4, uvicorn, a group'
OURS, OURS4 = 'runsockets', 'ours on Channels 4, uvicorn'

PARTICIPANTS = [
    Contender(OURS, 'channels1', REDIS, RUNSOCKETS, '/routed/user/', 'user'),
    Contender(OURS4, 'channels4', CORE, UVICORN, '/ours/sync/user/', 'user'),
    Contender(PEER, 'channels4', CORE, UVICORN, '/grouped/user/', 'user'),
]


def measure(site, door, programs, postgres, args):
    """Return what a round of one server was: connects a second, and the processor time of each, in microseconds.

    ``visit`` is what PostgreSQL needs for a connection that comes and goes.
    """
    site.programs = programs
    server, database = site.cpu_seconds(), postgres()
    with door.client('echo', args.connections, 1, at_once=args.at_once) as client:
        result = {
            'rate': args.connections / client.connect_seconds,
            'server': (site.cpu_seconds() - server) / args.connections * 1e6,
            'database': (postgres() - database) / args.connections * 1e6,
        }
    # They leave.
    site.settle()
    return dict(result, visit=(postgres() - database) / args.connections * 1e6)


def postgres_seconds(site):
    """Return a function that returns the processor time that PostgreSQL has used."""
    import psycopg2

    import costs

    connection = psycopg2.connect(site.server_url)
    with connection.cursor() as cursor:
        cursor.execute('select pg_backend_pid()')
        postmaster = costs._parent(cursor.fetchone()[0])
    connection.close()
    return lambda: sum(map(costs._cpu, [postmaster, *costs._children(postmaster)]))


def main():
    parser = contenders.parser(__doc__, rounds=10)
    parser.add_argument('commit', nargs='?', help='an earlier commit to measure beside these')
    parser.add_argument('--connections', type=int, default=500, help='how many are opened in a round')
    parser.add_argument('--at-once', type=int, default=20, help='how many of them at a time')
    args = parser.parse_args()
    virtualenvs = contenders.prepare(args)
    running, results = contenders.chosen(PARTICIPANTS, args), {}
    hashes = {}
    if args.commit:
        hash, title = compare.commit(args.commit)
        print(f'before: {hash} {title}\n')
        hashes['before'] = hash
        running.insert(1, PARTICIPANTS[0]._replace(name='before'))
    contenders.print_contenders(running, virtualenvs)
    with contextlib.ExitStack() as stack:
        checkouts = stack.enter_context(compare.checkouts(hashes.values()))
        roots = {name: checkouts[hash] for name, hash in hashes.items()}
        roots.update((contender.name, ROOT) for contender in running if contender.name not in roots)
        site = stack.enter_context(sites.site(virtualenvs, roots))
        postgres, doors = postgres_seconds(site), {}
        for contender in running:
            door = stack.enter_context(site.running(contender, contender.name))
            doors[contender.name] = door, site.programs
            # The first connection of all finds everything still to be imported.
            with door.client('echo', 40, 1):
                pass
        for number in range(args.rounds):
            print(f'round {number + 1} of {args.rounds} ...', file=sys.stderr, flush=True)
            # Each is the first one in every other round.
            for name in list(doors)[:: 1 if number % 2 else -1]:
                results.setdefault(name, []).append(measure(site, *doors[name], postgres, args))
    figures.print_table(
        ['', 'connects/s', 'interval', 'of the peer', 'interval', 'CPU, us', 'of PostgreSQL, us', 'until it has left'],
        [row(name, rounds, results.get(PEER)) for name, rounds in results.items()],
    )
    figures.save(args, results, draw)


def row(name, rounds, peer):
    """Return the row of the table of ``name``; ``peer`` are the rounds of the peer."""
    rates = [result['rate'] for result in rounds]
    return [
        name,
        f'{figures.median(rounds, "rate"):.0f}',
        '{:.0f} to {:.0f}'.format(*figures.interval(rates)[:2]),
        *(_ratio([result['rate'] for result in peer], rates) if peer else '--'),
        f'{figures.median(rounds, "server"):.0f}',
        f'{figures.median(rounds, "database"):.0f}',
        f'{figures.median(rounds, "visit"):.0f}',
    ]


def _ratio(peers, ours):
    ratios = figures.paired_ratios(peers, ours)
    return [
        '{:.2f}'.format(figures.median([{'ratio': ratio} for ratio in ratios], 'ratio')),
        '{:.2f} to {:.2f}'.format(*figures.interval(ratios)[:2]),
    ]


def draw(results, path):
    """Draw how many connect in a second."""
    figures.draw_bars(
        {name: figures.median(rounds, 'rate') for name, rounds in results.items()}, '%.0f', 'connects a second', path
    )


if __name__ == '__main__':
    main()
