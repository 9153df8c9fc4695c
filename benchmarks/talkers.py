"""A thousand people who speak every ten seconds, ours beside its peers: latency, and processor time per message.

Run it with ``python benchmarks/talkers.py``; it prepares and cleans up as ``echo.py`` does. Nobody is kept waiting by a
flood here, and what a server remembers of a user for a second does not help: each frame comes after ten. Processor time
includes what the open connections cost in that time.
"""

import contenders
import figures
import sites
from contenders import CLASSIC, CORE, DAPHNE4, MEMORY, REDIS, RUNSOCKETS, STOCK, UVICORN, Contender
from figures import median

PARTICIPANTS = [
    Contender(*row)
    for row in (
        ('runsockets, memory, routed', 'channels1', MEMORY, RUNSOCKETS, '/routed/'),
        ('runsockets, memory, user', 'channels1', MEMORY, RUNSOCKETS, '/routed/user/', 'user'),
        (
            'runsockets, memory, login and permission',
            'channels1',
            MEMORY,
            RUNSOCKETS,
            '/routed/permission/',
            'permission',
        ),
        (
            'runsockets, Redis, login and permission',
            'channels1',
            REDIS,
            RUNSOCKETS,
            '/routed/permission/',
            'permission',
        ),
        (
            'daphne + runworker, our layer, login and permission',
            'channels1',
            REDIS,
            CLASSIC,
            '/routed/permission/',
            'permission',
        ),
        (
            'daphne + runworker, stock layer, http_user and permission',
            'channels1',
            STOCK,
            CLASSIC,
            '/bare/permission/',
            'permission',
        ),
        ('Channels 4 async, uvicorn', 'channels4', CORE, UVICORN, '/async/'),
        ('Channels 4 sync, permission, daphne', 'channels4', CORE, DAPHNE4, '/sync/permission/', 'permission'),
        ('Channels 4 sync, permission, uvicorn', 'channels4', CORE, UVICORN, '/sync/permission/', 'permission'),
        ('Channels 4 async, permission, uvicorn', 'channels4', CORE, UVICORN, '/async/permission/', 'permission'),
    )
]


def measure(site, door, count, seconds):
    """Return the result of a round."""
    # The first connection of all finds everything still to be imported.
    with door.client('echo', 8, 1) as client:
        client.result()
    with door.client('talk', count, seconds) as client:
        result = client.measure(site)
    return dict(
        result,
        cpu_per_message=result['cpu'] / result['echoes'] * 1e6,
        redis_per_message=result['redis'] / result['echoes'],
    )


def draw(results, path):
    """Draw the latencies at p99 as bars."""
    values = {name: median(rounds, 'p99') for name, rounds in results.items()}
    figures.draw_bars(values, '%.1f', 'clients that speak every ten seconds: 99 % of the answers came within, ms', path)


def main():
    parser = contenders.parser(__doc__, rounds=3)
    parser.add_argument('--connections', type=int, default=1000)
    parser.add_argument('--seconds', type=float, default=20, help='how long they speak in a round')
    args = parser.parse_args()
    virtualenvs = contenders.prepare(args)
    running = contenders.chosen(PARTICIPANTS, args)
    results = {}
    contenders.print_contenders(running, virtualenvs)
    with sites.site(virtualenvs) as site:
        for contender in contenders.turns(running, args):
            with site.running(contender) as door:
                results.setdefault(contender.name, []).append(measure(site, door, args.connections, args.seconds))
    figures.print_table(
        [
            f'{args.connections} connections, a frame every ten seconds',
            'messages',
            'p50, ms',
            'p95, ms',
            'p99, ms',
            'CPU, us',
            'Redis commands',
        ],
        [
            [
                name,
                '{:.0f}'.format(median(rounds, 'echoes')),
                *(f'{median(rounds, key):.2f}' for key in ('p50', 'p95', 'p99')),
                '{:.0f}'.format(median(rounds, 'cpu_per_message')),
                '{:.2f}'.format(median(rounds, 'redis_per_message')),
            ]
            for name, rounds in results.items()
        ],
    )
    figures.save(args, results, draw)
    site.exit()


if __name__ == '__main__':
    main()
