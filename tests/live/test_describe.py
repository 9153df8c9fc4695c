"""What ``manage.py sockets describe`` says of the example, to the judges of its languages."""

import json
import subprocess

import pytest
from django import forms

from sockets import RoutedSocketHandler
from sockets.operations import description
from sockets.routes import Route

from .. import servers
from .test_browser_client import TYPESCRIPT

EXAMPLE = servers.ROOT / 'example_project'
STATIC = servers.ROOT / 'sockets/static/sockets'
SPECIFICATION = '@asyncapi/specs@6.11.1'

USE = """
import type {RoomMessages} from './messages';
import {SocketRouter} from './sockets';

const socket = new SocketRouter<RoomMessages>('/room/tea/');
socket.send('SAY', {text: 'Hello'});
"""


def describe(option):
    return subprocess.check_output(
        servers.python_module('manage', 'sockets', 'describe', option), cwd=str(EXAMPLE), env=servers.environment()
    ).decode()


def test_the_example_is_a_valid_asyncapi_document(npm_packages):
    jsonschema = pytest.importorskip('jsonschema')
    schema = json.loads((npm_packages(SPECIFICATION) / 'schemas/3.0.0.json').read_text())
    document = json.loads(describe('--asyncapi'))
    assert sorted(document['channels']) == ['Pulse', 'Room'] and 'SAY' in document['channels']['Room']['messages']
    jsonschema.Draft7Validator(schema).validate(document)
    document['channels']['Room']['adress'] = document['channels']['Room'].pop('address')
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate(document)


class Bid(forms.Form):
    amount = forms.IntegerField()
    bidder = forms.CharField(required=False)


class Lot(RoutedSocketHandler):
    sends = {'BID': Bid, 'SOLD': None}
    routes = (*RoutedSocketHandler.routes, Route('OFFER', lambda socket, content: None, form=Bid))

    def on_bytes(self, data):
        pass


USE_OF_BOTH_DIRECTIONS = """
import type {LotMessages} from './messages';
import {SocketRouter} from './sockets';

const socket = new SocketRouter<LotMessages>('/lot/');
socket.route('BID', content => { const amount: number = content.amount; console.log(amount, content.bidder?.length); });
socket.route('SOLD', content => console.log(content.anything));
socket.send('OFFER', {amount: 5});
// @ts-expect-error
socket.route('BIT', content => {});
// @ts-expect-error
socket.route('BID', content => console.log(content.price));
// @ts-expect-error
socket.send('OFFER', {amount: 'five'});
"""


def test_types_of_both_directions_find_mistakes(npm_packages, tmp_path):
    compile_use(
        description.as_typescript([description.Endpoint(Lot, '^/lot/$')]),
        USE_OF_BOTH_DIRECTIONS,
        npm_packages,
        tmp_path,
    )


def test_both_directions_are_a_valid_asyncapi_document(npm_packages):
    jsonschema = pytest.importorskip('jsonschema')
    schema = json.loads((npm_packages(SPECIFICATION) / 'schemas/3.0.0.json').read_text())
    document = description.as_asyncapi([description.Endpoint(Lot, '^/lot/$')], 'lots', '1')
    assert {'BID', 'SOLD', 'OFFER', 'bytes'} <= set(document['channels']['Lot']['messages'])
    jsonschema.Draft7Validator(schema).validate(document)


def test_the_types_of_the_example_go_with_the_browser_client(npm_packages, tmp_path):
    compile_use(describe('--typescript'), USE, npm_packages, tmp_path)


def compile_use(types, use, npm_packages, tmp_path):
    (tmp_path / 'messages.ts').write_text(types)
    (tmp_path / 'sockets.d.ts').write_text((STATIC / 'sockets.d.ts').read_text())
    (tmp_path / 'use.ts').write_text(use)
    compiled = subprocess.run(
        [
            servers.find_program('node'),
            str(npm_packages(TYPESCRIPT) / 'bin/tsc'),
            '--noEmit',
            '--strict',
            '--target',
            'es2022',
            '--lib',
            'es2022,dom',
            'use.ts',
        ],
        cwd=str(tmp_path),
        stdout=subprocess.PIPE,
    )
    assert compiled.returncode == 0, compiled.stdout.decode()
