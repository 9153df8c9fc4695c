"""The project that the live tests run, on the Redis and the database of the environment."""

import os

from tests.live import stack
from tests.settings import *  # noqa: F403
from tests.settings import database_at

DATABASES = {'default': database_at(os.environ['DATABASE_URL'], CONN_MAX_AGE=60)}
# On Channels 1, daphne drops a disconnect for which there is no room. Its mailbox for replies stays as small as it is: 100.
CHANNEL_LAYERS = stack.channel_layers(
    'tests.live.handlers.routing',
    os.environ['REDIS_URL'],
    'asgi_redis.RedisChannelLayer',
    channel_capacity={'websocket.*': 10000},
)
ASGI_APPLICATION = stack.APPLICATION
SOCKETS = stack.routed('tests.live.handlers.routing')
ALLOWED_HOSTS = ['localhost', '127.0.0.1']
