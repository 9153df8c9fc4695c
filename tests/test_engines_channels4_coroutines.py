"""Coroutines on the engine of Channels 4: what may wait runs elsewhere."""

import asyncio
import contextlib
import contextvars
import json
import logging
import threading
import time

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.core.exceptions import SynchronousOnlyOperation
from django.db.utils import ConnectionHandler, OperationalError

from sockets import RoutedSocketHandler, engine
from sockets.backlog import BACKLOG
from sockets.connection import calls, quick
from sockets.connection.identity import Identity
from sockets.connection.memory import Memory
from sockets.engines.channels4 import connection as connection_module
from sockets.engines.channels4 import pool, server, steps
from sockets.execution import coroutines, thread_state
from sockets.multiplexing import SocketDemultiplexer
from sockets.routes import Route

from .loops import run

value = contextvars.ContextVar('value', default=None)


@pytest.fixture(autouse=True)
def own_threads(settings):
    settings.SOCKETS = {'THREADS': 1, 'CHANNEL_LAYER': 'none'}
    yield
    server.servers.clear()


async def wait_for(function, *args):
    return await engine.current().wait_for(function, *args)


def test_what_may_wait_runs_on_the_pool_in_the_context_of_whoever_waits():
    async def ask(found):
        value.set('mine')
        return await wait_for(lambda: (threading.current_thread().name, value.get()))

    assert run(ask) == ('sockets-frames', 'mine')


def test_on_an_event_loop_without_connections_it_runs_in_djangos_thread():
    async def ask():
        return threading.current_thread(), await wait_for(threading.current_thread)

    loop, thread = asyncio.run(ask())
    assert thread is not loop and thread.name != 'sockets-frames'


def test_what_it_raises_is_raised():
    async def ask(found):
        await wait_for(int, 'x')

    with pytest.raises(ValueError):
        run(ask)


def test_threads_that_wait_for_coroutines_leave_their_places_to_what_those_wait_for():
    """Each of them held a thread of the pool, and waited for ever for another one."""

    def function():
        return coroutines.run(wait_for(int, '7'))

    async def ask(found):
        results = await asyncio.gather(*(found.pool.submit(function) for _ in range(10)))
        await asyncio.sleep(0.05)
        # Those that are too many end with the next work.
        await asyncio.gather(*(found.pool.submit(int) for _ in range(10)))
        await asyncio.sleep(0.05)
        return results, found.pool.threads

    results, threads = run(ask)
    assert results == [7] * 10 and len(threads) <= 1


def test_a_thread_that_waits_for_a_coroutine_is_not_one_at_work(monkeypatch):
    """What the coroutine waited for began when the patience with those at work was over: 10 ms for each."""
    monkeypatch.setattr(pool, 'PATIENCE', 60)

    async def ask(found):
        return [await found.pool.submit(coroutines.run, wait_for(int, number)) for number in range(3)]

    assert run(ask) == [0, 1, 2]


class Plain(RoutedSocketHandler):
    pass


def open_connection(found, send, handler=Plain):
    """Return a connection that has been accepted, whose client is sent what it is sent by ``send``."""
    connection = connection_module.Connection(found, handler, {}, '/page/', {}, None, send)
    connection.accepted = connection.outgoing.is_open = True
    found.connections[connection.name] = connection
    return connection


def test_a_coroutine_that_sends_much_is_as_slow_as_who_reads_it():
    """More than the backlog was given at once, and the client, who reads, was cut off."""
    sent = []

    async def send(event):
        await asyncio.sleep(0)
        sent.append(len(event['text']))

    async def ask(found):
        connection = open_connection(found, send)
        handler = Plain(connection, None)
        for _ in range(3 * BACKLOG // 100000):
            await handler.asend_json({'type': 'X', 'text': 'x' * 100000})
        return connection.has_ended

    assert run(ask) is False and len(sent) == 3 * BACKLOG // 100000


def test_several_coroutines_of_a_connection_wait_for_their_frames_together():
    sent = []

    async def send(event):
        await asyncio.sleep(0.001)
        sent.append(event['text'])

    async def ask(found):
        handler = Plain(open_connection(found, send), None)
        await asyncio.gather(*(handler.asend_action('N', n=n) for n in range(20)))
        return len(sent)

    assert run(ask) == 20 and [json.loads(text)['n'] for text in sent] == list(range(20))


def test_who_waits_for_a_client_that_has_gone_goes_on():
    async def send(event):
        await asyncio.sleep(0.01)
        raise OSError('gone')

    async def ask(found):
        handler = Plain(open_connection(found, send), None)
        await asyncio.gather(*(handler.asend_action('N', n=n) for n in range(3)))
        return 'goes on'

    assert run(ask) == 'goes on'


def test_threads_and_other_event_loops_send_to_a_connection_in_their_order():
    sent = []

    async def send(event):
        sent.append(event['text'])

    async def ask(found):
        handler = Plain(open_connection(found, send), None)

        def in_a_thread():
            for n in range(100):
                handler.send_json({'n': n})

        async def elsewhere():
            for n in range(100, 200):
                await handler.asend_json({'n': n})

        for function in (in_a_thread, lambda: asyncio.run(elsewhere())):
            thread = threading.Thread(target=function)
            thread.start()
            while thread.is_alive():
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)

    run(ask)
    assert [int(text.split(':')[1].strip(' }')) for text in sent] == list(range(200))


class Inline(RoutedSocketHandler):
    def sleeps(self, content):
        time.sleep(0.02)
        if content.get('fails'):
            raise ValueError('late')
        return {'type': 'SLEPT'}

    def asks(self, content):
        return {'type': 'COUNT', 'n': get_user_model().objects.count()}

    routes = (Route('SLEEP', 'sleeps', inline=True), Route('ASK', 'asks', inline=True))


def call_inline(content):
    """Hand ``content`` to the function of its route, on the event loop."""

    async def ask(found):
        handler = Inline(open_connection(found, None), None)
        return await calls.dispatch(handler, content, {})

    return run(ask)


@pytest.mark.parametrize('fails', [False, True])
def test_an_inline_function_that_takes_long_is_logged_with_its_route(caplog, fails):
    with caplog.at_level(logging.WARNING, 'sockets'):
        if fails:
            with pytest.raises(ValueError, match='late'):
                call_inline({'type': 'SLEEP', 'fails': True})
        else:
            assert call_inline({'type': 'SLEEP'}) == {'type': 'SLEPT'}
    (record,) = caplog.records
    assert "the inline route 'SLEEP'" in record.getMessage() and 'Inline' in record.getMessage()


def test_an_inline_function_cannot_use_the_orm(db):
    with pytest.raises(SynchronousOnlyOperation):
        call_inline({'type': 'ASK'})


def test_a_coroutine_that_accepts_with_the_plain_method_is_told_what_to_write():
    async def ask(found):
        connection = open_connection(found, None)
        connection.accepted = False
        Plain(connection, None).accept()

    with pytest.raises(SynchronousOnlyOperation, match='await self.aaccept'):
        run(ask)


class Quick(RoutedSocketHandler):
    async def later(self, content):
        return {'type': 'DONE'}

    routes = (('LATER', 'later'),)


def may_wait(memory):
    async def ask(found):
        handler, content = Quick(open_connection(found, None), None), {'type': 'LATER'}
        handler._identity = Identity.of_user(handler._connection, memory, None)
        return quick.look(handler, memory, content)[1]

    return run(ask)


def test_a_frame_whose_right_has_to_be_looked_at_begins_on_a_thread():
    """The end of an authentication was looked up on the event loop, which raised."""
    assert may_wait(Memory(0)) is False
    over, doubtful = Memory(0), Memory(0)
    over.until, doubtful.is_in_doubt = time.time() - 1, True
    assert may_wait(over) is may_wait(doubtful) is True


def test_a_frame_of_a_demultiplexer_begins_on_a_thread_whatever_type_it_has():
    """A client that named a type of the demultiplexer beside a stream had that served on the event loop."""

    class Both(SocketDemultiplexer):
        routes = (*Quick.routes,)
        streams = {'it': Quick}
        later = Quick.later

    assert Quick._is_quick and not Both._is_quick


async def take(work, connection, found):
    """Take the steps of ``work``, the first ones on the loop."""
    left = steps.begin(work, connection)
    await steps.take(work, Plain(connection, None), connection, found.pool, left)


async def raise_generator_exit():
    await asyncio.sleep(0)
    raise GeneratorExit('mine')


def test_a_coroutine_that_raises_generator_exit_has_failed_and_its_connection_goes_on():
    """It ended the task of the connection: the client saw 1006, and got no answer."""
    caught = []

    def work():
        try:
            yield raise_generator_exit()
        except RuntimeError as error:
            caught.append(type(error.__cause__))

    async def ask(found):
        connection = open_connection(found, None)
        await take(work(), connection, found)

    run(ask)
    assert caught == [GeneratorExit]


def test_what_awaits_a_coroutine_can_be_closed():
    async def ask(found):
        awaiting = steps._InContext(contextvars.Context(), asyncio.sleep(60)).__await__()
        next(awaiting)
        awaiting.close()

    run(ask)


@pytest.fixture
def database(db, monkeypatch, tmp_path):
    """Connections, for each thread its own, to a database of one table."""
    known = ConnectionHandler(
        {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': str(tmp_path / 'db'), 'CONN_MAX_AGE': None}}
    )
    monkeypatch.setattr(thread_state, 'connections', known)
    known['default'].cursor().execute('CREATE TABLE noted (n integer)')
    yield known
    known.close_all()


@pytest.mark.parametrize('fails', [False, True])
@pytest.mark.parametrize('is_atomic', [False, True])
def test_a_transaction_that_a_function_leaves_open_is_not_that_of_the_next_frame(database, caplog, is_atomic, fails):
    """What this thread wrote from then on was never committed, and it read old rows: connections that were new had none."""

    def note(n):
        database['default'].cursor().execute(f'INSERT INTO noted VALUES ({n})')

    def leave_open():
        database['default'].set_autocommit(False)
        # As atomic() does.
        database['default'].in_atomic_block = is_atomic
        note(1)
        if fails:
            raise ValueError

    async def ask(found):
        with contextlib.suppress(ValueError):
            await found.pool.submit(leave_open)
        await found.pool.submit(note, 2)
        await found.pool.submit(database.close_all)

    run(ask)
    assert database['default'].cursor().execute('SELECT n FROM noted').fetchall() == [(2,)]
    assert caplog.text.count('left a transaction open') == 1


def test_one_frame_of_a_thread_fails_where_the_database_has_ended_its_connection(database, monkeypatch):
    """All did that came in the next tenth of a second."""

    def fail():
        database['default'].ensure_connection()
        database['default'].errors_occurred = True
        monkeypatch.setattr(database['default'], 'is_usable', lambda: False)
        return database['default'].connection

    def look():
        database['default'].ensure_connection()
        return database['default'].connection

    async def ask(found):
        await found.pool.submit(look)
        before = await found.pool.submit(fail)
        return before is await found.pool.submit(look), await found.pool.submit(database.close_all)

    assert run(ask) == (False, None)


def test_a_connection_of_djangos_thread_that_has_failed_is_opened_anew(database, monkeypatch):
    """Functions that use the async ORM failed for ever once the database had been started anew."""

    def opened():
        database['default'].ensure_connection()
        return database['default'].connection

    def has_failed():
        database['default'].errors_occurred = True
        monkeypatch.setattr(database['default'], 'is_usable', lambda: False)

    async def fails():
        raise OperationalError

    def work():
        with contextlib.suppress(OperationalError):
            yield fails()

    async def ask(found):
        before = await sync_to_async(opened)()
        await sync_to_async(has_failed)()
        connection = open_connection(found, None)
        await take(work(), connection, found)
        return await sync_to_async(opened)() is before, await sync_to_async(database.close_all)()

    assert run(ask) == (False, None)


def in_the_way(begin):
    """Return after how many of 40 messages, each of which takes a millisecond or more, another callback was served.

    ``begin(found, send, done)`` sends them; ``done`` is set after the last one.
    """
    sent, seen = [], []

    async def send(event):
        time.sleep(0.001)
        sent.append(event)

    async def ask(found):
        asyncio.get_running_loop().call_later(0.002, lambda: seen.append(len(sent)))
        await begin(found, send)
        while len(sent) < 40:
            await asyncio.sleep(0)

    run(ask)
    return seen[0]


def test_a_coroutine_that_sends_much_lets_others_be_served():
    """A client that reads makes nobody wait, and so nobody else was served until all had been sent: for seconds."""

    async def begin(found, send):
        handler = Plain(open_connection(found, send), None)
        for n in range(40):
            await handler.asend_action('N', n=n)

    assert in_the_way(begin) < 30


def test_messages_that_have_waited_for_a_client_let_others_be_served():
    async def begin(found, send):
        connection = open_connection(found, send)
        connection.outgoing.waiting.extend({'text': 'x'} for _ in range(40))
        await connection.outgoing.flush()

    assert in_the_way(begin) < 30


def test_a_thread_that_sends_much_lets_others_be_served():
    """As long as it was faster than the loop, nothing else was served."""

    async def begin(found, send):
        connection = open_connection(found, send)
        for _ in range(40):
            found.pool.call_on_loop(connection.push, {'text': 'x'})

    assert in_the_way(begin) < 30
