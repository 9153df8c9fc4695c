"""What ``manage.py check`` says on Channels 4."""

import sys
import types

import pytest
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.apps import apps
from django.core.checks import run_checks
from django.urls import re_path
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter
from sockets.engines.channels4 import checks
from sockets.engines.channels4.application import Application
from sockets.routing import route_class

pytestmark = pytest.mark.filterwarnings('ignore')

CORE = 'channels_redis.core.RedisChannelLayer'
PUBSUB = 'channels_redis.pubsub.RedisPubSubChannelLayer'
HOSTS = ['redis://127.0.0.1:1/0', 'redis://127.0.0.1:2/0']


class Page(View):
    socket = SocketRouter()


Handler = Page.socket.Handler


def found(*functions):
    """Return the findings of checks by their ids."""
    return {message.id: message for function in functions for message in function()}


def layers(settings, backend, config=None, **more):
    settings.CHANNEL_LAYERS = {'default': {'BACKEND': backend, 'CONFIG': config or {}, **more}}


@pytest.mark.parametrize(
    'backend, config',
    [
        ('channels.layers.InMemoryChannelLayer', {}),
        ('channels.layers.InMemoryChannelLayer', {'capacity': 1}),
        (CORE, {'hosts': HOSTS[:1]}),
        (PUBSUB, {'hosts': HOSTS}),
    ],
)
def test_a_layer_that_works_is_not_spoken_of(settings, backend, config):
    layers(settings, backend, config)
    assert checks.check_layer() == []


def test_a_project_without_a_layer_is_one_process(settings):
    del settings.CHANNEL_LAYERS
    assert checks.check_layer() == []
    assert 'There is no channel layer' in found(checks.check_processes)['sockets.W007'].msg
    settings.SOCKETS = {**settings.SOCKETS, 'CHANNEL_LAYER': 'mine'}
    assert list(found(checks.check_layer)) == ['sockets.E004']


def test_a_layer_in_memory_is_named_for_production(settings):
    layers(settings, 'channels.layers.InMemoryChannelLayer')
    assert list(found(checks.check_processes)) == ['sockets.W007']
    layers(settings, PUBSUB, {'hosts': HOSTS[:1]})
    assert checks.check_processes() == []
    layers(settings, 'channels.layers.InMemoryChannelLayer')
    ids = [message.id for message in run_checks(tags=['sockets'])]
    assert 'sockets.W007' not in ids


@pytest.mark.parametrize(
    'entry, remedy',
    [
        ({'BACKEND': 'sockets.layers.RedisChannelLayer', 'ROUTING': 'a.b'}, 'get_application('),
        ({'BACKEND': 'sockets.layers.InMemoryChannelLayer', 'ROUTING': 'a.b'}, 'channels.layers.InMemoryChannelLayer'),
        ({'BACKEND': 'channels.layers.InMemoryChannelLayer', 'ROUTING': 'a.b'}, 'Take ROUTING out'),
        ({'BACKEND': 'sockets.layers.RedisChannelLayer'}, 'a layer of Channels 1'),
        ({'BACKEND': 'asgi_redis.RedisChannelLayer'}, 'a layer of Channels 1'),
        ({'BACKEND': 'asgiref.inmemory.ChannelLayer'}, 'a layer of Channels 1'),
        ({'BACKEND': 'nowhere.Layer'}, 'BACKEND or CONFIG'),
        ({'BACKEND': 'channels.layers.InMemoryChannelLayer', 'CONFIG': {'capasity': 5}}, 'BACKEND or CONFIG'),
        ({'CONFIG': {}}, 'BACKEND or CONFIG'),
    ],
)
def test_a_layer_that_cannot_be_made_is_an_error_with_its_remedy(settings, entry, remedy):
    settings.CHANNEL_LAYERS = {'default': entry}
    (message,) = checks.check_layer()
    assert message.id == 'sockets.E005' and remedy in message.hint
    assert checks.check_processes() == []


def test_a_package_that_is_missing_is_named(settings, monkeypatch):
    monkeypatch.setattr(checks.util, 'find_spec', lambda name: None)
    layers(settings, 'channels_redis.nowhere.Layer')
    assert 'pip install' in found(checks.check_layer)['sockets.E005'].hint


def test_several_hosts_are_an_error_where_messages_go_round(settings):
    layers(settings, CORE, {'hosts': HOSTS})
    assert list(found(checks.check_layer)) == ['sockets.E015']


@pytest.mark.parametrize(
    'config, is_small',
    [
        ({'capacity': 10}, True),
        ({'channel_capacity': {'sockets.*': 99}}, True),
        ({'capacity': 10, 'channel_capacity': {'sockets.*': 1000}}, False),
        ({'capacity': 100}, False),
    ],
)
def test_a_small_capacity_is_named(settings, config, is_small):
    layers(settings, CORE, {'hosts': HOSTS[:1], **config})
    assert list(found(checks.check_layer)) == ['sockets.W005'] * is_small


@pytest.mark.parametrize('version, id', [('7.4.1', []), ('8.0', ['sockets.W019']), ('8.1.0b1', ['sockets.W019'])])
def test_a_redis_py_that_gives_up_waiting_is_named_for_the_layer_that_waits(settings, monkeypatch, version, id):
    monkeypatch.setattr(checks.metadata, 'version', lambda name: version)
    layers(settings, CORE, {'hosts': HOSTS[:1]})
    assert list(found(checks.check_layer)) == id
    layers(settings, PUBSUB, {'hosts': HOSTS[:1]})
    assert checks.check_layer() == []


@pytest.mark.parametrize(
    'version, id', [('3.11.1', ['sockets.W020']), ('3.9', ['sockets.W020']), ('3.12', []), ('4', [])]
)
def test_an_asgiref_with_deadlocks_is_named(monkeypatch, version, id):
    monkeypatch.setattr(checks.metadata, 'version', lambda name: version)
    assert list(found(checks.check_versions)) == id


@pytest.fixture
def application(settings, monkeypatch):
    """A function that makes its argument the ``ASGI_APPLICATION``."""

    def make(application):
        module = types.ModuleType('site_of_a_test')
        module.application = application
        monkeypatch.setitem(sys.modules, 'site_of_a_test', module)
        settings.ASGI_APPLICATION = 'site_of_a_test.application'
        settings.SOCKETS = {}

    return make


def test_an_application_that_leads_to_a_handler_is_not_spoken_of(application):
    application(Application([route_class(Handler, path='^/page/$')], None))
    assert checks.check_routing() == []
    application(
        ProtocolTypeRouter({'websocket': AuthMiddlewareStack(URLRouter([re_path('^page/$', Handler.as_asgi())]))})
    )
    assert checks.check_routing() == []


def test_an_application_that_cannot_be_imported_is_an_error(settings):
    settings.SOCKETS, settings.ASGI_APPLICATION = {}, 'nowhere.asgi.application'
    message = found(checks.check_routing)['sockets.E016']
    assert 'nowhere' in message.msg and 'get_application' in message.hint
    settings.SOCKETS = {'ROUTING': 'nowhere.routing'}
    assert "SOCKETS['ROUTING']" in found(checks.check_routing)['sockets.E016'].msg


@pytest.mark.parametrize(
    'line, remedy',
    [
        ('from channels import include', 'from sockets.routing import include'),
        ('from channels.routing import route_class', 'from sockets.routing import route_class'),
        ('from channels.asgi import get_channel_layer', 'get_application('),
        ('from json import route_class', 'old_asgi.py, line 1: from json import route_class'),
        ('import nowhere', 'old_asgi.py, line 1: import nowhere'),
        ('', 'get_application('),
    ],
)
def test_an_import_of_channels_1_is_told_what_to_write(settings, tmp_path, monkeypatch, line, remedy):
    (tmp_path / 'old_asgi.py').write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    settings.SOCKETS, settings.ASGI_APPLICATION = {}, 'old_asgi.application'
    assert remedy in found(checks.check_routing)['sockets.E016'].hint


@pytest.mark.parametrize('inner', [None, ProtocolTypeRouter({}), URLRouter([]), lambda scope, receive, send: None])
def test_an_application_that_leads_to_no_handler_is_named(application, inner):
    application(inner)
    assert 'leads to no handler class' in found(checks.check_routing)['sockets.W021'].msg


def test_a_project_without_an_application_is_told_what_to_write(settings):
    settings.SOCKETS, settings.ASGI_APPLICATION = {}, None
    assert 'ASGI_APPLICATION = ' in found(checks.check_routing)['sockets.W021'].hint


def test_a_view_in_the_routing_and_a_name_that_is_taken_are_errors(settings, monkeypatch):
    monkeypatch.setattr(checks.routing, 'entries', lambda: [route_class(Page, path='^/page/$')])
    assert list(found(checks.check_routing)) == ['sockets.E009']
    monkeypatch.setattr(checks.routing, 'entries', lambda: [route_class(Handler, path=r'^/(?P<message>\w+)/$')])
    assert list(found(checks.check_routing)) == ['sockets.E012']


class Other(RoutedSocketHandler):
    pass


@pytest.mark.parametrize(
    'paths, hidden',
    [
        (['^/a/$', '^/b/$'], 0),
        (['^/a/$', '^/a/$'], 1),
        (['^/', '^/a/$'], 1),
        (['^', '^/a/$'], 1),
        (['^a/$', '^/b/$'], 1),
        ([r'^/(?P<x>\w+)/$', '^/a/$'], 1),
        (['^/a/$', r'^/(?P<x>\w+)/$'], 0),
    ],
)
def test_paths_that_never_match_are_named(monkeypatch, paths, hidden):
    found = [route_class(handler, path=path) for handler, path in zip((Handler, Other), paths)]
    monkeypatch.setattr(checks.routing, 'entries', lambda: found)
    assert [message.id for message in checks.check_routing()] == ['sockets.W010'] * hidden


def test_middleware_that_ends_sessions_of_an_older_key_is_named(settings, application):
    inner = URLRouter([re_path('^page/$', Handler.as_asgi())])
    settings.SECRET_KEY_FALLBACKS = ['old']
    application(ProtocolTypeRouter({'websocket': AuthMiddlewareStack(inner)}))
    assert list(found(checks.check_routing)) == ['sockets.W023']
    application(ProtocolTypeRouter({'websocket': inner}))
    assert checks.check_routing() == []


@pytest.mark.parametrize(
    'is_debug, installed, ids', [(True, False, ['sockets.W022']), (True, True, []), (False, False, [])]
)
def test_a_runserver_without_websockets_is_named(settings, monkeypatch, is_debug, installed, ids):
    settings.DEBUG = is_debug
    monkeypatch.setattr(apps, 'is_installed', lambda name: installed)
    assert list(found(checks.check_runserver)) == ids


@pytest.mark.parametrize('name', ['MAX_BODY_SIZE', 'ROOT_PATH_HEADER'])
def test_a_setting_of_channels_1_is_named(settings, name):
    from sockets.checks import check_settings

    settings.SOCKETS = {name: 'X-Script-Name' if name == 'ROOT_PATH_HEADER' else 10}
    assert list(found(check_settings)) == ['sockets.W018']
    settings.SOCKETS = {name: None}
    assert check_settings() == []


def test_the_app_of_channels_is_not_needed(monkeypatch):
    from sockets.checks import check_installed

    monkeypatch.setattr(apps, 'is_installed', lambda name: name != 'channels')
    assert check_installed() == []
