"""Two people chat on the example: started by its script, and on daphne, a worker, Redis and PostgreSQL."""
import os
import shutil
import subprocess
import sys

import pytest
import websocket
from selenium.webdriver.common.keys import Keys

from .. import servers
from .conftest import Client, eventually

EXAMPLE = servers.ROOT / 'example_project'


@pytest.fixture(params=['script', 'redis'])
def address(request, run, tmp_path):
    """Where the example runs: host and port."""
    port = servers.free_port()
    if request.param == 'script':
        # From a clone of its own, in a folder with a space, where nothing is installed.
        clone = tmp_path / 'fresh clone'
        names = subprocess.check_output(['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
                                        cwd=str(servers.ROOT)).decode().split('\0')
        for name in filter(None, names):
            if (servers.ROOT / name).is_file():
                (clone / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(servers.ROOT / name), str(clone / name))
        program = run([clone / 'scripts/example'], env={'PORT': str(port)}, start_new_session=True)
        request.addfinalizer(lambda: stop_group(program))
        program.wait_for_log('Open http://127.0.0.1:{}/'.format(port), seconds=300)
    else:
        env = {'REDIS_URL': request.getfixturevalue('redis_url'),
               'DATABASE_URL': request.getfixturevalue('database_url')}
        for command in (['migrate'], ['demo_accounts']):
            subprocess.check_call([sys.executable, 'manage.py', *command], cwd=str(EXAMPLE),
                                  env=servers.environment(**env))
        daphne = os.path.join(os.path.dirname(sys.executable), 'daphne')
        run([daphne, '-b', '127.0.0.1', '-p', port, 'example.asgi:channel_layer'], port, cwd=EXAMPLE, env=env)
        run([sys.executable, 'manage.py', 'runworker'], cwd=EXAMPLE, env=env).wait_for_log('Listening on channels')
    return '127.0.0.1:{}'.format(port)


def stop_group(program):
    # runserver's autoreloader has a child.
    if program.is_running:
        os.killpg(program.process.pid, 15)


class Person:
    """Somebody in front of a Chromium window."""

    def __init__(self, browser, address):
        self.browser = browser
        self.url = 'http://{}'.format(address)

    def fill(self, **fields):
        for name, value in fields.items():
            field = self.browser.find_element('name', name)
            field.clear()
            field.send_keys(value)
        field.send_keys(Keys.ENTER)

    def enter(self, room):
        eventually(lambda: self.browser.current_url.endswith('/'))
        self.browser.get('{}/room/{}/'.format(self.url, room))
        eventually(lambda: self.browser.find_element('id', 'badge').get_attribute('data-state') == 'open')

    def say(self, text):
        self.fill(text=text)

    def sees(self, text, id='log'):
        """Wait until ``text`` stands in the element ``id``."""
        eventually(lambda: text in self.text(id))

    def text(self, id):
        return self.browser.execute_script('return document.getElementById(arguments[0]).innerText', id)


def test_two_people_chat(address, open_browser, tmp_path):
    anna = Person(open_browser(), address)
    anna.browser.get(anna.url + '/')
    anna.fill(name='Anna', room='lobby')
    anna.enter('lobby')
    alice = Person(open_browser(390, 844), address)
    alice.browser.get(alice.url + '/login/')
    alice.fill(username='alice', password='in-wonderland')
    eventually(lambda: '/login/' not in alice.browser.current_url)
    alice.enter('lobby')

    anna.sees('alice joined')
    for person in (anna, alice):
        person.sees('Anna', 'who')
        person.sees('alice', 'who')
    anna.say('Hello <b>alice</b>')
    alice.sees('Hello <b>alice</b>')
    alice.say('/d6')
    anna.sees('alice rolls')
    anna.say('/nonsense')
    anna.sees('does not know', 'problem')
    assert 'nonsense' not in alice.text('log')

    plain = Client(websocket.create_connection('ws://{}/room/lobby/'.format(address), timeout=10))
    assert plain.receive()['type'] == 'NOTE'
    assert plain.ask({'type': 'PING', 'ref': 'p'})['type'] in ('JOINED', 'ACK')
    plain.close()

    alice.browser.get(alice.url + '/announce/')
    alice.fill(text='Tea is ready.')
    anna.sees('Tea is ready.')
    anna.sees('alice left')
    eventually(lambda: 'alice' not in anna.text('who'))
    anna.browser.save_screenshot(str(tmp_path / 'anna.png'))
    for person in (anna, alice):
        assert [entry for entry in person.browser.get_log('browser') if entry['level'] == 'SEVERE'] == []
