"""Whatever a client sends, it gets an ERROR or a close code, and nobody else notices."""

import json
import logging
import re

import pytest
from channels.exceptions import DenyConnection
from django.contrib.sessions.models import Session
from django.core.exceptions import ImproperlyConfigured
from django.test import Client as Browser

from sockets import RoutedSocketHandler
from sockets.exceptions import FrameError
from sockets.models import Socket

from .client import ON_CHANNELS_1, Connection
from .conftest import both_ways

pytestmark = pytest.mark.django_db


class Boom(Exception):
    pass


class Handler(RoutedSocketHandler):
    routes = (
        *RoutedSocketHandler.routes,
        ('ECHO', 'echo'),
        ('WHO', 'who'),
        ('RAISE', 'fail'),
        ('RETURN', 'give'),
        (re.compile('REGEX_.*'), 'echo'),
    )
    raises = returns = None

    def echo(self, content):
        return content

    def who(self, content):
        return {'type': 'YOU', 'user': self.user.get_username()}

    def fail(self, content):
        raise self.raises

    def give(self, content):
        return self.returns


@pytest.fixture
def bystander(connect):
    """Another connection, which must not notice anything."""
    other = connect(Handler)
    assert other.messages() == [{'accept': True}]
    yield other
    assert other.messages() == []
    assert other.send({'type': 'ECHO', 'text': 'still here'}) == [{'type': 'ECHO', 'text': 'still here'}]
    assert Socket.objects.filter(channel_name=other.name).count() == 1


@pytest.fixture
def connection(connect, bystander):
    connection = connect(Handler)
    assert connection.messages() == [{'accept': True}]
    return connection


@pytest.mark.parametrize(
    'frame, code',
    [
        ('{"type": ', 'invalid_json'),
        ('', 'invalid_json'),
        ('[' * 100000, 'invalid_json'),
        ('{"type": "ECHO", "n": NaN}', 'invalid_json'),
        ('{"type": "ECHO", "n": -Infinity}', 'invalid_json'),
        ('{"type": "ECHO", "n": {"deep": [1e999]}}', 'invalid_json'),
        ('{"type": "ECHO", "ref": -1e999}', 'invalid_json'),
        (r'{"type": "ECHO", "text": "\ud800"}', 'invalid_json'),
        (r'{"type": "ECHO", "text": "a\u0000b"}', 'invalid_json'),
        ('{"type": "ECHO", "text": "a\0b"}', 'invalid_json'),
        (b'\x00\x01', 'invalid_message'),
        (b'{"type": "ECHO"}', 'invalid_message'),
        ('[{"type": "ECHO"}]', 'invalid_message'),
        ('42', 'invalid_message'),
        ('"ECHO"', 'invalid_message'),
        ('null', 'invalid_message'),
        ('{}', 'unknown_type'),
        ('{"type": null}', 'unknown_type'),
        ('{"type": 7}', 'unknown_type'),
        ('{"type": ["ECHO"]}', 'unknown_type'),
        ('{"type": {"ECHO": 1}}', 'unknown_type'),
        ('{"type": ""}', 'unknown_type'),
        ('{"type": "' + 'x' * 100000 + '"}', 'unknown_type'),
        ('{"type": "REGEX_' + 'x' * 100000 + '"}', 'unknown_type'),
        ('{"type": "NO_SUCH"}', 'unknown_type'),
    ],
)
@both_ways
def test_a_bad_frame_is_answered_with_its_code_and_the_connection_goes_on(connection, frame, code):
    (error,) = connection.send(frame)
    assert error['type'] == 'ERROR'
    assert error['code'] == code
    assert error['details']
    assert len(json.dumps(error)) < 500
    assert connection.send({'type': 'ECHO', 'n': 1}) == [{'type': 'ECHO', 'n': 1}]


@both_ways
def test_an_unknown_type_is_named_in_the_answer(connection):
    assert "'NO_SUCH'" in connection.send({'type': 'NO_SUCH'})[0]['details']


@pytest.mark.parametrize('text', [r'\\u0000 and \\ud800 are what people write about', '\U0001f600 \u00e9', '\\'])
@both_ways
def test_text_that_only_looks_dangerous_is_routed(connection, text):
    content = {'type': 'ECHO', 'text': text}
    assert connection.send(json.dumps(content)) == [content]
    assert connection.send(json.dumps(content, ensure_ascii=False)) == [content]


def test_a_frame_over_the_limit_is_refused_before_it_is_parsed(connection, settings, monkeypatch):
    frame = json.dumps({'type': 'ECHO', 'text': 'x' * (1024 * 1024)})
    with monkeypatch.context() as patch:
        patch.setattr('sockets.messages.json', None)
        (error,) = connection.send(frame)
    assert error['code'] == 'too_large'
    settings.SOCKETS = {'MAX_MESSAGE_SIZE': 40}
    assert connection.send('{"type": "ECHO", "t": "%s"}' % ('é' * 6)) == [{'type': 'ECHO', 't': 'é' * 6}]
    assert connection.send('{"type": "ECHO", "t": "%s"}' % ('é' * 9))[0]['code'] == 'too_large'


@both_ways
def test_an_error_carries_the_ref_of_the_frame_it_answers(connection):
    assert connection.send({'type': 'NO_SUCH', 'ref': 7})[0]['ref'] == 7
    assert 'ref' not in connection.send({'type': 'NO_SUCH'})[0]


@pytest.mark.parametrize('debug', [False, True])
@both_ways
def test_a_function_that_raises_is_logged_and_tells_the_client_nothing_but_in_debug(
    connection, monkeypatch, settings, caplog, debug
):
    settings.DEBUG = debug
    monkeypatch.setattr(Handler, 'raises', Boom('the secret'))
    with caplog.at_level(logging.ERROR, 'sockets'):
        (error,) = connection.send({'type': 'RAISE', 'ref': 'r'})
    assert (error['code'], error['ref']) == ('server_error', 'r')
    assert ('the secret' in json.dumps(error)) is debug
    assert ('fail' in error.get('traceback', '')) is debug
    assert 'the secret' in caplog.text
    assert connection.send({'type': 'ECHO'}) == [{'type': 'ECHO'}]


@pytest.mark.parametrize('exception', [ImproperlyConfigured(), RecursionError(), KeyError('x'), MemoryError()])
@both_ways
def test_any_other_exception_of_a_function_is_a_server_error(connection, monkeypatch, exception):
    monkeypatch.setattr(Handler, 'raises', exception)
    assert connection.send({'type': 'RAISE'})[0]['code'] == 'server_error'


@both_ways
def test_a_frame_error_of_a_function_is_told_to_the_client(connection, monkeypatch):
    monkeypatch.setattr(Handler, 'raises', FrameError('invalid_content', 'No.', errors={'text': ['Too long.']}))
    assert connection.send({'type': 'RAISE', 'ref': 1}) == [
        {'type': 'ERROR', 'code': 'invalid_content', 'details': 'No.', 'errors': {'text': ['Too long.']}, 'ref': 1}
    ]


@both_ways
def test_deny_connection_in_a_route_closes_with_4403_and_the_worker_lives(connection, monkeypatch):
    monkeypatch.setattr(Handler, 'raises', DenyConnection())
    connection._put(text='{"type": "RAISE", "ref": 1}')
    error, close = connection.messages()
    assert json.loads(error['text'])['code'] == 'not_allowed'
    assert close == {'close': 4403}


@pytest.mark.channels1('Channels 4 has no such exception')
@pytest.mark.parametrize('args, code', [((), 1000), ((4242,), 4242), ((1005,), 1011)])
@both_ways
def test_channels_close_exception_closes_with_its_code(connection, monkeypatch, args, code):
    from channels.exceptions import WebsocketCloseException

    monkeypatch.setattr(Handler, 'raises', WebsocketCloseException(*args))
    connection._put(text='{"type": "RAISE"}')
    assert connection.messages() == [{'close': code}]


@pytest.mark.channels1('Channels 4 has no such exception')
@both_ways
def test_an_exception_for_http_is_a_server_error(connection, monkeypatch):
    from channels.exceptions import ResponseLater

    monkeypatch.setattr(Handler, 'raises', ResponseLater())
    assert connection.send({'type': 'RAISE'})[0]['code'] == 'server_error'


@pytest.mark.channels1('Channels 4 has no such exception')
@both_ways
def test_a_channels_exception_whose_run_raises_does_not_reach_the_worker(connection, monkeypatch, caplog):
    from channels.exceptions import ChannelSocketException

    class RunsAway(ChannelSocketException):
        def run(self, message):
            raise Boom('in run')

    monkeypatch.setattr(Handler, 'raises', RunsAway())
    assert connection.send({'type': 'RAISE'}) == []
    assert 'in run' in caplog.text


@pytest.mark.parametrize('returned', [None, 'text', 7, ['a'], True, object()])
@both_ways
def test_a_result_that_is_not_a_dict_is_ignored(connection, monkeypatch, returned):
    monkeypatch.setattr(Handler, 'returns', returned)
    assert connection.send({'type': 'RETURN'}) == []
    assert connection.send({'type': 'RETURN', 'ref': 0}) == [{'type': 'ACK', 'ref': 0}]


@pytest.mark.parametrize('returned, count', [(['a'], 1), ((), 1), ('text', 1), (None, 0), (7, 0), ({'type': 'X'}, 0)])
@both_ways
def test_with_debug_the_log_says_what_of_a_result_no_client_gets(
    connection, monkeypatch, caplog, settings, returned, count
):
    settings.DEBUG = True
    monkeypatch.setattr(Handler, 'returns', returned)
    connection.send({'type': 'RETURN', 'ref': 0})
    assert caplog.text.count('Return a dict') == count


@pytest.mark.parametrize(
    'returned', [{'x': object()}, {'x': float('nan')}, {(1, 2): 3}, {'x': {1, 2}}, {'x': b'bytes'}]
)
@both_ways
def test_a_reply_that_json_cannot_encode_is_a_server_error(connection, monkeypatch, returned, caplog):
    monkeypatch.setattr(Handler, 'returns', returned)
    assert connection.send({'type': 'RETURN', 'ref': 1})[0]['code'] == 'server_error'
    assert 'TypeError' in caplog.text


@both_ways
def test_a_reply_that_contains_itself_is_a_server_error(connection, monkeypatch):
    circular = {}
    circular['x'] = circular
    monkeypatch.setattr(Handler, 'returns', circular)
    assert connection.send({'type': 'RETURN'})[0]['code'] == 'server_error'


@pytest.mark.parametrize('control', ['\n', '\0', '\r', '\x1b[2J', '\x7f', '\x85', '\x9b'])
def test_a_path_with_control_characters_is_refused(connect, bystander, control, caplog):
    # "^/page/$" matches "/page/\\n", a terminal obeys the others, and no database takes a NUL.
    refused = connect(Handler, '/page/' + control, pattern='^/page/')
    assert refused.messages() == [{'close': 4403}]
    assert 'control characters' in caplog.text and control not in caplog.messages[-1]
    assert Socket.objects.count() == 1


@both_ways
def test_a_path_that_a_row_cannot_hold_is_refused(connect, bystander, caplog):
    refused = connect(Handler, '/long/' + 'x' * 300, pattern='^/long/')
    assert refused.messages() == [{'close': 4403}]
    assert 'cannot hold this path' in caplog.text
    assert Socket.objects.count() == 1


@pytest.mark.parametrize(
    'address, ip',
    [
        ('2001:db8::1', '2001:db8::1'),
        ('fe80::1%eth0', 'fe80::1'),
        ('::ffff:192.0.2.7', '192.0.2.7'),
        ('192.0.2.1', '192.0.2.1'),
        ('not an address', None),
        (None, None),
    ],
)
def test_any_client_address_connects_and_is_kept_if_it_is_one(connect, bystander, address, ip):
    connection = connect(Handler, address=address)
    assert connection.messages() == [{'accept': True}]
    assert connection.send({'type': 'HELLO'})[0]['user_ip'] == ip


@pytest.mark.parametrize('header', ['X-Forwarded-For', 'X-Real-IP', 'Forwarded'])
def test_a_forged_address_header_is_ignored(connect, header):
    connection = connect(Handler, headers={header.lower(): '203.0.113.9'})
    assert connection.send({'type': 'HELLO'})[-1]['user_ip'] == '192.0.2.1'


def test_only_what_a_trusted_proxy_wrote_is_trusted(connect, settings):
    settings.SOCKETS = {'TRUSTED_PROXIES': ['192.0.2.1']}
    connection = connect(Handler, headers={'x-forwarded-for': '198.51.100.66, 203.0.113.9'})
    assert connection.send({'type': 'HELLO'})[-1]['user_ip'] == '203.0.113.9'
    # Which the client wrote: nobody said that the proxy writes it, too.
    connection = connect(Handler, headers={'x-real-ip': '203.0.113.10'})
    assert connection.send({'type': 'HELLO'})[-1]['user_ip'] == '192.0.2.1'


@pytest.mark.parametrize(
    'header, headers, ip',
    [
        ('X-Real-IP', [('x-real-ip', '203.0.113.10'), ('x-forwarded-for', '6.6.6.6')], '203.0.113.10'),
        ('x-REAL-ip', [('X-Real-IP', '203.0.113.10:4711')], '203.0.113.10'),
        ('X-Real-IP', [('x-forwarded-for', '6.6.6.6')], '192.0.2.1'),
        # META would have them in one, and no proxy strips the second.
        ('X-Real-IP', [('x_real_ip', '6.6.6.6'), ('x-real-ip', '203.0.113.10')], '203.0.113.10'),
        ('X-Real-IP', [('x_real_ip', '6.6.6.6')], '192.0.2.1'),
        ('X-Forwarded-For', [('x-forwarded-for', '203.0.113.10'), ('x_forwarded_for', '6.6.6.6')], '203.0.113.10'),
        # What comes twice: the proxy added a line of its own, or passed on what it should have replaced.
        ('X-Forwarded-For', [('x-forwarded-for', '6.6.6.6'), ('x-forwarded-for', '203.0.113.10')], '203.0.113.10'),
        ('X-Real-IP', [('x-real-ip', '6.6.6.6'), ('x-real-ip', '203.0.113.10')], None),
    ],
)
def test_the_header_that_the_proxy_writes_is_named_and_no_other_counts(connect, settings, header, headers, ip):
    settings.SOCKETS = {'TRUSTED_PROXIES': ['192.0.2.1'], 'CLIENT_ADDRESS_HEADER': header}

    class Client(Connection):
        def _handshake(self):
            return dict(
                super()._handshake(),
                headers=[[name.encode(), value.encode()] for name, value in [('host', 'testserver'), *headers]],
            )

    connection = Client('/page/', handler=Handler)
    assert connection.send({'type': 'HELLO'})[-1]['user_ip'] == ip


@pytest.mark.parametrize(
    'scheme, headers, origin, opens',
    [
        (None, {}, 'http://example.com', True),
        ('wss', {}, 'http://example.com', False),
        ('wss', {}, 'https://example.com', True),
        (None, {'x-forwarded-proto': 'https'}, 'http://example.com', False),
        (None, {'x-forwarded-proto': 'https'}, 'https://example.com', True),
        (None, {'x-forwarded-proto': 'http'}, 'http://example.com', True),
        (None, {'host': 'example.com:8443'}, 'https://example.com', False),
        (None, {'host': 'example.com:8443'}, 'https://example.com:8443', True),
    ],
)
def test_a_page_without_tls_or_at_another_port_is_foreign(connect, settings, scheme, headers, origin, opens, caplog):
    settings.SECURE_PROXY_SSL_HEADER = ('HTTP_X_FORWARDED_PROTO', 'https')

    class Client(Connection):
        def _handshake(self):
            return dict(super()._handshake(), **({} if scheme is None else {'scheme': scheme}))

    connection = Client('/page/', handler=Handler, headers={'host': 'example.com', **headers, 'origin': origin})
    assert connection.messages() == [{'accept': True} if opens else {'close': 4403}]
    assert opens or "add it to SOCKETS['ALLOWED_ORIGINS'] as it stands here" in caplog.text


@pytest.mark.parametrize('origin', ['https://evil.example', 'null', 'file://', 'http://example.com.evil', 'http://['])
def test_a_foreign_origin_is_refused(connect, bystander, origin, caplog):
    refused = connect(Handler, headers={'origin': origin, 'host': 'example.com'})
    assert refused.messages() == [{'close': 4403}]
    assert 'ALLOWED_ORIGINS' in caplog.text
    refused.disconnect(1006)
    assert Socket.objects.count() == 1


def test_no_origin_is_allowed_until_it_is_required(connect, bystander, settings):
    assert connect(Handler).messages() == [{'accept': True}]
    settings.SOCKETS = {'REQUIRE_ORIGIN': True}
    assert connect(Handler).messages() == [{'close': 4403}]
    assert connect(Handler, headers={'origin': 'https://example.com'}).messages() == [{'accept': True}]


@pytest.mark.parametrize('key', ['garbage', 'x' * 32, 'a\0bcdefghij', '../../etc/passwd', "' OR 1=1 --", 'é' * 20])
def test_a_garbage_session_cookie_is_an_anonymous_client(connect, bystander, settings, key):
    connection = connect(Handler, cookies={settings.SESSION_COOKIE_NAME: key})
    assert connection.messages() == [{'accept': True}]
    assert connection.send({'type': 'WHO'}) == [{'type': 'YOU', 'user': ''}]
    assert Socket.objects.get(channel_name=connection.name).session_id is None


@both_ways
def test_an_expired_session_is_an_anonymous_client(connect, login, alice):
    from datetime import timedelta

    from django.utils import timezone

    cookies = login(alice)
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
    connection = connect(Handler, cookies=cookies)
    assert connection.send({'type': 'WHO'})[-1]['user'] == ''


@both_ways
def test_a_connection_whose_session_is_flushed_is_told_to_reconnect(connect, login, alice, settings, bystander):
    cookies = login(alice)
    connection = connect(Handler, cookies=cookies)
    assert connection.send({'type': 'WHO'})[-1]['user'] == 'alice'
    browser = Browser()
    browser.cookies.load(cookies)
    browser.logout()
    (reconnect,) = connection.messages()
    assert json.loads(reconnect['text']) == {
        'type': 'RECONNECT',
        'details': 'Your session is gone. Come back with a new one.',
    }
    assert reconnect['close'] == 4401
    # The stolen cookie opens nothing any more.
    assert connect(Handler, cookies=cookies).send({'type': 'WHO'})[-1]['user'] == ''


@both_ways
@pytest.mark.parametrize('sent', ['WHO', 'PING', 'HELLO', 'PATH'])
@pytest.mark.parametrize('login_required', [True, False])
def test_a_connection_whose_row_is_gone_is_asked_to_come_back(connect, login, alice, bystander, sent, login_required):
    handler = type(
        'Members',
        (Handler,),
        {
            'login_required': login_required,
            'routes': (*Handler.routes, ('PATH', lambda socket: {'path': socket.request.path})),
        },
    )
    connection = connect(handler, '/members/', cookies=login(alice))
    connection.messages()
    # By SQL, or by a process that took our server for dead. 4401 would be final.
    Socket.objects.get(channel_name=connection.name).remove()
    connection._put(text=json.dumps({'type': sent, 'ref': 1}))
    reconnect, close = connection.messages()
    assert json.loads(reconnect['text']) == {
        'type': 'RECONNECT',
        'details': 'This connection is no longer known. Please come back.',
        'ref': 1,
    }
    assert close == {'close': 1012}


@both_ways
@pytest.mark.parametrize('login_required', [True, False])
def test_a_user_made_inactive_after_connecting_is_told_to_reconnect(connect, login, alice, login_required):
    handler = type('Members', (Handler,), {'login_required': login_required})
    connection = connect(handler, '/members/', cookies=login(alice))
    assert connection.send({'type': 'WHO'})[-1]['user'] == 'alice'
    # Of an update(), nobody is told.
    type(alice).objects.update(is_active=False)
    connection._put(text='{"type": "WHO"}')
    reconnect, close = connection.messages()
    assert json.loads(reconnect['text'])['type'] == 'RECONNECT'
    assert close == {'close': 4401}


@both_ways
def test_a_changed_password_ends_the_connections_of_the_old_one(connect, login, alice):
    connection = connect(Handler, cookies=login(alice))
    alice.set_password('new')
    alice.save()
    connection._put(text='{"type": "WHO"}')
    assert connection.messages()[-1] == {'close': 4401}


def test_a_path_that_no_route_matches_is_refused(bystander, caplog):
    lost = Connection('/nowhere/')
    assert lost.messages() == [{'close': True if ON_CHANNELS_1 else 4403}]
    assert 'route_class' in caplog.text
    lost.disconnect(1006)


def test_a_disconnect_of_an_unknown_connection_changes_nothing(connect, bystander):
    stranger = connect(Handler, connect=False)
    stranger.disconnect()
    assert stranger.messages() == []
    assert Socket.objects.count() == 1


@both_ways
def test_a_receive_after_its_disconnect_does_not_bring_the_row_back(connection):
    connection.disconnect()
    for type in ('ECHO', 'PING', 'HELLO', 'WHO'):
        connection.send({'type': type})
    assert not Socket.objects.filter(channel_name=connection.name).exists()


@both_ways
def test_the_same_disconnect_twice_runs_its_function_once(connect, bystander):
    ended = []

    class Counting(Handler):
        def disconnect(self, message, **kwargs):
            ended.append(message.get('code'))

    connection = connect(Counting, '/counting/')
    connection.disconnect(1001)
    connection.disconnect(1001)
    assert ended == [1001]


@both_ways
def test_a_connect_function_that_raises_closes_with_1011(connect, bystander, caplog):
    class Broken(Handler):
        def connect(self, message, **kwargs):
            self.accept()
            raise Boom('in connect')

    connection = connect(Broken, '/broken/')
    accept, error, close = connection.messages()
    assert accept == {'accept': True}
    assert json.loads(error['text'])['code'] == 'server_error'
    assert close == {'close': 1011}
    assert 'in connect' in caplog.text
    connection.disconnect(1011)
    assert Socket.objects.count() == 1


@both_ways
def test_a_connection_without_a_user_is_closed_with_4401_where_one_is_required(connect, bystander, layer):
    handler = type('Members', (Handler,), {'login_required': True})
    connection = connect(handler, '/members/')
    accept, reconnect, close = connection.messages()
    assert accept == {'accept': True}
    assert json.loads(reconnect['text'])['type'] == 'RECONNECT'
    assert close == {'close': 4401}
    assert Socket.objects.count() == 1
    # Ours, and Channels 4, hear no more of a connection that has been told to close.
    told_again = [{'type': 'RECONNECT', 'details': 'This connection is no longer known. Please come back.'}]
    assert connection.send({'type': 'ECHO'}) == ([] if hasattr(layer, 'send_many') or not ON_CHANNELS_1 else told_again)


def test_a_ref_that_cannot_be_given_back_costs_the_ref_and_not_the_answer(connect, caplog):
    # A decode() of one's own may let it in. Nothing came back, whatever the frame was.
    class Loose(Handler):
        raises = FrameError('not_found', 'No.')

        def decode(self, text, data):
            return json.loads(text)

    connection = connect(Loose)
    connection.messages()
    for frame in (
        '{"type": "ECHO", "ref": 1e999}',
        '{"type": "RAISE", "ref": NaN}',
        '{"type": "NOTHING", "ref": 1e999}',
    ):
        (answer,) = connection.send(frame)
        assert answer['code'] == 'server_error' and 'ref' not in answer
    assert connection.send({'type': 'ECHO'}) == [{'type': 'ECHO'}]
