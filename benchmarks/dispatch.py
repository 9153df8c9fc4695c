"""What finding a route costs, by number of routes: ours, and a list that is searched from end to end.

Run it with ``python benchmarks/dispatch.py``. Each figure is the median of ``--rounds`` rounds, all in one run.
"""

import argparse
import os
import re
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

from sockets.routes import Route, RouteTable

SIZES = (10, 100, 1000)
LOOKUPS = 2000


def exact_routes(size):
    return [Route(f'TYPE_{n}', n) for n in range(size)]


def search(routes, type):
    """The peer: what a list of (pattern, function) pairs costs, the last one first."""
    for route in reversed(routes):
        pattern = route.pattern
        if pattern == type if isinstance(pattern, str) else pattern.match(type):
            return route


def nanoseconds(match, types):
    """Return the time of one look-up."""
    started = time.perf_counter()
    for type in types:
        match(type)
    return (time.perf_counter() - started) / len(types) * 1e9


def measure(routes, types, rounds):
    """Return the medians of our table and of the peer, in nanoseconds; the rounds take turns."""
    table = RouteTable(routes)
    ours, peer = [], []
    for _ in range(rounds):
        ours.append(nanoseconds(table.match, types))
        peer.append(nanoseconds(lambda type: search(routes, type), types[:200]))
    return statistics.median(ours), statistics.median(peer)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=15)
    rounds = parser.parse_args().rounds
    print('{:28}{:>8}{:>12}{:>14}{:>9}'.format('', 'routes', 'ours, ns', 'search, ns', 'ratio'))
    for name, extra in (
        ('exact', []),
        ('exact, 5 regexes after them', [Route(re.compile(f'NEVER_{n}'), None) for n in range(5)]),
    ):
        for size in SIZES:
            types = [f'TYPE_{n * 7919 % size}' for n in range(LOOKUPS)]
            ours, peer = measure(exact_routes(size) + extra, types, rounds)
            print(f'{name:28}{size:>8}{ours:>12.0f}{peer:>14.0f}{peer / ours:>8.1f}x')


if __name__ == '__main__':
    main()
