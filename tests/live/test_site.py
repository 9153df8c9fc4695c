"""daphne, on Channels 1 a worker, Redis and PostgreSQL, with a client that knows nothing of Channels."""

import pytest
import websocket

from .stack import ON_CHANNELS_1


@pytest.fixture(scope='module', autouse=True)
def nobody_is_there(site):
    """Rows of other sites on this database, whose servers and workers were stopped together, are not ours."""
    site.python('from sockets.models import Socket; Socket.objects.all().delete()')


def test_a_client_gets_what_the_readme_says(site):
    connection = site.connect()
    hello = connection.ask({'type': 'HELLO', 'ref': 1})
    assert hello['type'] == 'GOT_HELLO'
    assert (hello['ref'], hello['path'], hello['user_ip'], hello['user_id']) == (1, '/live/', '127.0.0.1', None)
    assert connection.ask({'type': 'PING', 'ref': 2}) == {'type': 'ACK', 'ref': 2}
    assert connection.ask({'type': 'ECHO', 'text': 'ü😀', 'ref': 3}) == {'type': 'ECHO', 'text': 'ü😀', 'ref': 3}
    assert connection.ask({'type': 'NO_SUCH', 'ref': 4})['code'] == 'unknown_type'
    connection.close()
    site.wait_for_rows(0)


@pytest.mark.parametrize(
    'frame, code',
    [
        ('{"type": ', 'invalid_json'),
        ('[' * 100000, 'invalid_json'),
        ('{"type": "ECHO", "n": NaN}', 'invalid_json'),
        (r'{"type": "ECHO", "text": "\udfff \u0000"}', 'invalid_json'),
        (b'\x00\xff', 'invalid_message'),
        ('[]', 'invalid_message'),
        ('{"type": {}}', 'unknown_type'),
        ('{"type": "' + 'x' * 100000 + '"}', 'unknown_type'),
        ('{"type": "ECHO", "text": "' + 'x' * 1024 * 1024 + '"}', 'too_large'),
        ('{"type": "RAISE", "what": "bug"}', 'server_error'),
    ],
)
def test_a_bad_frame_costs_its_sender_an_error_and_nobody_anything_else(site, bystander, frame, code):
    connection = site.connect()
    error = connection.ask(frame)
    assert (error['type'], error['code']) == ('ERROR', code)
    assert connection.ask({'type': 'ECHO'}) == {'type': 'ECHO'}
    connection.close()


def test_closes_arrive_with_their_codes(site, bystander):
    for code in (1000, 1011, 1012, 4400):
        assert site.connect().ask({'type': 'CLOSE', 'code': code}) == code
    denied = site.connect()
    assert denied.ask({'type': 'RAISE', 'what': 'deny'})['code'] == 'not_allowed'
    assert denied.receive() == 4403
    assert site.connect().ask({'type': 'RAISE', 'what': 'close'}) == 4242
    broken = site.connect('/broken/')
    assert broken.receive()['code'] == 'server_error'
    assert broken.receive() == 1011
    stranger = site.connect('/members/')
    assert stranger.receive()['type'] == 'RECONNECT'
    assert stranger.receive() == 4401


@pytest.mark.parametrize(
    'path, headers, status',
    [
        ('/nowhere/', {}, 403),
        ('/live/', {'Origin': 'https://evil.example'}, 403),
        # On Channels 4, daphne hands it to the routing, where nothing matches it.
        ('/live/%00', {}, 400 if ON_CHANNELS_1 else 403),
        ('/live/' + 'x' * 300, {}, 403),
    ],
)
def test_who_may_not_connect_is_refused(site, bystander, path, headers, status):
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        site.connect(path, header=headers)
    assert refused.value.status_code == status


def test_an_origin_of_ours_and_a_garbage_cookie_connect(site):
    connection = site.connect(origin='http://localhost:1234', cookie='sessionid=garbage')
    assert connection.ask({'type': 'HELLO'})['user_id'] is None
    connection.close()


def test_a_client_of_a_unix_socket_has_no_address(site):
    connection = site.connect(unix=True, header={'X-Forwarded-For': '203.0.113.9'})
    assert connection.ask({'type': 'HELLO'})['user_ip'] is None
    connection.close()


def test_a_fan_out_larger_than_the_mailbox_reaches_everyone(site):
    # asgi_redis keeps 100 messages for all sockets of one daphne and used to drop the rest without a word.
    connections = [site.connect() for _ in range(150)]
    for n in range(3):
        connections[0].send({'type': 'SHOUT', 'n': n})
        for connection in connections[1:]:
            assert connection.receive() == {'type': 'SHOUT', 'n': n}
        answers = [connections[0].receive(), connections[0].receive()]
        assert {'type': 'HEARD', 'by': 150} in answers and {'type': 'SHOUT', 'n': n} in answers
    for connection in connections:
        connection.close()
    site.wait_for_rows(0)


def test_a_shell_reaches_open_connections(site):
    connection = site.connect()
    program = 'from sockets.models import Socket; print(Socket.objects.send_action("FROM_SHELL", n=1))'
    assert site.python(program).strip() == '1'
    assert connection.receive() == {'type': 'FROM_SHELL', 'n': 1}
    connection.close()


def test_logging_out_sends_the_connection_away(site):
    key = site.python(
        'from django.contrib.auth import get_user_model; from django.test import Client; b = Client();'
        'b.force_login(get_user_model().objects.create_user("live")); print(b.session.session_key)'
    ).strip()
    member = site.connect('/members/', cookie='sessionid=' + key)
    assert isinstance(member.ask({'type': 'HELLO'})['user_id'], int)
    site.python(f'from django.contrib.sessions.models import Session; Session.objects.filter(pk={key!r}).delete()')
    # It is told at once, and not when it next says something.
    assert member.receive()['type'] == 'RECONNECT'
    assert member.receive() == 4401


def test_a_client_that_vanishes_leaves_no_row(site, bystander):
    connection = site.connect()
    assert connection.ask({'type': 'ECHO'}) == {'type': 'ECHO'}
    connection.connection.sock.close()
    site.wait_for_rows(1)


def test_frames_that_follow_each_other_fast_are_all_answered(site):
    connection = site.connect()
    for n in range(50):
        connection.send({'type': 'ECHO', 'ref': n})
    assert [connection.receive()['ref'] for _ in range(50)] == list(range(50))
    connection.close()


def test_the_worker_logged_no_escaped_exception(site):
    assert 'Error processing message' not in site.worker.log
