"""Prints, as JSON, which packages the Python that runs it has, and which compiled parts of them it would use."""

import json
import re
import subprocess
import sys


def versions():
    listed = json.loads(
        subprocess.check_output(
            [sys.executable, '-m', 'pip', 'list', '--format', 'json', '--disable-pip-version-check']
        ).decode()
    )
    return {entry['name'].replace('-', '_'): entry['version'] for entry in listed}


def module(name):
    """Return the module ``name``, or None if it cannot be imported."""
    try:
        return __import__(name, fromlist=['*'])
    except ImportError:
        return None


def accelerators(found):
    """Yield the name of a package and what is used of it; a slow way is told, too."""
    for name in ('uvloop', 'httptools', 'hiredis'):
        if module(name):
            yield name, '{} {}'.format(name, found.get(name, ''))
    if module('websockets'):
        yield 'websockets', 'websockets in C' if module('websockets.speedups') else 'websockets in Python'
    if module('msgpack'):
        # Without its compiled part msgpack falls back to msgpack/fallback.py.
        yield (
            'msgpack',
            'msgpack in {}'.format('Python' if module('msgpack').Packer.__module__ == 'msgpack.fallback' else 'C'),
        )
    if module('autobahn'):
        validator = module('autobahn.websocket.utf8validator').Utf8Validator.__module__
        compiled = re.search('wsaccel|nvx', validator)
        yield 'autobahn', 'autobahn with ' + compiled.group() if compiled else 'autobahn in Python'


if __name__ == '__main__':
    found = versions()
    print(json.dumps({'versions': found, 'accelerators': dict(accelerators(found))}))
