"""The browser client: its logic in Node, its types in TypeScript, and all of it in Chromium against real servers.

The project is that of docs/client.md, so its pages, its scripts and its recipe are what is put to the test.
"""

import contextlib
import json
import re
import signal
import sqlite3
import subprocess
import sys

import django
import pytest

from .. import servers
from . import stack
from .conftest import eventually
from .stack import ON_CHANNELS_1

DOCUMENT = (servers.ROOT / 'docs' / 'client.md').read_text()
STATIC = servers.ROOT / 'sockets' / 'static' / 'sockets'
TYPESCRIPT = 'typescript@5.9.3'


def blocks(language):
    return re.findall(f'^```{language}\n(.*?)^```$', DOCUMENT, re.MULTILINE | re.DOTALL)


def execute(args, **kwargs):
    """Run a program and return its exit code and what it printed."""
    process = subprocess.run(
        [str(arg) for arg in args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kwargs
    )
    return process.returncode, process.stdout.decode()


def test_its_logic():
    code, output = execute([servers.find_program('node'), '--test', servers.ROOT / 'tests' / 'browser_client.test.mjs'])
    assert code == 0, output
    assert not re.search(r'\b(tests|pass) 0\b', output), output


TYPE_ERRORS = """
import type {SocketRouter as Router, Messages} from './sockets';

const socket = new SocketRouter('/table/', {timeout: 5});
// @ts-expect-error
new SocketRouter('/table/', {timout: 5});
// @ts-expect-error
socket.state = 'open';
socket.addEventListener('state', event => event.detail.delay?.toFixed());
// @ts-expect-error
socket.addEventListener('close', event => event.detail.delay);
socket.addEventListener('lost', ({detail}) => detail.stream + detail.epoch + detail.offset.toFixed() + detail.within?.[0]);
// @ts-expect-error
socket.addEventListener('lost', event => event.detail.position);
socket.route(/SAID/, content => content.kept?.offset.toFixed());
// @ts-expect-error
socket.route(/SAID/, content => content.kept.offset.length);
// @ts-expect-error
socket.route<{text: string}>('CHAT', content => content.txt);
socket.route(/CHAT/, (content, self) => self.send('CHAT', content)).default(content => content.type.length);
// @ts-expect-error
socket.request<{amount: number}>('BET').then(reply => reply.pot);
socket.request('BET', {}, {timeout: 5, signal: new AbortController().signal}).then(
  reply => reply.anything, error => error instanceof SocketError && error.code.length);
new SocketRouter('/table/', {final: [4404]});
// @ts-expect-error
new SocketRouter('/table/', {final: 4404});
socket.on('CHAT', content => content.type).on(/CH.T/, content => content.type).off('CHAT', () => {});
socket.bytes(data => data.byteLength).on(Uint8Array, data => data.byteLength).off(Uint8Array, () => {});
// @ts-expect-error
socket.bytes(data => data.text);
// @ts-expect-error
socket.off('CHAT');
for (const data of [new Uint8Array(1), new ArrayBuffer(1), new DataView(new ArrayBuffer(1)), new Blob()]) {
  socket.send(data);
  socket.request<{size: number}>(data, {timeout: 5}).then(reply => reply.size.toFixed());
  socket.request<Uint8Array>(data).then(reply => reply.byteLength);
}
// @ts-expect-error
socket.send(new Uint8Array(1), {name: 'cat.png'});
// @ts-expect-error
socket.request(new Uint8Array(1), {name: 'cat.png'});

interface Table extends Messages {
  receives: {CHAT: {text: string}};
  sends: {BET: {fields: {amount: number}; reply: {amount: number}}};
}
declare const table: Router<Table>;
table.route(/CH.T/, content => content.type);
// @ts-expect-error
table.route('CHATT', content => content);
// @ts-expect-error
table.route('CHAT', content => content.txt);
table.on('CHAT', content => content.text.length).off('CHAT', () => {});
// @ts-expect-error
table.on('CHATT', content => content);
// @ts-expect-error
table.off('CHATT', () => {});
table.bytes(data => data.length);
table.send(new Uint8Array(1));
// @ts-expect-error
table.send('BETT');
// @ts-expect-error
table.send('BET', {amuont: 5});
// @ts-expect-error
table.request('BET', {amount: 5}).then(reply => reply.pot);
"""


def test_its_types(npm_packages, tmp_path):
    sources = {'sockets.d.ts': (STATIC / 'sockets.d.ts').read_text(), 'errors.ts': TYPE_ERRORS}
    for number, block in enumerate(blocks('ts')):
        sources[f'block{number}.ts'] = block
    assert len(sources) == 4
    for name, text in sources.items():
        (tmp_path / name).write_text(text)
    code, output = execute(
        [
            servers.find_program('node'),
            npm_packages(TYPESCRIPT) / 'bin/tsc',
            '--noEmit',
            '--strict',
            '--target',
            'es2022',
            '--lib',
            'es2022,dom',
            *sources,
        ],
        cwd=str(tmp_path),
    )
    assert code == 0, output


# Settings of a project with pages, without its static files.
PROJECT = """
import os

SECRET_KEY = 'tests only'
ALLOWED_HOSTS = ['127.0.0.1']
ROOT_URLCONF = 'mysite.urls'
INSTALLED_APPS = ['django.contrib.auth', 'django.contrib.contenttypes', 'django.contrib.sessions',
                  'django.contrib.staticfiles', 'channels', 'sockets', 'mysite']
MIDDLEWARE = ['django.contrib.sessions.middleware.SessionMiddleware',
              'django.contrib.auth.middleware.AuthenticationMiddleware']
TEMPLATES = [{'BACKEND': 'django.template.backends.django.DjangoTemplates', 'APP_DIRS': True}]
DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': 'db.sqlite3', 'OPTIONS': {'timeout': 20}}}
"""

# Its layer, with REDIS_URL one between processes.
PROJECT += (
    """
CHANNEL_LAYERS = {'default': {'BACKEND': 'sockets.layers.InMemoryChannelLayer', 'ROUTING': 'mysite.pages.routing'}}
if 'REDIS_URL' in os.environ:
    CHANNEL_LAYERS['default'].update(
        BACKEND='sockets.layers.RedisChannelLayer', CONFIG={'hosts': [os.environ['REDIS_URL']]})
"""
    if ON_CHANNELS_1
    else """
ASGI_APPLICATION = 'mysite.asgi.application'
CHANNEL_LAYERS = {'default': {'BACKEND': 'channels.layers.InMemoryChannelLayer'}}
if 'REDIS_URL' in os.environ:
    CHANNEL_LAYERS['default'].update(
        BACKEND='channels_redis.core.RedisChannelLayer', CONFIG={'hosts': [os.environ['REDIS_URL']]})
"""
)

SETTINGS = (
    PROJECT
    + """
STATIC_URL, STATIC_ROOT = '/static/', 'collected'
"""
    + (
        "STATICFILES_STORAGE = 'django.contrib.staticfiles.storage.ManifestStaticFilesStorage'\n"
        if django.VERSION < (4, 2)
        else "STORAGES = {'staticfiles': {'BACKEND': 'django.contrib.staticfiles.storage.ManifestStaticFilesStorage'}}\n"
    )
)

SETUP = """
import django

django.setup()

from django.core.management import call_command

from mysite.models import Pot

call_command('migrate', run_syncdb=True, verbosity=0)
call_command('collectstatic', interactive=False, verbosity=0)
Pot.objects.create()
"""

PAGES = '''
import json
import os
import signal

from django.views.generic import TemplateView

from mysite.pictures import Pictures
from mysite.tables import Table
from sockets import SocketRouter
from sockets.models import Socket
from sockets.routing import route_class


class MyPage(TemplateView):
    template_name = 'mypage.html'
    socket = SocketRouter()

    @socket.route('ADD')
    def on_add(socket, content):
        return {'type': 'SUM', 'sum': content['a'] + content['b']}


class StrictPage(TemplateView):
    def render_to_response(self, *args, **kwargs):
        response = super().render_to_response(*args, **kwargs)
        response['Content-Security-Policy'] = POLICY
        return response


class Noting(Table.socket.Handler):
    """Notes each frame that reaches it, in a file that survives us."""

    def receive(self, content, **kwargs):
        with open('frames', 'a') as frames:
            frames.write(json.dumps(content) + '\\n')
        return super().receive(content, **kwargs)


class Fragile(TemplateView):
    socket = SocketRouter(handler=Noting)

    @socket.route('BET_AND_KILL')
    def on_bet_and_kill(socket, content):
        """Take the bet, and kill before it can be said."""
        reply = Table.on_bet(socket, content)
        if 'resent' not in content:
            os.kill(content['pid'], signal.SIGKILL)
        return reply

    @socket.route('NOTE')
    def on_note(socket, content):
        pass

    @socket.route('REVOKE')
    def on_revoke(socket, content):
        Socket.objects.filter(channel_name=socket.channel_name).revoke('As you wish.')


routing = [
    route_class(MyPage.socket.Handler, path='^/mypage/$'),
    route_class(Pictures.socket.Handler, path='^/pictures/$'),
    route_class(Table.socket.Handler, path='^/table/$'),
    route_class(Fragile.socket.Handler, path='^/fragile/$'),
]
'''

URLS = """
from django.conf import settings
from django.urls import path
from django.views.static import serve

from mysite.pages import MyPage, StrictPage
from mysite.pictures import Pictures

urlpatterns = [
    path('pictures/', Pictures.as_view()),
    path('mypage/', MyPage.as_view()),
    path('defer/', StrictPage.as_view(template_name='table.html')),
    path('module/', StrictPage.as_view(template_name='module.html')),
    path('static/<path:path>', serve, {'document_root': settings.STATIC_ROOT}),
]
"""

ASGI = """
import os

os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'mysite.settings')
""" + (
    """
from channels.asgi import get_channel_layer

channel_layer = get_channel_layer()
"""
    if ON_CHANNELS_1
    else """
from sockets.asgi import get_application

application = get_application('mysite.pages.routing')
"""
)

# With the badge of the document, and what it is to have seen.
SCRIPT = """
const socket = new SocketRouter('/fragile/', {
  minDelay: 200, maxDelay: 1000, heartbeat: 2000, heartbeatTimeout: 4000, timeout: 60000});
%s
window.seen = {badges: [], closes: [], asked: 0, answers: [], failures: []};
new MutationObserver(() => seen.badges.push(badge.textContent)).observe(badge, {childList: true});
socket.addEventListener('close', event => seen.closes.push([event.detail.code, event.detail.reconnects]));
window.ask = (type, fields) => {
  seen.asked++;
  socket.request(type, fields).then(reply => seen.answers.push(reply), error => seen.failures.push(error.code));
};
window.socket = socket;
"""


def write(directory, files):
    """Write the ``files`` of the project ``mysite``, a dict of names and texts."""
    for name, text in files.items():
        path = directory / 'mysite' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


class Site:
    """The project of the document, served again and again on one port."""

    def __init__(self, directory, run):
        self.directory = directory
        self.run = run
        self.port = servers.free_port()
        self.url = f'http://127.0.0.1:{self.port}'
        self.environment = dict(ENVIRONMENT)
        (directory / 'frames').write_text('')

    def serve(self):
        """Start the server that holds the connections."""
        if 'REDIS_URL' in self.environment:
            args = stack.daphne(self.port, project='mysite')
        else:
            args = ['-m', 'django', 'runsockets', f'127.0.0.1:{self.port}']
        self.server = self.run([sys.executable, *args], self.port, cwd=self.directory, env=self.environment)

    def work(self):
        """Start what runs the handlers, where that is not the server."""
        if not ON_CHANNELS_1:
            return
        self.run([sys.executable, '-m', 'django', 'runworker'], cwd=self.directory, env=self.environment).wait_for_log(
            'Listening on channels'
        )

    def database(self, query):
        with contextlib.closing(sqlite3.connect(str(self.directory / 'db.sqlite3'))) as database:
            return database.execute(query).fetchall()

    def frames(self):
        """Return the frames that have reached the handler, in order."""
        return [json.loads(line) for line in (self.directory / 'frames').read_text().splitlines()]


ENVIRONMENT = {'DJANGO_SETTINGS_MODULE': 'mysite.settings', 'PYTHONWARNINGS': 'ignore'}


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """The directory of a project with every file that the document shows."""
    directory = tmp_path_factory.mktemp('project')
    # Another one is what a tag of them prints.
    page, pictures, table = (block for block in blocks('html') if block.startswith('{% load '))
    (policy,) = re.findall('^Content-Security-Policy: (.+)$', DOCUMENT, re.MULTILINE)
    # It would say so if inline code ran.
    table += '<script>document.title = "inline"</script>'
    module = table.replace('<script src', '<script type="module" src').replace(' defer>', '>')
    assert (table.count(' defer>'), module.count('type="module" src="{% static')) == (1, 1)
    files = {
        '__init__.py': '',
        'settings.py': SETTINGS,
        'pages.py': PAGES + f'POLICY = {policy!r}\n',
        'urls.py': URLS,
        'asgi.py': ASGI,
        'templates/mypage.html': page,
        'templates/pictures.html': pictures,
        'templates/table.html': table,
        'templates/module.html': module,
        'static/table.js': SCRIPT % blocks('js')[-1],
    }
    for block in blocks('python'):
        files[re.match(r'# mysite/(\S+)\n', block).group(1)] = block
    write(directory, files)
    code, output = execute([sys.executable, '-c', SETUP], cwd=str(directory), env=servers.environment(**ENVIRONMENT))
    assert code == 0, output
    return directory


@pytest.fixture
def site(project, run):
    return Site(project, run)


class Page:
    """A window with one of the pages."""

    def __init__(self, browser, url):
        self.browser = browser
        browser.get(url)

    def run(self, script):
        """Run the body of an async function and return what it returned; raise what it raised."""
        kind, result = self.browser.execute_async_script(
            'const done = arguments[arguments.length - 1];'
            '(async () => {' + script + '\n})().then(r => done(["ok", r]), e => done(["error", String(e)]))'
        )
        assert kind == 'ok', result
        return result

    def seen(self, what):
        return self.run(f'return seen.{what}')

    def becomes(self, state, seconds=15):
        eventually(lambda: self.browser.find_element('id', 'state').text == state, seconds)

    def refused(self):
        """Return what the Content-Security-Policy has refused."""
        return [
            entry['message']
            for entry in self.browser.get_log('browser')
            if 'Content Security Policy' in entry['message'] and 'favicon' not in entry['message']
        ]


def test_the_page_of_the_document_says_what_it_should(site, open_browser):
    site.serve()
    page = Page(open_browser(), site.url + '/mypage/')
    page.becomes('open')
    assert eventually(lambda: page.browser.find_element('id', 'log').text) == '2 + 3 = 5'
    assert 'the page says `open` and `2 + 3 = 5`' in DOCUMENT
    assert set(re.findall(r'^```(\w+)$', DOCUMENT, re.MULTILINE)) == {'html', 'js', 'python', 'ts'}
    scripts = page.run('return [...document.scripts].map(script => script.src)')
    assert re.match(re.escape(site.url) + r'/static/sockets/sockets\.[0-9a-f]{12}\.js$', scripts[0])
    page.run('window.addEventListener("error", event => window.problem = event.message)')
    surface, close, badge = blocks('js')
    page.run(surface + close + badge + 'window.socket = socket')
    eventually(lambda: page.run('return socket.state === "open" && document.getElementById("state").dataset.state'))
    assert page.run('return window.problem') is None
    page.run('socket.dispatchEvent(new CustomEvent("close", {detail: {code: 4000}}))')
    assert page.run('return socket.state') == 'closed'


def test_the_page_for_pictures_says_what_was_taken(site, open_browser, tmp_path):
    site.serve()
    page = Page(open_browser(), site.url + '/pictures/')
    (tmp_path / 'cat.png').write_bytes(bytes(range(256)) * 1000)
    page.browser.find_element('id', 'file').send_keys(str(tmp_path / 'cat.png'))
    assert eventually(lambda: page.browser.find_element('id', 'log').text) == '256000 bytes were taken.'


@pytest.mark.parametrize('form', ['defer', 'module'])
def test_a_script_runs_under_a_strict_policy(site, open_browser, form):
    site.serve()
    page = Page(open_browser(), f'{site.url}/{form}/')
    page.becomes('open')
    assert page.run('return socket instanceof SocketRouter && document.title') == 'Table'
    (inline,) = page.refused()
    assert 'inline script' in inline


@pytest.mark.parametrize('kind', ['runsockets', 'daphne'])
def test_servers_come_and_go(site, open_browser, request, kind):
    if kind == 'daphne':
        site.environment['REDIS_URL'] = request.getfixturevalue('redis_url')
        site.work()
    site.serve()
    page = Page(open_browser(), site.url + '/module/')
    page.becomes('open')
    page.run('window.bets = setInterval(() => ask("BET", {amount: 1}), 50)')
    eventually(lambda: page.seen('answers.length') > 5)

    # It dies with a bet that it has taken, but not answered.
    page.run(f'ask("BET_AND_KILL", {{amount: 7, pid: {site.server.process.pid}}})')
    eventually(lambda: not site.server.is_running)
    eventually(lambda: page.seen('closes') == [[1006, True]])
    page.run('for (let n = 0; n < 300; n++) socket.send("NOTE", {n})')
    eventually(lambda: page.seen('badges').count('waiting') > 1)
    site.serve()
    page.becomes('open')

    # It is told to stop, and says so.
    asked = page.seen('asked')
    eventually(lambda: page.seen('answers.length') > asked)
    site.server.stop()
    eventually(lambda: [1012, True] in page.seen('closes'))
    site.serve()
    page.becomes('open')

    # It hangs, and nobody says so.
    asked, closes = page.seen('asked'), page.seen('closes')
    eventually(lambda: page.seen('answers.length') > asked)
    site.server.process.send_signal(signal.SIGSTOP)
    eventually(lambda: page.seen('closes') == [*closes, [1006, True]])
    site.server.process.send_signal(signal.SIGCONT)
    page.becomes('open')

    page.run('clearInterval(bets)')
    eventually(lambda: page.seen('answers.length + seen.failures.length') == page.seen('asked'))
    answers, failures = page.seen('answers'), page.seen('failures')
    assert set(failures) <= {'connection_lost'}
    amounts = dict(site.database('select ref, amount from mysite_bet'))
    refs = [answer['ref'] for answer in answers]
    assert len(set(refs)) == len(refs) and set(refs) <= set(amounts)
    # Each bet counts once. What arrived twice was marked the second time, as at least that of the dead server was.
    assert site.database('select total from mysite_pot') == [(sum(amounts.values()),)]
    marks = {}
    for frame in site.frames():
        if frame['type'].startswith('BET'):
            marks.setdefault(frame['ref'], []).append(frame.get('resent', False))
    assert {tuple(sorted(mark)) for mark in marks.values()} <= {(False,), (True,), (False, True)}
    (deadly,) = [frame['ref'] for frame in site.frames() if frame['type'] == 'BET_AND_KILL' and 'resent' in frame]
    assert marks[deadly] == [False, True] and amounts[deadly] == 7 and deadly in refs
    # What was queued arrived once, and in order, though it is more than may wait for a worker (100).
    assert [frame['n'] for frame in site.frames() if frame['type'] == 'NOTE'] == list(range(300))
    # A badge waits, connects, and waits again or opens.
    badges = ['open', *page.seen('badges')[page.seen('badges').index('waiting') :]]
    assert set(zip(badges, badges[1:])) <= {
        ('open', 'waiting'),
        ('waiting', 'connecting'),
        ('connecting', 'waiting'),
        ('connecting', 'open'),
    }
    assert badges.count('open') >= 4 and badges[-1] == 'open'


def test_a_page_goes_away_and_comes_back(site, open_browser):
    site.serve()
    page = Page(open_browser(), site.url + '/module/')
    page.becomes('open')
    for is_offline, state in ((True, 'offline'), (False, 'open')):
        page.browser.execute_cdp_cmd(
            'Network.emulateNetworkConditions',
            {'offline': is_offline, 'latency': 0, 'downloadThroughput': -1, 'uploadThroughput': -1},
        )
        page.becomes(state)
    # The browser keeps the page for its back button.
    page.run('addEventListener("pageshow", event => seen.persisted = event.persisted); location.assign("/mypage/")')
    eventually(lambda: page.browser.title == 'My page')
    page.browser.back()
    eventually(lambda: page.browser.title == 'Table')
    page.becomes('open')
    assert page.seen('persisted') is True
    assert page.seen('closes') == [[1006, True]] * 2
    assert page.seen('badges') == ['open'] + ['offline', 'connecting', 'open'] * 2


def test_a_revoked_page_stays_away_until_it_is_told_to_come_back(site, open_browser):
    site.serve()
    page = Page(open_browser(), site.url + '/module/')
    page.becomes('open')
    page.run('socket.addEventListener("reconnect", event => seen.details = event.detail.details);socket.send("REVOKE")')
    page.becomes('closed')
    assert page.seen('closes') == [[4401, False]]
    assert page.seen('details') == 'As you wish.'
    page.run('socket.open()')
    page.becomes('open')
