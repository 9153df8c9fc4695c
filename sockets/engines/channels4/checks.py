"""What ``manage.py check`` says about the channel layer, the routing and the packages of Channels 4. docs/checks.md is the
list.
"""

import re
import traceback
from importlib import metadata, util

from django.apps import apps
from django.conf import settings
from django.core.checks import Error, Warning, register

from ... import conf
from ...checks.installation import is_checkable
from ...declaration.arguments import NameTaken
from ...router import ViewInRouting, attached_routers
from ...routes import covers
from . import layer, routing

# Messages that a layer should hold for a server: one for each fan-out. channels_redis has 100.
_ROOM = 100

_LAYERS = "CHANNEL_LAYERS = {'default': {'BACKEND': 'channels_redis.pubsub.RedisPubSubChannelLayer', 'CONFIG': {'hosts': ['redis://127.0.0.1:6379/0']}}}"
_IN_MEMORY = "CHANNEL_LAYERS = {'default': {'BACKEND': 'channels.layers.InMemoryChannelLayer'}}"
_APPLICATION = (
    "Write application = sockets.asgi.get_application('mysite.routing.channel_routing') in mysite/asgi.py, and "
    "ASGI_APPLICATION = 'mysite.asgi.application' in your settings."
)


@register('sockets')
def check_layer(app_configs=None, **kwargs):
    """E004, E005: the channel layer; E015: several Redis where messages arrive late; W005: a small capacity; W019: a
    redis-py that gives up waiting.
    """
    if not is_checkable():
        return []
    alias, configs = conf.CHANNEL_LAYER, getattr(settings, 'CHANNEL_LAYERS', {})
    if alias not in configs:
        # One process needs none.
        return _unnamed(alias) if configs or alias != 'default' else []
    try:
        found = layer.channel_layer()
    except Exception as error:
        return [_unusable(alias, configs[alias], error)]
    return [*_scattered(alias, found), *_small(alias, found), *_impatient(alias, found)]


def _unnamed(alias):
    return [Error(f'CHANNEL_LAYERS has no {alias!r}.', id='sockets.E004', hint=f'Add it: {_LAYERS}.')]


def _unusable(alias, config, error):
    backend = str(config.get('BACKEND'))
    remedy = 'Correct its BACKEND or CONFIG.'
    if backend.startswith(('sockets.layers.', 'asgi_redis.', 'asgiref.')):
        remedy = f'That is a layer of Channels 1. Write {_LAYERS}, or, for one process, {_IN_MEMORY}.'
    if 'ROUTING' in config:
        remedy = '{} The routing goes into asgi.py: {}'.format(
            'Take ROUTING out of CHANNEL_LAYERS.' if remedy.startswith('Correct') else remedy, _APPLICATION
        )
    elif backend.startswith('channels_redis') and util.find_spec('channels_redis') is None:
        remedy = "Type: pip install 'channels_redis>=4.3,<5' 'redis<8'"
    return Error(
        f'CHANNEL_LAYERS[{alias!r}] cannot be used. {type(error).__name__}: {error}', hint=remedy, id='sockets.E005'
    )


def _is_core(found):
    # A subclass waits as its base does.
    return any(base.__module__ == 'channels_redis.core' for base in type(found).__mro__)


def _scattered(alias, found):
    if _is_core(found) and getattr(found, 'ring_size', 1) > 1:
        yield Error(
            f'CHANNEL_LAYERS[{alias!r}] has {found.ring_size} hosts. channels_redis.core sends each message to the next one '
            'of them, and looks for it in one after the other: messages arrive seconds late, and out of order.',
            hint="Give it one host, or set 'BACKEND': 'channels_redis.pubsub.RedisPubSubChannelLayer', which uses several.",
            id='sockets.E015',
        )


def _small(alias, found):
    # That over pub/sub has none, and asks its event loop for what it has not.
    if layer.is_local() or not hasattr(type(found), 'get_capacity'):
        return
    room = found.get_capacity('sockets.x')
    if room < _ROOM:
        yield Warning(
            f'CHANNEL_LAYERS[{alias!r}] holds {room} messages for a server: while it is busy, more of them are waited for, '
            'and dropped.',
            hint="Leave 'capacity' out of its CONFIG, or add 'channel_capacity': {'sockets.*': 1000}.",
            id='sockets.W005',
        )


def _impatient(alias, found):
    version = _version('redis')
    if _is_core(found) and version >= (8,):
        yield Warning(
            'redis {} gives up reading after 5 s, which is how long CHANNEL_LAYERS[{!r}] waits for a message: consumers of '
            'Channels that are idle end with TimeoutError.'.format('.'.join(map(str, version)), alias),
            hint="Type: pip install 'redis<8'. Or set 'BACKEND': 'channels_redis.pubsub.RedisPubSubChannelLayer'.",
            id='sockets.W019',
        )


@register('sockets')
def check_versions(app_configs=None, **kwargs):
    """W020: an asgiref in which threads wait for each other for ever."""
    version = _version('asgiref')
    if version >= (3, 12):
        return []
    return [
        Warning(
            'asgiref {} has deadlocks between threads and coroutines that 3.12 mends: a page or an async def that uses '
            'sync_to_async may hang for ever.'.format('.'.join(map(str, version))),
            hint="Type: pip install 'asgiref>=3.12,<4'",
            id='sockets.W020',
        )
    ]


def _version(name):
    """Return the version of a distribution as numbers, ``()`` if it is not installed."""
    try:
        text = metadata.version(name)
    except metadata.PackageNotFoundError:
        return ()
    return tuple(int(number) for number in re.findall(r'\d+', text)[:3])


@register('sockets', deploy=True)
def check_processes(app_configs=None, **kwargs):
    """W007: no layer between processes, where several are to be expected (``check --deploy``)."""
    if not is_checkable() or layer.layer_error() is not None or not layer.is_local():
        return []
    which = 'There is no channel layer' if layer.channel_layer() is None else 'The in-memory layer reaches one process'
    return [
        Warning(
            f'{which}: what a second server, a shell, a task or a WSGI server sends arrives nowhere.',
            hint=f"Write {_LAYERS}. If one process is all there is: SILENCED_SYSTEM_CHECKS = ['sockets.W007'].",
            id='sockets.W007',
        )
    ]


@register('sockets')
def check_routing(app_configs=None, **kwargs):
    """E009, E012, E016: the routing; W010: paths that never match; W021: a routing without sockets; W023: middleware that
    logs people out.
    """
    if not is_checkable():
        return []
    error = routing.routing_error()
    if isinstance(error, ViewInRouting):
        return [
            Error(
                f'The routing names the view {error.view.__name__}, which is not a handler class.',
                hint=error.remedy,
                obj=error.view,
                id='sockets.E009',
            )
        ]
    if isinstance(error, NameTaken):
        return [Error(error.reason, hint=error.remedy, obj=error.handler, id='sockets.E012')]
    if error is not None:
        where = f'ASGI_APPLICATION, {settings.ASGI_APPLICATION!r},' if conf.ROUTING is None else "SOCKETS['ROUTING']"
        return [
            Error(
                f'{where} cannot be used. {type(error).__name__}: {error}',
                hint=_importable(error) or (_APPLICATION if conf.ROUTING is None else 'Correct it.'),
                id='sockets.E016',
            )
        ]
    found = routing.entries()
    return [*_empty(found), *_hidden_paths(found), *_logging_out()]


def _importable(error):
    """Return what to write where an import fails that the application does, ``None`` if it is the application itself."""
    if not isinstance(error, ImportError) or error.name == 'channels.asgi':
        return None
    for name in 'route_class', 'include':
        if f"import name {name!r} from 'channels" in str(error):
            return f'That is of Channels 1. Write: from sockets.routing import {name}'
    # The last file is the one with the line; below it is the machinery of imports, and so is all if nothing was found.
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith('<frozen ')]
    if not frames or not frames[-1].line.startswith(('from ', 'import ')):
        return None
    return f'Correct {frames[-1].filename}, line {frames[-1].lineno}: {frames[-1].line}'


def _empty(found):
    if found or not attached_routers:
        return
    if conf.ROUTING is not None:
        text, remedy = "SOCKETS['ROUTING'] is empty", 'Add route_class(<View>.socket.Handler, path=...) to it.'
    elif getattr(settings, 'ASGI_APPLICATION', None) is None:
        text, remedy = 'There is no ASGI_APPLICATION', _APPLICATION
    else:
        text = f'ASGI_APPLICATION, {settings.ASGI_APPLICATION!r}, leads to no handler class'
        remedy = (
            f'{_APPLICATION} Where middleware of your own hides the routing, name that as well: SOCKETS = '
            "{'ROUTING': 'mysite.routing.channel_routing'}."
        )
    yield Warning(
        f'{text}: other processes cannot run the disconnect functions of a server that was killed, and manage.py sockets '
        'describe knows of none.',
        hint=remedy,
        id='sockets.W021',
    )


def _hidden_paths(found):
    compiled = [(entry, re.compile(entry.pattern)) for entry in found]
    for index, (entry, regex) in enumerate(compiled):
        name = entry.handler.__name__
        earlier = next((other for other, before in compiled[:index] if covers(before, regex)), None)
        if earlier is not None:
            yield Warning(
                f'The path {entry.pattern!r} of {name} can never match: {earlier.pattern!r} of {earlier.handler.__name__} comes '
                'before it.',
                obj=entry.handler,
                id='sockets.W010',
                hint='Remove one of them, move it up in the routing, or end the other path with $.',
            )
        if _WITHOUT_SLASH.match(entry.pattern):
            yield Warning(
                f'The path {entry.pattern!r} of {name} can never match: a path begins with a slash.',
                obj=entry.handler,
                id='sockets.W010',
                hint="Write path=r'^/{}'.".format(entry.pattern.lstrip('^')),
            )


# A name, and nothing that would make its first letter optional.
_WITHOUT_SLASH = re.compile(r'\^?\w(?![*?{])[^|]*$')


def _logging_out():
    if not getattr(settings, 'SECRET_KEY_FALLBACKS', ()) or getattr(settings, 'ASGI_APPLICATION', None) is None:
        return
    for application in routing.applications():
        if any(base.__module__ == 'channels.auth' for base in type(application).__mro__):
            yield Warning(
                'Your routing has AuthMiddlewareStack around it, which does not know SECRET_KEY_FALLBACKS: it ends the '
                'session of everybody who has logged in with an older SECRET_KEY.',
                hint='Take it away from what leads to handlers of sockets: socket.user needs none.',
                id='sockets.W023',
            )
            return


@register('sockets')
def check_runserver(app_configs=None, **kwargs):
    """W022: a runserver that serves no websockets."""
    # Nobody uses it in production.
    if not settings.DEBUG or apps.is_installed('daphne'):
        return []
    install = '' if util.find_spec('daphne') else "Type: pip install 'daphne>=4.2,<5'; then add"
    return [
        Warning(
            "'daphne' is not in INSTALLED_APPS: runserver serves pages, and no websockets.",
            hint=f"{install or 'Add'} 'daphne' to INSTALLED_APPS, as its first entry. Or develop with runsockets.",
            id='sockets.W022',
        )
    ]
