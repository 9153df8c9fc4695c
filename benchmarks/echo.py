"""Echo round trips, ours beside its peers: rate, latency, and Redis commands per echo.

Plain echoes, those of a function that looks who its user is, and those under a login and a permission.

Run it with ``python benchmarks/echo.py``: it makes the virtualenvs that it needs, starts everything on loopback and
stops it again. The contenders take turns; each figure is the median of ``--rounds`` rounds, all in one run.
"""

import contenders
import figures
import sites
from contenders import (
    CLASSIC,
    CORE,
    DAPHNE4,
    MEMORY,
    PUBSUB,
    REDIS,
    RUNSOCKETS,
    RUNSOCKETS_4_THREADS,
    STOCK,
    UVICORN,
    Contender,
)
from figures import median

CLIENTS = (1, 8, 32, 128)


PARTICIPANTS = [
    Contender(*row)
    for row in (
        ('runsockets, memory, routed', 'channels1', MEMORY, RUNSOCKETS, '/routed/'),
        ('runsockets, memory, bare', 'channels1', MEMORY, RUNSOCKETS, '/bare/'),
        ('runsockets, Redis, routed', 'channels1', REDIS, RUNSOCKETS, '/routed/'),
        ('runsockets, Redis, bare', 'channels1', REDIS, RUNSOCKETS, '/bare/'),
        ('runsockets, Redis, routed, 4 threads', 'channels1', REDIS, RUNSOCKETS_4_THREADS, '/routed/'),
        ('daphne + runworker, our layer, routed', 'channels1', REDIS, CLASSIC, '/routed/'),
        ('daphne + runworker, our layer, bare', 'channels1', REDIS, CLASSIC, '/bare/'),
        ('daphne + runworker, stock layer, routed', 'channels1', STOCK, CLASSIC, '/routed/'),
        ('daphne + runworker, stock layer, bare', 'channels1', STOCK, CLASSIC, '/bare/'),
        ('Channels 4 sync, daphne', 'channels4', CORE, DAPHNE4, '/sync/'),
        ('Channels 4 sync, uvicorn', 'channels4', CORE, UVICORN, '/sync/'),
        ('Channels 4 async, daphne', 'channels4', CORE, DAPHNE4, '/async/'),
        ('Channels 4 async, uvicorn', 'channels4', CORE, UVICORN, '/async/'),
        ('Channels 4 async, pubsub, uvicorn', 'channels4', PUBSUB, UVICORN, '/async/'),
        # The user of Channels 4 is the one of the handshake: it is not read again as long as the connection lives.
        ('runsockets, memory, user', 'channels1', MEMORY, RUNSOCKETS, '/routed/user/', 'user'),
        ('runsockets, memory, login', 'channels1', MEMORY, RUNSOCKETS, '/routed/login/', 'user'),
        (
            'runsockets, memory, login and permission',
            'channels1',
            MEMORY,
            RUNSOCKETS,
            '/routed/permission/',
            'permission',
        ),
        ('runsockets, Redis, user', 'channels1', REDIS, RUNSOCKETS, '/routed/user/', 'user'),
        (
            'runsockets, Redis, login and permission',
            'channels1',
            REDIS,
            RUNSOCKETS,
            '/routed/permission/',
            'permission',
        ),
        ('daphne + runworker, our layer, user', 'channels1', REDIS, CLASSIC, '/routed/user/', 'user'),
        (
            'daphne + runworker, our layer, login and permission',
            'channels1',
            REDIS,
            CLASSIC,
            '/routed/permission/',
            'permission',
        ),
        ('daphne + runworker, stock layer, http_user', 'channels1', STOCK, CLASSIC, '/bare/user/', 'user'),
        (
            'daphne + runworker, stock layer, http_user and permission',
            'channels1',
            STOCK,
            CLASSIC,
            '/bare/permission/',
            'permission',
        ),
        ('Channels 4 sync, user, daphne', 'channels4', CORE, DAPHNE4, '/sync/user/', 'user'),
        ('Channels 4 sync, user, uvicorn', 'channels4', CORE, UVICORN, '/sync/user/', 'user'),
        ('Channels 4 async, user, daphne', 'channels4', CORE, DAPHNE4, '/async/user/', 'user'),
        ('Channels 4 async, user, uvicorn', 'channels4', CORE, UVICORN, '/async/user/', 'user'),
        ('Channels 4 sync, permission, uvicorn', 'channels4', CORE, UVICORN, '/sync/permission/', 'permission'),
        ('Channels 4 async, permission, uvicorn', 'channels4', CORE, UVICORN, '/async/permission/', 'permission'),
        ('Channels 4 async, ahas_perm, uvicorn', 'channels4', CORE, UVICORN, '/async/ahas_perm/', 'permission'),
        ('limit: autobahn, no Django', 'channels1', None, ('python benchmarks/channels1/limit.py {port}',), '/'),
        ('limit: the client itself', 'channels1', None, ('python benchmarks/client.py serve --port {port}',), '/'),
    )
]


def targets(results):
    """Yield text, figure and whether it meets the target, for each that we have set ourselves."""

    def value(name, clients, key):
        rounds = results.get((name, clients))
        return median(rounds, key) if rounds else None

    def ratio(name, peer, clients, key):
        ours, theirs = value(name, clients, key), value(peer, clients, key)
        return None if ours is None or theirs is None else ours / theirs

    def target(text, figure, met):
        return text, figure, figure is not None and met(figure)

    sync, asynchronous = 'Channels 4 sync, daphne', 'Channels 4 async, uvicorn'
    names = ['runsockets, memory, routed', 'runsockets, Redis, routed']
    for name in names:
        yield target(name + ', 1 client: p50 / async <= 1', ratio(name, asynchronous, 1, 'p50'), lambda x: x <= 1)
        yield target(name + ', 32: rate / sync >= 2.5', ratio(name, sync, 32, 'rate'), lambda x: x >= 2.5)
        yield target(name + ', 32: rate / async >= 1', ratio(name, asynchronous, 32, 'rate'), lambda x: x >= 1)
        yield target(name + ', 32: Redis commands per echo = 0', value(name, 32, 'redis_per_echo'), lambda x: x < 0.01)
    for clients in (1, 32):
        yield target(
            f'4 threads, {clients}: rate / 1 thread >= 0.9',
            ratio(names[1] + ', 4 threads', names[1], clients, 'rate'),
            lambda x: x >= 0.9,
        )
    ours, stock = 'daphne + runworker, our layer, routed', 'daphne + runworker, stock layer, bare'
    yield target('our layer, 1: rate / stock >= 30', ratio(ours, stock, 1, 'rate'), lambda x: x >= 30)
    yield target('our layer, 1: stock p50 / ours > 25', ratio(stock, ours, 1, 'p50'), lambda x: x > 25)
    yield target('our layer, 32: rate / stock >= 2.2', ratio(ours, stock, 32, 'rate'), lambda x: x >= 2.2)
    for name in names:
        for guard in ('user', 'login', 'login and permission'):
            guarded = name.replace('routed', guard)
            if guarded in {contender.name for contender in PARTICIPANTS}:
                yield target(
                    guarded + ', 32: rate / routed >= 0.85', ratio(guarded, name, 32, 'rate'), lambda x: x >= 0.85
                )
    for name in names + [ours, 'daphne + runworker, stock layer, routed']:
        yield target(
            name + ', 32: rate / bare >= 0.9',
            ratio(name, name.replace('routed', 'bare'), 32, 'rate'),
            lambda x: x >= 0.9,
        )


def draw(results, path):
    """Draw the rates as bars, in the order of the table."""
    pyplot = figures.pyplot()
    shown = sorted({clients for _, clients in results} & {1, 32})
    figure, axes = pyplot.subplots(1, len(shown), figsize=(14, 9), sharey=True, squeeze=False)
    names = [name for name, clients in results if clients == shown[0] and not name.startswith('limit: the')]
    for axis, clients in zip(axes[0], shown):
        rates = [median(results[name, clients], 'rate') for name in names]
        bars = axis.barh(names, rates, color=[figures.colour(name) for name in names])
        axis.bar_label(bars, fmt='%.0f', padding=3)
        axis.set_xlabel('echoes a second, {} client{}'.format(clients, '' if clients == 1 else 's'))
        axis.set_xlim(0, max(rates) * 1.15)
    # The axes share it.
    axes[0][0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def measure(client, site):
    """Return the result of a round."""
    result = client.measure(site)
    return dict(
        result, redis_per_echo=result['redis'] / result['echoes'], cpu_per_echo=result['cpu'] / result['echoes'] * 1e6
    )


def main():
    parser = contenders.parser(__doc__, rounds=3)
    parser.add_argument('--seconds', type=float, default=1.5, help='how long each is measured in a round')
    parser.add_argument(
        '--clients',
        type=lambda text: [int(part) for part in text.split(',')],
        metavar='N,N',
        default=CLIENTS,
        help='how many at a time, in turn',
    )
    args = parser.parse_args()
    virtualenvs = contenders.prepare(args)
    running = contenders.chosen(PARTICIPANTS, args)
    results = {}
    contenders.print_contenders(running, virtualenvs)
    with sites.site(virtualenvs) as site:
        for contender in contenders.turns(running, args):
            with site.running(contender) as door:
                for clients in args.clients:
                    with door.client('echo', clients, args.seconds) as client:
                        results.setdefault((contender.name, clients), []).append(measure(client, site))
    for clients in args.clients:
        peer = results.get(('Channels 4 async, uvicorn', clients))
        figures.print_table(
            [
                '{} client{}'.format(clients, '' if clients == 1 else 's'),
                'echoes/s',
                'lowest',
                'highest',
                'p50, ms',
                'p99, ms',
                'CPU, us',
                'Redis commands',
                'to Channels 4 async',
            ],
            [
                [
                    contender.name,
                    '{:.0f}'.format(median(rounds, 'rate')),
                    '{:.0f}'.format(min(r['rate'] for r in rounds)),
                    '{:.0f}'.format(max(r['rate'] for r in rounds)),
                    '{:.2f}'.format(median(rounds, 'p50')),
                    '{:.2f}'.format(median(rounds, 'p99')),
                    '{:.0f}'.format(median(rounds, 'cpu_per_echo')),
                    '{:.2f}'.format(median(rounds, 'redis_per_echo')),
                    '{:.2f}x'.format(median(rounds, 'rate') / median(peer, 'rate')) if peer else '-',
                ]
                for contender in running
                for rounds in [results.get((contender.name, clients))]
                if rounds
            ],
        )
    figures.print_targets(targets(results))
    figures.save(args, results, draw)
    site.exit()


if __name__ == '__main__':
    main()
