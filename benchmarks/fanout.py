"""One message to many connections, ours beside its peers: how many it reached, when, and what Redis had to do.

Run it with ``python benchmarks/fanout.py``; it prepares and cleans up as ``echo.py`` does. Ours is
``Socket.objects.all().send_json(...)`` in a handler, its query included, with the rows in PostgreSQL.
"""

import contenders
import figures
import sites
from contenders import CLASSIC, CORE, DAPHNE4, MEMORY, PUBSUB, REDIS, RUNSOCKETS, STOCK, UVICORN, Contender
from figures import median

PEERS = ('Channels 4 group_send, uvicorn', 'Channels 4 group_send, daphne', 'Channels 4 group_send, pubsub, uvicorn')


PARTICIPANTS = [
    Contender(*row)
    for row in (
        ('runsockets, memory', 'channels1', MEMORY, RUNSOCKETS, '/routed/'),
        ('runsockets, Redis', 'channels1', REDIS, RUNSOCKETS, '/routed/'),
        ('daphne + runworker, our layer', 'channels1', REDIS, CLASSIC, '/routed/'),
        ('daphne + runworker, stock layer', 'channels1', STOCK, CLASSIC, '/routed/'),
        ('daphne + runworker, stock layer, Group.send', 'channels1', STOCK, CLASSIC, '/grouped/'),
        (PEERS[0], 'channels4', CORE, UVICORN, '/grouped/'),
        (PEERS[1], 'channels4', CORE, DAPHNE4, '/grouped/'),
        (PEERS[2], 'channels4', PUBSUB, UVICORN, '/grouped/'),
    )
]


def targets(results):
    """Yield text, figure and whether it meets the target, for each that we have set ourselves."""
    for (name, count), rounds in results.items():
        if 'stock' in name or name in PEERS:
            continue
        title = f'{name}, {count}: '
        delivered = min(r['delivered'] / r['expected'] for r in rounds)
        yield title + 'delivered / expected, worst round = 1', delivered, delivered == 1
        twice = sum(r['twice'] for r in rounds)
        yield title + 'frames that came twice = 0', twice, twice == 0
        fewest = min(size for other, size in results if other == name)
        growth = (median(rounds, 'redis') + 1) / (median(results[name, fewest], 'redis') + 1)
        yield f'{title}Redis commands / those for {fewest} <= 2', growth, growth <= 2
        for peer in PEERS:
            if count == 1000 and (peer, count) in results:
                ratio = median(rounds, 'last') / median(results[peer, count], 'last')
                yield f'{title}time to the last / {peer} <= 0.25', ratio, ratio <= 0.25


def draw(results, path):
    """Draw the time from the first to the last arrival of each, for a thousand connections."""
    pyplot = figures.pyplot()
    figure, axis = pyplot.subplots(figsize=(11, 4.5))
    shown = {name: rounds for (name, count), rounds in results.items() if count == 1000}
    names = list(shown)
    first = [median(shown[name], 'first') for name in names]
    last = [median(shown[name], 'last') for name in names]
    bars = axis.barh(
        names,
        [end - start for start, end in zip(first, last)],
        left=first,
        color=[figures.colour(name) for name in names],
    )
    axis.bar_label(
        bars,
        [
            '{:.0f} ms{}'.format(
                end, '' if all(r['delivered'] == r['expected'] for r in shown[name]) else ', frames lost'
            )
            for name, end in zip(names, last)
        ],
        padding=3,
    )
    axis.set_xlabel('one message to 1000 connections: first to last arrival, ms after the request')
    axis.set_xlim(0, max(last) * 1.25)
    axis.invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main():
    parser = contenders.parser(__doc__, rounds=3)
    parser.add_argument('--connections', default='100,1000,3000', help='how many, in turn')
    parser.add_argument('--shots', type=int, default=3, help='fan-outs in a round, after one that warms up')
    parser.add_argument('--seconds', type=float, default=5, help='how long to wait for the last frame')
    args = parser.parse_args()
    virtualenvs = contenders.prepare(args)
    running = contenders.chosen(PARTICIPANTS, args)
    results = {}
    contenders.print_contenders(running, virtualenvs)
    with sites.site(virtualenvs) as site:
        for contender in contenders.turns(running, args):
            for count in map(int, args.connections.split(',')):
                with site.running(contender) as door:
                    with door.client('fanout', count, args.seconds) as client:
                        client.measure(site)
                        for _ in range(args.shots):
                            results.setdefault((contender.name, count), []).append(client.measure(site))
    for count in map(int, args.connections.split(',')):
        figures.print_table(
            [
                f'one message to {count}',
                'delivered',
                'worst round',
                'first, ms',
                'last, ms',
                'slowest',
                'frames/s',
                'Redis commands',
            ],
            [
                [
                    contender.name,
                    '{:.1%}'.format(sum(r['delivered'] for r in rounds) / sum(r['expected'] for r in rounds)),
                    min(r['delivered'] for r in rounds),
                    *(
                        f'{figure:.0f}'
                        for figure in (
                            median(rounds, 'first'),
                            median(rounds, 'last'),
                            max(r['last'] for r in rounds),
                            count / median(rounds, 'last') * 1000,
                            median(rounds, 'redis'),
                        )
                    ),
                ]
                for contender in running
                for rounds in [results.get((contender.name, count))]
                if rounds
            ],
        )
    figures.print_targets(targets(results))
    figures.save(args, results, draw)
    site.exit()


if __name__ == '__main__':
    main()
