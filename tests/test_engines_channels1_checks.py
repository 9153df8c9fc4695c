"""What ``manage.py check`` says of channel layers and their routings."""

import socket
import subprocess
import sys
import textwrap

import msgpack
import pytest
from asgiref.inmemory import ChannelLayer
from channels import channel_layers, include, route, route_class
from django.core.checks import run_checks
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter
from sockets.checks import handlers as handler_checks
from sockets.engines.channels1 import checks as engine_checks
from sockets.testing import sandbox

from .conftest import OUR_LAYERS, STOCK_LAYERS
from .servers import ROOT


def ids(messages):
    return [message.id for message in messages]


def test_a_missing_channel_layer_is_named(settings):
    settings.CHANNEL_LAYERS = {}
    (message,) = engine_checks.check_routing()
    assert message.id == 'sockets.E004' and 'CHANNEL_LAYERS = {' in message.hint


@pytest.mark.parametrize(
    'config, word',
    [
        ({'BACKEND': 'nowhere.Layer', 'ROUTING': []}, 'nowhere.Layer'),
        ({'BACKEND': 'asgiref.inmemory.ChannelLayer', 'ROUTING': 'nowhere.routing'}, 'nowhere'),
        ({'BACKEND': 'asgiref.inmemory.ChannelLayer'}, 'ROUTING'),
        (
            {'BACKEND': 'sockets.layers.RedisChannelLayer', 'CONFIG': {'services': ['master']}, 'ROUTING': []},
            'Sentinel',
        ),
        ({'BACKEND': 'asgiref.inmemory.ChannelLayer', 'CONFIG': {'capasity': 1}, 'ROUTING': []}, 'capasity'),
    ],
)
def test_a_channel_layer_that_cannot_be_used_is_explained(settings, config, word):
    settings.CHANNEL_LAYERS = {'broken': config}
    settings.SOCKETS = {'CHANNEL_LAYER': 'broken'}
    (message,) = engine_checks.check_routing()
    assert message.id == 'sockets.E005' and word in message.msg


@pytest.fixture
def findings(settings, monkeypatch):
    """A function that returns the ids of what all checks say about a layer, which nobody has made before."""

    def check(backend='sockets.layers.InMemoryChannelLayer', routing=(), deploy=False, **config):
        monkeypatch.setattr(channel_layers, 'backends', {})
        monkeypatch.setattr(handler_checks, '_unrouted', lambda routed: [])
        settings.CHANNEL_LAYERS = {'default': {'BACKEND': backend, 'CONFIG': config, 'ROUTING': routing}}
        return ids(run_checks(tags=['sockets'], include_deployment_checks=deploy))

    return check


ROOMY = {'channel_capacity': {'websocket.*': 10000, 'daphne.response.*': 10000}}


PROMPT = {'connection_kwargs': {'socket_timeout': 10}}


SENTINEL = {'hosts': [('localhost', 1)], 'services': ['master']}


@pytest.mark.parametrize(
    'backend, config, found',
    [
        ('asgiref.inmemory.ChannelLayer', {}, ['sockets.W005']),
        # It looks at no channel_capacity.
        ('asgiref.inmemory.ChannelLayer', ROOMY, ['sockets.W005']),
        ('asgiref.inmemory.ChannelLayer', {'capacity': 10000}, []),
        ('asgi_redis.RedisChannelLayer', PROMPT, ['sockets.W005']),
        ('asgi_redis.RedisChannelLayer', dict(PROMPT, channel_capacity={'websocket.*': 10000}), ['sockets.W005']),
        ('asgi_redis.RedisChannelLayer', dict(ROOMY, **PROMPT), []),
        ('asgi_redis.RedisChannelLayer', ROOMY, ['sockets.W012']),
        ('asgi_redis.RedisChannelLayer', dict(ROOMY, connection_kwargs={'socket_keepalive': True}), ['sockets.W012']),
        ('asgi_redis.RedisSentinelChannelLayer', SENTINEL, ['sockets.W005']),
        ('asgi_redis.RedisSentinelChannelLayer', dict(SENTINEL, **ROOMY), []),
        ('sockets.layers.InMemoryChannelLayer', {}, []),
        ('sockets.layers.RedisChannelLayer', {}, []),
        ('sockets.layers.RedisChannelLayer', {'group_expiry': 3600}, ['sockets.W006']),
        ('sockets.layers.RedisChannelLayer', {'group_expiry': 86400}, []),
        ('sockets.layers.RedisChannelLayer', {'group_expiry': 100000}, []),
    ],
)
def test_a_layer_with_little_room_or_short_lived_groups_is_pointed_out(findings, backend, config, found):
    assert findings(backend, **config) == found


def test_the_remedy_for_little_room_can_be_typed(findings):
    for backend, config, words in (
        ('asgiref.inmemory.ChannelLayer', {}, ["'sockets.layers.InMemoryChannelLayer'", "'capacity': 10000"]),
        ('asgi_redis.RedisChannelLayer', PROMPT, ["'sockets.layers.RedisChannelLayer'", str(ROOMY)[1:-1]]),
    ):
        findings(backend, **config)
        (message,) = engine_checks.check_layer()
        assert all(word in message.hint for word in words)
    # Ours would refuse it.
    findings('asgi_redis.RedisSentinelChannelLayer', **SENTINEL)
    assert 'sockets.layers' not in engine_checks.check_layer()[0].hint


def test_a_msgpack_that_the_stock_layer_cannot_use_is_named_with_the_line_to_type(findings, monkeypatch):
    unpackb = msgpack.unpackb
    assert findings('asgi_redis.RedisChannelLayer', **ROOMY, **PROMPT) == []
    # As msgpack 1.0 and later do.
    monkeypatch.setattr(msgpack, 'unpackb', lambda packed, raw=False: unpackb(packed, raw=raw))
    monkeypatch.setattr(msgpack, 'version', (1, 0, 8))
    assert findings('asgi_redis.RedisChannelLayer', **ROOMY, **PROMPT) == ['sockets.E010']
    (message,) = engine_checks.check_layer()
    assert "argument 'encoding'" in message.msg and 'msgpack 1.0.8' in message.msg
    assert 'pip uninstall -y msgpack; pip install --force-reinstall' in message.hint
    assert findings('sockets.layers.RedisChannelLayer') == []


def test_an_in_memory_layer_in_production_is_pointed_out_by_check_deploy(findings):
    for backend in 'asgiref.inmemory.ChannelLayer', 'sockets.layers.InMemoryChannelLayer':
        assert findings(backend, capacity=1000) == []
        assert findings(backend, capacity=1000, deploy=True) == ['sockets.W007']
    assert findings('sockets.layers.RedisChannelLayer', deploy=True) == []


def test_a_routing_that_names_a_view_is_told_its_handler(findings):
    class Page(View):
        socket = SocketRouter()

    assert findings(routing={'websocket.connect': Page.socket.Handler}) == []
    assert findings(routing={'websocket.connect': Page}) == ['sockets.E009']
    (message,) = engine_checks.check_routing()
    assert message.hint == 'Write route_class(Page.socket.Handler, path=...).' and message.obj is Page


def to(path=None, handler=RoutedSocketHandler):
    return route_class(handler, **({} if path is None else {'path': path}))


@pytest.mark.parametrize(
    'routing, hidden',
    [
        ([to('^/a/$'), to('^/b/$')], []),
        ([to('^/a/$'), to('^/a/$')], ["'^/a/$'"]),
        ([to('^/a'), to('^/a/$')], ["'^/a/$'"]),
        ([to('^/a/$'), to('^/a')], []),
        ([to(r'^/(?P<n>\d+)/$'), to('^/5/$')], ["'^/5/$'"]),
        ([to(), to('^/a/$')], ["'^/a/$'"]),
        ([to('^/a/$'), to()], []),
        ([include([to('^b/$')], path='^/a/'), include([to('^b/$')], path='^/a/')], ["'^/a/' + '^b/$'"]),
        ([include([to('^b/$')], path='^/a/'), include([to('^b/$')], path='^/c/')], []),
        ([to('^/a/'), include([to('^b/$')], path='^/a/')], ["'^/a/' + '^b/$'"]),
        ([include([to()], path='^/a/'), to('^/a/$')], []),
        # It takes the frames, not the connect.
        ([route('websocket.receive', len, path='^/a/$'), to('^/a/$')], []),
        ([to('a/$')], ["'a/$'"]),
        ([to('^a/$')], ["'^a/$'"]),
        ([to('a?/$'), to('^b|/c')], []),
        ([include([to('^b/$')], path='^a/')], ["'^a/' + '^b/$'"]),
    ],
)
def test_a_path_that_cannot_match_is_named(routing, hidden):
    with sandbox(ChannelLayer(), routing):
        messages = engine_checks.check_routing()
    assert ids(messages) == ['sockets.W010'] * len(hidden)
    for message, path in zip(messages, hidden):
        assert message.msg.startswith(f'The path {path} of RoutedSocketHandler can never match')


@pytest.mark.parametrize('backend', STOCK_LAYERS + OUR_LAYERS + ['asgi_redis.RedisSentinelChannelLayer'])
def test_no_check_asks_a_database_or_redis(findings, settings, monkeypatch, backend):
    # Nothing may, in a test without a database.
    settings.DATABASES = {'default': {'ENGINE': 'django.db.backends.postgresql'}}
    asked = []
    monkeypatch.setattr(socket.socket, 'connect', lambda self, address: asked.append(address))
    config = SENTINEL if 'Sentinel' in backend else {'hosts': ['redis://127.0.0.1:1']} if 'Redis' in backend else {}
    assert 'sockets.W004' in findings(backend, deploy=True, **config)
    assert asked == []


SETTINGS = """
    SECRET_KEY = 'x'
    DEBUG = True
    ROOT_URLCONF = 'project'
    INSTALLED_APPS = {apps}
    MIDDLEWARE = ['django.contrib.sessions.middleware.SessionMiddleware',
                  'django.contrib.auth.middleware.AuthenticationMiddleware']
    CHANNEL_LAYERS = {layers}
"""


PROJECT = """
    from django.conf.urls import url
    from django.views.generic import View
    from channels import route_class
    from sockets import SocketRouter

    class MyPage(View):
        socket = SocketRouter()

        @socket.route('PING')
        def on_ping(socket, content):
            pass

    urlpatterns = [url('^mypage/$', MyPage.as_view())]
    routing = [{routing}]
"""


APPS = ['django.contrib.auth', 'django.contrib.contenttypes', 'django.contrib.sessions', 'channels', 'sockets']


LAYERS = {'default': {'BACKEND': 'sockets.layers.InMemoryChannelLayer', 'ROUTING': 'project.routing'}}


ROUTED = "route_class(MyPage.socket.Handler, path='^/mypage/$')"


@pytest.mark.parametrize(
    'installed, layers, routing, words',
    [
        (APPS, LAYERS, ROUTED, ['no issues']),
        pytest.param(
            APPS[:-1],
            LAYERS,
            ROUTED,
            ["add 'sockets' to INSTALLED_APPS"],
            marks=pytest.mark.skipif(
                sys.version_info >= (3, 12), reason="without us, Channels' own ready() fails here"
            ),
        ),
        (APPS[:3] + APPS[4:], LAYERS, ROUTED, ['sockets.E001', "Add 'channels' to INSTALLED_APPS"]),
        (APPS[:2] + APPS[3:], LAYERS, ROUTED, ['sockets.E002', "Add 'django.contrib.sessions' to INSTALLED_APPS"]),
        (APPS, {}, ROUTED, ['sockets.E004', 'Add CHANNEL_LAYERS']),
        (APPS, LAYERS, '', ['sockets.W003', 'Add route_class(MyPage.socket.Handler, path=']),
    ],
)
def test_manage_py_check_names_the_step_that_was_forgotten(tmp_path, installed, layers, routing, words):
    (tmp_path / 'settings.py').write_text(textwrap.dedent(SETTINGS).format(apps=installed, layers=layers))
    (tmp_path / 'project.py').write_text(textwrap.dedent(PROJECT).format(routing=routing))
    process = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'django', 'check', '--settings', 'settings'],
        cwd=str(tmp_path),
        env={'PYTHONPATH': f'{tmp_path}:{ROOT}'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    for word in words:
        assert word in process.stdout.decode()
