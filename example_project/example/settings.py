"""SQLite and one process by default; ``DATABASE_URL`` and ``REDIS_URL`` in the environment change that.

It runs on Channels 1 and on Channels 4. A project of yours has one of them, and only its lines.
"""

import os
from urllib.parse import unquote, urlsplit

import channels
from django.core.exceptions import ImproperlyConfigured

# '1' or '4'.
CHANNELS = channels.__version__.partition('.')[0]

BASE_DIR = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

DEBUG = os.environ.get('DEBUG', '1').lower() not in ('', '0', 'false', 'no')
SECRET_KEY = os.environ.get('SECRET_KEY', 'known to everyone, good enough to try it out')
# Pages of these hosts may open a websocket too, see SOCKETS['ALLOWED_ORIGINS'].
ALLOWED_HOSTS = os.environ.get('ALLOWED_HOSTS', 'localhost,127.0.0.1,[::1]').split(',')

INSTALLED_APPS = [
    # Before staticfiles: both have a runserver, and the first one wins. On Channels 1 it is that of channels.
    *(['daphne'] if CHANNELS == '4' else []),
    'chat',
    'sockets',
    'channels',
    'django.contrib.admin',
    'django.contrib.auth',
    'django.contrib.contenttypes',
    'django.contrib.messages',
    'django.contrib.sessions',
    'django.contrib.staticfiles',
]

MIDDLEWARE = [
    'django.middleware.security.SecurityMiddleware',
    'django.contrib.sessions.middleware.SessionMiddleware',
    'django.middleware.common.CommonMiddleware',
    'django.middleware.csrf.CsrfViewMiddleware',
    'django.contrib.auth.middleware.AuthenticationMiddleware',
    'django.contrib.messages.middleware.MessageMiddleware',
    'django.middleware.clickjacking.XFrameOptionsMiddleware',
]

ROOT_URLCONF = 'example.urls'

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

REDIS_URL = os.environ.get('REDIS_URL')

if CHANNELS == '4':
    ASGI_APPLICATION = 'example.asgi.application'
    CHANNEL_LAYERS = {
        'default': {'BACKEND': 'channels_redis.core.RedisChannelLayer', 'CONFIG': {'hosts': [REDIS_URL]}}
        if REDIS_URL
        else {'BACKEND': 'channels.layers.InMemoryChannelLayer'}
    }
elif REDIS_URL:
    CHANNEL_LAYERS = {
        'default': {
            'BACKEND': 'sockets.layers.RedisChannelLayer',
            'CONFIG': {'hosts': [REDIS_URL]},
            'ROUTING': 'example.routing.channel_routing',
        }
    }
else:
    CHANNEL_LAYERS = {
        'default': {
            'BACKEND': 'sockets.layers.InMemoryChannelLayer',
            'ROUTING': 'example.routing.channel_routing',
        }
    }


def database(url):
    """Return the entry of DATABASES for ``postgres://user:password@host:port/name``."""
    parts = urlsplit(url)
    if parts.scheme not in ('postgres', 'postgresql'):
        raise ImproperlyConfigured(
            f'DATABASE_URL begins with {parts.scheme!r}; this project knows postgres://user:password@'
            'host:port/name, and SQLite when it is not set.'
        )
    return {
        'ENGINE': 'django.db.backends.postgresql',
        'NAME': unquote(parts.path[1:]),
        'USER': unquote(parts.username or ''),
        'PASSWORD': unquote(parts.password or ''),
        'HOST': unquote(parts.hostname or ''),
        'PORT': parts.port or '',
        # With 0, Django's default, a worker would connect anew for every frame.
        'CONN_MAX_AGE': 60,
    }


if os.environ.get('DATABASE_URL'):
    DATABASES = {'default': database(os.environ['DATABASE_URL'])}
else:
    DATABASES = {
        'default': {
            'ENGINE': 'django.db.backends.sqlite3',
            # Each has a Django of its own, and so tables of its own.
            'NAME': os.path.join(BASE_DIR, 'db.sqlite3' if CHANNELS == '1' else 'db-channels4.sqlite3'),
            # Several workers write, and SQLite lets one at a time: seconds that the others wait for it.
            'OPTIONS': {'timeout': 20},
        }
    }

LOGIN_URL = 'login'
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = 'home'

# Name and password of the accounts that `manage.py demo_accounts` makes and the login page shows.
DEMO_ACCOUNTS = {'alice': 'in-wonderland', 'bob': 'the-builder'} if DEBUG else {}

DEFAULT_AUTO_FIELD = 'django.db.models.AutoField'
LANGUAGE_CODE = 'en'
TIME_ZONE = 'UTC'
USE_TZ = True
STATIC_URL = '/static/'
