"""The project that the live tests run, on the Redis and the database of the environment."""

import os

from tests.settings import *  # noqa: F403
from tests.settings import database_at

DATABASES = {'default': database_at(os.environ['DATABASE_URL'], CONN_MAX_AGE=60)}
CHANNEL_LAYERS = {
    'default': {
        'BACKEND': 'asgi_redis.RedisChannelLayer',
        # daphne drops a disconnect for which there is no room. Its mailbox for replies stays as small as it is: 100.
        'CONFIG': {'hosts': [os.environ['REDIS_URL']], 'channel_capacity': {'websocket.*': 10000}},
        'ROUTING': 'tests.live.handlers.routing',
    }
}
ALLOWED_HOSTS = ['localhost', '127.0.0.1']
