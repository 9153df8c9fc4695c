"""Is a commit slower than another one? Both take turns, and the figures of a turn are compared with each other.

Run it with ``python benchmarks/compare.py 3a748cb HEAD --rounds 10``; it prepares and cleans up as ``echo.py`` does.
Only the package ``sockets`` is that of each commit: project, client, dependencies and machine are the same for both, and
what the project uses has been public in both.

A ratio above 1 is an improvement. Its interval is the one in which the median lies with 95 % confidence or more (see
``figures.interval``). An interval that lies below ``--wanted`` says that the later commit is slower; one that lies
across it says that more rounds are needed.
"""

import collections
import contextlib
import io
import json
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import contenders
import figures
import sites
from contenders import CLASSIC, MEMORY, REDIS, RUNSOCKETS, Contender
from virtualenvs import ROOT

PARTICIPANTS = [
    Contender(*row)
    for row in (
        ('runsockets, memory', 'channels1', MEMORY, RUNSOCKETS, '/routed/'),
        ('runsockets, Redis', 'channels1', REDIS, RUNSOCKETS, '/routed/'),
        ('daphne + runworker', 'channels1', REDIS, CLASSIC, '/routed/'),
    )
]

Figure = collections.namedtuple('Figure', 'key title is_better_high')
FIGURES = [
    Figure('rate, 1', 'echoes/s, 1 client', True),
    Figure('rate', 'echoes/s, 32 clients', True),
    Figure('cpu', 'CPU of an echo, us, 32 clients', False),
    Figure('last', 'fan-out, ms to the last', False),
    Figure('connects', 'connects/s', True),
    Figure('memory', 'kB of an idle connection', False),
]
# Echoes that ask who their user is, as a share of plain ones of the same server: path and who may send.
GUARDS = {
    'user': ('/routed/user/', 'user'),
    'login': ('/routed/login/', 'user'),
    'login and permission': ('/routed/permission/', 'permission'),
}
WANTED_OF_GUARDS = 0.85


# The two sides


def commit(name):
    """Return the hash of the commit ``name`` and its first line."""
    output = subprocess.check_output(
        ['git', 'log', '-1', '--format=%h %s', name, '--'], cwd=str(ROOT), universal_newlines=True
    )
    hash, _, title = output.strip().partition(' ')
    return hash, title


@contextlib.contextmanager
def checkouts(hashes):
    """Yield the directory of each commit: its package ``sockets``, and the benchmarks of this checkout."""
    with tempfile.TemporaryDirectory(prefix='sockets-compare-') as directory:
        found = {}
        for hash in hashes:
            # Unlike a worktree, an archive leaves nothing in the repository if we are killed.
            archive = subprocess.check_output(['git', 'archive', hash, 'sockets'], cwd=str(ROOT))
            found[hash] = Path(directory).resolve() / hash
            with tarfile.open(fileobj=io.BytesIO(archive)) as files:
                files.extractall(str(found[hash]))
            (found[hash] / 'benchmarks').symlink_to(ROOT / 'benchmarks', target_is_directory=True)
        yield found


def check_import(directory, python):
    """End the comparison unless servers with ``directory`` as their root run its code."""
    path = subprocess.check_output(
        [str(python), '-c', 'import sockets; print(sockets.__file__)'],
        cwd=str(directory),
        universal_newlines=True,
        env=sites.environment('channels1', MEMORY, '', '', directory),
    ).strip()
    if Path(path).resolve().parent.parent != directory:
        sys.exit(f'{path} would be measured instead of {directory}.')


# One server


def measure(site, door, args, number):
    """Return the figures of a server that runs."""
    # The first connection of all finds everything still to be imported, and so does the first frame of each path.
    paths = {'': (None, ''), **GUARDS}
    for path, asks in paths.values():
        if asks:
            sites.check_that_it_refuses(door.url(path), None)
        with door.client('echo', 8, 1, path, asks) as client:
            client.result()
    site.settle()
    before = site.resident_bytes()
    with door.client('fanout', args.connections, 10) as client:
        result = {
            'connects': args.connections / client.connect_seconds,
            'memory': (site.resident_bytes() - before) / args.connections / 1024,
        }
        shots = [client.result() for _ in range(args.shots + 1)]
    if any(shot['delivered'] < shot['expected'] or shot['twice'] for shot in shots):
        raise sites.Failed(
            'a fan-out reached {} of {} connections'.format(min(shot['delivered'] for shot in shots), args.connections)
        )
    site.settle()
    result['last'] = statistics.median(shot['last'] for shot in shots[1:])
    # Whoever comes later in the life of a server must not always be the same one.
    names = list(paths)
    for name in names[number % len(names) :] + names[: number % len(names)]:
        path, asks = paths[name]
        with door.client('echo', 32, args.seconds, path, asks) as client:
            echo = client.measure(site)
        if name:
            result['rate, ' + name] = echo['rate']
        else:
            result.update({'rate': echo['rate'], 'cpu': echo['cpu'] / echo['echoes'] * 1e6})
    with door.client('echo', 1, args.seconds) as client:
        result['rate, 1'] = client.result()['rate']
    return result


# What comes out


def rows_of_commits(name, befores, afters, wanted):
    """Yield a row of the table for each figure of the contender ``name``, of the rounds of both commits."""
    for figure in FIGURES:
        before, after = [r[figure.key] for r in befores], [r[figure.key] for r in afters]
        ratios = figures.paired_ratios(before, after, figure.is_better_high)
        yield [
            name,
            figure.title,
            f'{statistics.median(before):.1f}',
            f'{statistics.median(after):.1f}',
            *cells(ratios, wanted),
        ]


def rows_of_guards(name, hash, rounds):
    """Yield a row of the table for each guard: its echoes as a share of the plain ones of the same server."""
    for guard in GUARDS:
        plain, guarded = [r['rate'] for r in rounds], [r['rate, ' + guard] for r in rounds]
        yield [
            name,
            f'{hash}, {guard}',
            f'{statistics.median(plain):.1f}',
            f'{statistics.median(guarded):.1f}',
            # Only where one process handles all frames of a connection is its user kept between them.
            *cells(figures.paired_ratios(plain, guarded), WANTED_OF_GUARDS if 'runsockets' in name else None),
        ]


def cells(ratios, wanted):
    """Return the median of ``ratios``, its interval, and what that says about the ratio that is ``wanted``."""
    low, high, confidence = figures.interval(ratios)
    return [
        f'{statistics.median(ratios):.3f}',
        f'{low:.3f} to {high:.3f}',
        f'{confidence:.1%}',
        '-' if wanted is None else figures.verdict(ratios, wanted),
    ]


def report(results, hashes, wanted):
    """Print both tables; return whether no interval lies below what is wanted of it."""
    commits, guards = [], []
    for name, rounds in results.items():
        befores, afters = ([r[hash] for r in rounds] for hash in hashes)
        commits += rows_of_commits(name, befores, afters, wanted)
        for hash in hashes:
            guards += rows_of_guards(name, hash, [r[hash] for r in rounds])
    tail = ['ratio', 'interval', 'confidence', f'>= {wanted}']
    figures.print_table(['', 'figure', *hashes, *tail], commits, 2)
    tail[-1] = f'>= {WANTED_OF_GUARDS}'
    figures.print_table(['', 'echoes/s, 32 clients', 'plain', 'guarded', *tail], guards, 2)
    # How a guard did in the earlier commit is told and not judged.
    return not any(row[-1] == 'NO' for row in commits + [row for row in guards if row[1].startswith(hashes[1])])


def main():
    parser = contenders.parser(__doc__, rounds=10)
    parser.add_argument('commits', nargs=2, metavar='COMMIT', help='the earlier one, then the later one')
    parser.add_argument('--seconds', type=float, default=1.5, help='how long echoes are counted each time')
    parser.add_argument('--connections', type=int, default=1000, help='how many are opened and told something')
    parser.add_argument('--shots', type=int, default=5, help='fan-outs in a round, after one that warms up')
    parser.add_argument('--wanted', type=float, default=0.9, help='the ratio that the later commit should reach')
    args = parser.parse_args()
    virtualenvs = contenders.prepare(args)
    titles = dict(commit(name) for name in args.commits)
    hashes = list(titles)
    if len(hashes) < 2:
        sys.exit('{} and {} are the same commit.'.format(*args.commits))
    for hash, title in titles.items():
        print(f'{hash}: {title}')
    print(flush=True)
    running = contenders.chosen(PARTICIPANTS, args)
    contenders.print_contenders(running, virtualenvs)
    results = {}
    with checkouts(hashes) as roots:
        for root in roots.values():
            check_import(root, virtualenvs['channels1'] / 'bin/python')
        with sites.site(virtualenvs, roots) as site:
            for number in range(args.rounds):
                print(f'round {number + 1} of {args.rounds} ...', file=sys.stderr, flush=True)
                for contender in running:
                    pair = {}
                    # Each is the first one in every other round.
                    for hash in hashes if number % 2 == 0 else hashes[::-1]:
                        with site.running(contender, side=hash) as door:
                            pair[hash] = measure(site, door, args, number)
                    if len(pair) == 2:
                        results.setdefault(contender.name, []).append(pair)
    holds = report(results, hashes, args.wanted)
    if args.json:
        Path(args.json).write_text(json.dumps({'commits': titles, 'rounds': results}, indent=1) + '\n')
    site.exit()
    sys.exit(0 if holds else 1)


if __name__ == '__main__':
    main()
