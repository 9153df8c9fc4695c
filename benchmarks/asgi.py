"""Channels 4, ours beside its own consumers: echoes, one message to a thousand, and the memory of a connection.

Run it with ``python benchmarks/asgi.py``; it prepares and cleans up as ``echo.py`` does. Ours and the consumers are routed by
the same application and take turns on the same process, as echoes go; each figure is the median of ``--rounds`` rounds, all
in one run. Memory is of a process of their own. ``--parts`` leaves out some of it.
"""

import contenders
import figures
import sites
from contenders import CORE, DAPHNE4, PUBSUB, UVICORN, Contender
from figures import median

SERVERS = {'uvicorn': UVICORN, 'daphne': DAPHNE4}
CLIENTS = (1, 32, 128)

# By what they are called, without their server: the path, and who may send.
ECHOES = {
    'bare loop': ('/bare/', ''),
    'Channels sync': ('/sync/', ''),
    'Channels async': ('/async/', ''),
    'sync function': ('/ours/sync/', ''),
    'async def': ('/ours/async/', ''),
    'inline function': ('/ours/inline/', ''),
    'Channels sync, user': ('/sync/user/', 'user'),
    'Channels async, user': ('/async/user/', 'user'),
    'sync function, user': ('/ours/sync/user/', 'user'),
    'async def, user': ('/ours/async/user/', 'user'),
    'inline function, user': ('/ours/inline/user/', 'user'),
}
FANOUTS = {'ours': '/ours/sync/', 'group_send': '/grouped/'}
LAYERS = {'core': CORE, 'pubsub': PUBSUB}
TWO_PROCESSES = (UVICORN[0] + ' --workers 2',)
MEMORIES = {name: ECHOES[name][0] for name in ('Channels sync', 'Channels async', 'sync function')}

# What is wanted of ours: the figure of ours / that of a peer, of echoes with and without a user.
MARKS = (
    ('sync function', 32, 'rate', 'Channels sync', 2.5),
    ('sync function', 32, 'rate', 'Channels async', 1.2),
    ('async def', 32, 'rate', 'Channels async', 1.5),
    ('sync function', 128, 'rate', 'Channels sync', 2.5),
    ('sync function', 128, 'rate', 'Channels async', 1.2),
    ('async def', 128, 'rate', 'Channels async', 1.5),
    ('sync function', 1, 'p50', 'Channels async', 0.8),
    ('async def', 1, 'p50', 'Channels async', 0.8),
)
MARKS_OF_FANOUTS = {'core': 0.25, 'pubsub': 0.5}


def echo(site, args, results):
    """Measure a round of echoes."""
    for server, programs in SERVERS.items():
        chosen = [name for name in ECHOES if args.is_chosen(f'{name}, {server}')]
        if not chosen:
            continue
        with site.running(Contender(server, 'channels4', CORE, programs, '/bare/')) as door:
            for name in chosen:
                path, asks = ECHOES[name]
                if asks:
                    sites.check_that_it_refuses(door.url(path), None)
                for clients in args.clients:
                    with door.client('echo', clients, args.seconds, path, asks) as client:
                        result = client.measure(site)
                    result['cpu_per_echo'] = result['cpu'] / result['echoes'] * 1e6
                    results.setdefault((f'{name}, {server}', clients), []).append(result)


def fanout(site, args, results):
    """Measure a round of fan-outs."""
    kinds = {**SERVERS, 'uvicorn, 2 processes': TWO_PROCESSES}
    for layer, backend in LAYERS.items():
        for server, programs in kinds.items():
            for name, path in FANOUTS.items():
                title = f'{name}, {layer}, {server}'
                if not args.is_chosen(title):
                    continue
                with site.running(Contender(title, 'channels4', backend, programs, path)) as door:
                    with door.client('fanout', args.connections, 5) as client:
                        client.measure(site)
                        for _ in range(args.shots):
                            results.setdefault((title, 'fanout'), []).append(client.measure(site))


def memory(site, args, results):
    """Measure a round of idle connections, each kind in a process of its own."""
    for server, programs in SERVERS.items():
        for name, path in MEMORIES.items():
            title = f'{name}, {server}'
            if not args.is_chosen(title):
                continue
            with site.running(Contender(title, 'channels4', CORE, programs, path)) as door:
                # The first connection of all finds everything still to be imported.
                with door.client('echo', 8, 0.5) as client:
                    client.measure(site)
                site.settle()
                before = site.resident_bytes()
                with door.client('echo', args.connections, 1) as client:
                    site.settle()
                    found = (site.resident_bytes() - before) / args.connections
                    results.setdefault((title, 'memory'), []).append(
                        {'memory': found / 1024, 'connects': args.connections / client.connect_seconds}
                    )


PARTS = {'echo': echo, 'fanout': fanout, 'memory': memory}


def targets(results):
    """Yield text, figure and whether it meets the target, for each that we have set ourselves."""

    def ratio(ours, theirs, kind, key):
        return median(results[ours, kind], key) / median(results[theirs, kind], key)

    for server in SERVERS:
        for suffix in ('', ', user'):
            for name, clients, key, peer, wanted in MARKS:
                ours, theirs = f'{name}{suffix}, {server}', f'{peer}{suffix}, {server}'
                if (ours, clients) in results and (theirs, clients) in results:
                    is_time = key == 'p50'
                    found = ratio(ours, theirs, clients, key)
                    yield (
                        f'{ours}, {clients}: {key} / {peer} {"<=" if is_time else ">="} {wanted}',
                        found,
                        found <= wanted if is_time else found >= wanted,
                    )
    for (name, kind), rounds in results.items():
        if kind == 'fanout' and name.startswith('ours'):
            peer = name.replace('ours', 'group_send')
            delivered = min(r['delivered'] / r['expected'] for r in rounds)
            yield f'{name}: delivered / expected, worst round = 1', delivered, delivered == 1
            if (peer, kind) in results:
                wanted, found = MARKS_OF_FANOUTS[name.split(', ')[1]], ratio(name, peer, kind, 'last')
                yield f'{name}: time to the last / group_send <= {wanted}', found, found <= wanted
        if kind == 'memory' and not name.startswith('Channels'):
            for peer in ('Channels sync', 'Channels async'):
                theirs = '{}, {}'.format(peer, name.partition(', ')[2])
                if (theirs, kind) in results:
                    found = ratio(name, theirs, kind, kind)
                    yield f'{name}: memory / {peer} <= 1', found, found <= 1


def print_results(results):
    """Print a table of each part."""
    for clients in sorted({kind for _, kind in results if isinstance(kind, int)}):
        figures.print_table(
            [
                '{} client{}'.format(clients, '' if clients == 1 else 's'),
                'echoes/s',
                'lowest',
                'highest',
                'p50, ms',
                'p99, ms',
                'CPU, us',
            ],
            [
                [
                    name,
                    '{:.0f}'.format(median(rounds, 'rate')),
                    '{:.0f}'.format(min(r['rate'] for r in rounds)),
                    '{:.0f}'.format(max(r['rate'] for r in rounds)),
                    *(f'{median(rounds, key):.3f}' for key in ('p50', 'p99')),
                    '{:.0f}'.format(median(rounds, 'cpu_per_echo')),
                ]
                for (name, kind), rounds in results.items()
                if kind == clients
            ],
        )
    fanouts = [(name, rounds) for (name, kind), rounds in results.items() if kind == 'fanout']
    memories = [(name, rounds) for (name, kind), rounds in results.items() if kind == 'memory']
    if fanouts:
        print_fanouts(fanouts)
    if memories:
        figures.print_table(
            ['idle connections', 'KiB each', 'connects/s'],
            [
                [name, '{:.1f}'.format(median(rounds, 'memory')), '{:.0f}'.format(median(rounds, 'connects'))]
                for name, rounds in memories
            ],
        )


def print_fanouts(fanouts):
    """Print the table of fan-outs, pairs of a name and rounds."""
    figures.print_table(
        ['one message to all', 'delivered', 'first, ms', 'last, ms', 'slowest', 'CPU, ms', 'Redis commands'],
        [
            [
                name,
                '{:.1%}'.format(sum(r['delivered'] for r in rounds) / sum(r['expected'] for r in rounds)),
                *(f'{median(rounds, key):.0f}' for key in ('first', 'last')),
                '{:.0f}'.format(max(r['last'] for r in rounds)),
                '{:.0f}'.format(median(rounds, 'cpu') * 1000),
                '{:.0f}'.format(median(rounds, 'redis')),
            ]
            for name, rounds in fanouts
        ],
    )


def draw(results, path):
    """Draw the rates at 32 clients."""
    values = {name: median(rounds, 'rate') for (name, kind), rounds in results.items() if kind == 32}
    figures.draw_bars(values, '%.0f', 'echoes a second, 32 clients', path)


def main():
    parser = contenders.parser(__doc__, rounds=5)
    parser.add_argument('--parts', default=','.join(PARTS), help='which, with commas: echo, fanout, memory')
    parser.add_argument('--seconds', type=float, default=1.5, help='how long each is measured in a round')
    parser.add_argument(
        '--clients',
        type=lambda text: [int(part) for part in text.split(',')],
        metavar='N,N',
        default=CLIENTS,
        help='how many that echo at a time, in turn',
    )
    parser.add_argument('--connections', type=int, default=1000, help='of a fan-out, and idle ones')
    parser.add_argument('--shots', type=int, default=3, help='fan-outs in a round, after one that warms up')
    args = parser.parse_args()
    virtualenvs = contenders.prepare(args)
    args.is_chosen = lambda name: bool(contenders.chosen([Contender(name, *[''] * 4)], args))
    results = {}
    with sites.site(virtualenvs) as site:
        for part in contenders.turns(args.parts.split(','), args):
            PARTS[part](site, args, results)
    print_results(results)
    figures.print_targets(targets(results))
    figures.save(args, results, draw)
    site.exit()


if __name__ == '__main__':
    main()
