"""A project as small as the library allows."""

import os
import tempfile
from importlib.util import find_spec
from urllib.parse import urlsplit

import django

from sockets.engines import prepare

SECRET_KEY = 'tests only'
ALLOWED_HOSTS = ['example.com']
ROOT_URLCONF = 'tests.urls'
USE_TZ = True
STATIC_URL = '/static/'
INSTALLED_APPS = [
    'django.contrib.admin',
    'django.contrib.auth',
    'django.contrib.contenttypes',
    'django.contrib.messages',
    'django.contrib.sessions',
    'channels',
    'sockets',
]
if find_spec('rest_framework'):
    # Its table of tokens.
    INSTALLED_APPS.append('rest_framework.authtoken')
MIDDLEWARE = [
    'django.contrib.sessions.middleware.SessionMiddleware',
    'django.contrib.auth.middleware.AuthenticationMiddleware',
    'django.contrib.messages.middleware.MessageMiddleware',
]
TEMPLATES = [
    {
        'BACKEND': 'django.template.backends.django.DjangoTemplates',
        'APP_DIRS': True,
        'OPTIONS': {
            'context_processors': [
                'django.template.context_processors.request',
                'django.contrib.auth.context_processors.auth',
                'django.contrib.messages.context_processors.messages',
            ]
        },
    }
]


def database_at(url, **options):
    """Return the entry of ``DATABASES`` for ``url``, and what else it shall say."""
    parts = urlsplit(url)
    if parts.scheme == 'sqlite':
        return {'ENGINE': 'django.db.backends.sqlite3', 'NAME': parts.path}
    found = {
        'NAME': parts.path[1:],
        'HOST': parts.hostname,
        'PORT': parts.port,
        'USER': parts.username,
        'PASSWORD': parts.password or '',
        **options,
    }
    if parts.scheme != 'mysql':
        return {'ENGINE': 'django.db.backends.postgresql', **found}
    import pymysql

    pymysql.install_as_MySQLdb()
    if django.VERSION < (3, 0):
        from django.db.backends.mysql.operations import DatabaseOperations

        # Django 2.2 takes what the driver notes for bytes.
        DatabaseOperations.last_executed_query = lambda self, cursor, sql, params: getattr(cursor, '_executed', None)
    return {'ENGINE': 'django.db.backends.mysql', 'OPTIONS': {'charset': 'utf8mb4'}, **found}


DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}}
if prepare() == 'sockets.engines.channels1':
    # A file: threads that meet at a table of SQLite's ":memory:" fail at once, whatever their time-out. On Channels 4, there
    # would be heartbeats beside the tests, which nobody needs to send where no other process sees the database.
    DATABASES['default']['OPTIONS'] = {'timeout': 20}
    DATABASES['default']['TEST'] = {
        'NAME': os.path.join(
            '/dev/shm' if os.path.isdir('/dev/shm') else tempfile.gettempdir(), f'sockets-{os.getpid()}.db'
        )
    }
if os.environ.get('TEST_DATABASE_URL'):
    DATABASES['default'] = database_at(os.environ['TEST_DATABASE_URL'])
PASSWORD_HASHERS = ['django.contrib.auth.hashers.MD5PasswordHasher']
if prepare() == 'sockets.engines.channels1':
    CHANNEL_LAYERS = {'default': {'BACKEND': 'asgiref.inmemory.ChannelLayer', 'ROUTING': 'tests.routing.routing'}}
else:
    CHANNEL_LAYERS = {'default': {'BACKEND': 'channels.layers.InMemoryChannelLayer'}}
    SOCKETS = {'ROUTING': 'tests.routing.routing'}
