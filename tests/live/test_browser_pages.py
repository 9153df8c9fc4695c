"""Pages at strange addresses, pages of no site, and pages that speak in bytes: Chromium against real servers."""

import contextlib
import functools
import http.server
import json
import re
import sys
import threading

import pytest
import websocket

from .. import servers
from . import stack
from .conftest import eventually
from .stack import ON_CHANNELS_1
from .test_browser_client import ASGI, ENVIRONMENT, PROJECT, Page, execute, write

README = (servers.ROOT / 'README.md').read_text()
SOCKETS_JS = servers.ROOT / 'sockets' / 'static' / 'sockets' / 'sockets.js'

SETTINGS = (
    PROJECT
    + """
import json

STATIC_URL = '/static/'
SOCKETS = json.loads(os.environ.get('SOCKETS', '{}'))
"""
)

PAGES = """
from django.views.generic import TemplateView

from sockets import SocketRouter
from sockets.models import Socket
from sockets.routing import route_class


class MyPage(TemplateView):
    template_name = 'mypage.html'
    socket = SocketRouter()

    @socket.route('ADD')
    def on_add(socket, content):
        return {'type': 'SUM', 'sum': content['a'] + content['b']}

    @socket.route('WHERE')
    def on_where(socket):
        return {'type': 'HERE', 'path': socket.path, 'request': socket.request.path}


class Pictures(TemplateView):
    template_name = 'client.html'
    socket = SocketRouter()

    @socket.bytes
    def on_picture(socket, data):
        Socket.objects.send(bytes=data[:16])
        return {'type': 'TAKEN', 'size': len(data), 'sum': sum(data) % 65521, 'resent': socket.envelope.get('resent')}

    @socket.route('PICTURE')
    def on_ask(socket, content):
        return bytes(range(256)) * content['n']

    @socket.route('CLOSE')
    def on_close(socket, content):
        socket.close(content['code'])


routing = [
    route_class(MyPage.socket.Handler, path='.*/mypage/$'),
    route_class(MyPage.socket.Handler, path='^//other.example/x/$'),
    route_class(Pictures.socket.Handler, path='^/pictures/$'),
]
"""

URLS = """
import os

import sockets
from django.urls import re_path
from django.views.static import serve

from mysite.pages import MyPage, Pictures

urlpatterns = [
    re_path('^mypage/$', MyPage.as_view()),
    re_path('^client/mypage/$', MyPage.as_view(template_name='client.html')),
    re_path('^/other.example/x/$', MyPage.as_view(template_name='client.html')),
    re_path('^readme//other.example/x/mypage/$', MyPage.as_view()),
    re_path('^pictures/$', Pictures.as_view()),
    re_path('^static/(?P<path>.*)$', serve,
            {'document_root': os.path.join(os.path.dirname(sockets.__file__), 'static')}),
]
"""

CLIENT = """<!doctype html><title>Page</title>{% load sockets %}{% socket_script %}
<script type="module">window.socket = new SocketRouter();</script>"""


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    directory = tmp_path_factory.mktemp('pages')
    (page,) = re.findall(
        '^```html\n<!-- mysite/templates/mypage.html -->\n(.*?)^```$', README, re.MULTILINE | re.DOTALL
    )
    write(
        directory,
        {
            '__init__.py': '',
            'settings.py': SETTINGS,
            'pages.py': PAGES,
            'urls.py': URLS,
            'asgi.py': ASGI,
            'templates/mypage.html': page,
            'templates/client.html': CLIENT,
        },
    )
    code, output = execute(
        [sys.executable, '-m', 'django', 'migrate', '-v0'], cwd=str(directory), env=servers.environment(**ENVIRONMENT)
    )
    assert code == 0, output
    return directory


@pytest.fixture
def serve(project, run):
    """A function that serves the project with these ``SOCKETS``, and returns its host."""

    def serve(redis_url=None, **settings):
        port = servers.free_port()
        environment = dict(ENVIRONMENT, SOCKETS=json.dumps(settings))
        args = ['-m', 'django', 'runsockets', f'127.0.0.1:{port}']
        if redis_url is not None:
            environment['REDIS_URL'] = redis_url
            if ON_CHANNELS_1:
                run([sys.executable, '-m', 'django', 'runworker'], cwd=project, env=environment).wait_for_log(
                    'Listening on channels'
                )
            args = stack.daphne(port, project='mysite')
        serve.program = run([sys.executable, *args], port, cwd=project, env=environment)
        return f'127.0.0.1:{port}'

    return serve


@pytest.mark.parametrize('path', ['/mypage/#', '/mypage/?http=1#http', '/readme//other.example/x/mypage/'])
def test_the_first_page_of_the_readme_works_at_any_address(serve, open_browser, path):
    # new WebSocket(location.href.replace('http', 'ws')) raised a SyntaxError at every address with a #.
    page = Page(open_browser(), f'http://{serve()}{path}')
    assert (
        eventually(
            lambda: page.browser.find_element('id', 'log').text != '...' and page.browser.find_element('id', 'log').text
        )
        == '{"type":"SUM","sum":5}'
    )


@pytest.mark.parametrize('path', ['/client/mypage/?http#http', '//other.example/x/?a#b'])
def test_a_page_connects_to_its_own_host_whatever_its_path_looks_like(serve, open_browser, path):
    # A page at //other.example/x/ connected to other.example.
    host = serve()
    page = Page(open_browser(), f'http://{host}{path}')
    assert page.run('return location.host') == host
    eventually(lambda: page.run('return window.socket?.state') == 'open')
    where = path.partition('?')[0]
    assert page.run('const {path, request} = await socket.request("WHERE"); return [path, request]') == [where, where]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextlib.contextmanager
def foreign_site(directory):
    """Serve ``directory`` as another site."""
    handler = functools.partial(Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f'http://127.0.0.1:{server.server_address[1]}'
        server.shutdown()
        thread.join()


@pytest.mark.parametrize('allowed', [['127.0.0.1', 'file://', 'null'], ['127.0.0.1', '*']])
def test_pages_of_files_and_of_sandboxes_get_in_by_name_and_by_no_wildcard(serve, open_browser, tmp_path, allowed):
    host = serve(ALLOWED_ORIGINS=allowed)
    script = (
        'const socket = new SocketRouter("ws://{}/mypage/", {{maxDelay: 300}});'
        'socket.addEventListener("open", () => parent.postMessage("opened", "*"));'
    )
    listener = '<script>addEventListener("message", () => window.opened = true)</script>'
    # Modules of files are foreign to their pages.
    text = f'<!doctype html><title>App</title>{listener}<script type="module">{SOCKETS_JS.read_text()}\n{script.format(host)}</script>'
    (tmp_path / 'app.html').write_text(text)
    (tmp_path / 'frame.html').write_text(
        f'<!doctype html><title>Frame</title>{listener}<iframe sandbox="allow-scripts" src="app.html"></iframe>'
    )
    gets_in = 'null' in allowed
    with foreign_site(tmp_path) as foreign:
        browser = open_browser()
        # This browser says null for both, other ones file:// for the first.
        for address in ((tmp_path / 'app.html').as_uri(), foreign + '/frame.html'):
            refused = serve.program.log.count('foreign origin')
            page = Page(browser, address)
            eventually(
                lambda: page.run('return window.opened === true') or serve.program.log.count('foreign origin') > refused
            )
            assert page.run('return window.opened === true') is gets_in
    for origin in ('file://', 'null'):
        with contextlib.closing(websocket.WebSocket()) as client:
            with contextlib.nullcontext() if gets_in else pytest.raises(websocket.WebSocketBadStatusException):
                client.connect(f'ws://{host}/mypage/', origin=origin, timeout=10)
        assert (f"from the foreign origin '{origin}'" in serve.program.log) is not gets_in
    assert ("add it to SOCKETS['ALLOWED_ORIGINS'] as it stands here." in serve.program.log) is not gets_in


@pytest.mark.parametrize('kind', ['runsockets', 'daphne'])
def test_a_page_speaks_in_bytes(serve, open_browser, request, kind):
    host = serve(
        request.getfixturevalue('redis_url') if kind == 'daphne' else None,
        MAX_MESSAGE_SIZE=1000,
        MAX_BINARY_SIZE=3 * 2**20,
    )
    page = Page(open_browser(), f'http://{host}/pictures/')
    eventually(lambda: page.run('return window.socket?.state') == 'open')
    page.run("""
        window.pushed = [];
        socket.bytes(data => pushed.push([...data]));
        window.picture = Uint8Array.from({length: 3 * 2 ** 20}, (_, n) => n * 7);
        window.sum = picture.reduce((sum, byte) => (sum + byte) % 65521, 0);
        window.ask = async (...args) => {
          const {size, sum, resent} = await socket.request(...args);
          return [size, sum, resent];
        };""")
    size, total = 3 * 2**20, page.run('return sum')
    for form in ('picture', 'picture.buffer', 'new Blob([picture])', 'new DataView(picture.buffer)'):
        assert page.run(f'return ask({form})') == [size, total, None]
    start = page.run('return [...picture.subarray(0, 16)]')
    assert eventually(lambda: page.run('return pushed.length > 3 && pushed')) == [start] * 4
    # What was sent without a ref has no answer, arrives as it is, and in its place.
    strange = '\\0{"ref":"1"}\\0'
    page.run(f"""pushed.length = 0;
        const strange = new TextEncoder().encode('{strange}');
        socket.send(strange);
        socket.send(new Blob([new Uint8Array(0), strange]));
        socket.send(new Uint8Array([1, 2]));""")
    strange = list(strange.replace('\\0', '\0').encode())
    assert eventually(lambda: page.run('return pushed.length > 2 && pushed')) == [strange, strange, [1, 2]]
    # Bytes may be the answer, too.
    assert page.run(
        'const data = await socket.request("PICTURE", {n: 2}); return [data.constructor.name, data.length, data[255]]'
    ) == ['Uint8Array', 512, 255]
    # Too much is the end of the request, and of nothing else; JSON is as small as ever.
    for asked, limit in (('new Uint8Array(3 * 2 ** 20 + 1)', 3 * 2**20), ('"PICTURE", {n: "x".repeat(1000)}', None)):
        code = page.run(f"""
            return Promise.race([socket.request({asked}).catch(error => [error.code, error.details]),
              new Promise(resolve => socket.addEventListener("error", event => resolve(
                [event.detail.code, event.detail.details])))]);""")
        assert code == ['too_large', f'A frame has at most {limit or 1000} bytes.']
    # Several are not too many at once, whether they waited for the connection or not.
    page.run('window.closes = []; socket.addEventListener("close", event => closes.push(event.detail.code))')
    for before in ('', 'socket.close(); socket.open();'):
        assert (
            page.run(
                before
                + """
            return Promise.all(Array.from({length: 8}, () => ask(picture, {timeout: 60000})));
            """
            )
            == [[size, total, None]] * 8
        )
    assert page.run('return closes') == [1000]


def test_a_close_code_of_ones_own_is_final_if_the_page_says_so(serve, open_browser):
    page = Page(open_browser(), f'http://{serve()}/pictures/')
    eventually(lambda: page.run('return window.socket?.state') == 'open')
    page.run(
        'window.final = new SocketRouter("/pictures/", {final: [4404]});'
        'for (const each of [final, socket]) each.send("CLOSE", {code: 4404})'
    )
    eventually(lambda: page.run('return final.state') == 'closed')
    eventually(lambda: page.run('return socket.state') == 'open')
    assert page.run('return final.state') == 'closed'
