import time

import pytest
from django.db import DatabaseError, connections

from sockets import RoutedSocketHandler, callbacks
from sockets.connection import overtime, timing
from sockets.connection.endings import end
from sockets.models import Socket, SocketQuerySet
from sockets.multiplexing import SocketDemultiplexer

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def at_once(monkeypatch, settings):
    """What a thread of its own would do is done here, where the test's transaction is."""
    settings.SOCKETS = {'MAX_HANDLING_TIME': 0.02}
    monkeypatch.setattr(overtime, '_in_a_thread', lambda function, *args: function(*args))
    monkeypatch.setattr(connections, 'close_all', lambda: None)


def hang(seconds=0.05):
    time.sleep(seconds)
    overtime.look()


class Slow(RoutedSocketHandler):
    ended = []
    routes = (
        *RoutedSocketHandler.routes,
        ('HANG', 'on_hang'),
        ('SAY', 'on_say'),
        ('QUICK', lambda socket: overtime.look()),
        ('END', 'on_end'),
    )

    def on_hang(self, content):
        hang()
        overtime.look()
        return {'type': 'AT_LAST'}

    def on_say(self, content):
        hang()
        self.send_json({'type': 'SAID'})

    def on_end(self, content):
        end(Socket.objects.filter(pk=content['pk']).remove(), 'It has been silent.')

    def disconnect(self, message, **kwargs):
        self.ended.append(message['code'])


@pytest.fixture
def slow(connect):
    Slow.ended.clear()
    connection = connect(Slow)
    connection.messages()
    return connection


def test_a_function_that_hangs_ends_its_connection_once_and_says_where_it_is(slow, caplog):
    assert slow.send({'type': 'HANG', 'ref': 7}) == [
        {'type': 'ERROR', 'code': 'server_error', 'details': 'This takes too long.', 'ref': 7}
    ]
    assert not Socket.objects.exists() and Slow.ended == [1011]
    (record,) = [record for record in caplog.records if record.levelname == 'ERROR']
    assert "Slow at '/page/' has been at a websocket.receive" in record.getMessage()
    assert 'in on_hang' in record.getMessage()
    # Its disconnect is what comes last, and finds nothing to do.
    slow.disconnect()
    assert Slow.ended == [1011]


def test_the_connection_of_a_function_that_hangs_is_closed_with_1011(slow):
    slow._put(text='{"type": "HANG"}')
    assert [message.get('close') for message in slow.messages()] == [1011]


def test_what_a_function_sends_after_its_time_is_dropped(slow, caplog):
    assert [frame['type'] for frame in slow.send({'type': 'SAY'})] == ['ERROR']


def test_a_quick_function_is_left_alone(slow):
    assert slow.send({'type': 'QUICK', 'ref': 1}) == [{'type': 'ACK', 'ref': 1}]
    assert Socket.objects.count() == 1
    assert timing.handled == {}


def test_a_connect_that_hangs_before_its_accept_is_refused_and_leaves_no_row(connect, caplog):
    class Before(RoutedSocketHandler):
        def connect(self, message, **kwargs):
            hang()
            self.accept()

    connection = connect(Before)
    assert connection.messages() == [{'close': 1011}]
    assert not Socket.objects.exists()


def test_a_connect_function_that_hangs_leaves_no_row(connect):
    class After(RoutedSocketHandler):
        def connect(self, message, **kwargs):
            self.accept()
            hang()

        def disconnect(self, message, **kwargs):
            Slow.ended.append(message['code'])

    Slow.ended.clear()
    connection = connect(After)
    accept, last = connection.messages()
    assert accept == {'accept': True} and last['close'] == 1011
    assert not Socket.objects.exists() and Slow.ended == [1011]


def test_the_time_of_a_function_within_another_counts_for_the_outer_one(connect, caplog):
    class Nested(Slow):
        def disconnect(self, message, **kwargs):
            hang()

    connection = connect(Nested)
    other = connect(Nested)
    connection.messages(), other.messages()
    assert [frame['type'] for frame in connection.send({'type': 'END', 'pk': Socket.objects.latest('pk').pk})] == [
        'ERROR'
    ]
    assert not Socket.objects.exists()
    assert sum('MAX_HANDLING_TIME' in record.getMessage() for record in caplog.records) == 1


def test_the_database_is_told_again_where_it_is_away(slow, monkeypatch):
    again = []
    remove = SocketQuerySet.remove

    def fail(self, *args):
        raise DatabaseError('away')

    monkeypatch.setattr(callbacks, 'try_again', again.append)
    monkeypatch.setattr(SocketQuerySet, 'remove', fail)
    slow.send({'type': 'HANG'})
    assert Socket.objects.count() == 1
    monkeypatch.setattr(SocketQuerySet, 'remove', remove)
    again[0]()
    assert not Socket.objects.exists() and Slow.ended == [1011]


def test_nothing_is_watched_without_the_setting(settings, monkeypatch):
    monkeypatch.setattr(overtime, '_in_a_thread', lambda *args: pytest.fail('a thread starts'))
    settings.SOCKETS = {}
    overtime.keep_watch()


def test_a_stream_gets_its_own_answer(connect):
    # The ref is the payload's: without it the client would send it again.
    class Streams(SocketDemultiplexer):
        streams = {'slow': Slow}

    class Nested(SocketDemultiplexer):
        streams = {'inner': Streams}

    error = {'type': 'ERROR', 'code': 'server_error', 'details': 'This takes too long.'}
    hung = {'stream': 'slow', 'payload': {'type': 'HANG', 'ref': 7}}
    told = {'stream': 'slow', 'payload': {**error, 'ref': 7}}
    assert connect(Streams).send(hung)[-1] == told
    assert connect(Streams).send({'stream': 'slow', 'payload': {'type': 'HANG'}, 'ref': 8})[-1] == {**error, 'ref': 8}
    assert connect(Nested).send({'stream': 'inner', 'payload': hung})[-1] == {'stream': 'inner', 'payload': told}


def test_a_connection_is_closed_though_its_error_cannot_be_sent(connect, caplog):
    class Dumb(Slow):
        def encode(self, content):
            raise ValueError('no words')

    connection = connect(Dumb)
    connection.messages()
    connection._put(text='{"type": "HANG"}')
    assert connection.messages() == [{'close': 1011}]
    assert not Socket.objects.exists() and 'no words' in caplog.text


def test_without_a_time_nothing_is_noted_of_a_frame(connect, settings):
    class Noting(RoutedSocketHandler):
        routes = (('LOOK', lambda socket: seen.append(dict(timing.handled))),)

    seen = []
    for time_ in (None, 60):
        settings.SOCKETS = {'MAX_HANDLING_TIME': time_}
        connect(Noting).send({'type': 'LOOK'})
    assert [len(handled) for handled in seen] == [0, 1]
