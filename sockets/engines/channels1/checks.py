"""What ``manage.py check`` says about channel layers and their routings. docs/checks.md is the list."""

import re

from django.conf import settings
from django.core.checks import Error, Warning, register

from ... import conf
from ...checks.installation import is_checkable
from ...declaration.arguments import NameTaken
from ...router import ViewInRouting
from ...routes import covers
from . import routing
from .channel_layer import channel_layer

# The channels that all connections share on a stock layer, what happens when they are full, and how many messages they
# should hold: a fan-out is one message for each connection.
_SHARED = (
    ('websocket.receive', 'daphne closes connections with 1013 when more frames wait'),
    ('daphne.response.x!', 'a message to more connections has to wait'),
)
_ROOM = 1000

# Seconds: the default of group_expiry, which in turn is what daphne takes where no --websocket_timeout is given.
_DAY = 86400


@register('sockets')
def check_layer(app_configs=None, **kwargs):
    """E010: a layer that cannot read what it writes; W005: a small capacity; W006: groups that end early; W012: a stock
    layer without a time-out.
    """
    layer = _usable_layer()
    if layer is None:
        return []
    return [*_unreadable(layer), *_small(layer), *_short_lived(layer), *_without_timeout(layer)]


@register('sockets', deploy=True)
def check_processes(app_configs=None, **kwargs):
    """W007: an in-memory layer, where several processes are to be expected (``check --deploy``)."""
    layer = _usable_layer()
    if layer is None or not layer.local_only():
        return []
    return [
        Warning(
            'The in-memory layer reaches its own process only: what a second server, a shell, a task or a WSGI '
            'server sends arrives nowhere.',
            id='sockets.W007',
            hint=(
                "Set 'BACKEND': 'sockets.layers.RedisChannelLayer' and 'CONFIG': {'hosts': "
                f"['redis://127.0.0.1:6379/0']}} in CHANNEL_LAYERS[{conf.CHANNEL_LAYER!r}]. If one runsockets is all there is: "
                "SILENCED_SYSTEM_CHECKS = ['sockets.W007']."
            ),
        )
    ]


def _usable_layer():
    """Return the channel layer, or ``None`` if ``check_routing`` says what is wrong with it."""
    if not is_checkable():
        return None
    return channel_layer() if routing.routing_error(conf.CHANNEL_LAYER) is None else None


def _unreadable(layer):
    if not hasattr(layer, 'deserialize'):
        return
    try:
        layer.deserialize(layer.serialize({'text': ''}))
    except TypeError as error:
        import msgpack

        yield Error(
            'CHANNEL_LAYERS[{!r}] cannot read what it writes, and each worker dies of its first message: {}. '
            'msgpack {} has overwritten the msgpack-python that asgi_redis needs.'.format(
                conf.CHANNEL_LAYER, error, '.'.join(map(str, msgpack.version))
            ),
            id='sockets.E010',
            hint=(
                'Type: pip uninstall -y msgpack; pip install --force-reinstall --no-deps msgpack-python '
                "'autobahn<25'. Or set 'BACKEND': 'sockets.layers.RedisChannelLayer', which reads both."
            ),
        )


def _small(layer):
    # Layers with send_many() have a capacity for each connection.
    if hasattr(layer, 'send_many') or not hasattr(layer, 'get_capacity'):
        return
    ours, config = 'RedisChannelLayer', "'channel_capacity': {'websocket.*': 10000, 'daphne.response.*': 10000}"
    rooms = [layer.get_capacity(channel) for channel, _ in _SHARED]
    if layer.local_only():
        # The stock one has no other capacity.
        ours, config, rooms = 'InMemoryChannelLayer', "'capacity': 10000", [layer.capacity] * len(_SHARED)
    effects = [effect for (_, effect), room in zip(_SHARED, rooms) if room < _ROOM]
    if effects:
        yield Warning(
            'CHANNEL_LAYERS[{!r}] holds {} messages for all connections together: {}.'.format(
                conf.CHANNEL_LAYER, min(rooms), ', and '.join(effects)
            ),
            id='sockets.W005',
            # Ours does not support Sentinel.
            hint='Add {} to its CONFIG{}.'.format(
                config,
                ''
                if hasattr(layer, 'services')
                else (f", or set 'BACKEND': 'sockets.layers.{ours}', which has room for each"),
            ),
        )


def _short_lived(layer):
    expiry = getattr(layer, 'group_expiry', _DAY)
    if expiry < _DAY:
        yield Warning(
            f"CHANNEL_LAYERS[{conf.CHANNEL_LAYER!r}] has 'group_expiry': {expiry}. Servers close a websocket after as many seconds; "
            'one that --websocket_timeout keeps open longer drops out of its groups.',
            id='sockets.W006',
            hint=f"Set 'group_expiry': {_DAY} in its CONFIG, or leave it out.",
        )


def _without_timeout(layer):
    # Ours has a time-out of its own. A layer with Sentinel has no such list.
    if hasattr(layer, 'send_many'):
        return
    for client in getattr(layer, '_connection_list', ()):
        if not client.connection_pool.connection_kwargs.get('socket_timeout'):
            yield Warning(
                f'CHANNEL_LAYERS[{conf.CHANNEL_LAYER!r}] waits for a Redis that hangs for as long as it hangs, and so does each '
                'frame that needs it.',
                id='sockets.W012',
                hint="Add 'connection_kwargs': {'socket_timeout': 10} to its CONFIG, or set 'BACKEND': "
                "'sockets.layers.RedisChannelLayer', which has a time-out.",
            )
            return


@register('sockets')
def check_routing(app_configs=None, **kwargs):
    """E004, E005, E009: the channel layer and its routing; E012: URL arguments whose names are taken; W010: paths that
    never match.
    """
    if not is_checkable():
        return []
    alias = conf.CHANNEL_LAYER
    if alias not in getattr(settings, 'CHANNEL_LAYERS', {}):
        return [
            Error(
                f'CHANNEL_LAYERS has no {alias!r}.',
                id='sockets.E004',
                hint=(
                    f"Add CHANNEL_LAYERS = {{{alias!r}: {{'BACKEND': 'sockets.layers.InMemoryChannelLayer', "
                    "'ROUTING': '<project>.routing.channel_routing'}}."
                ),
            )
        ]
    error = routing.routing_error(alias)
    if isinstance(error, ViewInRouting):
        return [
            Error(
                f'The ROUTING of CHANNEL_LAYERS[{alias!r}] names the view {error.view.__name__}, which is not a consumer.',
                hint=error.remedy,
                obj=error.view,
                id='sockets.E009',
            )
        ]
    if isinstance(error, NameTaken):
        return [Error(error.reason, hint=error.remedy, obj=error.handler, id='sockets.E012')]
    if error is not None:
        return [
            Error(
                f'CHANNEL_LAYERS[{alias!r}] cannot be used. {type(error).__name__}: {error}',
                hint='Correct its BACKEND, CONFIG or ROUTING.',
                id='sockets.E005',
            )
        ]
    return list(_hidden_paths(routing.routed(alias)))


def _hidden_paths(routed):
    for index, entry in enumerate(routed):
        if not routing.is_consumer_of_ours(entry.consumer):
            continue
        earlier = next((other for other in routed[:index] if _takes_all(other, entry)), None)
        name, path = entry.consumer.__name__, _path(entry)
        if earlier is not None:
            yield Warning(
                'The path {} of {} can never match: {} of {} comes before it.'.format(
                    path, name, _path(earlier), getattr(earlier.consumer, '__name__', earlier.consumer)
                ),
                obj=entry.consumer,
                id='sockets.W010',
                hint='Remove one of them, move it up in the ROUTING, or end the other path with $.',
            )
        first = next((regexes['path'].pattern for regexes in entry.conditions if 'path' in regexes), '')
        if _WITHOUT_SLASH.match(first):
            yield Warning(
                f'The path {path} of {name} can never match: a path begins with a slash.',
                obj=entry.consumer,
                id='sockets.W010',
                hint="Write path=r'^/{}'.".format(first.lstrip('^')),
            )


# A name, and nothing that would make its first letter optional.
_WITHOUT_SLASH = re.compile(r'\^?\w(?![*?{])[^|]*$')


def _path(entry):
    """Return the path of an entry of a routing as it is written there."""
    return ' + '.join(repr(regexes['path'].pattern) for regexes in entry.conditions if 'path' in regexes) or '(any)'


def _takes_all(entry, other):
    """Whether ``entry`` of a routing takes all that would come to ``other``, as far as that can be told."""
    *around, own = entry.conditions
    # Each of them sees what those before it have not matched.
    theirs = other.conditions[len(around) :]
    return (
        other.channels <= entry.channels
        and theirs
        and other.conditions[: len(around)] == tuple(around)
        and all(name in theirs[0] and covers(regex, theirs[0][name]) for name, regex in own.items())
    )
