"""The pages of docs/reference/ say what the code says, and read as plain Markdown."""

import importlib.machinery
import importlib.util
import re
from pathlib import Path

import pytest
from django.core.management import load_command_class

from sockets import RoutedSocketHandler
from sockets.multiplexing import SocketDemultiplexer
from sockets.testing import SocketClient

from .client import ON_CHANNELS_1

if ON_CHANNELS_1:
    from channels.generic.websockets import WebsocketConsumer as BASE
else:
    BASE = object

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / 'docs/reference'


@pytest.fixture(scope='module')
def reference():
    loader = importlib.machinery.SourceFileLoader('reference', str(ROOT / 'scripts/reference'))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader('reference', loader))
    loader.exec_module(module)
    return module


@pytest.mark.channels1('the pages are made of the code as it is there, layers and options of its server included')
@pytest.mark.parametrize('path', sorted(PAGES.glob('*.md')), ids=lambda path: path.stem)
def test_a_page_says_what_the_code_says(reference, path):
    page = path.read_text(encoding='utf-8')
    assert reference.filled(page) == page, 'Run "python scripts/reference".'


@pytest.mark.parametrize('path', sorted(PAGES.glob('*.md')), ids=lambda path: path.stem)
def test_a_page_is_not_empty_as_plain_markdown(path):
    # What only Sphinx can fill in, nobody reads in the repository.
    page = path.read_text(encoding='utf-8')
    assert '```{' not in page and '.. auto' not in page
    assert len(page) > 1500


def test_a_mistake_in_a_mark_is_noticed(reference):
    for mark in ('members sockets.SocketRouter rout', 'members sockets.SocketRoute', 'modules sockets.exceptions'):
        with pytest.raises((AttributeError, KeyError)):
            reference.filled(f'<!-- from the code: {mark} -->\n<!-- end -->')


def test_each_action_of_the_command_has_its_line():
    parser = load_command_class('sockets', 'sockets').create_parser('manage.py', 'sockets')
    (choices,) = [action.choices for action in parser._actions if action.dest == 'action']
    page = (PAGES / 'commands.md').read_text(encoding='utf-8')
    actions = page.partition('## sockets')[2].partition('<!--')[0]
    assert sorted(re.findall(r'^\| `([a-z]+)` \|', actions, re.MULTILINE)) == sorted(choices)


class Plain(RoutedSocketHandler):
    found = []

    def on_ping(self, content):
        self.found[:] = dir(self)


class Demultiplexer(SocketDemultiplexer):
    streams = {'plain': Plain}
    on_ping, found = Plain.on_ping, Plain.found


def names_for_authors():
    page = (PAGES / 'api.md').read_text(encoding='utf-8')
    names = re.search(r'members sockets\.RoutedSocketHandler (.+) -->', page).group(1).split()
    tables = page.partition('### Attributes of a handler')[2].partition('\n## ')[0]
    for cell in re.findall(r'^\| (`.+?) \|', tables, re.MULTILINE):
        names += re.findall(r'`(\w+)', cell)
    return set(names)


@pytest.mark.parametrize('cls', [Plain, Demultiplexer])
def test_a_handler_class_has_no_public_name_that_no_page_explains(cls):
    unknown = set(dir(cls)) - names_for_authors() - set(dir(BASE)) - {'found'}
    assert [name for name in sorted(unknown) if not name.startswith('_')] == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    'cls, frame',
    [
        (Plain, {'type': 'PING'}),
        (Demultiplexer, {'type': 'PING'}),
        (Demultiplexer, {'stream': 'plain', 'payload': {'type': 'PING'}}),
    ],
)
def test_a_socket_has_no_public_name_that_no_page_explains(cls, frame):
    Plain.found.clear()
    with SocketClient('/', handler=cls) as client:
        client.send_json(frame)
    assert 'kwargs' in Plain.found
    unknown = set(Plain.found) - names_for_authors() - set(dir(BASE)) - {'found'}
    assert [name for name in sorted(unknown) if not name.startswith('_')] == []


def test_each_name_for_authors_is_one_of_a_socket():
    assert {name for name in names_for_authors() if not hasattr(Demultiplexer, name)} <= {
        # Of an instance.
        'path',
        'kwargs',
        'message',
        'stream',
        # Of one engine.
        'scope',
        'as_asgi',
    }
