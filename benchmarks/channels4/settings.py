"""The project that Channels 4 runs in the benchmarks, ours and its own consumers."""

import os
from urllib.parse import urlsplit

SECRET_KEY = 'benchmarks only'
ALLOWED_HOSTS = ['127.0.0.1']
INSTALLED_APPS = [
    'django.contrib.auth',
    'django.contrib.contenttypes',
    'django.contrib.sessions',
    'channels',
    'sockets',
]
MIDDLEWARE = [
    'django.contrib.sessions.middleware.SessionMiddleware',
    'django.contrib.auth.middleware.AuthenticationMiddleware',
]
# asgi.py leads to our handlers, and a process that handles the end of connections looks there for them.
ASGI_APPLICATION = 'benchmarks.channels4.asgi.application'
USE_TZ = True
_database = urlsplit(os.environ['DATABASE_URL'])
DATABASES = {
    'default': {
        'ENGINE': 'django.db.backends.postgresql',
        'NAME': _database.path[1:],
        'HOST': _database.hostname,
        'PORT': _database.port,
        'USER': _database.username,
        'CONN_MAX_AGE': 60,
    }
}
# redis-py 8 gives up reading after five seconds, which is as long as channels_redis 4.3 waits for a message: without this a
# connection that nothing is sent to is closed with 1011.
_hosts = [{'address': os.environ['REDIS_URL'], 'socket_timeout': None}]
CHANNEL_LAYERS = {
    'default': {'BACKEND': os.environ['LAYER'], 'CONFIG': {'hosts': _hosts}},
    # With the capacity that it comes with.
    'sockets': {'BACKEND': os.environ['LAYER'], 'CONFIG': {'hosts': _hosts, 'prefix': 'sockets'}},
}
SOCKETS = {'CHANNEL_LAYER': 'sockets'}
if os.environ['LAYER'].endswith('.RedisChannelLayer'):
    # With its own 100 it throws away most of what a group of a thousand in one process is sent.
    CHANNEL_LAYERS['default']['CONFIG']['capacity'] = 10000
