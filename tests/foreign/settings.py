import os

from sockets.engines import prepare

SECRET_KEY = 'tests only'
ALLOWED_HOSTS = ['*']
ROOT_URLCONF = 'tests.foreign.urls'
USE_TZ = True
DEFAULT_AUTO_FIELD = 'django.db.models.AutoField'
AUTH_USER_MODEL = 'foreign.Member'
SESSION_ENGINE = os.environ.get('SESSION_ENGINE', 'tests.foreign.sessions')
INSTALLED_APPS = [
    'django.contrib.auth',
    'django.contrib.contenttypes',
    # For its table, to which a row can refer; nothing is in it.
    'django.contrib.sessions',
    'channels',
    'sockets',
    'tests.foreign',
    *os.environ.get('MORE_APPS', '').split(),
]
SESSIONS_MIDDLEWARE = os.environ.get('SESSION_MIDDLEWARE', 'django.contrib.sessions.middleware.SessionMiddleware')
MIDDLEWARE = [SESSIONS_MIDDLEWARE, 'django.contrib.auth.middleware.AuthenticationMiddleware']
DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}}
if prepare() == 'sockets.engines.channels1':
    CHANNEL_LAYERS = {
        'default': {'BACKEND': 'sockets.layers.InMemoryChannelLayer', 'ROUTING': 'tests.foreign.urls.routing'}
    }
else:
    CHANNEL_LAYERS = {'default': {'BACKEND': 'channels.layers.InMemoryChannelLayer'}}
    SOCKETS = {'ROUTING': 'tests.foreign.urls.routing'}
