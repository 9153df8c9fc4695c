"""The pages of docs/reference/ say what the code says, and read as plain Markdown."""
import importlib.machinery
import importlib.util
import re
from pathlib import Path

import pytest
from django.core.management import load_command_class

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / 'docs/reference'


@pytest.fixture(scope='module')
def reference():
    loader = importlib.machinery.SourceFileLoader('reference', str(ROOT / 'scripts/reference'))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader('reference', loader))
    loader.exec_module(module)
    return module


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
            reference.filled('<!-- from the code: {} -->\n<!-- end -->'.format(mark))


def test_each_action_of_the_command_has_its_line():
    parser = load_command_class('sockets', 'sockets').create_parser('manage.py', 'sockets')
    choices, = [action.choices for action in parser._actions if action.dest == 'action']
    page = (PAGES / 'commands.md').read_text(encoding='utf-8')
    actions = page.partition('## sockets')[2].partition('<!--')[0]
    assert sorted(re.findall(r'^\| `([a-z]+)` \|', actions, re.MULTILINE)) == sorted(choices)
