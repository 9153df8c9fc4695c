"""What the sites of the live tests say of the stack that they run on, in one place: settings, and how daphne is started."""

import os

from sockets.engines import prepare

ON_CHANNELS_1 = prepare() == 'sockets.engines.channels1'

# Which layer of channels_redis is between processes on Channels 4: ``core`` or ``pubsub``.
LAYER = os.environ.get('LAYER', 'core')

# The application of servers on Channels 4.
APPLICATION = 'tests.live.asgi.application'


def channel_layers(routing, redis_url, backend='sockets.layers.RedisChannelLayer', prefix=None, **options):
    """Return the setting of that name; without ``redis_url``, of which several have a space between, it is one in memory.

    Channels 1 has ``backend`` and its ``options``. Channels 4 has a layer of channels_redis as it comes.
    """
    hosts = redis_url.split()
    config = {'hosts': hosts, **({'prefix': prefix} if prefix else {})} if hosts else {}
    if ON_CHANNELS_1:
        backend = backend if hosts else 'sockets.layers.InMemoryChannelLayer'
        return {'default': {'BACKEND': backend, 'CONFIG': {**config, **options}, 'ROUTING': routing}}
    backend = {
        'core': 'channels_redis.core.RedisChannelLayer',
        'pubsub': 'channels_redis.pubsub.RedisPubSubChannelLayer',
    }[LAYER]
    return {'default': {'BACKEND': backend if hosts else 'channels.layers.InMemoryChannelLayer', 'CONFIG': config}}


def routed(routing):
    """Return what ``SOCKETS`` says of ``routing``, a dotted path. On Channels 1, the layer says it."""
    return {} if ON_CHANNELS_1 else {'ROUTING': routing}


def daphne(port, *options, project='tests.live'):
    """Return the arguments with which Python runs daphne for ``project``, on ``port`` of this machine."""
    name = 'channel_layer' if ON_CHANNELS_1 else 'application'
    return [
        '-c',
        'from daphne.cli import CommandLineInterface as C; C.entrypoint()',
        *('-b', '127.0.0.1', '-p', str(port)),
        *options,
        f'{project}.asgi:{name}',
    ]
