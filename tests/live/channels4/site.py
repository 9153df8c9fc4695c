"""The settings, the routing and the ASGI application of a small site. The environment says where it keeps its rows."""

import os

SECRET_KEY = 'tests only'
DEBUG = bool(os.environ.get('DEBUG'))
ALLOWED_HOSTS = ['*']
INSTALLED_APPS = [
    *(['daphne'] if os.environ.get('DAPHNE') else []),
    'django.contrib.auth',
    'django.contrib.contenttypes',
    'django.contrib.sessions',
    'django.contrib.staticfiles',
    'channels',
    'sockets',
]
MIDDLEWARE = [
    'django.contrib.sessions.middleware.SessionMiddleware',
    'django.contrib.auth.middleware.AuthenticationMiddleware',
]
STATIC_URL = '/static/'
DATABASES = {
    'default': {
        'ENGINE': 'django.db.backends.sqlite3',
        'NAME': os.environ.get('DATABASE', ':memory:'),
        'OPTIONS': {'timeout': 20},
    }
}
ASGI_APPLICATION = 'tests.live.channels4.{}.application'.format(os.environ.get('ASGI', 'asgi'))
ROOT_URLCONF = 'tests.live.channels4.pages'
USE_TZ = True
REDIS_URL = os.environ.get('REDIS_URL')
CHANNEL_LAYERS = {
    'default': {'BACKEND': 'channels_redis.core.RedisChannelLayer', 'CONFIG': {'hosts': [REDIS_URL]}}
    if REDIS_URL
    else {'BACKEND': 'channels.layers.InMemoryChannelLayer'}
}
SOCKETS = {'MAX_HANDLING_TIME': float(os.environ['MAX_HANDLING_TIME'])} if os.environ.get('MAX_HANDLING_TIME') else {}
LOGGING = {
    'version': 1,
    'disable_existing_loggers': False,
    'handlers': {'console': {'class': 'logging.StreamHandler'}},
    'root': {'handlers': ['console'], 'level': 'WARNING'},
}
