"""Frames whose functions run on the event loop of Channels 4: what is read for them before, and what is not."""

import asyncio
import json

import pytest

from sockets import RoutedSocketHandler
from sockets.connection import frame, memory
from sockets.engines.channels4.ended import Ended
from sockets.engines.channels4.message import Message
from sockets.models import Socket
from sockets.routes import Route

pytestmark = pytest.mark.django_db


class Connection(Ended):
    """A connection that is served here, and keeps what it is sent."""

    __slots__ = ('sent',)

    is_served_here = True

    def put(self, message, is_last=False):
        self.sent.append(json.loads(message['text']))


@pytest.fixture
def connection(settings):
    # As if each frame came later than what is kept of its client is good for.
    settings.SOCKETS = {'IDENTITY_MAX_AGE': 0}
    found = Connection('sockets.1.x!quick', '/x/', {})
    found.sent = []
    Socket(channel_name=found.name, path='/x/').save()
    memory.memories.get(found.name).noted = float('inf')
    yield found
    memory.memories.forget(found.name)


async def plain(socket, content):
    return {'type': 'DONE'}


async def asks(socket, content):
    return {'type': 'DONE', 'user': socket.user.is_anonymous}


def helper(socket):
    return getattr(socket, 'us' + 'er').is_anonymous


async def has_it_asked(socket, content):
    await asyncio.sleep(0)
    return {'type': 'DONE', 'user': helper(socket)}


def waits(socket, content):
    return {'type': 'DONE'}


def handle(connection, functions, type):
    """Handle a frame; return what was on the loop (the number of coroutines) and how often it went to a thread."""
    cls = type_of(functions)
    handler = cls(connection, Message('websocket.receive', {}, connection))
    coroutines = threads = 0

    async def run():
        nonlocal coroutines, threads
        work = frame.receive(handler, json.dumps({'type': type}), None)
        result = None
        try:
            while True:
                step = work.send(result)
                if step is None:
                    threads += 1
                    result = None
                    # Whatever waits now does so on a thread.
                    asyncio._set_running_loop(None)
                else:
                    asyncio._set_running_loop(loop)
                    coroutines += 1
                    result = await step
        except StopIteration:
            asyncio._set_running_loop(loop)

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(run())
    finally:
        loop.close()
    return coroutines, threads


_classes = {}


def type_of(functions):
    """Return the handler class of ``functions``, the same each time."""
    if functions not in _classes:
        routes = [*RoutedSocketHandler.routes, *(Route(name, function) for name, function in functions)]
        _classes[functions] = type('Quick', (RoutedSocketHandler,), {'routes': tuple(routes)})
    return _classes[functions]


def test_an_async_def_that_asks_for_nobody_costs_no_query(connection, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert handle(connection, (('A', plain),), 'A') == (1, 0)
    assert connection.sent == [{'type': 'DONE'}]


def test_one_that_asks_for_the_user_is_called_when_that_has_been_read(connection, django_assert_num_queries):
    with django_assert_num_queries(1):
        assert handle(connection, (('A', asks),), 'A') == (1, 1)
    assert connection.sent == [{'type': 'DONE', 'user': True}]


def test_one_that_has_others_ask_gets_the_user_and_is_known_for_it_from_then_on(connection, django_assert_num_queries):
    functions = (('A', has_it_asked),)
    with django_assert_num_queries(1):
        assert handle(connection, functions, 'A') == (1, 0)
    with django_assert_num_queries(1):
        assert handle(connection, functions, 'A') == (1, 1)
    assert connection.sent == [{'type': 'DONE', 'user': True}] * 2


def test_a_def_beside_an_async_def_has_nothing_read_that_it_does_not_ask_for(connection, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert handle(connection, (('A', plain), ('B', waits)), 'B') == (0, 1)


def test_a_login_is_asked_for_where_it_may_wait(connection, django_assert_num_queries):
    cls = type_of((('L', plain),))
    cls.login_required = True
    with django_assert_num_queries(1):
        assert handle(connection, (('L', plain),), 'L') == (0, 1)
    assert connection.closed
