"""Does what the README and the guides that it leads to say: their files make a project, and their commands run."""

import configparser
import itertools
import os
import re
import shlex
import socket
import ssl
import subprocess
import sys
import urllib.request
from urllib.parse import urlsplit

import psycopg2
import pytest
import websocket

from sockets import conf, messages

from .. import servers
from .conftest import Client
from .documents import Document, manage

PAGE = Document('README.md').without('On Channels 4')
HANDLERS = Document('docs/how-to/handlers.md')
CONNECTIONS = Document('docs/how-to/connections.md')
DEPLOY = Document('docs/how-to/deploy.md')
COMPATIBILITY = Document('docs/reference/compatibility.md')
README, BLOCKS = Document('README.md').text, PAGE.all_blocks
blocks, commands = PAGE.blocks, PAGE.commands


# Routes for the examples that are shown without theirs, and what they are said to do.
MORE_ROUTES = r"""
from django.views.generic import View

from mysite.handlers import PokerSocketHandler
from mysite.rooms import Room
from sockets import SocketRouter


class Table(View):
    socket = SocketRouter(handler=PokerSocketHandler)

    @socket.route('FOLD')
    def on_fold(socket):
        return {'type': 'FOLDED'}


channel_routing += [
    route_class(Room.socket.Handler, path=r'^/room/(?P<room>\w+)/$'),
    route_class(Table.socket.Handler, path='^/table/$'),
]
"""
MORE_TESTS = r"""
import json

from channels.test import ChannelTestCase, WSClient
from django.contrib.auth import get_user_model
from django.test import RequestFactory, TransactionTestCase

from sockets.models import Socket


class ReadmeTests(ChannelTestCase):
    def open(self, path, user=None):
        client = WSClient()
        if user is not None:
            client.force_login(user)
        client.path, client.handler = path, client.send_and_consume('websocket.connect', path=path)
        return client

    def send(self, client, **content):
        client.send_and_consume('websocket.receive', text=content, path=client.path)
        return client.receive()

    def test_rooms(self):
        one, two = self.open('/room/tea/'), self.open('/room/tea/')
        assert one.receive() == two.receive() == {'type': 'WELCOME', 'room': 'tea'}
        assert self.send(one, type='SAY', text='hi') == two.receive() == {'type': 'SAID', 'text': 'hi', 'name': ''}
        assert self.send(one, type='MOVE_UP') == {'type': 'MOVED', 'how': 'MOVE_UP'}
        assert self.send(one, type='MOVE_SIDEWAYS') == {'type': 'SORRY'}
        two.send_and_consume('websocket.disconnect', path='/room/tea/')
        assert one.receive() == {'type': 'LEFT', 'room': 'tea'}

    def test_tables(self):
        user = get_user_model().objects.create_user('alice')
        table = self.open('/table/', user)
        assert self.send(table, type='BET', amount=5) == {'type': 'BET_TAKEN', 'by': 'alice'}
        assert Socket.objects.get(path='/table/').session.get_decoded()['bet'] == 5
        assert self.send(table, type='FOLD') == {'type': 'FOLDED'}
        assert self.open('/table/').receive()['type'] == 'RECONNECT'

    def test_fan_out(self):
        staff = get_user_model().objects.create_user('staff', is_staff=True)
        mine, other = self.open('/mypage/', staff), self.open('/mypage/')
        exec(FAN_OUT, {'user': staff, 'socket': mine.handler})
        assert [mine.receive() for _ in range(4)] == [
            {'type': 'MAIL', 'unread': 3}, {'type': 'PRICE', 'amount': 7},
            {'type': 'ALERT', 'text': 'The disk is full.'}, None]
        assert [other.receive() for _ in range(3)] == [{'type': 'PRICE', 'amount': 7}, {'type': 'TYPING'}, None]


class ReadmeTransactionTests(TransactionTestCase):
    def test_a_view_pushes(self):
        from mysite.orders import pay
        Socket.objects.create(channel_name='kitchen', path='/kitchen/')
        request = RequestFactory().post('/')
        request.user = get_user_model().objects.create_user('alice')
        pay(request)
        from channels import channel_layers
        message = channel_layers['default'].receive(['kitchen'])[1]
        assert json.loads(message['text']) == {'type': 'PAID', 'by': request.user.pk}
"""


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A new project with every file of these pages."""
    directory = tmp_path_factory.mktemp('readme')
    subprocess.check_call(servers.python_module('django', 'startproject', 'mysite', str(directory)))
    for page in (PAGE, HANDLERS, CONNECTIONS, DEPLOY):
        for block in page.files('mysite'):
            block.write(directory)
    (fan_out,) = CONNECTIONS.blocks('python')
    (directory / 'mysite/tests_of_readme.py').write_text(f'FAN_OUT = {fan_out.text!r}\n{MORE_TESTS}')
    return directory


def test_every_block_is_of_a_kind_that_is_tested_here():
    assert {block.language for block in BLOCKS} == {'bash', 'html', 'python'}
    assert len(blocks('python')) == 2
    assert {block.language for block in CONNECTIONS.all_blocks} == {'bash', 'python'}


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 200


def test_the_readme_shows_a_part_of_the_fan_outs_that_are_tested():
    # The first block of all is the picture of a view; the other one that is not a file shows querysets.
    (fan_out,) = CONNECTIONS.blocks('python')
    assert fan_out.text.startswith(blocks('python')[1].text)


def test_the_first_picture_is_a_view(db):
    from django.views.generic import View

    from sockets import SocketRouter
    from sockets.models import Socket

    names = {'View': View, 'SocketRouter': SocketRouter, 'Socket': Socket, '__name__': 'readme'}
    exec(blocks('python')[0].text, names)
    handler = names['MyPage'].socket.Handler
    assert handler.__name__ == 'MyPageSocketHandler'
    assert handler._route_table.match('ADD').function(None, {'a': 1, 'b': 2}, {}) == {'type': 'SUM', 'sum': 3}


def test_the_files_do_what_is_said_of_them(project):
    with (project / 'mysite/routing.py').open('a') as routing:
        routing.write(MORE_ROUTES)
    output = manage(project, 'test', 'mysite.tests_of_readme')
    assert 'Ran 4 tests' in output and 'OK' in output
    assert manage(project, 'check').startswith('System check identified no issues')


def test_production_runs_as_it_is_written(project, run, redis_url, database_url):
    address = urlsplit(database_url)
    settings = project / 'mysite/production.py'
    text = DEPLOY.file('mysite/production.py')
    for old, new in (
        ('redis://127.0.0.1:6379/0', redis_url),
        (
            "'NAME': 'mysite',",
            f"'NAME': {address.path[1:]!r}, 'HOST': {address.hostname!r}, 'PORT': {address.port}, 'USER': {address.username!r}, 'TEST': {{}},",
        ),
    ):
        assert old in text
        text = text.replace(old, new)
    settings.write_text(text + "SECRET_KEY = 'x'\n")
    manage(project, 'migrate', DJANGO_SETTINGS_MODULE='mysite.production')
    with psycopg2.connect(database_url) as database:
        database.cursor().execute(DEPLOY.blocks('sql')[0].text)
    one = unit('mysite.service')
    program, *arguments = shlex.split(one['ExecStart'])
    assert 'python ' + ' '.join(arguments) in DEPLOY.commands()
    port = servers.free_port()
    arguments[arguments.index('127.0.0.1:8000')] = f'127.0.0.1:{port}'
    key, value = one['Environment'].split('=')
    runsockets = run([sys.executable, *arguments], port, cwd=project, env={key: value})
    says_what_the_pages_say(project, port)
    nginx_stands_in_front(project, run, port)
    runsockets.stop()
    assert runsockets.process.returncode == 0
    port = servers.free_port()
    daphne = unit('mysite-daphne.service')
    worker = unit('mysite-worker@.service')
    program, *arguments = shlex.split(daphne['ExecStart'])
    assert os.path.basename(program) == 'daphne'
    arguments[arguments.index('8000')] = str(port)
    run([os.path.join(os.path.dirname(sys.executable), 'daphne'), *arguments], port, cwd=project)
    program, *arguments = shlex.split(worker['ExecStart'])
    key, value = worker['Environment'].split('=')
    run([sys.executable, *arguments], cwd=project, env={key: value}).wait_for_log('Listening on channels')
    says_what_the_pages_say(project, port)


def says_what_the_pages_say(project, port):
    client = Client(
        websocket.create_connection(
            f'ws://127.0.0.1:{port}/mypage/',
            timeout=10,
            suppress_origin=True,
            header={'X-Forwarded-For': '203.0.113.9'},
        )
    )
    assert client.ask({'type': 'HELLO'})['user_ip'] == '203.0.113.9'
    (command,) = [command for command in CONNECTIONS.commands() if ' shell ' in command]
    assert manage(project, *shlex.split(command)[2:], DJANGO_SETTINGS_MODULE='mysite.production').strip() == '1'
    assert client.receive() == {'type': 'BACK_SOON'}
    client.close()


def nginx_stands_in_front(project, run, port):
    directory = project / 'nginx'
    directory.mkdir()
    (directory / 'static').mkdir()
    (directory / 'static/hello.txt').write_text('hello')
    servers.make_certificate(directory / 'key', directory / 'certificate', 'example.com')
    front, site = servers.free_port(), DEPLOY.file('/etc/nginx/conf.d/mysite.conf')
    for old, new in (
        ('listen 443 ssl', f'listen 127.0.0.1:{front} ssl'),
        ('server 127.0.0.1:8000', f'server 127.0.0.1:{port}'),
        ('/etc/ssl/certs/example.com.pem', str(directory / 'certificate')),
        ('/etc/ssl/private/example.com.key', str(directory / 'key')),
        ('/srv/mysite/static/', f'{directory}/static/'),
    ):
        assert old in site
        site = site.replace(old, new)
    (directory / 'nginx.conf').write_text(
        f'user root; daemon off; pid pid; error_log stderr; events {{}} http {{ access_log off; {site} }}'
    )
    run([servers.find_program('nginx', '/usr/sbin'), '-p', directory, '-c', 'nginx.conf'], front)
    settings = project / 'mysite/behind_nginx.py'
    settings.write_text(settings.read_text().replace('/srv/mysite/static/', f'{directory}/static/'))
    for command in DEPLOY.section('A proxy in front').commands():
        if command.startswith('python manage.py'):
            manage(project, *command.split()[2:], DJANGO_SETTINGS_MODULE='mysite.behind_nginx')
    # A client on another address than the proxy's, which says that it is a third.
    raw = socket.create_connection(('127.0.0.1', front), source_address=('127.0.0.2', 0))
    context = ssl.create_default_context(cafile=str(directory / 'certificate'))
    context.check_hostname = False
    secure = context.wrap_socket(raw, server_hostname='example.com')
    client = Client(
        websocket.create_connection(
            'wss://example.com/mypage/',
            timeout=10,
            socket=secure,
            origin='https://example.com',
            header={'X-Forwarded-For': '203.0.113.9'},
        )
    )
    assert client.ask({'type': 'HELLO'})['user_ip'] == '127.0.0.2'
    client.close()
    request = urllib.request.Request(f'https://127.0.0.1:{front}/static/hello.txt', headers={'Host': 'example.com'})
    with urllib.request.urlopen(request, context=context) as response:
        assert response.read() == b'hello'


def unit(name):
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str
    parser.read_string(DEPLOY.file('/etc/systemd/system/' + name))
    assert parser['Install']['WantedBy'] == 'multi-user.target'
    return parser['Service']


def test_pip_is_told_names_that_exist():
    for command in commands() + DEPLOY.commands():
        if command.startswith('pip install'):
            extra = re.match(r"pip install '?\.(?:\[(\w+)\])?", command).group(1)
            assert extra is None or f"'{extra}': [" in (servers.ROOT / 'setup.py').read_text()


def test_the_settings_table_is_the_settings():
    rows = re.findall(r'^\| `([A-Z_]+)` \| `(.+?)` \|', Document('docs/reference/settings.md').text, re.MULTILINE)
    assert {name: eval(default) for name, default in rows} == conf.DEFAULTS


def test_the_error_codes_are_all_there():
    section = Document('docs/reference/wire.md').section('Errors').text
    for code in (
        'INVALID_JSON',
        'INVALID_MESSAGE',
        'UNKNOWN_TYPE',
        'TOO_LARGE',
        'INVALID_CONTENT',
        'NOT_ALLOWED',
        'NOT_FOUND',
        'RATE_LIMITED',
        'SERVER_ERROR',
    ):
        assert f'\n| `{getattr(messages, code)}` |' in section


def versions(numbers):
    """Return each of '37,313' or '111,22' with its point."""
    return [
        number[0] + '.' + number[1:] if number[0] == '3' or number == '111' else '.'.join(number)
        for number in numbers.split(',')
    ]


@pytest.mark.parametrize('title, label', [('Channels 1', 'matrix'), ('Channels 4', 'channels4')])
def test_the_compatibility_table_is_the_matrix_that_is_tested(title, label):
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(str(servers.ROOT / 'tox.ini'))
    labels = dict(line.split(' = ') for line in tox['tox']['labels'].strip().splitlines())
    tested = set()
    for pairs in labels[label].split(', '):
        pythons, djangos = re.match(r'py\{?([\d,]+)\}?-django\{?([\d,]+)\}?', pairs).groups()
        tested |= set(itertools.product(versions(pythons), versions(djangos)))
    told = set()
    table = COMPATIBILITY.section(title).text
    for pythons, djangos in re.findall(r'^\| (3[\d., ]+) \| ([\d., ]+) \|', table, re.MULTILINE):
        told |= set(itertools.product(pythons.split(', '), djangos.split(', ')))
    assert told == tested


def test_the_repository_has_the_commands():
    for name in ('scripts/docs', 'scripts/example', 'scripts/test'):
        assert f'`{name}`' in README
        assert os.access(str(servers.ROOT / name), os.X_OK)


def test_indented_text_is_no_accident():
    # A block that lost its fence would be shown and not be tested.
    assert not re.search(r'^    \S', PAGE.outside_blocks(), re.MULTILINE)
