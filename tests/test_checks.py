import subprocess
import sys
import textwrap

import pytest
from channels import route_class
from django.apps import apps
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter, checks, router
from sockets.testing import sandbox

from .servers import ROOT


def ids(messages):
    return [message.id for message in messages]


@pytest.mark.parametrize('app, id', [
    ('channels', 'sockets.E001'), ('django.contrib.sessions', 'sockets.E002'), ('django.contrib.auth', 'sockets.E003')])
def test_an_app_that_is_not_installed_is_named(monkeypatch, app, id):
    assert checks.check_installed() == []
    monkeypatch.setattr(apps, 'is_installed', lambda name: name != app)
    message, = checks.check_installed()
    assert message.id == id
    assert message.hint == 'Add {!r} to INSTALLED_APPS.'.format(app)


@pytest.mark.parametrize('name, id', [('SessionMiddleware', 'sockets.W001'),
                                      ('AuthenticationMiddleware', 'sockets.W002')])
def test_middleware_that_is_missing_is_named(settings, name, id):
    settings.MIDDLEWARE = [path for path in settings.MIDDLEWARE if not path.endswith(name)]
    message, = checks.check_installed()
    assert message.id == id and name in message.hint


@pytest.mark.parametrize('sockets, id, word', [
    ({'MAX_MESAGE_SIZE': 5}, 'sockets.E006', "'MAX_MESSAGE_SIZE'"),
    ({'max_message_size': 5}, 'sockets.E006', "'MAX_MESSAGE_SIZE'"),
    ({'NONSENSE': 5}, 'sockets.E006', 'MAX_MESSAGE_SIZE'),
    ({'MAX_MESSAGE_SIZE': '1MB'}, 'sockets.E007', 'bytes'),
    ({'MAX_MESSAGE_SIZE': 0}, 'sockets.E007', 'bytes'),
    ({'SEND_TIMEOUT': None}, 'sockets.E007', 'seconds'),
    ({'ALLOWED_ORIGINS': 'example.com'}, 'sockets.E007', 'list'),
    ({'REQUIRE_ORIGIN': 'yes'}, 'sockets.E007', 'True'),
    ({'TRUSTED_PROXIES': ['proxy.local']}, 'sockets.E007', '10.0.0.0/8'),
    ({'TRUSTED_PROXIES': '10.0.0.1'}, 'sockets.E007', '10.0.0.0/8'),
    ({'CHANNEL_LAYER': None}, 'sockets.E007', 'CHANNEL_LAYERS'),
    ('everything', 'sockets.E007', 'SOCKETS = {'),
])
def test_a_setting_that_makes_no_sense_is_named_with_its_remedy(settings, sockets, id, word):
    settings.SOCKETS = sockets
    message, = checks.check_settings()
    assert message.id == id and word in message.hint


def test_sensible_settings_pass(settings):
    assert checks.check_settings() == []
    settings.SOCKETS = {'MAX_MESSAGE_SIZE': 100, 'SEND_TIMEOUT': 0.5, 'ALLOWED_ORIGINS': ['.example.com'],
                        'REQUIRE_ORIGIN': True, 'TRUSTED_PROXIES': ['10.0.0.0/8', 'unix', '::1'],
                        'CHANNEL_LAYER': 'default'}
    assert checks.check_settings() == []


def test_a_missing_channel_layer_is_named(settings):
    settings.CHANNEL_LAYERS = {}
    message, = checks.check_routing()
    assert message.id == 'sockets.E004' and 'CHANNEL_LAYERS = {' in message.hint


@pytest.mark.parametrize('config, word', [
    ({'BACKEND': 'nowhere.Layer', 'ROUTING': []}, 'nowhere.Layer'),
    ({'BACKEND': 'asgiref.inmemory.ChannelLayer', 'ROUTING': 'nowhere.routing'}, 'nowhere'),
    ({'BACKEND': 'asgiref.inmemory.ChannelLayer'}, 'ROUTING'),
    ({'BACKEND': 'sockets.layers.RedisChannelLayer', 'CONFIG': {'services': ['master']}, 'ROUTING': []}, 'Sentinel'),
    ({'BACKEND': 'asgiref.inmemory.ChannelLayer', 'CONFIG': {'capasity': 1}, 'ROUTING': []}, 'capasity'),
])
def test_a_channel_layer_that_cannot_be_used_is_explained(settings, config, word):
    settings.CHANNEL_LAYERS = {'broken': config}
    settings.SOCKETS = {'CHANNEL_LAYER': 'broken'}
    message, = checks.check_routing()
    assert message.id == 'sockets.E005' and word in message.msg


@pytest.fixture
def only(monkeypatch):
    """A function that checks a routing as if the project had only the given routers and handler classes."""
    def check(routing, routers=(), handlers=()):
        from asgiref.inmemory import ChannelLayer
        monkeypatch.setattr(checks, 'attached_routers', set(routers))
        monkeypatch.setattr(checks, '_unbuilt_on', lambda known: [(h, h.__name__) for h in handlers])
        with sandbox(ChannelLayer(), routing):
            return checks.check_routing()
    return check


def test_a_view_whose_handler_is_in_no_routing_is_named(only):
    class Page(View):
        socket = SocketRouter()

    message, = only([], [Page.socket])
    assert message.id == 'sockets.W003'
    assert 'route_class(Page.socket.Handler, path=' in message.hint
    assert only([route_class(Page.socket.Handler)], [Page.socket]) == []
    # What builds on it serves it.
    assert only([route_class(type('Sub', (Page.socket.Handler,), {}))], [Page.socket]) == []


def test_a_handler_class_in_no_routing_is_named(only):
    class Lonely(RoutedSocketHandler):
        pass

    message, = only([], handlers=[Lonely])
    assert message.id == 'sockets.W003' and 'Lonely' in message.msg
    assert only([route_class(Lonely)], handlers=[Lonely]) == []


def test_only_classes_that_nothing_builds_on_have_to_be_routed():
    class Base(RoutedSocketHandler):
        pass

    class Leaf(Base):
        pass

    found = [handler for handler, _ in checks._unbuilt_on({})]
    assert Leaf in found and Base not in found and RoutedSocketHandler not in found
    assert Leaf not in [handler for handler, _ in checks._unbuilt_on({Leaf: 'known'})]


def test_a_url_argument_that_the_path_does_not_give_is_named(only):
    class Room(View):
        socket = SocketRouter()

        @socket.route('SAY')
        def on_say(socket, content, room):
            pass

        @socket.connect
        def on_open(socket, message, room):
            pass

    messages = only([route_class(Room.socket.Handler, path='^/room/$')], [Room.socket])
    assert ids(messages) == ['sockets.E008'] * 2
    assert 'on_say() needs' in messages[0].msg and "'room'" in messages[0].msg
    assert r'(?P<room>\w+)' in messages[0].hint
    assert only([route_class(Room.socket.Handler, path=r'^/room/(?P<room>\w+)/$')], [Room.socket]) == []


def test_every_router_of_a_view_is_known_to_the_check():
    class Page(View):
        socket = SocketRouter()

    assert Page.socket in router.attached_routers


@pytest.mark.django_db
def test_a_check_runs_no_query(only, django_assert_num_queries):
    with django_assert_num_queries(0):
        only([])
        checks.check_installed()
        checks.check_settings()


SETTINGS = '''
    SECRET_KEY = 'x'
    DEBUG = True
    ROOT_URLCONF = 'project'
    INSTALLED_APPS = {apps}
    MIDDLEWARE = ['django.contrib.sessions.middleware.SessionMiddleware',
                  'django.contrib.auth.middleware.AuthenticationMiddleware']
    CHANNEL_LAYERS = {layers}
'''
PROJECT = '''
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
'''
APPS = ['django.contrib.auth', 'django.contrib.contenttypes', 'django.contrib.sessions', 'channels', 'sockets']
LAYERS = {'default': {'BACKEND': 'asgiref.inmemory.ChannelLayer', 'ROUTING': 'project.routing'}}
ROUTED = "route_class(MyPage.socket.Handler, path='^/mypage/$')"


@pytest.mark.parametrize('installed, layers, routing, words', [
    (APPS, LAYERS, ROUTED, ['no issues']),
    pytest.param(APPS[:-1], LAYERS, ROUTED, ["add 'sockets' to INSTALLED_APPS"], marks=pytest.mark.skipif(
        sys.version_info >= (3, 12), reason="without us, Channels' own ready() fails here")),
    (APPS[:3] + APPS[4:], LAYERS, ROUTED, ['sockets.E001', "Add 'channels' to INSTALLED_APPS"]),
    (APPS[:2] + APPS[3:], LAYERS, ROUTED, ['sockets.E002', "Add 'django.contrib.sessions' to INSTALLED_APPS"]),
    (APPS, {}, ROUTED, ['sockets.E004', 'Add CHANNEL_LAYERS']),
    (APPS, LAYERS, '', ['sockets.W003', 'Add route_class(MyPage.socket.Handler, path=']),
])
def test_manage_py_check_names_the_step_that_was_forgotten(tmp_path, installed, layers, routing, words):
    (tmp_path / 'settings.py').write_text(textwrap.dedent(SETTINGS).format(apps=installed, layers=layers))
    (tmp_path / 'project.py').write_text(textwrap.dedent(PROJECT).format(routing=routing))
    process = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'django', 'check', '--settings', 'settings'], cwd=str(tmp_path),
        env={'PYTHONPATH': '{}:{}'.format(tmp_path, ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for word in words:
        assert word in process.stdout.decode()


@pytest.mark.parametrize('engine, age, found', [
    ('postgresql', 0, ['sockets.W004']), ('mysql', None, []), ('postgresql', 60, []), ('sqlite3', 0, [])])
def test_a_worker_that_connects_to_the_database_for_every_frame_is_pointed_out(settings, engine, age, found):
    settings.DATABASES = {'default': {'ENGINE': 'django.db.backends.' + engine, 'CONN_MAX_AGE': age}}
    assert ids(checks.check_database()) == found
    # Django's default.
    settings.DATABASES = {'default': {'ENGINE': 'django.db.backends.' + engine}}
    assert ids(checks.check_database()) == (['sockets.W004'] if engine != 'sqlite3' else [])


@pytest.mark.parametrize('name', ['PURGE_INTERVAL', 'MAX_CONNECTIONS_PER_USER', 'MAX_CONNECTIONS_PER_ADDRESS',
                                  'MAX_FRAMES_PER_SECOND', 'MAX_BAD_FRAMES'])
def test_a_limit_is_a_number_or_none(settings, name):
    for value, expected in ((None, []), (5, []), (0, ['sockets.E007']), ('5', ['sockets.E007'])):
        settings.SOCKETS = {name: value}
        assert ids(checks.check_settings()) == expected
