"""What ``manage.py sockets describe`` says of the example, to the judges of its languages."""
import json
import subprocess

import pytest

from .. import servers
from .test_browser_client import TYPESCRIPT

EXAMPLE = servers.ROOT / 'example_project'
STATIC = servers.ROOT / 'sockets/static/sockets'
SPECIFICATION = '@asyncapi/specs@6.11.1'

USE = '''
import type {RoomMessages} from './messages';
import {SocketRouter} from './sockets';

const socket = new SocketRouter<RoomMessages>('/room/tea/');
socket.send('SAY', {text: 'Hello'});
'''


def describe(option):
    return subprocess.check_output(servers.python_module('manage', 'sockets', 'describe', option), cwd=str(EXAMPLE),
                                   env=servers.environment()).decode()


def test_the_example_is_a_valid_asyncapi_document(npm_packages):
    jsonschema = pytest.importorskip('jsonschema')
    schema = json.loads((npm_packages(SPECIFICATION) / 'schemas/3.0.0.json').read_text())
    document = json.loads(describe('--asyncapi'))
    assert sorted(document['channels']) == ['Pulse', 'Room'] and 'SAY' in document['channels']['Room']['messages']
    jsonschema.Draft7Validator(schema).validate(document)
    document['channels']['Room']['adress'] = document['channels']['Room'].pop('address')
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate(document)


def test_the_types_of_the_example_go_with_the_browser_client(npm_packages, tmp_path):
    (tmp_path / 'messages.ts').write_text(describe('--typescript'))
    (tmp_path / 'sockets.d.ts').write_text((STATIC / 'sockets.d.ts').read_text())
    (tmp_path / 'use.ts').write_text(USE)
    compiled = subprocess.run(
        [servers.find_program('node'), str(npm_packages(TYPESCRIPT) / 'bin/tsc'), '--noEmit', '--strict', '--target',
         'es2022', '--lib', 'es2022,dom', 'use.ts'], cwd=str(tmp_path), stdout=subprocess.PIPE)
    assert compiled.returncode == 0, compiled.stdout.decode()
