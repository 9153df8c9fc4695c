"""Who takes part in the benchmarks, how each is started, and what each runs on."""

import argparse
import collections
import os
import re
import sys
import tempfile

import figures
import virtualenvs

MEMORY = 'sockets.layers.InMemoryChannelLayer'
REDIS = 'sockets.layers.RedisChannelLayer'
STOCK = 'asgi_redis.RedisChannelLayer'
CORE = 'channels_redis.core.RedisChannelLayer'
PUBSUB = 'channels_redis.pubsub.RedisPubSubChannelLayer'

Contender = collections.namedtuple('Contender', 'name stack layer programs path asks')
# asks: who may send a frame. '' is everybody; 'user' is who has logged in; 'permission' is who may change users.
Contender.__new__.__defaults__ = ('',)
Contender.__doc__ = """A server as people run it: ``programs`` on ``layer``, asked for ``path``."""

RUNSOCKETS = ('python -m django runsockets 127.0.0.1:{port} --threads 1',)
RUNSOCKETS_4_THREADS = ('python -m django runsockets 127.0.0.1:{port} --threads 4',)
CLASSIC = ('daphne -b 127.0.0.1 -p {port} benchmarks.channels1.asgi:channel_layer', 'python -m django runworker')
DAPHNE4 = ('daphne -b 127.0.0.1 -p {port} benchmarks.channels4.asgi:application',)
UVICORN = ('uvicorn --host 127.0.0.1 --port {port} --log-level warning benchmarks.channels4.asgi:application',)


def parser(description, rounds):
    """Return a parser of the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=rounds)
    parser.add_argument('--only', default='', metavar='REGEX', help='run the contenders whose name it is found in')
    parser.add_argument('--json', metavar='FILE', help='write all results there')
    parser.add_argument('--plot', metavar='PNG', help='draw the medians there')
    parser.add_argument(
        '--venvs',
        metavar='DIRECTORY',
        help='where the virtualenvs are kept',
        default=os.path.join(tempfile.gettempdir(), 'sockets-benchmarks'),
    )
    return parser


def prepare(args):
    """Make the virtualenvs, go on in ours, print what is measured, and return the path of each."""
    paths = virtualenvs.enter(args.venvs)
    virtualenvs.print_versions(paths)
    return paths


def chosen(contenders, args):
    """Return those of ``contenders`` that were asked for."""
    return [contender for contender in contenders if re.search(args.only, contender.name)]


def turns(contenders, args):
    """Yield each contender in each round: what else the machine does meets all of them."""
    for number in range(args.rounds):
        print(f'round {number + 1} of {args.rounds} ...', file=sys.stderr, flush=True)
        yield from contenders


# What each runs on


def print_contenders(contenders, paths):
    """Print Django, server, layer and accelerators of each: what a figure is a figure of."""
    found = {stack: virtualenvs.describe(path) for stack, path in paths.items()}
    figures.print_table(
        ['contender', 'Django', 'server', 'layer', 'accelerators'],
        [[contender.name, *description(contender, found[contender.stack])] for contender in contenders],
        5,
    )


def description(contender, found):
    """Return Django, server, layer and accelerators of ``contender``, with what was ``found`` in its virtualenv."""
    versions = found['versions']

    def named(name):
        return '{} {}'.format(name, versions.get(name, ''))

    has_django = 'benchmarks/' not in contender.programs[0]
    program, is_uvicorn = contender.programs[0].split()[0], contender.programs[0].startswith('uvicorn')
    if program == 'python':
        server = 'runsockets, ' + named('daphne') if 'runsockets' in contender.programs[0] else 'autobahn'
        server = server if has_django else re.search(r'\w+\.py', contender.programs[0]).group()
    else:
        server = named(program)
    if len(contender.programs) > 1:
        server += f' + {len(contender.programs) - 1} runworker'
    used = ['uvloop', 'httptools', 'websockets'] if is_uvicorn else [] if server == 'client.py' else ['autobahn']
    if contender.layer and 'redis' in contender.layer.lower():
        used += ['msgpack', 'hiredis']
    return [
        versions['Django'] if has_django else '-',
        server,
        contender.layer or '-',
        ', '.join(found['accelerators'][name] for name in used if found['accelerators'].get(name)) or 'none',
    ]
