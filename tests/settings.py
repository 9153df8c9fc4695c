"""A project as small as the library allows."""
import os

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
MIDDLEWARE = [
    'django.contrib.sessions.middleware.SessionMiddleware',
    'django.contrib.auth.middleware.AuthenticationMiddleware',
    'django.contrib.messages.middleware.MessageMiddleware',
]
TEMPLATES = [{
    'BACKEND': 'django.template.backends.django.DjangoTemplates',
    'APP_DIRS': True,
    'OPTIONS': {'context_processors': [
        'django.contrib.auth.context_processors.auth',
        'django.contrib.messages.context_processors.messages',
    ]},
}]
DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}}
if os.environ.get('TEST_POSTGRES_DSN'):
    import urllib.parse
    _dsn = urllib.parse.urlsplit(os.environ['TEST_POSTGRES_DSN'])
    DATABASES['default'] = {
        'ENGINE': 'django.db.backends.postgresql', 'NAME': _dsn.path[1:], 'HOST': _dsn.hostname,
        'PORT': _dsn.port, 'USER': _dsn.username, 'PASSWORD': _dsn.password or '',
    }
PASSWORD_HASHERS = ['django.contrib.auth.hashers.MD5PasswordHasher']
CHANNEL_LAYERS = {'default': {'BACKEND': 'asgiref.inmemory.ChannelLayer', 'ROUTING': 'tests.routing.routing'}}
