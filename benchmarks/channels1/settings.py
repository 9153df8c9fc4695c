"""The project that Channels 1.x runs in the benchmarks, ours and the stock one, on the layer of the environment."""

import os
from urllib.parse import urlsplit

SECRET_KEY = 'benchmarks only'
ALLOWED_HOSTS = ['127.0.0.1']
ROOT_URLCONF = 'benchmarks.channels1.handlers'
USE_TZ = True
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
CHANNEL_LAYERS = {
    'default': {
        'BACKEND': os.environ['LAYER'],
        # A thousand clients connect at once. What the stock layer keeps for the replies of a daphne stays as it is: 100.
        'CONFIG': {'channel_capacity': {'websocket.*': 10000}},
        'ROUTING': 'benchmarks.channels1.handlers.routing',
    }
}
if os.environ['LAYER'].endswith('.RedisChannelLayer'):
    CHANNEL_LAYERS['default']['CONFIG']['hosts'] = [os.environ['REDIS_URL']]
