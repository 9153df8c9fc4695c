"""One message to a thousand connections, ours beside its peers: how many it reached, when, and what Redis had to do.

Run it with ``python benchmarks/fanout.py``; it prepares and cleans up as ``echo.py`` does. Ours is
``Socket.objects.all().send_json(...)`` in a handler, its query included, with the rows in PostgreSQL.
"""
import contenders
from contenders import CLASSIC, CORE, DAPHNE4, MEMORY, PUBSUB, REDIS, STOCK, UVICORN, Contender, median

PEERS = ('Channels 4 group_send, uvicorn', 'Channels 4 group_send, daphne', 'Channels 4 group_send, pubsub, uvicorn')


def participants(virtualenvs):
    """Return the contenders, in the order in which they take turns."""
    ours = contenders.one_process(virtualenvs)
    server = ours[0].split()[3]
    return [Contender(*row) for row in (
        (server + ', memory', 'channels1', MEMORY, ours, '/routed/'),
        (server + ', Redis', 'channels1', REDIS, ours, '/routed/'),
        ('daphne + runworker, our layer', 'channels1', REDIS, CLASSIC, '/routed/'),
        ('daphne + runworker, stock layer', 'channels1', STOCK, CLASSIC, '/routed/'),
        ('daphne + runworker, stock layer, Group.send', 'channels1', STOCK, CLASSIC, '/grouped/'),
        (PEERS[0], 'channels4', CORE, UVICORN, '/grouped/'),
        (PEERS[1], 'channels4', CORE, DAPHNE4, '/grouped/'),
        (PEERS[2], 'channels4', PUBSUB, UVICORN, '/grouped/'),
    )]


def targets(results):
    """Yield text, figure and whether it meets the target, for each that issue 3 states."""
    for name, rounds in results.items():
        if 'stock' in name or name in PEERS:
            continue
        delivered = min(r['delivered'] / r['expected'] for r in rounds)
        yield name + ': delivered / expected, worst round = 1', delivered, delivered == 1
        yield (name + ': frames that came twice = 0', *(lambda n: (n, n == 0))(sum(r['twice'] for r in rounds)))
        for peer in PEERS:
            if peer in results:
                ratio = median(rounds, 'last') / median(results[peer], 'last')
                yield '{}: time to the last / {} <= 0.25'.format(name, peer), ratio, ratio <= 0.25
        commands = median(rounds, 'redis')
        yield name + ': Redis commands per fan-out < 20', commands, commands < 20


def draw(results, path):
    """Draw the time from the first to the last arrival of each."""
    pyplot = contenders.pyplot()
    figure, axis = pyplot.subplots(figsize=(11, 4.5))
    names = list(results)
    first = [median(results[name], 'first') for name in names]
    last = [median(results[name], 'last') for name in names]
    bars = axis.barh(names, [end - start for start, end in zip(first, last)], left=first,
                     color=[contenders.colour(name) for name in names])
    axis.bar_label(bars, ['{:.0f} ms{}'.format(
        end, '' if all(r['delivered'] == r['expected'] for r in results[name]) else ', frames lost')
        for name, end in zip(names, last)], padding=3)
    axis.set_xlabel('first to last arrival, ms after the request')
    axis.set_xlim(0, max(last) * 1.25)
    axis.invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main():
    parser = contenders.parser(__doc__, rounds=3)
    parser.add_argument('--connections', type=int, default=1000)
    parser.add_argument('--shots', type=int, default=3, help='fan-outs in a round, after one that warms up')
    parser.add_argument('--seconds', type=float, default=5, help='how long to wait for the last frame')
    args = parser.parse_args()
    virtualenvs = contenders.prepare(args)
    running = contenders.chosen(participants(virtualenvs), virtualenvs, args)
    results = {}
    with contenders.site(virtualenvs) as site:
        for contender in contenders.turns(running, args):
            with site.running(contender) as url:
                with contenders.Client('fanout', url, args.connections, args.seconds) as client:
                    client.measure(site)
                    for _ in range(args.shots):
                        results.setdefault(contender.name, []).append(client.measure(site))
    contenders.print_table(
        ['one message to {}'.format(args.connections), 'delivered', 'worst round', 'first, ms', 'last, ms', 'slowest',
         'Redis commands'],
        [[name, '{:.1%}'.format(sum(r['delivered'] for r in rounds) / sum(r['expected'] for r in rounds)),
          min(r['delivered'] for r in rounds), *('{:.0f}'.format(figure) for figure in (
              median(rounds, 'first'), median(rounds, 'last'), max(r['last'] for r in rounds),
              median(rounds, 'redis')))] for name, rounds in results.items()])
    contenders.print_targets(targets(results))
    contenders.save(args, results, draw)


if __name__ == '__main__':
    main()
