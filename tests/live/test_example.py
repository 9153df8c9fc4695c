"""Two people meet on the example: started by its script, and on daphne, a worker, Redis and PostgreSQL.

On Channels 4 there is no worker, and uvicorn is a third way.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import websocket
from selenium.webdriver.common.keys import Keys

from .. import servers
from . import stack
from .conftest import Client, eventually
from .stack import ON_CHANNELS_1

EXAMPLE = servers.ROOT / 'example_project'
AXE = 'axe-core@4.10.3'


class Example:
    """The example, with a server that can be killed and started again at its address."""

    def __init__(self, start, kill):
        self.port = servers.free_port()
        self.url = f'http://127.0.0.1:{self.port}'
        self._start, self._kill = start, kill
        self.start()

    def start(self):
        self.program = self._start(self.port)

    def kill(self):
        self._kill(self.program)


@pytest.fixture(scope='module')
def clone(tmp_path_factory):
    """A clone of this repository, in a folder with a space, where nothing is installed."""
    clone = tmp_path_factory.mktemp('clone') / 'fresh clone'
    names = (
        subprocess.check_output(
            ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], cwd=str(servers.ROOT)
        )
        .decode()
        .split('\0')
    )
    for name in filter(None, names):
        if (servers.ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(servers.ROOT / name), str(clone / name))
    return clone


@pytest.fixture(scope='module')
def database_url():
    """The URL of a PostgreSQL of its own: the example leaves rows, because nobody is there to see its servers end."""
    with servers.postgres_server() as url:
        yield url


@pytest.fixture(params=['script', 'redis'] if ON_CHANNELS_1 else ['script', 'redis', 'uvicorn'])
def example(request, run):
    if request.param == 'script':
        clone = request.getfixturevalue('clone')

        def start(port):
            program = run(
                [clone / 'scripts/example'],
                env={'PORT': str(port), 'STACK': 'channels1' if ON_CHANNELS_1 else 'channels4'},
                start_new_session=True,
            )
            program.port = port
            request.addfinalizer(lambda: kill(program))
            program.wait_for_log(f'Open http://127.0.0.1:{port}/', seconds=300)
            return program

        def kill(program):
            # runserver's autoreloader has a child.
            if program.is_running:
                os.killpg(program.process.pid, signal.SIGKILL)
                program.process.wait()
                # The child holds the port until it has ended as well.
                eventually(lambda: not servers.is_answered(program.port))
    else:
        env = {
            'REDIS_URL': request.getfixturevalue('redis_url'),
            'DATABASE_URL': request.getfixturevalue('database_url'),
        }
        # Nobody of another test is in the rooms, and nothing has been said.
        for command in (['migrate'], ['flush', '--no-input'], ['demo_accounts']):
            subprocess.check_call(
                [sys.executable, 'manage.py', *command], cwd=str(EXAMPLE), env=servers.environment(**env)
            )
        if ON_CHANNELS_1:
            run([sys.executable, 'manage.py', 'runworker'], cwd=EXAMPLE, env=env).wait_for_log('Listening on channels')

        def start(port):
            if request.param == 'uvicorn':
                args = ['-m', 'uvicorn', 'example.asgi:application', '--port', port]
            else:
                args = stack.daphne(port, project='example')
            return run([sys.executable, *args], port, cwd=EXAMPLE, env=env)

        def kill(program):
            program.stop(signal.SIGKILL)

    yield Example(start, kill)


class Person:
    """Somebody in front of a Chromium window."""

    def __init__(self, browser, url):
        self.browser = browser
        self.url = url

    def fill(self, **fields):
        for name, value in fields.items():
            field = self.browser.find_element('name', name)
            field.clear()
            field.send_keys(value)
        field.send_keys(Keys.ENTER)

    def go(self, path):
        self.browser.get(self.url + path)

    def log_in(self, name, password):
        self.go('/login/')
        self.fill(username=name, password=password)
        eventually(lambda: '/login/' not in self.browser.current_url)

    def enter(self, room):
        eventually(lambda: self.browser.current_url.endswith('/'))
        self.go(f'/room/{room}/')
        self.is_('open')

    def is_(self, state, seconds=15):
        """Wait until the badge says ``state``."""
        eventually(lambda: self.browser.find_element('id', 'badge').text == state, seconds)

    def say(self, text):
        self.fill(text=text)

    def sees(self, text, id='log'):
        """Wait until ``text`` stands in the element ``id``."""
        eventually(lambda: text in self.text(id))

    def text(self, id):
        return self.browser.execute_script('return document.getElementById(arguments[0]).innerText', id)

    def said(self):
        """Return what stands in the log as said, whoever said it, and how many messages are on their way."""
        return self.browser.execute_script(
            "return [[...document.querySelectorAll('#log .said:not(.pending) span')].map(text => text.textContent),"
            "        document.querySelectorAll('#log .pending').length]"
        )

    def complaints(self):
        return [entry for entry in self.browser.get_log('browser') if entry['level'] == 'SEVERE']


def test_two_people_chat(example, open_browser):
    anna = Person(open_browser(), example.url)
    anna.go('/')
    anna.fill(name='Anna', room='lobby')
    anna.enter('lobby')
    alice = Person(open_browser(390, 844), example.url)
    alice.log_in('alice', 'in-wonderland')
    alice.enter('lobby')

    anna.sees('alice joined')
    for person in (anna, alice):
        person.sees('Anna', 'who')
        person.sees('alice', 'who')
    alice.browser.find_element('name', 'text').send_keys('Hel')
    anna.sees('alice is typing', 'typing')
    anna.say('Hello <b>alice</b>')
    alice.sees('Hello <b>alice</b>')
    alice.browser.find_element('name', 'text').clear()
    alice.say('/d6')
    anna.sees('alice rolls')
    anna.say('/nonsense')
    anna.sees('does not know', 'problem')
    assert 'nonsense' not in alice.text('log')

    plain = Client(websocket.create_connection(f'ws://127.0.0.1:{example.port}/room/lobby/', timeout=10))
    answer = plain.receive()
    # A reminder, which has `again`, may come first.
    while answer['type'] != 'FOLLOWING' or answer.get('again'):
        answer = plain.receive()
    answer = plain.ask({'type': 'RESUME', 'ref': 'r', 'streams': {'room:lobby': answer['since']}})
    while answer.get('ref') != 'r':
        answer = plain.receive()
    room = answer['streams']['room:lobby']
    assert [message['text'] for message in room['messages']][-1] == 'Hello <b>alice</b>'
    plain.close()

    alice.go('/announce/')
    alice.fill(text='Tea is ready.')
    anna.sees('Tea is ready.')
    anna.sees('alice left')
    eventually(lambda: 'alice' not in anna.text('who'))
    # The history is there for who comes later.
    alice.enter('lobby')
    alice.sees('Hello <b>alice</b>')

    # Who is there is asked anew when she is, and may be told after that.
    eventually(lambda: alice.browser.find_elements('css selector', '#who button'))[0].click()
    anna.sees('You were asked to leave', 'problem')
    anna.is_('closed')
    alice.sees('alice asked Anna to leave')
    eventually(lambda: 'Anna' not in alice.text('who'))
    assert (
        anna.browser.execute_async_script(
            "socket.addEventListener('close', event => arguments[0](event.detail.code));"
            "document.getElementById('again').click()"
        )
        == 4403
    )
    anna.is_('closed')
    assert 'Anna' not in alice.text('who')
    for person in (anna, alice):
        assert person.complaints() == []


def test_who_reloads_the_only_tab_has_neither_left_nor_joined(example, open_browser):
    # The room heard that bob had joined, twice, and never that he had left.
    anna, bob = Person(open_browser(), example.url), Person(open_browser(), example.url)
    anna.go('/')
    anna.fill(name='Anna', room='tea')
    anna.enter('tea')
    bob.log_in('bob', 'the-builder')
    bob.enter('tea')
    anna.sees('bob joined')
    for _ in range(3):
        bob.browser.refresh()
        bob.is_('open')
    # Nor does a server that is started again make anybody leave or join.
    example.kill()
    example.start()
    for person in (anna, bob):
        person.is_('open', 40)
    time.sleep(8)
    assert (anna.text('log').count('bob joined'), anna.text('log').count('bob left')) == (1, 0)
    assert 'bob' in anna.text('who')
    bob.go('/')
    eventually(lambda: anna.text('log').count('bob left') == 1, 25)
    eventually(lambda: 'bob' not in anna.text('who'))
    bob.enter('tea')
    eventually(lambda: anna.text('log').count('bob joined') == 2)
    assert 'Anna joined' not in bob.text('log') and anna.text('log').count('bob left') == 1


def test_no_message_that_the_page_said_was_sent_is_lost_when_the_server_is_killed(example, open_browser):
    anna, bob = Person(open_browser(), example.url), Person(open_browser(), example.url)
    anna.go('/')
    anna.fill(name='Anna', room='tea')
    bob.log_in('bob', 'the-builder')
    for person in (anna, bob):
        person.enter('tea')
    for n in range(12):
        anna.say(f'message {n}')
        if n == 4:
            example.kill()
        if n == 5:
            anna.is_('waiting')
        if n == 8:
            example.start()
    for person in (anna, bob):
        person.is_('open', 40)
    eventually(lambda: anna.said()[1] == 0, 40)
    mine = [text for text in anna.said()[0] if text.startswith('message')]
    assert mine == [f'message {n}' for n in range(12)]
    eventually(lambda: [text for text in bob.said()[0] if text.startswith('message')] == mine)
    # The rows are true again: two people, once.
    eventually(lambda: sorted(bob.text('who').split('\n')) == ['Anna', 'bob (you)'], 20)


@pytest.mark.parametrize('example', ['redis'], indirect=True)
def test_the_pulse_beats_as_messages_are_said(example, open_browser):
    anna, watcher = Person(open_browser(), example.url), Person(open_browser(390, 844), example.url)
    anna.go('/')
    anna.fill(name='Anna', room='django')
    anna.enter('django')
    watcher.go('/pulse/')
    watcher.is_('open')
    before = int(watcher.text('total').split()[-1])
    for _ in range(3):
        anna.say('beat')
    eventually(lambda: int(watcher.text('total').split()[-1]) == before + 3)
    assert watcher.browser.execute_script(
        "return [...document.querySelectorAll('#plot rect')].some(bar => Number(bar.getAttribute('height')) > 0)"
    )
    assert watcher.complaints() == []


@pytest.mark.parametrize('example', ['redis'], indirect=True)
def test_no_page_keeps_anybody_out(example, open_browser, npm_packages):
    """The rules of WCAG 2, levels A and AA, that axe can check; on a phone and a desk, in light and dark."""
    axe = (npm_packages(AXE) / 'axe.min.js').read_text()
    for width, height, colours in ((1000, 700, 'light'), (390, 844, 'dark')):
        alice = Person(open_browser(width, height), example.url)
        alice.browser.execute_cdp_cmd(
            'Emulation.setEmulatedMedia', {'features': [{'name': 'prefers-color-scheme', 'value': colours}]}
        )
        alice.log_in('alice', 'in-wonderland')
        for path in ('/', '/room/lobby/', '/pulse/', '/announce/', '/login/'):
            alice.go(path)
            if path in ('/room/lobby/', '/pulse/'):
                alice.is_('open')
            if path == '/room/lobby/':
                alice.say('Hello')
                alice.say('/nonsense')
                alice.sees('does not know', 'problem')
            alice.browser.execute_script(axe)
            found = alice.browser.execute_async_script(
                "const done = arguments[0], rules = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'];"
                'axe.run({runOnly: rules}).then('
                'result => done(result.violations.map(rule => [rule.id, rule.nodes.map(node => node.html)])))'
            )
            assert found == [], f'{path} in {colours}: {json.dumps(found, indent=2)}'
            # Nothing is cut off to the right.
            assert alice.browser.execute_script(
                'return document.documentElement.scrollWidth <= document.documentElement.clientWidth'
            )
