"""What the page about the move to Channels 4 says, done line by line to a site that was written for Channels 1."""

import json
import subprocess
import sys

import pytest
import websocket

from ... import servers
from ..conftest import Client
from ..documents import Document, manage

PAGE = Document('docs/how-to/move-to-channels-4.md')

# As projects were written for the older code base, and as README and guides of today say for Channels 1.
OLD = {
    'mysite/settings.py': """
INSTALLED_APPS += ['channels', 'sockets', 'mysite']
ALLOWED_HOSTS = ['localhost', '127.0.0.1']
CHANNEL_LAYERS = {'default': {
    'BACKEND': 'sockets.layers.InMemoryChannelLayer',
    'ROUTING': 'mysite.routing.channel_routing',
}}
SOCKETS = {'MAX_FRAMES_PER_SECOND': 100}
""",
    'mysite/asgi.py': """
import os
from channels.asgi import get_channel_layer
os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'mysite.settings')
channel_layer = get_channel_layer()
""",
    'mysite/handlers.py': """
import re

from sockets.handlers import RoutedSocketHandler
from sockets.models import Socket


class PokerSocketHandler(RoutedSocketHandler):
    routes = (
        *RoutedSocketHandler.routes,
        ('JOIN', 'on_join'),
        (re.compile('GAME_ACTION_.+'), 'on_game_action'),
    )

    def connect(self, message, **kwargs):
        super().connect(message, **kwargs)
        self.send_action('WELCOME', table=kwargs['table'], path=message['path'])

    def disconnect(self, message, **kwargs):
        Socket.objects.filter(path=self.path).send_action('LEFT', code=message.get('code'))

    def on_join(self, content):
        Socket.objects.filter(path=self.path).send_action('JOINED', name=content['name'])

    def on_game_action(self, content):
        return {'type': 'DONE', 'action': content['type'], 'user': self.user.is_authenticated}
""",
    'mysite/views.py': """
from django.http import HttpResponse
from django.views.generic import View

from mysite.handlers import PokerSocketHandler
from sockets.router import SocketRouter


class Table(View):
    socket = SocketRouter(handler=PokerSocketHandler)

    def get(self, request, table):
        return HttpResponse('table ' + table)

    @socket.route('PEEK')
    async def on_peek(socket, content):
        return {'type': 'CARD', 'of': content['of']}


class MyPage(View):
    socket = SocketRouter()

    def get(self, request):
        return HttpResponse('my page')
""",
    'mysite/routing.py': """
from channels.routing import include, route_class

from mysite.views import MyPage, Table

tables = [route_class(Table.socket.Handler, path=r'^/(?P<table>[0-9]+)/$')]
channel_routing = [route_class(MyPage.socket.Handler, path=r'^/mypage/$'), include(tables, path=r'^/table')]
""",
    'mysite/urls.py': """
from django.urls import path

from mysite.views import MyPage, Table

urlpatterns = [path('mypage/', MyPage.as_view()), path('table/<table>/', Table.as_view())]
""",
}


@pytest.fixture
def project(tmp_path):
    """The old site, and what the page says done to it: its settings, its asgi.py, and the import of its routing."""
    subprocess.check_call(servers.python_module('django', 'startproject', 'mysite', str(tmp_path)))
    for name, text in OLD.items():
        with (tmp_path / name).open('a' if name.endswith('settings.py') else 'w') as file:
            file.write(text)
    settings = tmp_path / 'mysite/settings.py'
    text = settings.read_text()
    start = text.index('CHANNEL_LAYERS')
    settings.write_text(text[:start] + text[text.index('SOCKETS', start) :])
    for name in ('mysite/settings.py', 'mysite/asgi.py'):
        (block,) = [block for block in PAGE.all_blocks if block.file == name]
        block.write(tmp_path)
    routing = tmp_path / 'mysite/routing.py'
    assert 'from sockets.routing import route_class' in PAGE.file('mysite/routing.py')
    routing.write_text(routing.read_text().replace('from channels.routing import', 'from sockets.routing import'))
    for command in PAGE.section('5. The database').commands():
        manage(tmp_path, *command.split()[2:])
    return tmp_path


def test_check_finds_nothing_wrong_in_what_was_moved(project):
    assert manage(project, 'check').startswith('System check identified no issues')
    assert 'GAME_ACTION_' in manage(project, 'sockets', 'describe')


@pytest.mark.parametrize('server', ['runserver', 'runsockets', 'daphne', 'uvicorn'])
def test_the_moved_site_does_what_it_did(project, run, server):
    port = servers.free_port()
    bin = sys.executable.rpartition('/')[0]
    program = {
        'runserver': [sys.executable, 'manage.py', 'runserver', f'127.0.0.1:{port}', '--noreload'],
        'runsockets': [sys.executable, 'manage.py', 'runsockets', f'127.0.0.1:{port}'],
        'daphne': [f'{bin}/daphne', '-p', port, 'mysite.asgi:application'],
        'uvicorn': [f'{bin}/uvicorn', '--port', port, 'mysite.asgi:application'],
    }[server]
    run(program, port, cwd=project, env={'PYTHONPATH': f'{servers.ROOT}:{project}'})

    def connect(path):
        return Client(websocket.create_connection(f'ws://127.0.0.1:{port}{path}', timeout=10, suppress_origin=True))

    one, two = connect('/table/7/'), connect('/table/7/')
    for client in (one, two):
        assert client.receive() == {'type': 'WELCOME', 'table': '7', 'path': '/table/7/'}
    one.send({'type': 'JOIN', 'name': 'ada'})
    assert one.receive() == two.receive() == {'type': 'JOINED', 'name': 'ada'}
    assert one.ask({'type': 'GAME_ACTION_FOLD', 'ref': 1}) == {
        'type': 'DONE',
        'action': 'GAME_ACTION_FOLD',
        'user': False,
        'ref': 1,
    }
    assert one.ask({'type': 'PEEK', 'of': 'ada', 'ref': 2}) == {'type': 'CARD', 'of': 'ada', 'ref': 2}
    assert one.ask({'type': 'NO_SUCH', 'ref': 3})['code'] == 'unknown_type'
    two.close()
    assert one.receive()['type'] == 'LEFT'
    page = connect('/mypage/')
    assert page.ask({'type': 'HELLO', 'ref': 4})['path'] == '/mypage/'
    for path in ('/table/x/', '/nowhere/'):
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            connect(path)
        assert refused.value.status_code == 403
    listed = json.loads(manage(project, 'sockets', 'list', '--json'))
    assert sorted(row['path'] for row in listed['connections']) == ['/mypage/', '/table/7/']
    one.close()
    page.close()
