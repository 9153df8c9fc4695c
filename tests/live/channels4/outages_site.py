"""The small site on a database, and with a store of sessions, that a test takes away."""

import os

from tests.live.channels4.site import *  # noqa: F403
from tests.live.channels4.site import DATABASES
from tests.settings import database_at

if 'DATABASE_URL' in os.environ:
    DATABASES = {'default': database_at(os.environ['DATABASE_URL'])}
else:
    # Seconds that a query waits for a lock.
    DATABASES['default']['OPTIONS']['timeout'] = 0.5
if 'CACHE' in os.environ:
    SESSION_ENGINE = 'django.contrib.sessions.backends.cache'
    CACHES = {
        'default': {'BACKEND': 'django.core.cache.backends.redis.RedisCache', 'LOCATION': os.environ['CACHE']},
    }
