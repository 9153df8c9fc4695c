"""What ``manage.py check`` says about a project: each finding with an id, the reason and the remedy.

None of them asks a database, Redis or anybody else. docs/checks.md is the list.
"""
import difflib
import ipaddress
import re

from django.apps import apps
from django.conf import settings
from django.core.checks import Error, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS

from .. import conf
from ..access import security
from . import views as view_checks
from ..declaration.arguments import NameTaken
from ..router import ViewInRouting, attached_routers
from ..routes import covers

# The mailboxes that all connections share on a stock layer, what comes of it when they are full, and how many messages
# they should hold: a message to so many connections is as many messages.
_SHARED = (
    ('websocket.receive', 'daphne closes connections with 1013 when more frames wait'),
    ('daphne.response.x!', 'a message to more connections has to wait'),
)
_ROOM = 1000

# Seconds: the default of group_expiry, which in turn is what daphne takes where no --websocket_timeout is given.
_DAY = 86400

_APPS = (
    ('channels', 'sockets.E001', 'runserver and runworker are its commands'),
    ('django.contrib.sessions', 'sockets.E002', 'the rows of connections refer to its table'),
    ('django.contrib.auth', 'sockets.E003', 'a connection belongs to a user'),
)
# Engines that keep sessions in the table of django.contrib.sessions.
_IN_ITS_TABLE = ('django.contrib.sessions.backends.db', 'django.contrib.sessions.backends.cached_db')
_MIDDLEWARE = (
    ('django.contrib.sessions.middleware.SessionMiddleware', 'sockets.W001'),
    ('django.contrib.auth.middleware.AuthenticationMiddleware', 'sockets.W002'),
)


@register('sockets')
def check_installed(app_configs=None, **kwargs):
    """E001 to E003: apps that ``sockets`` needs; W001, W002: middleware that gives pages their session and user."""
    found = [Error('{!r} is not in INSTALLED_APPS, but {}.'.format(app, why),
                   hint='Add {!r} to INSTALLED_APPS.{}'.format(app, _stays_unused(app)), id=id)
             for app, id, why in _APPS if not apps.is_installed(app)]
    # A subclass of the middleware serves as well, and its name is free.
    return found + [Warning('No {} in MIDDLEWARE: pages get no session, and every socket is anonymous.'.format(
                                path.rpartition('.')[2]),
                            hint='Add {!r} to MIDDLEWARE.'.format(path), id=id)
                    for path, id in _MIDDLEWARE
                    if not any(entry.endswith(path.rpartition('.')[2]) for entry in settings.MIDDLEWARE or ())]


def _stays_unused(app):
    """Return what to say to a site that keeps its sessions elsewhere, and may well go without Django's app."""
    engine = settings.SESSION_ENGINE
    if app != 'django.contrib.sessions' or engine in _IN_ITS_TABLE:
        return ''
    return (' Your SESSION_ENGINE, {!r}, stays as it is: the app stands beside it, and its table stays empty. That mends '
            'fields.E300 and E307 of sockets.Socket.session as well.'.format(engine))


@register('sockets')
def check_settings(app_configs=None, **kwargs):
    """E006: names in ``SOCKETS`` that do not exist, E007: values that make no sense."""
    given = getattr(settings, 'SOCKETS', {})
    if not isinstance(given, dict):
        return [Error('SOCKETS is not a dict.', hint="Write SOCKETS = {'MAX_MESSAGE_SIZE': 65536}.",
                      id='sockets.E007')]
    found = []
    for name in given:
        if name not in conf.DEFAULTS:
            close = difflib.get_close_matches(str(name).upper(), conf.DEFAULTS, n=1)
            found.append(Error('SOCKETS has no setting {!r}.'.format(name), id='sockets.E006',
                               hint='Did you mean {!r}?'.format(close[0]) if close else
                               'There are: {}.'.format(', '.join(conf.DEFAULTS))))
    for name, valid, remedy in _VALUES:
        if name in given and not valid(given[name]):
            found.append(Error("SOCKETS['{}'] is {!r}.".format(name, given[name]), hint=remedy, id='sockets.E007'))
    return found


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float('inf')


def _is_number_or_none(value):
    return value is None or _is_number(value)


def _is_count(value):
    return _is_number(value) and isinstance(value, int)


def _is_count_or_none(value):
    return value is None or _is_count(value)


def _is_list(value):
    return isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(entry, str) for entry in value)


def _are_networks(value):
    try:
        return _is_list(value) and all(entry == 'unix' or ipaddress.ip_network(entry) for entry in value)
    except ValueError:
        return False


def _is_header_or_none(value):
    # Servers drop headers with an underscore, and HTTP_X_REAL_IP is what Django calls X-Real-IP.
    return value is None or isinstance(value, str) and bool(re.fullmatch('[A-Za-z0-9-]+', value)) and (
        value.lower() != 'forwarded')


_VALUES = (
    ('CHANNEL_LAYER', lambda value: isinstance(value, str), 'Give a name of CHANNEL_LAYERS.'),
    ('MAX_MESSAGE_SIZE', _is_count, 'Give a number of bytes.'),
    ('MAX_BINARY_SIZE', _is_count_or_none, 'Give a number of bytes, or None.'),
    ('SEND_TIMEOUT', _is_number, 'Give a number of seconds.'),
    ('LAST_PING_RESOLUTION', _is_number, 'Give a number of seconds.'),
    ('PURGE_INTERVAL', _is_number_or_none, 'Give a number of seconds, or None.'),
    ('MAX_CONNECTIONS_PER_USER', _is_count_or_none, 'Give a number of connections, or None.'),
    ('MAX_CONNECTIONS_PER_ADDRESS', _is_count_or_none, 'Give a number of connections, or None.'),
    ('MAX_FRAMES_PER_SECOND', _is_number_or_none, 'Give a number of frames, or None.'),
    ('MAX_BAD_FRAMES', _is_count_or_none, 'Give a number of frames, or None.'),
    ('MAX_HANDLING_TIME', _is_number_or_none, 'Give a number of seconds, or None.'),
    ('HANDSHAKE_TIMEOUT', _is_number_or_none, 'Give a number of seconds, or None.'),
    ('MIDDLEWARE', _is_list, "Give a list of dotted paths, such as ['mysite.middleware.audit']."),
    ('ALLOWED_ORIGINS', lambda value: value is None or _is_list(value),
     "Give a list of hosts as in ALLOWED_HOSTS and of whole origins, such as ['example.com', 'file://'], or None."),
    ('REQUIRE_ORIGIN', lambda value: isinstance(value, bool), 'Give True or False.'),
    ('TRUSTED_PROXIES', _are_networks, "Give a list like ['127.0.0.1', '10.0.0.0/8', 'unix']."),
    ('CLIENT_ADDRESS_HEADER', _is_header_or_none, "Give the name of a header as your proxy writes it, with hyphens, such "
     "as 'X-Forwarded-For' or 'X-Real-IP'. (Forwarded is not understood.)"),
    ('ROOT_PATH_HEADER', _is_header_or_none, "Give the name of a header, such as 'X-Script-Name', or None."),
    ('CREDENTIALS', _is_list, "Give a list of names of headers, query parameters and cookies, such as "
     "[*sockets.conf.DEFAULTS['CREDENTIALS'], 'X-My-Key']."),
    ('MAX_BODY_SIZE', _is_count_or_none, 'Give a number of bytes, or None.'),
)


@register('sockets')
def check_database(app_configs=None, **kwargs):
    """W004: a worker that connects to the database anew for every frame."""
    database = settings.DATABASES.get(DEFAULT_DB_ALIAS, {})
    # SQLite's connections cost nothing.
    if database.get('CONN_MAX_AGE', 0) != 0 or 'sqlite' in database.get('ENGINE', 'sqlite'):
        return []
    return [Warning('CONN_MAX_AGE is 0: a worker connects to the database anew for every frame that uses it.',
                    hint="Add 'CONN_MAX_AGE': 60 to DATABASES['default'].", id='sockets.W004')]


@register('sockets')
def check_relations(app_configs=None, **kwargs):
    """W011: foreign keys that would keep a connection's row from being removed."""
    # An app without Socket has been told so.
    if not apps.is_installed('sockets'):
        return []
    from ..models import Socket
    return [Warning('{} has a constraint, and rows of connections are removed without asking who refers to them: '
                    'its database will refuse.'.format(relation.field), obj=relation.related_model,
                    hint='Give it db_constraint=False, and delete its rows in a disconnect function.',
                    id='sockets.W011')
            for relation in Socket._meta.related_objects if relation.field.db_constraint]


@register('sockets')
def check_origins(app_configs=None, **kwargs):
    """W008: hosts of which none can be that of a page; origins that no browser says."""
    if not _can_look():
        return []
    name = 'ALLOWED_HOSTS' if conf.ALLOWED_ORIGINS is None else "SOCKETS['ALLOWED_ORIGINS']"
    hosts = settings.ALLOWED_HOSTS if conf.ALLOWED_ORIGINS is None else conf.ALLOWED_ORIGINS
    # With DEBUG, no host at all means this machine.
    # What has a scheme is one origin as a whole.
    if not _is_list(hosts):
        return []
    if any(security.origin_allowed(host if '://' in host or host == security.NULL else 'http://' + host, host)
           for host in (*hosts, 'localhost')):
        useless = sorted(entry for entry in conf.ALLOWED_ORIGINS or () if not security.can_match(entry))
        return [Warning("SOCKETS['ALLOWED_ORIGINS'] has {}, which no browser says.".format(
                            ', '.join(map(repr, useless))), id='sockets.W008', hint=(
                        "Write a host without port ('example.com', '.example.com'), a whole origin as browsers send it "
                        "('http://localhost:3000', 'capacitor://localhost', 'file://'), or 'null'."))
                ] if useless else []
    return [Warning('{} is {!r}: the websocket of every page is refused with HTTP 403.'.format(name, hosts),
                    hint="Name the hosts of your pages, without http:// and port: {} = ['example.com'].".format(name),
                    id='sockets.W008')]


@register('sockets')
def check_proxies(app_configs=None, **kwargs):
    """W013: proxies that are believed, and no word about which of their headers."""
    given = getattr(settings, 'SOCKETS', {})
    if not isinstance(given, dict) or not given.get('TRUSTED_PROXIES') or given.get('CLIENT_ADDRESS_HEADER'):
        return []
    return [Warning("SOCKETS['TRUSTED_PROXIES'] names proxies, and nothing says which header they write. Of one that "
                    'sets another and passes X-Forwarded-For on, each client chooses its own address.',
                    hint="Set SOCKETS['CLIENT_ADDRESS_HEADER'] to the header that your proxy writes itself, such as "
                         "'X-Forwarded-For' or 'X-Real-IP'.", id='sockets.W013')]


@register('sockets')
def check_layer(app_configs=None, **kwargs):
    """E010: a layer that cannot read what it writes; W005: one with little room; W006: groups that end early; W012: a
    stock one that waits for Redis for ever.
    """
    layer = _usable_layer()
    if layer is None:
        return []
    return [*_unreadable(layer), *_narrow(layer), *_short_lived(layer), *_patient(layer)]


@register('sockets', deploy=True)
def check_processes(app_configs=None, **kwargs):
    """W007: an in-memory layer, where several processes are to be expected (``check --deploy``)."""
    layer = _usable_layer()
    if layer is None or not layer.local_only():
        return []
    return [Warning('The in-memory layer reaches its own process only: what a second server, a shell, a task or a WSGI '
                    'server sends arrives nowhere.', id='sockets.W007', hint=(
                        "Set 'BACKEND': 'sockets.layers.RedisChannelLayer' and 'CONFIG': {{'hosts': "
                        "['redis://127.0.0.1:6379/0']}} in CHANNEL_LAYERS[{!r}]. If one runsockets is all there is: "
                        "SILENCED_SYSTEM_CHECKS = ['sockets.W007'].".format(conf.CHANNEL_LAYER)))]


def _can_look():
    """Whether there is anything to look at, as ``check_installed`` and ``check_settings`` say."""
    return apps.is_installed('channels') and isinstance(getattr(settings, 'SOCKETS', {}), dict)


def _usable_layer():
    """Return the channel layer, or ``None`` if ``check_routing`` says what is wrong with it."""
    if not _can_look():
        return None
    from ..engines.channels1 import transport
    return transport.channel_layer() if transport.routing_error(conf.CHANNEL_LAYER) is None else None


def _unreadable(layer):
    if not hasattr(layer, 'deserialize'):
        return
    try:
        layer.deserialize(layer.serialize({'text': ''}))
    except TypeError as error:
        import msgpack
        yield Error('CHANNEL_LAYERS[{!r}] cannot read what it writes, and each worker dies of its first message: {}. '
                    'msgpack {} has overwritten the msgpack-python that asgi_redis needs.'.format(
                        conf.CHANNEL_LAYER, error, '.'.join(map(str, msgpack.version))), id='sockets.E010', hint=(
                    "Type: pip uninstall -y msgpack; pip install --force-reinstall --no-deps msgpack-python "
                    "'autobahn<25'. Or set 'BACKEND': 'sockets.layers.RedisChannelLayer', which reads both."))


def _narrow(layer):
    # Those that know send_many() have room for each connection.
    if hasattr(layer, 'send_many') or not hasattr(layer, 'get_capacity'):
        return
    ours, config = 'RedisChannelLayer', "'channel_capacity': {'websocket.*': 10000, 'daphne.response.*': 10000}"
    rooms = [layer.get_capacity(channel) for channel, _ in _SHARED]
    if layer.local_only():
        # The stock one looks at nothing else.
        ours, config, rooms = 'InMemoryChannelLayer', "'capacity': 10000", [layer.capacity] * len(_SHARED)
    effects = [effect for (_, effect), room in zip(_SHARED, rooms) if room < _ROOM]
    if effects:
        yield Warning('CHANNEL_LAYERS[{!r}] holds {} messages for all connections together: {}.'.format(
                          conf.CHANNEL_LAYER, min(rooms), ', and '.join(effects)), id='sockets.W005',
                      # Ours asks no Sentinel.
                      hint='Add {} to its CONFIG{}.'.format(config, '' if hasattr(layer, 'services') else (
                          ", or set 'BACKEND': 'sockets.layers.{}', which has room for each".format(ours))))


def _short_lived(layer):
    expiry = getattr(layer, 'group_expiry', _DAY)
    if expiry < _DAY:
        yield Warning("CHANNEL_LAYERS[{!r}] has 'group_expiry': {}. Servers close a websocket after as many seconds; "
                      'one that --websocket_timeout keeps open longer drops out of its groups.'.format(
                          conf.CHANNEL_LAYER, expiry), id='sockets.W006',
                      hint="Set 'group_expiry': {} in its CONFIG, or leave it out.".format(_DAY))


def _patient(layer):
    # Ours has a time-out of its own. What a Sentinel's layer does is known to the Sentinel.
    if hasattr(layer, 'send_many'):
        return
    for client in getattr(layer, '_connection_list', ()):
        if not client.connection_pool.connection_kwargs.get('socket_timeout'):
            yield Warning('CHANNEL_LAYERS[{!r}] waits for a Redis that hangs for as long as it hangs, and so does each '
                          'frame that needs it.'.format(conf.CHANNEL_LAYER), id='sockets.W012',
                          hint="Add 'connection_kwargs': {'socket_timeout': 10} to its CONFIG, or set 'BACKEND': "
                               "'sockets.layers.RedisChannelLayer', which has a time-out.")
            return


@register('sockets')
def check_routing(app_configs=None, **kwargs):
    """E004, E005, E009: the channel layer and its routing; W003: handlers that it does not lead to; E008: URL arguments
    not there; E011: middleware that is none; E012: URL arguments whose names are taken; W009, W010: routes and paths
    that never match; W016: sockets that are open where their page is not; W017: functions that are not those of the
    subclass.
    """
    if not _can_look():
        return []
    alias = conf.CHANNEL_LAYER
    if alias not in getattr(settings, 'CHANNEL_LAYERS', {}):
        return [Error('CHANNEL_LAYERS has no {!r}.'.format(alias), id='sockets.E004', hint=(
            "Add CHANNEL_LAYERS = {{{!r}: {{'BACKEND': 'sockets.layers.InMemoryChannelLayer', "
            "'ROUTING': '<project>.routing.channel_routing'}}}}.".format(alias)))]
    from ..engines.channels1 import transport
    error = transport.routing_error(alias)
    if isinstance(error, ViewInRouting):
        return [Error('The ROUTING of CHANNEL_LAYERS[{!r}] names the view {}, which is no consumer.'.format(
                          alias, error.view.__name__), hint=error.remedy, obj=error.view, id='sockets.E009')]
    if isinstance(error, NameTaken):
        return [Error(error.reason, hint=error.remedy, obj=error.handler, id='sockets.E012')]
    if error is not None:
        return [Error('CHANNEL_LAYERS[{!r}] cannot be used. {}: {}'.format(alias, type(error).__name__, error),
                      hint='Correct its BACKEND, CONFIG or ROUTING.', id='sockets.E005')]
    _import_views()
    routed = transport.routed(alias)
    return [*_unrouted(routed), *_missing_arguments(routed), *_broken_middleware(routed), *_hidden_routes(routed),
            *_hidden_paths(routed),
            *view_checks.look(attached_routers, [entry.consumer for entry in filter(_is_ours, routed)])]


def _is_ours(entry):
    from ..handlers import RoutedSocketHandler
    return isinstance(entry.consumer, type) and issubclass(entry.consumer, RoutedSocketHandler)


def _import_views():
    from django.urls import get_resolver
    try:
        get_resolver().url_patterns
    except Exception:
        pass  # Django's own check of the URLconf says what is wrong with it.


def _unrouted(routed):
    classes = [entry.consumer for entry in routed if isinstance(entry.consumer, type)]
    classes += [handler for consumer in classes for handler in getattr(consumer, 'streams', {}).values()]
    names = {router.Handler: '{}.{}.Handler'.format(router.view.__name__, router.name) for router in attached_routers
             if not _is_of_tests(router.view.__module__)}
    return [
        Warning('{} is in no routing: its websocket will be refused.'.format(name), obj=handler, id='sockets.W003',
                hint=r"Add route_class({}, path=r'^/path/of/the/page/$') to the ROUTING of your channel layer.".format(
                    name))
        for handler, name in sorted([*names.items(), *_unbuilt_on(names)], key=lambda item: item[1])
        if not any(issubclass(consumer, handler) for consumer in classes)]


def _unbuilt_on(known):
    """Return the handler classes, with their names, that no other class builds on: what is left to be routed."""
    from ..handlers import RoutedSocketHandler
    from ..multiplexing import SocketDemultiplexer, Stream
    found, classes = [], [RoutedSocketHandler]
    while classes:
        handler = classes.pop()
        # What a test builds on a class does not route it.
        builds_on_it = [cls for cls in handler.__subclasses__() if not _is_of_tests(cls.__module__)]
        classes += builds_on_it
        if not (builds_on_it or handler in known or issubclass(handler, Stream) or
                handler in (RoutedSocketHandler, SocketDemultiplexer)):
            found.append((handler, handler.__name__))
    return found


def _is_of_tests(module):
    return any(_TESTS.match(part) for part in module.split('.'))


# As Django and pytest find them.
_TESTS = re.compile(r'(tests?|test_.*|.*_tests?|conftest)$')


def _missing_arguments(routed):
    for entry in filter(_is_ours, routed):
        names = {name for regexes in entry.conditions for regex in regexes.values() for name in regex.groupindex}
        for function in entry.consumer.functions():
            for name in function.missing(names):
                yield Error('{}() needs {!r}, which the path of {} does not give.'.format(
                                function.function.__qualname__, name, entry.consumer.__name__),
                            hint=r'Name it in the path, as in (?P<{}>\w+), or give it a default.'.format(name),
                            obj=entry.consumer, id='sockets.E008')


def _broken_middleware(routed):
    for entry in filter(_is_ours, routed):
        try:
            entry.consumer.build_middleware()
        except ImproperlyConfigured as error:
            yield Error(str(error), obj=entry.consumer, id='sockets.E011', hint=(
                "Correct it in SOCKETS['MIDDLEWARE'], or in the middleware of the class."))


def _hidden_routes(routed):
    """Say which routes of a class another one of the same class hides. A class may hide those of its bases."""
    classes = dict.fromkeys(
        cls for entry in filter(_is_ours, routed) for cls in entry.consumer.__mro__ if hasattr(cls, 'own_routes'))
    for handler in classes:
        routes = handler.own_routes()
        for index, route in enumerate(routes):
            later = next((other for other in routes[index + 1:] if covers(other.pattern, route.pattern)), None)
            if later is not None:
                yield Warning('{!r} of {} can never match: {!r}, defined after it, takes all that it would.'.format(
                                  route, handler.__name__, later), obj=handler, id='sockets.W009',
                              hint='Remove one of them, or define the one that is to win last.')


def _hidden_paths(routed):
    for index, entry in enumerate(routed):
        if not _is_ours(entry):
            continue
        earlier = next((other for other in routed[:index] if _takes_all(other, entry)), None)
        name, path = entry.consumer.__name__, _path(entry)
        if earlier is not None:
            yield Warning('The path {} of {} can never match: {} of {} comes before it.'.format(
                              path, name, _path(earlier), getattr(earlier.consumer, '__name__', earlier.consumer)),
                          obj=entry.consumer, id='sockets.W010',
                          hint='Remove one of them, move it up in the ROUTING, or end the other path with $.')
        first = next((regexes['path'].pattern for regexes in entry.conditions if 'path' in regexes), '')
        if _WITHOUT_SLASH.match(first):
            yield Warning('The path {} of {} can never match: a path begins with a slash.'.format(path, name),
                          obj=entry.consumer, id='sockets.W010',
                          hint="Write path=r'^/{}'.".format(first.lstrip('^')))


# A name, and nothing that would make its first letter optional.
_WITHOUT_SLASH = re.compile(r'\^?\w(?![*?{])[^|]*$')


def _path(entry):
    """Return the path of an entry of a routing as it is written there."""
    return ' + '.join(repr(regexes['path'].pattern) for regexes in entry.conditions if 'path' in regexes) or '(any)'


def _takes_all(entry, other):
    """Whether ``entry`` of a routing takes all that would come to ``other``, as far as that can be told."""
    *around, own = entry.conditions
    # Each of them sees what those before it have left over.
    theirs = other.conditions[len(around):]
    return (other.channels <= entry.channels and theirs and other.conditions[:len(around)] == tuple(around) and
            all(name in theirs[0] and covers(regex, theirs[0][name]) for name, regex in own.items()))
