"""What more processes and workers bring, how fast connections open, and what an idle one costs.

Run it with ``python benchmarks/scale.py``; it prepares and cleans up as ``echo.py`` does. A connect of ours writes its
row to PostgreSQL. Client, servers, Redis and PostgreSQL share the machine: more processes than cores bring nothing.
"""

import contenders
import figures
import sites
from contenders import CLASSIC, CORE, DAPHNE4, REDIS, RUNSOCKETS, STOCK, UVICORN, Contender
from figures import median

CONNECTIONS = 500

PARTICIPANTS = [
    Contender(*row)
    for row in (
        ('runsockets, 1 process', 'channels1', REDIS, RUNSOCKETS, '/routed/'),
        (
            'runsockets, 2 processes',
            'channels1',
            REDIS,
            ('python -m django runsockets 127.0.0.1:{port} --threads 1 --processes 2',),
            '/routed/',
        ),
        ('daphne + 1 runworker, our layer', 'channels1', REDIS, CLASSIC, '/routed/'),
        ('daphne + 2 runworkers, our layer', 'channels1', REDIS, CLASSIC + CLASSIC[1:], '/routed/'),
        ('daphne + 4 runworkers, our layer', 'channels1', REDIS, CLASSIC + 3 * CLASSIC[1:], '/routed/'),
        ('daphne + 1 runworker, stock layer', 'channels1', STOCK, CLASSIC, '/routed/'),
        ('daphne + 2 runworkers, stock layer', 'channels1', STOCK, CLASSIC + CLASSIC[1:], '/routed/'),
        ('daphne + 4 runworkers, stock layer', 'channels1', STOCK, CLASSIC + 3 * CLASSIC[1:], '/routed/'),
        ('Channels 4 sync, daphne, no row', 'channels4', CORE, DAPHNE4, '/sync/'),
        ('Channels 4 async, uvicorn, no row', 'channels4', CORE, UVICORN, '/async/'),
    )
]


def measure(site, door, seconds):
    """Return the result of a round."""
    # The first connection of all finds everything still to be imported.
    with door.client('echo', 8, seconds):
        pass
    site.settle()
    before = site.resident_bytes()
    with door.client('echo', CONNECTIONS, seconds) as client:
        result = {
            'connects': CONNECTIONS / client.connect_seconds,
            'memory': (site.resident_bytes() - before) / CONNECTIONS,
        }
    site.settle()
    with door.client('echo', 32, seconds) as client:
        return dict(result, rate=client.measure(site)['rate'])


def main():
    parser = contenders.parser(__doc__, rounds=3)
    parser.add_argument('--seconds', type=float, default=1.5, help='how long echoes are counted in a round')
    args = parser.parse_args()
    virtualenvs = contenders.prepare(args)
    running = contenders.chosen(PARTICIPANTS, args)
    results = {}
    contenders.print_contenders(running, virtualenvs)
    with sites.site(virtualenvs) as site:
        for contender in contenders.turns(running, args):
            with site.running(contender) as door:
                results.setdefault(contender.name, []).append(measure(site, door, args.seconds))
    figures.print_table(
        ['', 'echoes/s, 32 clients', 'connects/s', 'kB per idle connection'],
        [
            [
                name,
                *(
                    f'{figure:.0f}'
                    for figure in (median(rounds, 'rate'), median(rounds, 'connects'), median(rounds, 'memory') / 1024)
                ),
            ]
            for name, rounds in results.items()
        ],
    )
    figures.save(args, results, draw)
    site.exit()


def draw(results, path):
    """Draw what more workers bring."""
    values = {name: median(rounds, 'rate') for name, rounds in results.items()}
    figures.draw_bars(values, '%.0f', 'echoes a second, 32 clients', path)


if __name__ == '__main__':
    main()
