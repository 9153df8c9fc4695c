"""Connects that wait in a process, opened together. Of Channels 1 only: this is how its workers take them."""

import json
import threading
import time

import django
import pytest
from channels import channel_layers
from django.contrib.sessions.models import Session
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models.query import QuerySet
from django.db.models.signals import post_save, pre_save
from django.test import Client
from django.test.utils import CaptureQueriesContext

from sockets import RoutedSocketHandler, SocketRouter, conf
from sockets.connection.memory import memories
from sockets.engines.channels1 import line as module
from sockets.engines.channels1.channel_layer import adapted
from sockets.engines.channels1.frame_worker import FrameWorker
from sockets.engines.channels1.sandbox import Empty, UntilEmpty
from sockets.engines.channels1.workers import WorkerThread
from sockets.layers.mailboxes import CONNECT
from sockets.models import Socket
from sockets.signals import socket_connected, socket_disconnected

from .client import Connection
from .conftest import OUR_LAYERS

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.parametrize('layer', [OUR_LAYERS[0]], indirect=True)]


class View:
    socket = SocketRouter()
    ran = []

    @socket.connect
    def on_open(socket):
        View.ran.append(socket.user.get_username())
        socket.send_json({'type': 'WELCOME', 'row': socket.row.pk, 'n': Socket.objects.count()})


Page = View.socket.Handler


@pytest.fixture(autouse=True)
def nothing_ran():
    del View.ran[:]


@pytest.fixture(scope='module')
def names():
    return [f'user-{number}' for number in range(20)]


@pytest.fixture
def people(names, django_user_model):
    """The session keys of twenty users."""
    keys = []
    for name in names:
        client = Client()
        client.force_login(
            django_user_model.objects.create(username=name), backend='django.contrib.auth.backends.ModelBackend'
        )
        keys.append(client.cookies['sessionid'].value)
    return keys


@pytest.fixture
def worker(layer):
    """Return a function that has a worker for connects open those that wait, and returns what it has asked the database."""

    until_empty = UntilEmpty(channel_layers[conf.CHANNEL_LAYER])

    def work(pace=0.0001):
        adapted(until_empty).line.pace = pace
        frame_worker = FrameWorker(until_empty, signal_handlers=False, only_channels=[CONNECT])
        with CaptureQueriesContext(connection) as context, pytest.raises(Empty):
            frame_worker.run()
        assert not adapted(until_empty).line
        return [query['sql'] for query in context.captured_queries]

    return work


def asks(key=None, handler=Page, path='/page/', **options):
    """Return a client that asks for a connection, which waits."""
    client = Connection(path, handler=handler, cookies={'sessionid': key} if key else None, connect=False, **options)
    client._connection.put(CONNECT, **client._handshake())
    return client


def answers(client):
    """Return what the server has said to ``client``, whose end nobody has handled."""
    return client.messages()


def count(queries, start, table='sockets_socket'):
    return len([sql for sql in queries if sql.startswith(start) and table in sql])


def test_twenty_are_read_and_inserted_by_one_statement_each(layer, worker, people, names):
    clients = [asks(key) for key in people]
    queries = worker()
    assert count(queries, 'INSERT') == 1
    assert count(queries, 'SELECT', 'django_session') == count(queries, 'SELECT', 'auth_user') == 1
    # The functions count rows, and see all of them.
    assert View.ran == names and count(queries, 'SELECT', 'COUNT') == 20
    # A transaction, and the keys where the database does not return them.
    assert len([sql for sql in queries if 'COUNT' not in sql]) <= 6
    rows = {row.channel_name: row for row in Socket.objects.all()}
    for client, key, name in zip(clients, people, names):
        row = rows[client.name]
        assert (row.session_id, row.user.username, row.path) == (key, name, '/page/')
        assert (row.server, row.layer) == (client.name.partition('!')[0] + '!', 'memory:')
        assert row.user_ip == '192.0.2.1' and row.active and row.created <= row.modified and row.handshake
        accept, welcome = answers(client)
        assert accept == {'accept': True}
        assert json.loads(welcome['text']) == {'type': 'WELCOME', 'row': row.pk, 'n': 20}


def test_a_lone_connect_is_opened_as_before(layer, worker, people, names):
    asks(people[0])
    together = count(worker(), 'INSERT')
    asks(people[1])
    queries = worker()
    assert together == count(queries, 'INSERT') == 1
    # BEGIN and COMMIT would be trips of their own. Before 2.2, Django's save() makes them.
    assert django.VERSION < (2, 2) or not any('BEGIN' in sql or 'SAVEPOINT' in sql for sql in queries)
    assert View.ran == names[:2]


def test_frames_and_ends_that_came_meanwhile_follow_each_connect(layer, worker, people, names):
    ended = []
    socket_disconnected.connect(lambda socket, **kwargs: ended.append(socket.user.username), weak=False, dispatch_uid=1)
    clients = [asks(key) for key in people[:3]]
    clients[1]._put(text='{"type": "PING", "ref": 1}')
    worker()
    clients[2]._connection.close(1000)
    # The claims of all have ended, so that these are handled.
    assert [json.loads(message['text']) for message in answers(clients[1])[2:]] == [{'type': 'ACK', 'ref': 1}]
    assert ended == [names[2]] and Socket.objects.count() == 2
    socket_disconnected.disconnect(dispatch_uid=1)


def once_identified(monkeypatch, count, function):
    """Have ``function`` called when so many are identified, before their rows are inserted."""
    begin = module.Line._begin

    def begin_and_call(line, *args):
        begin(line, *args)
        if len(line.identified) == count:
            function()

    monkeypatch.setattr(module.Line, '_begin', begin_and_call)


def test_who_has_left_while_the_others_were_identified_gets_no_row(layer, worker, people, names, monkeypatch):
    clients = [asks(key) for key in people[:3]]
    once_identified(monkeypatch, 3, lambda: clients[1]._connection.close(1000))
    worker()
    assert View.ran == [names[0], names[2]] and Socket.objects.count() == 2
    # Its end finds nothing to do.
    assert answers(clients[1]) == [] and clients[1].name not in memories


def test_a_server_that_was_found_dead_meanwhile_inserts_no_rows(layer, worker, people, monkeypatch):
    monkeypatch.setattr(layer.connects, 'checked', lambda channel, message: (None, None))
    for key in people[:3]:
        asks(key)
    assert count(worker(), 'INSERT') == Socket.objects.count() == 0 and View.ran == []


def test_signals_are_sent_for_each_row(layer, worker, people, names):
    seen = []
    receivers = [
        (pre_save, lambda instance, raw, using, **kwargs: seen.append(('pre', instance.pk, raw, using))),
        (post_save, lambda instance, created, using, **kwargs: seen.append(('post', instance.user.username, created))),
        (socket_connected, lambda socket, **kwargs: seen.append(('connected', socket.user.username))),
    ]
    for signal, receiver in receivers:
        signal.connect(receiver, sender=Socket if signal is not socket_connected else None)
    try:
        for key in people[:3]:
            asks(key)
        worker()
    finally:
        for signal, receiver in receivers:
            signal.disconnect(receiver, sender=Socket if signal is not socket_connected else None)
    each = [(('post', name, True), ('connected', name)) for name in names[:3]]
    assert seen == [('pre', None, False, 'default')] * 3 + [entry for pair in each for entry in pair]


@pytest.mark.parametrize('signal', [pre_save, post_save])
def test_a_receiver_that_raises_closes_its_own_connection_only(layer, worker, people, names, signal):
    def refuse(instance, **kwargs):
        if instance.user.username == names[1]:
            raise ValueError('not this one')

    signal.connect(refuse, sender=Socket)
    try:
        clients = [asks(key) for key in people[:3]]
        worker()
    finally:
        signal.disconnect(refuse, sender=Socket)
    assert View.ran == [names[0], names[2]] and Socket.objects.count() == 2
    assert not any(message.get('accept') for message in answers(clients[1]))


def fail_together(monkeypatch, error, fails=lambda rows: len(rows) > 1):
    create, calls = QuerySet.bulk_create, []

    def bulk_create(queryset, rows, *args, **kwargs):
        if queryset.model is Socket:
            calls.append(len(rows))
            if fails(rows):
                raise error
        return create(queryset, rows, *args, **kwargs)

    monkeypatch.setattr(QuerySet, 'bulk_create', bulk_create)
    return calls


@pytest.mark.parametrize('error', [DatabaseError('deadlock'), IntegrityError('twice'), ValueError('NUL')])
def test_after_a_failure_rows_are_inserted_one_by_one(layer, worker, people, names, monkeypatch, error):
    sent = []
    pre_save.connect(lambda instance, **kwargs: sent.append(instance), sender=Socket, weak=False, dispatch_uid=1)
    calls = fail_together(monkeypatch, error)
    for key in people[:3]:
        asks(key)
    worker()
    pre_save.disconnect(sender=Socket, dispatch_uid=1)
    assert calls == [3, 1, 1, 1] and View.ran == names[:3] and Socket.objects.count() == 3
    assert len(sent) == 3


@pytest.mark.skipif(django.VERSION < (2,), reason='with Django 1.11, SQLite does not look at foreign keys')
def test_who_logs_out_meanwhile_is_refused_and_the_others_are_not(layer, worker, people, names, monkeypatch):
    clients = [asks(key) for key in people[:3]]
    once_identified(monkeypatch, 3, Session.objects.filter(pk=people[1]).delete)
    # SQLite looks at keys of others at the end of a transaction.
    worker()
    assert View.ran == [names[0], names[2]]
    assert not any(message.get('accept') for message in answers(clients[1]))
    assert set(Socket.objects.values_list('channel_name', flat=True)) == {clients[0].name, clients[2].name}


@pytest.mark.parametrize('error', [SystemExit(), KeyboardInterrupt()])
def test_what_ends_a_statement_leaves_nobody_waiting(layer, worker, people, monkeypatch, error):
    clients = [asks(key) for key in people[:3]]
    fail_together(monkeypatch, error)
    worker()
    assert View.ran == [] and Socket.objects.count() == 0
    assert all(any(message.get('close') for message in answers(client)) for client in clients)


@pytest.mark.parametrize('limit', ['MAX_CONNECTIONS_PER_USER', 'MAX_CONNECTIONS_PER_ADDRESS'])
def test_limits_count_those_that_are_opened_together(layer, worker, people, settings, limit):
    settings.SOCKETS = {limit: 2}
    clients = [asks(people[0]) for _ in range(4)] + [asks(people[1], address='192.0.2.2')]
    worker()
    assert Socket.objects.count() == 3
    closed = [message['close'] for client in clients for message in answers(client) if message.get('close')]
    assert closed == [4429, 4429]


def test_limits_count_those_that_could_not_be_inserted_together(layer, worker, people, settings, monkeypatch):
    settings.SOCKETS = {'MAX_CONNECTIONS_PER_USER': 1}
    fail_together(monkeypatch, IntegrityError('somebody has logged out'))
    for number in (0, 1, 0, 2, 1, 0):
        asks(people[number])
    worker()
    assert Socket.objects.count() == 3


def test_limits_keep_nobody_from_being_inserted_with_others(layer, worker, people, settings):
    settings.SOCKETS = {'MAX_CONNECTIONS_PER_USER': 2}
    for key in people:
        asks(key)
    assert count(worker(), 'INSERT') == 1 and Socket.objects.count() == 20


class Own(RoutedSocketHandler):
    def connect(self, message, **kwargs):
        # There is no row yet, as its author knows.
        View.ran.append(self.row)
        super().connect(message, **kwargs)


class Refusing(Page):
    login_required = True


def test_what_runs_something_before_the_accept_gets_its_row_there(layer, worker, people, names):
    for key, handler, path in zip(people, [Page, Own, Page, Own], ['/page/', '/own/', '/page/', '/own/']):
        asks(key, handler, path)
    queries = worker()
    assert View.ran == [None, None, names[0], names[2]] and Socket.objects.count() == 4
    assert count(queries, 'INSERT') == 3


def test_a_model_whose_save_was_replaced_is_saved(layer, worker, people, monkeypatch):
    save, saved = Socket.save, []

    def mine(row, *args, **kwargs):
        saved.append(row)
        return save(row, *args, **kwargs)

    monkeypatch.setattr(Socket, 'save', mine)
    for key in people[:3]:
        asks(key)
    worker()
    assert len(saved) == Socket.objects.count() == 3


def test_who_may_not_connect_is_refused_among_others_that_may(layer, worker, people, names):
    clients = [asks(people[0]), asks(None, Refusing, '/login/'), asks(people[1])]
    foreign = asks(people[2], headers={'origin': 'https://evil.example'})
    worker()
    assert View.ran == names[:2] and Socket.objects.count() == 2
    assert [message.get('close') for message in answers(clients[1]) if message.get('close')] == [4401]
    assert not any(message.get('accept') for message in answers(foreign))


def test_the_more_time_they_take_the_fewer_are_taken_together(layer, worker, people):
    clients = [asks(key) for key in people[:6]]
    queries = worker(pace=module.AT_ONCE / 3)
    # After three, it is known that they are quick.
    assert 2 <= count(queries, 'INSERT') <= 4
    assert Socket.objects.count() == len(clients)


@pytest.mark.parametrize('number', range(3))
def test_whatever_raises_in_the_middle_ends_the_claim_of_its_own_connection(
    layer, worker, people, names, monkeypatch, number
):
    find, calls = FrameWorker._find, []

    def failing(*args):
        calls.append(args)
        if len(calls) == number + 1:
            raise ValueError('a routing that nobody can match')
        return find(*args)

    monkeypatch.setattr(FrameWorker, '_find', failing)
    clients = [asks(key) for key in people[:3]]
    with pytest.raises(ValueError):
        worker()
    # The thread starts again.
    worker()
    left = [name for n, name in enumerate(names[:3]) if n != number]
    assert View.ran == left and [layer.is_idle(client.name) for client in clients] == [True] * 3


def test_in_a_transaction_of_a_test_a_failure_leaves_it_usable(layer, worker, people, monkeypatch):
    fail_together(monkeypatch, IntegrityError('twice'))
    for key in people[:2]:
        asks(key)
    with transaction.atomic():
        worker()
        assert Socket.objects.count() == 2


@pytest.fixture
def threads(layer):
    """Return a function that starts a thread for connects."""

    def start():
        thread = WorkerThread(channel_layers[conf.CHANNEL_LAYER], [CONNECT])
        thread.start()
        return thread

    adapted().line.pace = 0.0001
    yield start
    while True:
        running = [thread for thread in threading.enumerate() if isinstance(thread, WorkerThread)]
        if not running:
            break
        for thread in running:
            thread.stop()
        # They look whether they are to stop when they get something.
        layer.connects.nudge()
        time.sleep(0.02)


class Slow:
    socket = SocketRouter()
    gate = threading.Event()
    # Of those after the first one.
    gates = []
    ran = []

    @socket.connect
    def on_open(socket):
        Slow.ran.append(threading.current_thread())
        if len(Slow.ran) == 1:
            Slow.gate.wait(10)
        elif len(Slow.ran) - 2 < len(Slow.gates):
            Slow.gates[len(Slow.ran) - 2].wait(10)


@pytest.fixture
def gate():
    Slow.gate.clear()
    del Slow.ran[:]
    yield Slow.gate
    Slow.gate.set()


def eventually(condition, seconds=8):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_another_thread_goes_on_where_a_function_hangs(layer, threads, gate):
    clients = [asks(None, Slow.socket.Handler, '/slow/') for _ in range(5)]
    first, second = threads(), threads()
    eventually(lambda: len(Slow.ran) == 5)
    assert {first, second} == set(Slow.ran) and Slow.ran.count(Slow.ran[0]) == 1
    # All but the one that hangs are done: their frames can be taken.
    eventually(lambda: sum(layer.is_idle(client.name) for client in clients) == 4)
    gate.set()
    eventually(layer.is_idle)


def test_a_row_that_the_database_keeps_waiting_keeps_no_other_one(layer, threads, gate, monkeypatch):
    # The row of one user was held in a transaction with select_for_update(), and sixty others could not connect.
    clients, began = [asks(None, path='/page/') for _ in range(5)], []

    def fails(rows):
        if len(rows) == 1 and rows[0].channel_name == clients[1].name:
            began.append(threading.current_thread())
            gate.wait(10)
        return len(rows) > 1

    fail_together(monkeypatch, DatabaseError('canceling statement due to lock timeout'), fails)
    threads(), threads()
    # The other thread had nothing to do while they were inserted, and was to wait five seconds before it looked again.
    eventually(lambda: began and sum(layer.is_idle(client.name) for client in clients) == 4, 3)
    gate.set()
    eventually(layer.is_idle)
    assert len(began) == 1 and Socket.objects.count() == 5


def test_one_whose_limit_cannot_be_counted_ends_without_the_others(layer, worker, people, names, settings, monkeypatch):
    # It was lost: its claim was kept, so that its end would never have been handled.
    settings.SOCKETS = {'MAX_CONNECTIONS_PER_USER': 3}
    clients, still_there = [asks(people[0]) for _ in range(3)], layer.connects.still_there

    def fail(names):
        monkeypatch.setattr(layer.connects, 'still_there', still_there)
        raise OSError('not now')

    monkeypatch.setattr(layer.connects, 'still_there', fail)
    with pytest.raises(OSError):
        worker()
    # The thread starts again.
    worker()
    assert all(layer.is_idle(client.name) for client in clients)
    assert View.ran == names[:1] * 2 and Socket.objects.count() == 2


def test_so_does_the_thread_that_replaces_a_lone_one(layer, threads, gate):
    for _ in range(5):
        asks(None, Slow.socket.Handler, '/slow/')
    thread = threads()
    eventually(lambda: len(Slow.ran) == 1)
    thread.replace()
    eventually(lambda: len(Slow.ran) == 5)
    assert thread not in Slow.ran[1:]


def test_what_another_thread_opens_stays_claimed_when_the_one_that_took_it_has_ended(layer, threads, gate, monkeypatch):
    # A thread that was replaced had taken it. Five seconds after its end, frames were handled while a function still ran.
    for _ in range(2):
        asks(None, Slow.socket.Handler, '/slow/')
    first = threads()
    eventually(lambda: len(Slow.ran) == 1)
    second_gate = threading.Event()
    monkeypatch.setattr(Slow, 'gates', [second_gate])
    first.replace()
    eventually(lambda: len(Slow.ran) == 2)
    gate.set()
    first.join(8)
    assert not first.is_alive() and not layer.is_idle()
    assert all(claim.owner.is_alive() for claim in layer._mailboxes.overdue(float('inf')))
    second_gate.set()
    eventually(layer.is_idle)


def test_a_thread_that_is_to_stop_opens_what_it_has_taken(layer, threads, gate):
    for _ in range(5):
        asks(None, Slow.socket.Handler, '/slow/')
    thread = threads()
    eventually(lambda: len(Slow.ran) == 1)
    thread.stop()
    gate.set()
    thread.join(8)
    assert Slow.ran == [thread] * 5 and not thread.is_alive() and layer.is_idle()
