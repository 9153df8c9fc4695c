"""The five minutes of the README, on the stack that is installed: a new project has a page that says what it should."""

import subprocess
import sys

import channels
import pytest
import websocket

from .. import servers
from .conftest import Client, eventually
from .documents import Document, manage

ON_CHANNELS_4 = channels.__version__.startswith('4.')
README = Document('README.md')
TITLE = 'On Channels 4'


def files():
    """Return the files of the five minutes, in order: on Channels 4, two of its own."""
    usual = README.section('Five minutes').without(TITLE).files('mysite')
    if not ON_CHANNELS_4:
        return usual
    differ = README.section(TITLE).files('mysite')
    assert [block.file for block in differ] == ['mysite/settings.py', 'mysite/asgi.py']
    return [block for block in usual if block.file != 'mysite/settings.py'] + differ


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A new project with the files of the five minutes."""
    directory = tmp_path_factory.mktemp('five minutes')
    subprocess.check_call(servers.python_module('django', 'startproject', 'mysite', str(directory)))
    for block in files():
        block.write(directory)
    return directory


def test_five_minutes_lead_to_a_page_that_says_what_it_should(project, run, open_browser):
    for command in README.commands():
        if command in ('python manage.py check', 'python manage.py migrate'):
            manage(project, *command.split()[2:])
    assert 'python manage.py runserver' in README.commands()
    port = servers.free_port()
    run([sys.executable, 'manage.py', 'runserver', f'127.0.0.1:{port}'], port, cwd=project)
    browser = open_browser()
    browser.get(f'http://127.0.0.1:{port}/mypage/')
    assert eventually(lambda: browser.find_element('id', 'log').text.replace('...', '')) == '{"type":"SUM","sum":5}'
    assert '`{"type":"SUM","sum":5}`' in README.text
    client = Client(websocket.create_connection(f'ws://127.0.0.1:{port}/mypage/', timeout=10))
    assert client.ask({'type': 'ADD', 'a': 2, 'b': 3, 'ref': 1}) == {'type': 'SUM', 'sum': 5, 'ref': 1}
    client.close()
