"""The virtualenvs of the benchmarks, and what is installed in them."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# matplotlib is for --plot; the rest is what a project would install.
PACKAGES = {
    'channels1': ['-e', f'{ROOT}[postgres,test]', 'matplotlib'],
    'channels4': [
        'channels>=4,<5',
        'channels_redis',
        # What channels_redis 4.3 waits for in Redis lasts as long as redis-py 8 waits for anything.
        'redis<8',
        'daphne>=4',
        'uvicorn[standard]',
        'Django>=4.2',
        'psycopg[binary]',
    ],
}
TOLD = [
    'Django',
    'channels',
    'daphne',
    'uvicorn',
    'uvloop',
    'httptools',
    'asgi_redis',
    'channels_redis',
    'redis',
    'msgpack_python',
    'msgpack',
    'hiredis',
    'autobahn',
    'Twisted',
    'websockets',
    'psycopg2_binary',
    'psycopg',
]


def enter(directory):
    """Make the virtualenvs under ``directory``, go on in ours, and return the path of each."""
    paths = {stack: Path(directory).resolve() / stack for stack in PACKAGES}
    for stack, path in paths.items():
        stamp = path / 'stamp'
        if not stamp.exists() or stamp.read_text() != repr(PACKAGES[stack]):
            print(f'Installing into {path}, which takes a minute once ...', flush=True)
            subprocess.run([sys.executable, '-m', 'venv', '--clear', str(path)], check=True)
            subprocess.run(
                [
                    str(path / 'bin/python'),
                    '-m',
                    'pip',
                    'install',
                    '-qq',
                    '--disable-pip-version-check',
                    *PACKAGES[stack],
                ],
                check=True,
            )
            stamp.write_text(repr(PACKAGES[stack]))
    if Path(sys.prefix) != paths['channels1']:
        python = str(paths['channels1'] / 'bin/python')
        os.execv(python, [python, *sys.argv])
    return paths


def print_versions(paths):
    """Print what is measured, on what."""
    print(f'{os.cpu_count()} CPUs, {sys.version.split()[0]}')
    for stack, path in paths.items():
        versions = describe(path)['versions']
        print('{}: {}'.format(stack, ', '.join(f'{name} {versions[name]}' for name in TOLD if name in versions)))
    print(flush=True)


def describe(path):
    """Return ``versions`` and ``accelerators`` of the virtualenv at ``path``."""
    return json.loads(
        subprocess.check_output(
            [str(path / 'bin/python'), str(ROOT / 'benchmarks/installed.py')], universal_newlines=True
        )
    )
