"""What a client may do too much of: connections, frames, rubbish. The settings are SOCKETS' MAX_..."""

import json
from types import SimpleNamespace

import pytest
from django.contrib.auth import get_user_model
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter, signals
from sockets.access import limits
from sockets.models import Socket
from sockets.routes import Route

from .client import SERVER
from .conftest import OUR_LAYERS, both_ways

pytestmark = pytest.mark.django_db


class Talkative(RoutedSocketHandler):
    routes = (('ECHO', lambda socket, content: content), ('FAIL', lambda socket: 1 / 0))


@pytest.fixture
def clock(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(limits, 'time', SimpleNamespace(monotonic=lambda: clock[0]))
    return clock


@both_ways
def test_one_user_has_as_many_connections_as_it_may(connect, settings, login, alice):
    settings.SOCKETS = {'MAX_CONNECTIONS_PER_USER': 2}
    first, second, third = (connect(Talkative, cookies=login(alice)) for _ in range(3))
    accept, error, close = third.messages()
    assert accept == {'accept': True} and close == {'close': 4429}
    assert json.loads(error['text']) == {
        'type': 'ERROR',
        'code': 'rate_limited',
        'details': 'You have 2 connections; close one first.',
    }
    assert Socket.objects.count() == 2
    third.disconnect(4429), first.disconnect()
    assert connect(Talkative, cookies=login(alice)).messages() == [{'accept': True}]
    # Whoever is nobody is not one user.
    assert [connect(Talkative).messages() for _ in range(3)] == [[{'accept': True}]] * 3


@both_ways
def test_one_address_has_as_many_connections_as_it_may(connect, settings):
    settings.SOCKETS = {'MAX_CONNECTIONS_PER_ADDRESS': 1}
    connect(Talkative, address='192.0.2.1')
    assert connect(Talkative, address='192.0.2.1').messages()[-1] == {'close': 4429}
    assert connect(Talkative, address='192.0.2.2').messages() == [{'accept': True}]
    # A unix socket has no address.
    assert [connect(Talkative, address=None).messages() for _ in range(2)] == [[{'accept': True}]] * 2


@both_ways
def test_frames_beyond_the_rate_are_answered_with_an_error_that_carries_their_ref(connect, settings, clock):
    settings.SOCKETS = {'MAX_FRAMES_PER_SECOND': 2}
    connection, other = connect(Talkative), connect(Talkative)
    connection.messages(), other.messages()
    frames = [connection.send({'type': 'ECHO', 'ref': n})[0] for n in range(6)]
    assert frames[:4] == [{'type': 'ECHO', 'ref': n} for n in range(4)]
    assert frames[4] == {
        'type': 'ERROR',
        'code': 'rate_limited',
        'details': 'At most 2 frames a second.',
        'retry_after': 0.5,
        'ref': 4,
    }
    assert other.send({'type': 'ECHO'}) == [{'type': 'ECHO'}]
    clock[0] += 1
    assert [connection.send({'type': 'ECHO'})[0]['type'] for _ in range(3)] == ['ECHO', 'ECHO', 'ERROR']


@pytest.mark.parametrize(
    'frame, options, code',
    [
        ('rubbish', {}, 4400),
        ('{"type": "ECHO", "n": 1e999}', {}, 4400),
        ({'type': 'NOBODY'}, {}, 4400),
        (b'bytes', {}, 4400),
        ([], {}, 4400),
        ({'type': 'ECHO', 'text': 'x' * 99}, {'MAX_MESSAGE_SIZE': 60}, 4400),
        ({'type': 'ECHO'}, {'MAX_FRAMES_PER_SECOND': 0.1}, 4429),
    ],
)
@both_ways
def test_a_client_that_sends_only_bad_frames_or_does_not_slow_down_is_closed(
    connect, settings, clock, frame, options, code
):
    settings.SOCKETS = dict(options, MAX_BAD_FRAMES=3)
    connection = connect(Talkative)
    good = {'type': 'ECHO'}
    # A good one makes up for a bad one; then it is two of three that are bad.
    for n, sent in enumerate(
        [good]
        + [frame, good, frame, good, frame, frame, good] * (code == 4400)
        + ([frame] * 3 if code == 4429 else [frame, frame])
    ):
        assert {'close': code} not in connection.messages(), n
        connection._put(
            **(
                {'bytes': sent}
                if isinstance(sent, bytes)
                else {'text': sent if isinstance(sent, str) else json.dumps(sent)}
            ),
        )
    assert connection.messages()[-1] == {'close': code}


@both_ways
def test_a_good_frame_makes_up_for_one_bad_one_and_our_own_mistakes_do_not_count(connect, settings):
    settings.SOCKETS = {'MAX_BAD_FRAMES': 3}
    connection = connect(Talkative)
    connection.messages()
    for frame in ('bad', 'bad', {'type': 'ECHO'}, 'bad', {'type': 'FAIL'}, {'type': 'FAIL'}, 'bad', {'type': 'ECHO'}):
        assert len(connection.send(frame)) == 1
    assert Socket.objects.count() == 1
    # A good one does not make up for those to come.
    for _ in range(9):
        connection.send({'type': 'ECHO'})
    for frame in ('bad', 'bad', 'bad'):
        connection._put(text=frame)
    assert connection.messages()[-1] == {'close': 4400}


@pytest.mark.parametrize('layer', OUR_LAYERS[:1], indirect=True)
@both_ways
def test_a_client_that_sends_ninety_nine_bad_frames_and_a_good_one_for_ever_is_closed(connect):
    connection = connect(Talkative)
    connection.messages()
    for n in range(1000):
        connection._put(text='{"type": "ECHO"}' if n % 100 == 99 else 'bad')
        if {'close': 4400} in connection.messages():
            break
    assert 100 < n < 300


@both_ways
@pytest.mark.parametrize('bad', ['no JSON', '[]', b'bytes', json.dumps({'type': 'ECHO', 'text': 'x' * 200})])
def test_a_bad_frame_takes_a_token_of_the_rate_and_a_frame_takes_one(connect, settings, clock, bad):
    settings.SOCKETS = {'MAX_FRAMES_PER_SECOND': 2, 'MAX_MESSAGE_SIZE': 150}
    connection = connect(Talkative)
    connection.messages()
    assert connection.send({'type': 'ECHO'}) == [{'type': 'ECHO'}]
    codes = [connection.send(bad)[0]['code'] for _ in range(5)]
    assert codes[:3] == [codes[0]] * 3 and codes[0] != 'rate_limited'
    assert codes[3:] == ['rate_limited'] * 2
    clock[0] += 1
    assert [connection.send({'type': 'ECHO', 'ref': n})[0]['type'] for n in range(3)] == ['ECHO', 'ECHO', 'ERROR']


@pytest.mark.parametrize('layer', OUR_LAYERS[:1], indirect=True)
def test_limits_are_off_or_generous_by_default(connect):
    connection = connect(Talkative)
    connection.messages()
    assert all(connection.send({'type': 'ECHO'}) == [{'type': 'ECHO'}] for _ in range(50))
    for _ in range(99):
        assert connection.send('bad')[0]['code'] == 'invalid_json'
    assert connection.messages() == []


@both_ways
def test_message_handled_is_sent_for_each_frame(connect, login):
    heard = []

    def listen(socket, route, duration, outcome, **kwargs):
        assert 0 <= duration < 5
        heard.append((route, outcome))

    connection = connect(Talkative)
    signals.message_handled.connect(listen)
    for frame in ({'type': 'ECHO'}, {'type': 'FAIL'}, {'type': 'NOBODY'}, 'bad'):
        connection.send(frame)
    assert heard == [('ECHO', 'ok'), ('FAIL', 'server_error'), (None, 'unknown_type'), (None, 'invalid_json')]
    signals.message_handled.disconnect(listen)


def test_an_end_that_is_not_ordinary_is_one_line_in_the_log_with_what_an_operator_needs(connect, login, alice, caplog):
    connection, other = connect(Talkative, cookies=login(alice)), connect(Talkative)
    row = Socket.objects.get(channel_name=connection.name)
    caplog.set_level('INFO', 'sockets')
    other.disconnect(1001), connection.disconnect(1006)
    (record,) = [record for record in caplog.records if record.name == 'sockets']
    assert (record.user_id, record.path, record.code, record.reason, record.server, record.socket_id) == (
        alice.pk,
        '/page/',
        1006,
        None,
        SERVER,
        row.pk,
    )
    assert 0 <= record.age < 10 and 0 <= record.silence < 10
    assert 'alice' not in record.getMessage() and '192.0.2.1' not in record.getMessage()


@both_ways
def test_a_route_has_a_rate_of_its_own_whatever_the_others_may(connect, settings, clock):
    settings.SOCKETS = {'MAX_FRAMES_PER_SECOND': 1}
    handler = type(
        'Rated',
        (Talkative,),
        {
            'routes': (
                *Talkative.routes,
                Route('FAST', lambda socket, content: content, rate=3),
                Route('SLOW', 'on_slow', rate=0.5),
            ),
            'on_slow': lambda socket, content: content,
        },
    )
    connection = connect(handler)
    connection.messages()
    for type_, taken in (('FAST', 3), ('SLOW', 1), ('ECHO', 2)):
        answers = [connection.send({'type': type_})[0]['type'] for _ in range(taken + 1)]
        assert answers == [type_] * taken + ['ERROR']
    clock[0] += 1
    assert [connection.send({'type': type_})[0]['type'] for type_ in ('FAST', 'SLOW', 'ECHO')] == [
        'FAST',
        'ERROR',
        'ECHO',
    ]


@both_ways
def test_a_view_gives_a_route_its_rate(connect, clock):
    class Page(View):
        socket = SocketRouter()

        @socket.route('MOVE', rate=1)
        def on_move(socket):
            return {'type': 'MOVED'}

    class Other(View):
        socket = SocketRouter(handler=Page.socket.Handler)

    connection = connect(Other.socket.Handler)
    connection.messages()
    assert [connection.send({'type': 'MOVE'})[0]['type'] for _ in range(2)] == ['MOVED', 'ERROR']


@both_ways
def test_the_refusal_says_the_rate_as_it_was_written_and_when_to_come_again(connect, clock):
    class Page(View):
        socket = SocketRouter()

        @socket.route('SAY', rate='10/m')
        def on_say(socket):
            return {'type': 'SAID'}

        @socket.route('LOOK', rate=2)
        def on_look(socket):
            return {'type': 'SEEN'}

    connection = connect(Page.socket.Handler)
    connection.messages()
    # It was one at once, and 'At most 0.16666666666666666 frames a second.'
    answers = [connection.send({'type': 'SAY', 'ref': n})[0] for n in range(12)]
    assert answers[:10] == [{'type': 'SAID', 'ref': n} for n in range(10)]
    assert answers[11] == {
        'type': 'ERROR',
        'code': 'rate_limited',
        'details': 'At most 10/m.',
        'retry_after': 6.0,
        'ref': 11,
    }
    clock[0] += answers[11]['retry_after']
    assert [connection.send({'type': 'SAY'})[0]['type'] for _ in range(2)] == ['SAID', 'ERROR']
    assert connection.send({'type': 'LOOK'}) == connection.send({'type': 'LOOK'}) == [{'type': 'SEEN'}]
    assert connection.send({'type': 'LOOK'})[0]['details'] == 'At most 2 frames a second.'


class Counted(View):
    socket = SocketRouter()

    @socket.route('SAY', rate='3/m', per='user')
    def on_say(socket):
        return {'type': 'SAID'}


class Elsewhere(View):
    socket = SocketRouter(handler=Counted.socket.Handler)


def said(connection, times=1):
    return [connection.send({'type': 'SAY'})[0]['type'] == 'SAID' for _ in range(times)]


@both_ways
def test_a_rate_per_user_counts_all_connections_of_a_user_and_anonymous_ones_one_by_one(connect, login, alice, clock):
    bob = get_user_model().objects.create_user('bob')
    tab, other_tab, page = (
        connect(handler.socket.Handler, cookies=login(alice)) for handler in (Counted, Counted, Elsewhere)
    )
    for connection in (tab, other_tab, page):
        connection.messages()
    # A second tab doubled it.
    assert said(tab, 2) == [True, True] and said(other_tab, 2) == [True, False] and said(page) == said(tab) == [False]
    (refusal,) = page.send({'type': 'SAY'})
    assert refusal['details'] == 'At most 3/m per user.' and 19 < refusal['retry_after'] <= 20
    tab.disconnect()
    # Nor does another connect help.
    assert said(connect(Counted.socket.Handler, cookies=login(alice))) == [False]
    assert said(connect(Counted.socket.Handler, cookies=login(bob)), 4) == [True] * 3 + [False]
    for _ in range(2):
        assert said(connect(Counted.socket.Handler), 4) == [True] * 3 + [False]


@both_ways
def test_frames_that_are_refused_per_user_run_no_query(connect, login, alice, clock, django_assert_num_queries):
    tab = connect(Counted.socket.Handler, cookies=login(alice))
    assert said(tab, 3) == [True] * 3
    with django_assert_num_queries(0):
        assert said(tab, 5) == [False] * 5


@pytest.mark.parametrize('layer', OUR_LAYERS[1:], indirect=True)
def test_while_redis_cannot_count_the_process_does_and_logs_it_once(connect, login, alice, caplog, monkeypatch, layer):
    def take_token(*args):
        raise ConnectionError('Redis is away')

    tab, other_tab = (connect(Counted.socket.Handler, cookies=login(alice)) for _ in range(2))
    with monkeypatch.context() as patch:
        patch.setattr(type(layer), 'take_token', take_token)
        assert said(tab, 2) + said(other_tab, 2) == [True, True, True, False]
    # It was said with each frame.
    assert caplog.text.count('The channel layer cannot count, so this process does: Redis is away') == 1
    assert said(tab) == [True]
    with monkeypatch.context() as patch:
        patch.setattr(type(layer), 'take_token', take_token)
        said(tab)
    assert caplog.text.count('Redis is away') == 2


def test_a_connection_whose_row_is_gone_is_not_counted_as_anonymous(connect, login, alice):
    tab = connect(Counted.socket.Handler, cookies=login(alice))
    Socket.objects.get().remove()
    tab._put(text='{"type": "SAY"}')
    tab.messages()
    from sockets.connection.memory import memories

    assert memories.get(tab.name).user is None


@pytest.mark.parametrize(
    'options',
    [
        {'rate': '5/d'},
        {'rate': 'often'},
        {'rate': '0/s'},
        {'rate': 0},
        {'rate': -1},
        {'rate': True},
        {'rate': float('nan')},
        {'rate': float('inf')},
        {'rate': '5/s', 'per': 'users'},
        {'per': 'user'},
    ],
)
def test_a_rate_that_makes_no_sense_is_an_error_at_import(options):
    with pytest.raises(TypeError, match="A route's rate is|A rate is counted|has no rate"):
        SocketRouter().route('MOVE', **options)
    with pytest.raises(TypeError, match="A route's rate is|A rate is counted|has no rate"):
        Route('MOVE', 'on_move', **options)


def test_binary_frames_are_counted_per_user_as_well(connect, login, alice, clock):
    class Page(View):
        socket = SocketRouter()

        @socket.bytes(rate='2/m', per='user')
        def on_bytes(socket, data):
            return {'type': 'GOT'}

    tab, other_tab = (connect(Page.socket.Handler, cookies=login(alice)) for _ in range(2))
    tab.messages(), other_tab.messages()
    assert [connection.send(b'x')[0]['type'] for connection in (tab, other_tab, tab)] == ['GOT', 'GOT', 'ERROR']
