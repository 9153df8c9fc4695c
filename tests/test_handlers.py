import datetime
import json
import re

import pytest
from django.contrib.sessions.models import Session
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, DataError
from django.utils import timezone
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter, messages, signals
from sockets.models import Socket, SocketQuerySet

from .client import ON_CHANNELS_1
from .conftest import STOCK_LAYERS, both_ways

pytestmark = pytest.mark.django_db


class Poker(RoutedSocketHandler):
    routes = (
        *RoutedSocketHandler.routes,
        ('BET', 'on_bet'),
        ('NOTHING', 'on_nothing'),
        ('PUSH', 'on_push'),
        ('CLOSE', 'on_close'),
        ('WHO', 'on_who'),
        ('COUNT', 'on_count'),
        ('NOTES', lambda socket: {'ref': 'its own', 'own': True}),
        (re.compile('ACTION_.*'), lambda socket, content: {'acted': content['type']}),
    )

    def on_bet(self, content):
        return {'type': 'BET_TAKEN', 'amount': content['amount']}

    def on_nothing(self, content):
        pass

    def on_push(self, content):
        self.send_json({'n': 1})
        self.send_action('N', n=2)
        return {'n': 3}

    def on_close(self, content):
        self.close(content.get('code', 1000))

    def on_who(self, content):
        return {'user': self.user.get_username(), 'staff': self.user.is_staff, 'row': self.socket.pk}

    def on_count(self, content):
        self.session['count'] = self.session.get('count', 0) + 1
        return {'count': self.session['count']}


@both_ways
def test_a_subclass_lists_its_routes(connect):
    poker = connect(Poker)
    assert poker.messages() == [{'accept': True}]
    assert poker.send({'type': 'BET', 'amount': 5}) == [{'type': 'BET_TAKEN', 'amount': 5}]
    assert poker.send({'type': 'ACTION_FOLD'}) == [{'acted': 'ACTION_FOLD'}]
    assert poker.send({'type': 'NOTHING'}) == []


@both_ways
def test_a_frame_with_a_ref_gets_exactly_one_frame_with_it(connect):
    poker = connect(Poker)
    poker.received()
    assert poker.send({'type': 'BET', 'amount': 5, 'ref': 'a'}) == [{'type': 'BET_TAKEN', 'amount': 5, 'ref': 'a'}]
    assert poker.send({'type': 'NOTHING', 'ref': 'b'}) == [{'type': 'ACK', 'ref': 'b'}]
    assert poker.send({'type': 'PING', 'ref': 'c'}) == [{'type': 'ACK', 'ref': 'c'}]
    assert poker.send({'type': 'NOTHING', 'ref': 0}) == [{'type': 'ACK', 'ref': 0}]
    assert poker.send({'type': 'PUSH', 'ref': 'd'}) == [{'n': 1}, {'type': 'N', 'n': 2}, {'n': 3, 'ref': 'd'}]
    # Not one that the function made up.
    assert poker.send({'type': 'NOTES', 'ref': 'f'}) == [{'ref': 'f', 'own': True}]
    (error,) = poker.send({'type': 'UNKNOWN', 'ref': 'e'})
    assert (error['type'], error['ref']) == ('ERROR', 'e')


@both_ways
def test_a_subclass_can_override_the_method_of_an_inherited_route(connect):
    class Loud(Poker):
        def on_bet(self, content):
            return {**super().on_bet(content), 'type': 'BET!'}

    assert connect(Loud).send({'type': 'BET', 'amount': 1}) == [{'type': 'BET!', 'amount': 1}]


@both_ways
def test_the_last_of_equal_routes_wins_over_those_of_the_base(connect):
    class Last(Poker):
        routes = (*Poker.routes, ('BET', lambda socket: {'bet': 'last'}))

    assert connect(Last).send({'type': 'BET'}) == [{'bet': 'last'}]


@pytest.mark.parametrize(
    'routes, words',
    [
        ((('BET', 'on_bett'),), ['Broken', "'BET'", 'on_bett']),
        ((('BET', 7),), ['Broken', 'BET']),
        (('BET',), ['Broken', 'BET']),
        (((None, 'on_ping'),), ['Broken', 'on_ping']),
        ((('BET', lambda: None),), ['Broken', 'BET', 'no argument']),
        ((('', 'on_ping'),), ['Broken']),
    ],
)
def test_a_route_to_a_missing_method_is_an_error_when_its_class_is_made(routes, words):
    with pytest.raises(ImproperlyConfigured) as error:
        type('Broken', (RoutedSocketHandler,), {'routes': routes})
    for word in words:
        assert word in str(error.value)


@both_ways
def test_hello_tells_a_client_who_it_is(connect, login, alice):
    poker = connect(Poker, cookies=login(alice))
    poker.received()
    before = timezone.now()
    (answer,) = poker.send({'type': 'HELLO', 'ref': 1})
    row = Socket.objects.get(channel_name=poker.name)
    assert abs(answer.pop('TIMESTAMP') / 1000 - before.timestamp()) < 60
    assert answer == {
        'type': 'GOT_HELLO',
        'ref': 1,
        'user_id': alice.pk,
        'socket_id': row.pk,
        'path': '/page/',
        'user_ip': '192.0.2.1',
        'last_ping': row.last_ping.isoformat(timespec='milliseconds').replace('+00:00', 'Z'),
    }


@both_ways
def test_ping_marks_the_connection_alive_and_is_not_answered(connect):
    poker = connect(Poker)
    poker.received()
    long_ago = timezone.now() - datetime.timedelta(hours=1)
    Socket.objects.update(active=False, last_ping=long_ago)
    assert poker.send({'type': 'PING'}) == []
    row = Socket.objects.get()
    assert row.active and row.last_ping > long_ago


@both_ways
def test_a_connection_whose_row_is_gone_is_told_to_reconnect_after_a_ping(connect):
    poker = connect(Poker)
    # As when it has been deleted and the close is still on its way.
    Socket.objects.get().remove()
    poker.messages()
    poker._put(text='{"type": "PING"}')
    # Why it is gone is not known here: to come back is no mistake.
    assert poker.messages()[-1] == {'close': 1012}
    assert Socket.objects.count() == 0


@both_ways
def test_a_row_stands_for_an_open_connection(connect, login, alice, settings):
    cookies = login(alice)
    poker = connect(Poker, cookies=cookies)
    row = Socket.objects.get()
    assert (row.user, row.session_id) == (alice, cookies[settings.SESSION_COOKIE_NAME])
    assert (row.channel_name, row.path, row.user_ip, row.active) == (poker.name, '/page/', '192.0.2.1', True)
    poker.disconnect()
    assert not Socket.objects.exists()


def test_the_row_is_there_before_the_client_can_send(connect, monkeypatch):
    rows = []
    monkeypatch.setattr(
        'sockets.engines.{}.put'.format(
            'channels1.connection.Connection' if ON_CHANNELS_1 else 'channels4.sandbox.Served'
        ),
        lambda self, message, is_last=False: rows.append(Socket.objects.count()),
    )
    connect(Poker)
    assert rows == [1]


@pytest.fixture
def count(django_assert_num_queries, db):
    # The transaction around a test adds no query of its own to what a worker would run.
    return django_assert_num_queries


@both_ways
def test_a_frame_that_touches_neither_user_nor_row_runs_no_query(connect, count):
    poker = connect(Poker)
    for content in (
        {'type': 'BET', 'amount': 1},
        {'type': 'NOTHING', 'ref': 1},
        {'type': 'UNKNOWN'},
        {'type': 'ACTION_X'},
        {'type': 'CLOSE'},
    ):
        with count(0):
            poker.send(content)


@both_ways
def test_user_session_and_row_are_one_query_together(connect, count, login, alice):
    class Curious(Poker):
        routes = (('LOOK', 'look'),)
        login_required = True

        def look(self, content):
            return [self.user.username, self.session.get('x'), self.socket.path, self.user.is_staff]

    for connection in (connect(Poker), connect(Poker, cookies=login(alice))):
        for content in ({'type': 'WHO'}, {'type': 'HELLO'}, {'type': 'PING'}):
            with count(1):
                connection.send(content)
    curious = connect(Curious, '/curious/', cookies=login(alice))
    with count(1):
        curious.send({'type': 'LOOK'})


@both_ways
def test_connecting_runs_few_queries(connect, count, login, alice, way):
    class Touching(Poker):
        def connect(self, message, **kwargs):
            super().connect(message, **kwargs)
            return self.user.is_staff, self.session.get('x'), self.socket.pk

    cookies = login(alice)
    with count(3):
        connect(Touching, cookies=cookies)
    with count(1):
        anonymous = connect(Touching)
    # The end of the row, and its rooms. Streams have functions that get the row.
    with count(2 if way == 'at a path' else 3):
        anonymous.disconnect()


@both_ways
def test_the_user_is_as_in_a_request(connect, login, alice):
    assert connect(Poker).send({'type': 'WHO'})[0]['user'] == ''
    (answer,) = connect(Poker, cookies=login(alice)).send({'type': 'WHO'})
    assert (answer['user'], answer['staff']) == ('alice', False)
    assert answer['row'] == Socket.objects.get(user=alice).pk


@both_ways
def test_a_changed_session_is_saved(connect, login, alice, client, settings):
    cookies = login(alice)
    poker = connect(Poker, cookies=cookies)
    assert poker.send({'type': 'COUNT'}) == [{'count': 1}]
    assert poker.send({'type': 'COUNT'}) == [{'count': 2}]
    client.cookies.load(cookies)
    assert client.session['count'] == 2
    # What a client without a session was answered was never saved.
    anonymous = connect(Poker)
    for _ in range(2):
        assert [content['code'] for content in anonymous.send({'type': 'COUNT', 'ref': 1})] == ['server_error']


@both_ways
def test_a_session_that_goes_while_a_function_changes_it_is_not_brought_back(connect, login, alice):
    class Leaving(Poker):
        def on_count(self, content):
            self.session['count'] = 1
            Session.objects.all().delete()
            return {'never': 'sent'}

    leaving = connect(Leaving, cookies=login(alice))
    leaving.messages()
    leaving._put(text='{"type": "COUNT"}')
    assert leaving.messages()[-1] == {'close': 4401}
    assert not Session.objects.exists()


@pytest.mark.parametrize('engine', ['cache', 'cached_db', 'file', 'signed_cookies'])
@both_ways
def test_users_are_known_under_every_session_engine(connect, login, alice, settings, engine, tmp_path):
    settings.SESSION_ENGINE = 'django.contrib.sessions.backends.' + engine
    settings.SESSION_FILE_PATH = str(tmp_path)
    poker = connect(Poker, cookies=login(alice))
    assert poker.send({'type': 'WHO'})[0]['user'] == 'alice'
    for garbage in ('garbage', 'x' * 32):
        stranger = connect(Poker, cookies={settings.SESSION_COOKIE_NAME: garbage})
        assert stranger.send({'type': 'WHO'})[0]['user'] == ''


@both_ways
def test_login_required_accepts_users_only(connect, login, alice):
    members = type('Members', (Poker,), {'login_required': True})
    assert connect(members, cookies=login(alice)).send({'type': 'BET', 'amount': 1})[0]['type'] == 'BET_TAKEN'
    assert connect(members).messages()[-1] == {'close': 4401}


@both_ways
def test_close_closes_at_once_and_nothing_is_sent_after_it(connect, caplog):
    poker = connect(Poker)
    poker.messages()
    poker._put(text='{"type": "CLOSE", "code": 4242, "ref": 1}')
    assert poker.messages() == [{'close': 4242}]

    class Chatty(Poker):
        def on_close(self, content):
            super().on_close(content)
            self.send_json({'too': 'late'})

    chatty = connect(Chatty, '/chatty/')
    chatty.messages()
    chatty._put(text='{"type": "CLOSE"}')
    assert chatty.messages() == [{'close': 1000}]
    assert 'once it has been closed' in caplog.text


@both_ways
def test_a_code_that_no_server_may_close_with_is_an_error(connect, caplog):
    poker = connect(Poker)
    for code in (0, 999, 1005, 1006, 1015, 2000, 5000, '1000'):
        assert poker.send({'type': 'CLOSE', 'code': code})[-1]['code'] == 'server_error'
    assert 'is not a close code' in caplog.text


@both_ways
def test_sends_do_not_wait_for_the_function_to_return(connect):
    seen = []

    class Watching(Poker):
        def on_push(self, content):
            self.send_json({'n': 1})
            seen.append(poker.received())

    poker = connect(Watching)
    poker.received()
    poker.send({'type': 'PUSH'})
    assert seen == [[{'n': 1}]]


# Overriding connect, receive and disconnect as on any Channels consumer.


of_a_channel = pytest.mark.channels1('there is no reply channel on Channels 4')


@of_a_channel
@both_ways
def test_a_connect_that_accepts_in_the_classic_way_has_a_row(connect):
    class Classic(Poker):
        def connect(self, message, **kwargs):
            assert self.socket is None
            message.reply_channel.send({'accept': True})
            self.send(text=json.dumps({'row': self.socket.pk}))

    classic = connect(Classic)
    assert classic.messages() == [{'accept': True}, {'text': json.dumps({'row': Socket.objects.get().pk})}]


@both_ways
def test_a_connect_that_neither_accepts_nor_refuses_is_accepted(connect):
    class Looking(Poker):
        def connect(self, message, **kwargs):
            looked.append(kwargs)

    looked = []
    assert connect(Looking, pattern='^/(?P<slug>page)/$').messages() == [{'accept': True}]
    assert looked == [{'slug': 'page'}]


@both_ways
def test_a_connect_that_sends_first_is_accepted_first(connect):
    class Speaking(Poker):
        def connect(self, message, **kwargs):
            self.send_json({'hello': 1})

    assert connect(Speaking).messages() == [{'accept': True}, {'text': '{"hello":1}'}]


def _deny(handler):
    from channels.exceptions import DenyConnection

    raise DenyConnection()


def test_a_value_that_a_column_refuses_does_not_end_the_worker(connect, monkeypatch, caplog):
    def refuse(*args, **kwargs):
        raise DataError('value too long for type character varying')

    monkeypatch.setattr(Socket, 'save', refuse)
    assert connect(Poker).messages() == [{'close': 4403}]
    assert 'value too long' in caplog.text and 'Traceback' not in caplog.text


@pytest.mark.parametrize(
    'refuse, sent',
    [
        pytest.param(
            lambda handler: handler.message.reply_channel.send({'accept': False}),
            [{'accept': False}],
            marks=of_a_channel,
        ),
        pytest.param(
            lambda handler: handler.message.reply_channel.send({'close': True}), [{'close': True}], marks=of_a_channel
        ),
        (lambda handler: handler.close(), [{'close': 1000}]),
        (_deny, [{'close': 4403}]),
    ],
)
@both_ways
def test_a_connect_that_refuses_leaves_no_row_and_no_hooks(connect, refuse, sent):
    class Refusing(Poker):
        def connect(self, message, **kwargs):
            refuse(self)

        def disconnect(self, message, **kwargs):
            raise AssertionError('was never connected')

    refused = connect(Refusing)
    assert refused.messages() == sent
    refused.disconnect(1006)
    assert not Socket.objects.exists()


def test_a_connect_function_that_denies_after_the_accept_closes_with_4403(connect):
    class Denying(Poker):
        def connect(self, message, **kwargs):
            super().connect(message, **kwargs)
            _deny(self)

    ended = []
    signals.socket_disconnected.connect(lambda socket, code, **kwargs: ended.append(code), weak=False)
    denied = connect(Denying)
    assert denied.messages() == [{'accept': True}, {'close': 4403}]
    assert not Socket.objects.exists()
    assert ended == [4403]


@both_ways
def test_an_overridden_receive_sees_every_content(connect):
    class Logging(Poker):
        def receive(self, content, **kwargs):
            seen.append(content)
            return super().receive(content, **kwargs)

    class Plain(Poker):
        def receive(self, content, **kwargs):
            self.send_json(content)

    seen = []
    assert connect(Logging).send({'type': 'BET', 'amount': 2})[0]['amount'] == 2
    assert seen == [{'type': 'BET', 'amount': 2}]
    assert connect(Plain, '/plain/').send({'any': 'thing'}) == [{'any': 'thing'}]


@both_ways
def test_an_overridden_default_route_can_fall_back_on_ours(connect):
    class Defaulting(Poker):
        def default_route(self, content, **kwargs):
            if content.get('known'):
                return {'default': True}
            return super().default_route(content)

    defaulting = connect(Defaulting)
    assert defaulting.send({'known': 1}) == [{'default': True}]
    assert defaulting.send({'type': 'X'})[0]['code'] == 'unknown_type'


@both_ways
def test_a_disconnect_sees_its_row_which_is_gone_for_everyone_else(connect, login, alice):
    class Leaving(Poker):
        def disconnect(self, message, **kwargs):
            left.append((self.socket.pk, self.user, message['code'], Socket.objects.count()))

    left = []
    leaving = connect(Leaving, cookies=login(alice))
    pk = Socket.objects.get().pk
    leaving.disconnect(1001)
    assert left == [(pk, alice, 1001, 0)]


@both_ways
def test_a_disconnect_that_raises_still_deletes_the_row(connect, caplog):
    class Failing(Poker):
        def disconnect(self, message, **kwargs):
            raise KeyError('in disconnect')

    connect(Failing).disconnect()
    assert 'in disconnect' in caplog.text
    assert not Socket.objects.exists()


@both_ways
def test_of_two_workers_that_end_the_same_connection_one_runs_its_function(connect, monkeypatch):
    class Ending(Poker):
        def disconnect(self, message, **kwargs):
            ended.append(self.channel_name)

    ended = []
    ending = connect(Ending)
    # The other one deletes the row after we have loaded it.
    monkeypatch.setattr(Socket, 'remove', lambda row: Socket.objects.all().delete() and False)
    ending.disconnect()
    assert ended == []


@pytest.mark.channels1('the groups of Channels 4 know no connections of ours: rooms do')
def test_groups_are_joined_and_left(connect):
    from channels import Group

    class Grouped(Poker):
        groups = ['everyone']

    grouped = connect(Grouped)
    grouped.messages()
    Group('everyone').send({'text': '{"to": "all"}'})
    assert grouped.received() == [{'to': 'all'}]
    grouped.disconnect()
    Group('everyone').send({'text': '{"to": "all"}'})
    assert grouped.received() == []


@both_ways
def test_a_database_that_is_away_refuses_the_connection_and_not_the_worker(connect, monkeypatch, caplog):
    def away(*args, **kwargs):
        raise DatabaseError('the database is away')

    away_since = connect(Poker)
    away_since.messages()
    monkeypatch.setattr(Socket, 'save', away)
    assert connect(Poker).messages() == [{'close': 1011}]
    monkeypatch.setattr(SocketQuerySet, '_fetch_all', away)
    assert away_since.send({'type': 'WHO'})[0]['code'] == 'server_error'
    away_since.disconnect()
    assert caplog.text.count('the database is away') >= 3


@pytest.mark.channels1('a server of ASGI connects once')
def test_a_connect_that_comes_twice_keeps_its_one_row(transactional_db, connect, caplog):
    poker = connect(Poker)
    poker.connect()
    assert Socket.objects.count() == 1
    assert 'Refused' in caplog.text


# Ours hold more, and always have room for an accept.
stock = pytest.mark.channels1('a layer of Channels 1 has a mailbox for each server')
on_stock_layers = pytest.mark.parametrize('layer', STOCK_LAYERS, indirect=True)


@stock
@on_stock_layers
def test_a_full_mailbox_costs_its_own_connection_and_not_the_worker(connect, settings, caplog):
    settings.SOCKETS = {'SEND_TIMEOUT': 0.05}
    poker = connect(Poker)
    from channels import channel_layers

    layer = channel_layers['default']
    for _ in range(layer.capacity):
        layer.send(poker.name, {'text': '{}'})
    poker._put(text='{"type": "BET", "amount": 1}')
    connect(Poker)
    assert 'has taken no message for 0.05 s' in caplog.text
    assert len(poker.messages()) == 1 + layer.capacity
    assert poker.send({'type': 'BET', 'amount': 1}) == [{'type': 'BET_TAKEN', 'amount': 1}]


@stock
@on_stock_layers
def test_a_connect_that_cannot_be_answered_waits_once_and_gives_up(layer, connect, settings, caplog):
    settings.SOCKETS = {'SEND_TIMEOUT': 0.05}
    for _ in range(layer.capacity):
        layer.send('daphne.response.test!other', {'text': '{}'})
    unheard = connect(Poker)
    assert caplog.text.count('Gave up 1 messages') == 1
    assert 'Could not answer the connect' in caplog.text
    # daphne gives up too, and says so.
    assert unheard.messages() == []
    unheard.disconnect(1006)
    assert not Socket.objects.exists()


@both_ways
def test_a_ref_of_any_kind_is_returned_as_it_is(connect):
    poker = connect(Poker)
    poker.received()
    for ref in ('', 0, False, 'x' * 1000, [1], {'a': 1}, 1.5):
        assert poker.send({'type': 'NOTHING', messages.REF: ref}) == [{'type': 'ACK', 'ref': ref}]
    assert poker.send({'type': 'NOTHING', 'ref': None}) == []


# What opened the connection.


def on_request(socket):
    request = socket.request
    return {
        'type': 'REQUEST',
        'path': request.path,
        'get': request.GET.dict(),
        'cookies': request.COOKIES,
        'agent': request.META['HTTP_USER_AGENT'],
        'address': request.META['REMOTE_ADDR'],
        'user': request.user.get_username(),
        'language': request.session.get('language'),
        'host': request.get_host(),
        'method': request.method,
    }


@pytest.mark.django_db(transaction=True)
@both_ways
def test_the_request_that_opened_a_connection_is_there_in_every_hook_and_frame(connect, login, alice, settings):
    settings.ALLOWED_HOSTS = ['chat.example.com']
    seen = []

    class Page(View):
        socket = SocketRouter()
        route = socket.route('REQUEST')(on_request)

        @socket.connect
        def on_open(socket):
            seen.append(on_request(socket))

        @socket.disconnect
        def on_close(socket):
            seen.append(on_request(socket))

    cookies = {'colour': 'red', **login(alice), 'flavour': 'löwe'}
    page = connect(
        Page.socket.Handler,
        '/page/?a=1&b=%C3%A4',
        cookies=cookies,
        headers={'user-agent': 'Löwe', 'host': 'chat.example.com'},
    )
    page.received()
    seen += page.send({'type': 'REQUEST'})
    page.disconnect()
    # The session's cookie is nowhere but in the browser, and in a process that holds the connection.
    assert len(seen) == 3 and all(
        bool(request['cookies'].pop(settings.SESSION_COOKIE_NAME, None)) == (request is seen[0] or not ON_CHANNELS_1)
        for request in seen
    )
    assert seen[0] == seen[1] == seen[2]
    assert seen[0]['get'] == {'a': '1', 'b': 'ä'} and seen[0]['cookies']['flavour']
    assert {key: seen[0][key] for key in ('path', 'address', 'user', 'host', 'method')} == {
        'path': '/page/',
        'address': '192.0.2.1',
        'user': 'alice',
        'host': 'chat.example.com',
        'method': 'GET',
    }


@both_ways
def test_the_request_costs_a_query_where_another_process_holds_it_and_only_those_who_ask_for_it(connect, count):
    class Page(RoutedSocketHandler):
        routes = ('ASK', lambda socket: {'path': socket.request.path}), ('WHO', lambda socket: {'id': socket.socket.pk})

    page = connect(Page)
    page.received()
    with count(1):
        page.send({'type': 'WHO'})
    # The other one is for the row.
    with count(2 if ON_CHANNELS_1 else 1):
        assert page.send({'type': 'ASK'}) == [{'path': '/page/'}]


# Frames that are no JSON objects.


class Pickled(RoutedSocketHandler):
    """Speaks a language of its own: ``type;n``."""

    routes = (('ADD', lambda socket, content: {'type': 'SUM', 'n': content['n'] + 1}),)

    def decode(self, text, data):
        type, n = data.decode().split(';')
        return {'type': type, 'n': int(n)}

    def encode(self, content):
        return '{};{}'.format(content['type'], content.get('n', content.get('code'))).encode()


def test_a_handler_may_have_a_decoder_and_an_encoder_of_its_own(connect):
    handler = connect(Pickled)
    handler.messages()
    for frame, came in (
        (b'ADD;1', b'SUM;2'),
        (b'NONE;1', b'ERROR;unknown_type'),
        (b'nonsense', b'ERROR;invalid_json'),
        (b'x' * 1024 * 1024 + b';1', b'ERROR;too_large'),
    ):
        handler._put(bytes=frame)
        assert handler.messages() == [{'bytes': came}]


def test_binary_frames_go_to_on_bytes_and_its_result_comes_back(connect):
    class Echo(RoutedSocketHandler):
        def on_bytes(self, data):
            if data == b'json':
                return {'type': 'JSON'}
            if data == b'fail':
                raise ValueError(data)
            return data[::-1] if data != b'quiet' else None

    echo, other = connect(Echo), connect(RoutedSocketHandler, '/other/')
    for connection in (echo, other):
        connection.messages()
    for data, came in ((b'abc', {'bytes': b'cba'}), (b'json', {'text': '{"type":"JSON"}'})):
        echo._put(bytes=data)
        assert echo.messages() == [came]
    echo._put(bytes=b'quiet')
    assert echo.messages() == []
    assert echo.send(b'fail')[0]['code'] == 'server_error'
    assert echo.send(b'x' * (1024 * 1024 + 1))[0]['code'] == 'too_large'
    assert echo.send({'type': 'PING', 'ref': 1}) == [{'type': 'ACK', 'ref': 1}]
    assert other.send(b'abc')[0]['code'] == 'invalid_message'


@pytest.mark.parametrize(
    'on_bytes',
    [
        lambda self, data, pk: data + pk.encode(),
        lambda self, pk, data: data + pk.encode(),
        lambda self, data, **kwargs: data + kwargs['pk'].encode(),
        lambda self, blob, pk: blob + pk.encode(),
        lambda self, data: data + self.kwargs['pk'].encode(),
    ],
)
def test_on_bytes_gets_the_arguments_that_it_names(connect, on_bytes):
    handler = type('Files', (RoutedSocketHandler,), {'on_bytes': on_bytes})
    connection = connect(handler, '/file/7/', pattern=r'^/file/(?P<pk>\d+)/$')
    connection.messages()
    connection._put(bytes=b'abc')
    assert connection.messages() == [{'bytes': b'abc7'}]


@pytest.mark.parametrize('on_bytes, word', [(lambda: None, 'takes no argument'), ('handle', 'not a function')])
def test_an_on_bytes_that_cannot_be_called_is_refused_with_its_class(on_bytes, word):
    with pytest.raises(ImproperlyConfigured, match='Files.on_bytes: .*' + word):
        type('Files', (RoutedSocketHandler,), {'on_bytes': on_bytes})


def test_text_and_bytes_are_sent_as_they_are(connect):
    class Raw(RoutedSocketHandler):
        def on_bytes(self, data):
            self.send(text='text')
            self.send(bytes=b'bytes')

    raw = connect(Raw)
    raw.messages()
    raw._put(bytes=b'go')
    raw._settle()
    assert Socket.objects.send(text='to all') == Socket.objects.get().send(bytes=b'one') == 1
    assert raw.messages() == [{'text': 'text'}, {'bytes': b'bytes'}, {'text': 'to all'}, {'bytes': b'one'}]
    for frame in ({}, {'text': b'x'}, {'bytes': 'x'}, {'text': 'x', 'bytes': b'x'}, {'text': {'type': 'X'}}):
        for target in (Socket.objects, Socket.objects.get()):
            with pytest.raises(TypeError, match="A frame is text='...' or bytes=b'...'"):
                target.send(**frame)


def test_a_row_without_a_handshake_has_a_request_that_knows_its_path(connect):
    class Page(RoutedSocketHandler):
        routes = (('ASK', lambda socket: {'path': socket.request.path, 'cookies': socket.request.COOKIES}),)

    page = connect(Page)
    page.received()
    Socket.objects.update(handshake='')
    assert page.send({'type': 'ASK'}) == [{'path': '/page/', 'cookies': {}}]
