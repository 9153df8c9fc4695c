"""Fixtures: the layers that everything must work on, and connections through them."""

import sys
import threading

import pytest
from django.utils.module_loading import import_string

from sockets.testing import sandbox

from . import servers
from .client import ON_CHANNELS_1, Connection, StreamConnection

# The names of files say what runs on one of the two stacks only: its engine, and Channels 1's layers.
collect_ignore_glob = ['test_engines_channels4*'] if ON_CHANNELS_1 else ['test_engines_channels1*', 'test_layers*']


def pytest_collection_modifyitems(items):
    """Skip a test that is marked as one of the other stack. The mark says why."""
    other = 'channels4' if ON_CHANNELS_1 else 'channels1'
    for item in items:
        mark = item.get_closest_marker(other)
        if mark is not None:
            item.add_marker(pytest.mark.skip(reason=mark.args[0]))


# Whether or not this package is installed.
pytest_plugins = ['sockets.pytest_plugin']


@pytest.fixture(scope='session')
def redis_url(tmp_path_factory):
    """The URL of a real Redis."""
    with servers.redis_server(tmp_path_factory.mktemp('redis')) as url:
        yield url


@pytest.fixture(scope='session')
def reactor():
    """Twisted's reactor, which runs once in a process, in a thread as if it were in a server."""
    from twisted.internet import reactor

    thread = threading.Thread(target=lambda: reactor.run(installSignalHandlers=False), daemon=True)
    thread.start()
    yield reactor
    reactor.callFromThread(reactor.stop)
    thread.join(10)


@pytest.fixture(autouse=True)
def nobody_has_housekeeper(monkeypatch):
    """Keep a test from leaving work, or a thread that does it, to the next one."""
    from sockets import presence

    presence._unfinished.clear()
    monkeypatch.setattr(presence, 'start_housekeeper', lambda: None)
    if not ON_CHANNELS_1:
        from sockets.engines.channels4.server import Server

        # It has the server beat, and its connections compared with their rows.
        monkeypatch.setattr(Server, '_keep_account', lambda server: None)


STOCK_LAYERS = ['asgiref.inmemory.ChannelLayer', 'asgi_redis.RedisChannelLayer'] if ON_CHANNELS_1 else []
OUR_LAYERS = (
    ['sockets.layers.InMemoryChannelLayer', 'sockets.layers.RedisChannelLayer']
    if ON_CHANNELS_1
    # There, layers only pass on what is for other processes: the live tests have each of them.
    else ['channels.layers.InMemoryChannelLayer']
)
InMemoryChannelLayer = import_string(OUR_LAYERS[0])


# The layers know nothing of Django, and little of Python. The first Python, the last and one between see all of them; the
# others see a stock one and one of ours.
_SEES_ALL = sys.version_info[:2] in ((3, 7), (3, 11), (3, 13))


@pytest.fixture(params=STOCK_LAYERS + OUR_LAYERS if _SEES_ALL else STOCK_LAYERS[:1] + OUR_LAYERS[-1:])
def layer(request):
    """Each layer in turn, the stock ones and ours, empty. On Channels 4, one in memory."""
    options = {'hosts': [request.getfixturevalue('redis_url')]} if 'Redis' in request.param else {}
    layer = import_string(request.param)(**options)
    if ON_CHANNELS_1:
        layer.flush()
    with sandbox(layer, routing=[]):
        yield layer


# What holds for a handler at a path holds for one that serves a stream.
both_ways = pytest.mark.parametrize('way', ['at a path', 'over a stream'])


@pytest.fixture
def way():
    """How the connections of ``connect`` reach their handler; ``both_ways`` says both."""
    return 'at a path'


@pytest.fixture
def connect(layer, db, way):
    """A function that routes a handler class at ``path`` and returns an open connection to it."""

    def open_connection(handler, path='/page/', **options):
        return (Connection if way == 'at a path' else StreamConnection)(path, handler=handler, **options)

    return open_connection


@pytest.fixture
def login(db, settings):
    """A function that logs a user in and returns the cookies of that browser."""

    def log_in(user):
        from django.test import Client

        browser = Client()
        browser.force_login(user)
        return {settings.SESSION_COOKIE_NAME: browser.cookies[settings.SESSION_COOKIE_NAME].value}

    return log_in


@pytest.fixture
def alice(db):
    from django.contrib.auth import get_user_model

    return get_user_model().objects.create_user('alice', password='wonderland')
