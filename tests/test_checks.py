import re
import sys

import pytest
from django.apps import apps
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter, checks, engine, router
from sockets.checks import handlers as handler_checks
from sockets.models import Membership
from sockets.multiplexing import SocketDemultiplexer
from sockets.routing import route_class
from sockets.testing import sandbox

from .servers import ROOT


def ids(messages):
    return [message.id for message in messages]


@pytest.mark.parametrize(
    'app, id',
    [
        pytest.param('channels', 'sockets.E001', marks=pytest.mark.channels1('nothing of Channels 4 has to be an app')),
        ('django.contrib.sessions', 'sockets.E002'),
        ('django.contrib.auth', 'sockets.E003'),
    ],
)
def test_an_app_that_is_not_installed_is_named(monkeypatch, app, id):
    assert checks.check_installed() == []
    monkeypatch.setattr(apps, 'is_installed', lambda name: name != app)
    (message,) = checks.check_installed()
    assert message.id == id
    assert message.hint == f'Add {app!r} to INSTALLED_APPS.'


@pytest.mark.parametrize(
    'name, id', [('SessionMiddleware', 'sockets.W001'), ('AuthenticationMiddleware', 'sockets.W002')]
)
def test_middleware_that_is_missing_is_named(settings, name, id):
    settings.MIDDLEWARE = [path for path in settings.MIDDLEWARE if not path.endswith(name)]
    (message,) = checks.check_installed()
    assert message.id == id and name in message.hint


@pytest.mark.parametrize(
    'sockets, id, word',
    [
        ({'MAX_MESAGE_SIZE': 5}, 'sockets.E006', "'MAX_MESSAGE_SIZE'"),
        ({'max_message_size': 5}, 'sockets.E006', "'MAX_MESSAGE_SIZE'"),
        ({'NONSENSE': 5}, 'sockets.E006', 'MAX_MESSAGE_SIZE'),
        ({'MAX_MESSAGE_SIZE': '1MB'}, 'sockets.E007', 'bytes'),
        ({'MAX_MESSAGE_SIZE': 0}, 'sockets.E007', 'bytes'),
        ({'SEND_TIMEOUT': None}, 'sockets.E007', 'seconds'),
        ({'MAX_FRAMES_PER_SECOND': float('inf')}, 'sockets.E007', 'None'),
        ({'IDENTITY_MAX_AGE': None}, 'sockets.E007', 'or 0'),
        ({'IDENTITY_MAX_AGE': -1}, 'sockets.E007', 'or 0'),
        ({'IDENTITY_MAX_AGE': False}, 'sockets.E007', 'or 0'),
        ({'ALLOWED_ORIGINS': 'example.com'}, 'sockets.E007', 'list'),
        ({'REQUIRE_ORIGIN': 'yes'}, 'sockets.E007', 'True'),
        ({'TRUSTED_PROXIES': ['proxy.local']}, 'sockets.E007', '10.0.0.0/8'),
        ({'TRUSTED_PROXIES': '10.0.0.1'}, 'sockets.E007', '10.0.0.0/8'),
        ({'CLIENT_ADDRESS_HEADER': 'HTTP_X_REAL_IP'}, 'sockets.E007', 'hyphens'),
        ({'CLIENT_ADDRESS_HEADER': 'X-Real-IP:'}, 'sockets.E007', "'X-Real-IP'"),
        ({'CLIENT_ADDRESS_HEADER': 'X-Real-IP\n'}, 'sockets.E007', "'X-Real-IP'"),
        ({'CLIENT_ADDRESS_HEADER': ['X-Real-IP']}, 'sockets.E007', "'X-Real-IP'"),
        ({'CLIENT_ADDRESS_HEADER': 'Forwarded'}, 'sockets.E007', 'Forwarded is not understood'),
        ({'ROOT_PATH_HEADER': 'X_Script_Name'}, 'sockets.E007', 'X-Script-Name'),
        ({'ROOT_PATH_HEADER': ''}, 'sockets.E007', 'X-Script-Name'),
        ({'MAX_BODY_SIZE': 0}, 'sockets.E007', 'bytes'),
        ({'CHANNEL_LAYER': None}, 'sockets.E007', 'CHANNEL_LAYERS'),
        ({'MAX_BINARY_SIZE': True}, 'sockets.E007', 'bytes'),
        ('everything', 'sockets.E007', 'SOCKETS = {'),
    ],
)
def test_a_setting_that_makes_no_sense_is_named_with_its_remedy(settings, sockets, id, word):
    settings.SOCKETS = sockets
    (message,) = check_values()
    assert message.id == id and word in message.hint


def check_values():
    """Return what is said of names and values, but for those that have no effect on one engine (W018)."""
    return [message for message in checks.check_settings() if message.id != 'sockets.W018']


def test_sensible_settings_pass(settings):
    assert check_values() == []
    settings.SOCKETS = {
        'MAX_MESSAGE_SIZE': 100,
        'SEND_TIMEOUT': 0.5,
        'ALLOWED_ORIGINS': ['.example.com'],
        'REQUIRE_ORIGIN': True,
        'TRUSTED_PROXIES': ['10.0.0.0/8', 'unix', '::1'],
        'CLIENT_ADDRESS_HEADER': 'CF-Connecting-IP',
        'ROOT_PATH_HEADER': 'X-Script-Name',
        'MAX_BODY_SIZE': None,
        'CHANNEL_LAYER': 'default',
        'IDENTITY_MAX_AGE': 0,
    }
    assert check_values() == []


def test_proxies_that_are_trusted_without_a_header_are_asked_for_its_name(settings):
    settings.SOCKETS = {'TRUSTED_PROXIES': ['127.0.0.1']}
    (message,) = checks.check_proxies()
    assert message.id == 'sockets.W013' and "SOCKETS['CLIENT_ADDRESS_HEADER']" in message.hint
    for given in (
        {},
        'everything',
        {'TRUSTED_PROXIES': ['127.0.0.1'], 'CLIENT_ADDRESS_HEADER': 'X-Real-IP'},
        {'CLIENT_ADDRESS_HEADER': 'X-Real-IP'},
    ):
        settings.SOCKETS = given
        assert checks.check_proxies() == []


@pytest.fixture
def only(monkeypatch):
    """A function that checks a routing as if the project had only the given routers and handler classes."""

    def check(routing, routers=(), handlers=()):
        monkeypatch.setattr(handler_checks, 'attached_routers', set(routers))
        monkeypatch.setattr(handler_checks, '_leaves', lambda known: [(h, h.__name__) for h in handlers])
        with sandbox(routing=routing):
            return checks.check_handlers()

    return check


def test_a_view_whose_handler_is_in_no_routing_is_named(only):
    class Page(View):
        __module__ = 'shop.views'
        socket = SocketRouter()

    (message,) = only([], [Page.socket])
    assert message.id == 'sockets.W003'
    assert 'route_class(Page.socket.Handler, path=' in message.hint
    assert only([route_class(Page.socket.Handler)], [Page.socket]) == []
    # What builds on it serves it.
    assert only([route_class(type('Sub', (Page.socket.Handler,), {}))], [Page.socket]) == []


def test_a_handler_class_in_no_routing_is_named(only):
    class Lonely(RoutedSocketHandler):
        pass

    (message,) = only([], handlers=[Lonely])
    assert message.id == 'sockets.W003' and 'Lonely' in message.msg
    assert only([route_class(Lonely)], handlers=[Lonely]) == []


def test_a_handler_that_serves_a_stream_is_routed_with_its_demultiplexer(only):
    class Part(RoutedSocketHandler):
        pass

    class Whole(SocketDemultiplexer):
        streams = {'part': Part}

    assert only([route_class(Whole)], handlers=[Whole, Part]) == []
    assert ids(only([], handlers=[Part, Whole])) == ['sockets.W003', 'sockets.W003']
    assert not {handler for handler, _ in handler_checks._leaves({})} & {*Whole._streams.values(), SocketDemultiplexer}


@pytest.mark.parametrize(
    'module, is_named',
    [
        ('shop.handlers', True),
        ('latest.contest', True),
        ('shop.attest', True),
        ('shop.tests', False),
        ('shop.test_live', False),
        ('tests.shop', False),
        ('shop.tests.handlers', False),
        ('shop.live_test', False),
        ('conftest', False),
    ],
)
def test_what_a_test_module_defines_need_not_be_routed(only, monkeypatch, module, is_named):
    class Page(View):
        __module__ = module
        socket = SocketRouter()

    assert ids(only([], [Page.socket])) == ['sockets.W003'] * is_named
    monkeypatch.undo()
    # Another test may have left some.
    found = {handler for handler, _ in handler_checks._leaves({})}
    Real = type('Real', (RoutedSocketHandler,), {'__module__': 'shop.handlers'})
    Built = type('Built', (Real,), {'__module__': module})
    assert {handler for handler, _ in handler_checks._leaves({})} - found == {Built if is_named else Real}


def test_middleware_that_is_none_is_named(only, settings):
    class Plain(RoutedSocketHandler):
        pass

    class Broken(RoutedSocketHandler):
        middleware = ['no.such.thing']

    assert only([route_class(Plain)]) == []
    (message,) = only([route_class(Broken)])
    assert message.id == 'sockets.E011' and 'no.such.thing' in message.msg
    settings.SOCKETS = {'MIDDLEWARE': ['tests.test_checks.nothing']}
    assert 'tests.test_checks.nothing' in only([route_class(Plain)])[0].msg


def test_a_foreign_key_that_would_keep_a_row_is_named(monkeypatch):
    assert checks.check_relations() == []
    field = Membership._meta.get_field('socket')
    monkeypatch.setattr(field, 'db_constraint', True)
    (message,) = checks.check_relations()
    assert message.id == 'sockets.W011' and 'sockets.Membership.socket' in message.msg


def test_only_classes_that_nothing_builds_on_have_to_be_routed():
    class Base(RoutedSocketHandler):
        __module__ = 'shop.handlers'

    class Leaf(Base):
        __module__ = 'shop.handlers'

    found = [handler for handler, _ in handler_checks._leaves({})]
    assert Leaf in found and Base not in found and RoutedSocketHandler not in found
    assert Leaf not in [handler for handler, _ in handler_checks._leaves({Leaf: 'known'})]


def test_a_url_argument_that_on_bytes_needs_is_named_too(only):
    class Files(RoutedSocketHandler):
        def on_bytes(self, data, pk):
            pass

    (message,) = only([route_class(Files, path='^/files/$')])
    assert message.id == 'sockets.E008' and "on_bytes() needs 'pk'" in message.msg
    assert only([route_class(Files, path=r'^/files/(?P<pk>\d+)/$')]) == []


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


@pytest.fixture
def findings(settings, monkeypatch):
    """A function that returns the ids of what the checks say about names and values."""

    def check():
        return ids([*checks.check_settings(), *checks.check_origins()])

    return check


@pytest.mark.parametrize(
    'debug, hosts, sockets, found',
    [
        (False, [], {}, ['sockets.W008']),
        (True, [], {}, []),
        (False, ['example.com'], {}, []),
        (False, ['.example.com'], {}, []),
        (False, ['[::1]'], {}, []),
        (False, ['*'], {}, []),
        (False, ['https://example.com'], {}, ['sockets.W008']),
        (False, ['example.com:8000'], {}, ['sockets.W008']),
        (False, ['example.com'], {'ALLOWED_ORIGINS': []}, ['sockets.W008']),
        (False, ['example.com'], {'ALLOWED_ORIGINS': ['example.com:8000', 'example.org:80']}, ['sockets.W008']),
        (False, ['example.com'], {'ALLOWED_ORIGINS': ['http://localhost:3000']}, []),
        (False, ['example.com'], {'ALLOWED_ORIGINS': ['https://example.com', 'example.org']}, []),
        (False, [], {'ALLOWED_ORIGINS': ['*']}, []),
        (False, [], {'ALLOWED_ORIGINS': ['null']}, []),
        (False, [], {'ALLOWED_ORIGINS': ['file://']}, []),
        (False, [], {'ALLOWED_ORIGINS': ['example.com', 'null', 'file://', 'capacitor://localhost']}, []),
        (False, [], {'ALLOWED_ORIGINS': ['example.com', 'file://*']}, ['sockets.W008']),
        (False, [], {'ALLOWED_ORIGINS': ['example.com', 'example.com:8000', '*.example.org']}, ['sockets.W008']),
        # That is said by another check.
        (False, [], {'ALLOWED_ORIGINS': 'example.com'}, ['sockets.E007']),
    ],
)
def test_hosts_that_refuse_every_page_are_pointed_out(findings, settings, debug, hosts, sockets, found):
    settings.DEBUG, settings.ALLOWED_HOSTS, settings.SOCKETS = debug, hosts, sockets
    assert findings() == found


class Base(RoutedSocketHandler):
    routes = (*RoutedSocketHandler.routes, ('ADD', 'on_add'), (re.compile('MOVE_'), 'on_add'))

    def on_add(self, content):
        pass


@pytest.mark.parametrize(
    'patterns, hidden',
    [
        (['SUB'], []),
        (['SUB', 'SUB'], ["'SUB'"]),
        (['SUB', re.compile('S')], ["'SUB'"]),
        (['SUB', re.compile('S$')], []),
        (['SUB', re.compile('s')], []),
        # The last one wins, so this one is reached.
        ([re.compile('S'), 'SUB'], []),
        ([re.compile('S.*'), re.compile('S.*')], ["'S.*'"]),
        ([re.compile('S.*'), re.compile('S.*', re.IGNORECASE)], []),
        ([re.compile('^SUB$'), 'SUB'], ["'^SUB$'"]),
        ([re.compile('^SUB$', re.IGNORECASE), 'SUB'], []),
        (['SUB', 'MUL', 'SUB', re.compile('.')], ["'SUB'", "'MUL'", "'SUB'"]),
        # What a class has from its bases it may take over.
        (['ADD'], []),
        ([re.compile('.')], []),
        (['ADD', 'ADD'], ["'ADD'"]),
    ],
)
def test_a_route_that_another_one_of_its_class_hides_is_named(only, patterns, hidden):
    handler = type('Handler', (Base,), {'routes': (*Base.routes, *((pattern, 'on_add') for pattern in patterns))})
    messages = only([route_class(handler)])
    assert ids(messages) == ['sockets.W009'] * len(hidden)
    for message, pattern in zip(messages, hidden):
        assert message.msg.startswith(f'<Route {pattern} -> Base.on_add> of Handler can never match')


def test_a_view_may_take_over_what_another_view_answers_but_not_twice(only):
    class Page(View):
        socket = SocketRouter(handler=Base)

        @socket.route('ADD')
        def on_add(socket):
            pass

    class Twice(View):
        socket = SocketRouter(handler=Page.socket.Handler)

        @socket.route('ADD')
        def on_add(socket):
            pass

        @socket.route('ADD')
        def on_add_again(socket):
            pass

    assert only([route_class(Page.socket.Handler)]) == []
    (message,) = only([route_class(Twice.socket.Handler)])
    assert message.id == 'sockets.W009' and message.obj is Twice.socket.Handler
    assert 'Twice.on_add>' in message.msg and 'Twice.on_add_again>' in message.msg


@pytest.mark.parametrize(
    'pattern, sends, count',
    [
        ('RESUME', {}, 1),
        # These have always been for a site to answer in its own way, and no regex takes the place of RESUME.
        ('HELLO', {}, 0),
        ('PING', {}, 0),
        ('resume', {}, 0),
        (re.compile('RESUME$'), {}, 0),
        ('ADD', {'FOLLOWING': None}, 1),
        ('ADD', {'PING': None, 'SAID': None}, 0),
        ('RESUME', {'FOLLOWING': None}, 2),
    ],
)
@pytest.mark.parametrize('where', ['alone', 'base', 'demultiplexer'])
def test_what_takes_the_place_of_the_frames_of_streams_is_named(only, pattern, sends, count, where):
    # A client that came back got nothing of what it had missed, and no word.
    routes = (*RoutedSocketHandler.routes, (pattern, 'on_add'))
    handler = type('Handler', (Base,), {'routes': routes, 'sends': sends})
    if where == 'base':
        handler = type('Heir', (handler,), {})
    elif where == 'demultiplexer':
        handler = type('Whole', (SocketDemultiplexer,), {'streams': {'part': handler}})
    messages = only([route_class(handler)])
    assert ids(messages) == ['sockets.W024'] * count
    assert all('Handler' in message.msg for message in messages)


def test_the_list_of_checks_in_the_documentation_is_complete():
    files = [*(ROOT / 'sockets/checks').glob('*.py'), *(ROOT / 'sockets/engines').glob('*/*.py')]
    known = {id for path in files for id in re.findall(r'sockets\.[EW]\d{3}', path.read_text())}
    told = re.findall(r'^\| `(sockets\.[EW]\d{3})` \|', (ROOT / 'docs/checks.md').read_text(), re.MULTILINE)
    assert sorted(known) == sorted(told)


@pytest.mark.parametrize(
    'engine, age, found',
    [('postgresql', 0, ['sockets.W004']), ('mysql', None, []), ('postgresql', 60, []), ('sqlite3', 0, [])],
)
def test_a_worker_that_connects_to_the_database_for_every_frame_is_pointed_out(settings, engine, age, found):
    settings.DATABASES = {'default': {'ENGINE': 'django.db.backends.' + engine, 'CONN_MAX_AGE': age}}
    assert ids(checks.check_database()) == found
    # Django's default.
    settings.DATABASES = {'default': {'ENGINE': 'django.db.backends.' + engine}}
    assert ids(checks.check_database()) == (['sockets.W004'] if engine != 'sqlite3' else [])


@pytest.mark.parametrize(
    'name',
    [
        'PURGE_INTERVAL',
        'MAX_CONNECTIONS_PER_USER',
        'MAX_CONNECTIONS_PER_ADDRESS',
        'MAX_FRAMES_PER_SECOND',
        'MAX_BAD_FRAMES',
        'HANDSHAKE_TIMEOUT',
        'MAX_HANDLING_TIME',
        'STREAM_MAX_MESSAGES',
        'STREAM_MAX_AGE',
    ],
)
def test_a_limit_is_a_number_or_none(settings, name):
    for value, expected in ((None, []), (5, []), (0, ['sockets.E007']), ('5', ['sockets.E007'])):
        settings.SOCKETS = {name: value}
        assert ids(check_values()) == expected


@pytest.mark.parametrize('name', ['STREAM_MAX_MESSAGES', 'STREAM_MAX_AGE'])
def test_a_limit_of_streams_is_a_whole_number_that_their_tables_and_dates_hold(settings, name):
    for value, expected in (
        (2**31 - 1, []),
        (2**31, ['sockets.E007']),
        (0.5, ['sockets.E007']),
        (True, ['sockets.E007']),
    ):
        settings.SOCKETS = {name: value}
        assert ids(check_values()) == expected


@pytest.mark.parametrize(
    'names, id',
    [
        ([], []),
        (['django-routed-sockets'], []),
        (['django-routed-sockets-asgi'], []),
        (['django-routed-sockets', 'django-routed-sockets-asgi'], ['sockets.E014']),
    ],
)
def test_two_distributions_of_this_package_are_an_error(monkeypatch, names, id):
    from sockets.checks import installation

    monkeypatch.setattr(installation, '_is_distributed', lambda name: name in names)
    found = checks.check_distributions()
    assert ids(found) == id
    assert not found or 'pip uninstall -y django-routed-sockets django-routed-sockets-asgi' in found[0].hint


def test_what_is_installed_is_found_by_its_name():
    from sockets.checks import installation

    assert installation._is_distributed('Django') == (sys.version_info >= (3, 8))
    assert not installation._is_distributed('django-routed-sockets-of-nobody')


def test_what_was_built_in_a_checkout_is_not_installed(tmp_path, monkeypatch):
    # Two builds, one for each stack, and a test run from there found both distributions.
    from sockets.checks import installation

    info = tmp_path / 'django_routed_sockets_of_nobody.egg-info'
    info.mkdir()
    (info / 'PKG-INFO').write_text('Metadata-Version: 2.1\nName: django-routed-sockets-of-nobody\nVersion: 1\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not installation._is_distributed('django-routed-sockets-of-nobody')


@pytest.mark.parametrize('value', [0, '4', 2.5, True, None])
def test_threads_are_a_number(settings, value):
    settings.SOCKETS = {'THREADS': value}
    assert 'sockets.E007' in ids(checks.check_settings())


@pytest.mark.parametrize('value, is_right', [(None, True), ('a.b', True), ([], True), ({}, False), (5, False)])
def test_a_routing_is_a_list_or_its_path(settings, value, is_right):
    settings.SOCKETS = {'ROUTING': value}
    assert ('sockets.E007' in ids(checks.check_settings())) is not is_right


def test_a_setting_that_the_engine_does_not_know_is_named_with_what_does_the_same(settings):
    for name in engine.current().unused_settings:
        settings.SOCKETS = {name: DEFAULT.get(name, 10)}
        (message,) = checks.check_settings()
        assert message.id == 'sockets.W018' and name in message.msg and message.hint != 'Remove it. '


DEFAULT = {'ROUTING': 'mysite.routing', 'ROOT_PATH_HEADER': 'X-Script-Name'}


def test_a_pool_of_the_databases_driver_keeps_its_connections(settings):
    database = {'ENGINE': 'django.db.backends.postgresql', 'CONN_MAX_AGE': 0, 'OPTIONS': {'pool': True}}
    settings.DATABASES = {'default': database}
    assert checks.check_database() == []
    settings.DATABASES = {'default': {**database, 'OPTIONS': {}}}
    assert ids(checks.check_database()) == ['sockets.W004']
