"""What ``manage.py check`` says about a project: each finding with an id, the reason and the remedy."""
import difflib
import ipaddress

from django.apps import apps
from django.conf import settings
from django.core.checks import Error, Warning, register
from django.db import DEFAULT_DB_ALIAS

from . import conf
from .router import attached_routers

_APPS = (
    ('channels', 'sockets.E001', 'runserver and runworker are its commands'),
    ('django.contrib.sessions', 'sockets.E002', 'a connection belongs to a session'),
    ('django.contrib.auth', 'sockets.E003', 'a connection belongs to a user'),
)
_MIDDLEWARE = (
    ('django.contrib.sessions.middleware.SessionMiddleware', 'sockets.W001'),
    ('django.contrib.auth.middleware.AuthenticationMiddleware', 'sockets.W002'),
)


@register('sockets')
def check_installed(app_configs=None, **kwargs):
    """E001 to E003: apps that ``sockets`` needs; W001, W002: middleware that gives pages their session and user."""
    found = [Error('{!r} is not in INSTALLED_APPS, but {}.'.format(app, why),
                   hint='Add {!r} to INSTALLED_APPS.'.format(app), id=id)
             for app, id, why in _APPS if not apps.is_installed(app)]
    # A subclass of the middleware serves as well, and its name is free.
    return found + [Warning('No {} in MIDDLEWARE: pages get no session, and every socket is anonymous.'.format(
                                path.rpartition('.')[2]),
                            hint='Add {!r} to MIDDLEWARE.'.format(path), id=id)
                    for path, id in _MIDDLEWARE
                    if not any(entry.endswith(path.rpartition('.')[2]) for entry in settings.MIDDLEWARE or ())]


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
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


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


_VALUES = (
    ('CHANNEL_LAYER', lambda value: isinstance(value, str), 'Give a name of CHANNEL_LAYERS.'),
    ('MAX_MESSAGE_SIZE', _is_count, 'Give a number of bytes.'),
    ('SEND_TIMEOUT', _is_number, 'Give a number of seconds.'),
    ('LAST_PING_RESOLUTION', _is_number, 'Give a number of seconds.'),
    ('PURGE_INTERVAL', _is_number_or_none, 'Give a number of seconds, or None.'),
    ('MAX_CONNECTIONS_PER_USER', _is_count_or_none, 'Give a number of connections, or None.'),
    ('MAX_CONNECTIONS_PER_ADDRESS', _is_count_or_none, 'Give a number of connections, or None.'),
    ('MAX_FRAMES_PER_SECOND', _is_number_or_none, 'Give a number of frames, or None.'),
    ('MAX_BAD_FRAMES', _is_count_or_none, 'Give a number of frames, or None.'),
    ('ALLOWED_ORIGINS', lambda value: value is None or _is_list(value),
     "Give a list of hosts as in ALLOWED_HOSTS, such as ['example.com', '.example.org'], or None."),
    ('REQUIRE_ORIGIN', lambda value: isinstance(value, bool), 'Give True or False.'),
    ('TRUSTED_PROXIES', _are_networks, "Give a list like ['127.0.0.1', '10.0.0.0/8', 'unix']."),
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
def check_routing(app_configs=None, **kwargs):
    """E004, E005: the channel layer; W003: handlers that no routing leads to; E008: URL arguments not there."""
    alias = conf.CHANNEL_LAYER
    if not apps.is_installed('channels'):
        return []
    if alias not in getattr(settings, 'CHANNEL_LAYERS', {}):
        return [Error('CHANNEL_LAYERS has no {!r}.'.format(alias), id='sockets.E004', hint=(
            "Add CHANNEL_LAYERS = {{{!r}: {{'BACKEND': 'sockets.layers.InMemoryChannelLayer', "
            "'ROUTING': '<project>.routing.channel_routing'}}}}.".format(alias)))]
    from . import transport
    reason = transport.routing_error(alias)
    if reason is not None:
        return [Error("CHANNEL_LAYERS[{!r}] cannot be used. {}".format(alias, reason), id='sockets.E005',
                      hint='Correct its BACKEND, CONFIG or ROUTING.')]
    _import_views()
    routed = transport.routed_consumers(alias)
    return _unrouted([consumer for consumer, _ in routed]) + _missing_arguments(routed)


def _import_views():
    from django.urls import get_resolver
    try:
        get_resolver().url_patterns
    except Exception:
        pass  # Django's own check of the URLconf says what is wrong with it.


def _unrouted(consumers):
    classes = [consumer for consumer in consumers if isinstance(consumer, type)]
    names = {router.Handler: '{}.{}.Handler'.format(router.view.__name__, router.name) for router in attached_routers}
    return [
        Warning('{} is in no routing: its websocket will be refused.'.format(name), obj=handler, id='sockets.W003',
                hint=r"Add route_class({}, path=r'^/path/of/the/page/$') to the ROUTING of your channel layer.".format(
                    name))
        for handler, name in sorted([*names.items(), *_unbuilt_on(names)], key=lambda item: item[1])
        if not any(issubclass(consumer, handler) for consumer in classes)]


def _unbuilt_on(known):
    """Return the handler classes, with their names, that no other class builds on: what is left to be routed."""
    from .handlers import RoutedSocketHandler
    found, classes = [], [RoutedSocketHandler]
    while classes:
        handler = classes.pop()
        classes += handler.__subclasses__()
        if not handler.__subclasses__() and handler not in known and handler is not RoutedSocketHandler:
            found.append((handler, handler.__name__))
    return found


def _missing_arguments(routed):
    from .handlers import RoutedSocketHandler
    found = []
    for handler, names in routed:
        if not (isinstance(handler, type) and issubclass(handler, RoutedSocketHandler)):
            continue
        for function in handler.functions():
            for name in function.missing(names):
                found.append(Error(
                    '{}() needs {!r}, which the path of {} does not give.'.format(
                        function.function.__qualname__, name, handler.__name__),
                    hint=r'Name it in the path, as in (?P<{}>\w+), or give it a default.'.format(name),
                    obj=handler, id='sockets.E008'))
    return found
