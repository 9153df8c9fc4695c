"""Connections of another process, which a layer in memory does not reach."""

from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from sockets import RoutedSocketHandler, engine, fanout
from sockets.models import Socket
from sockets.streams import pushes

from .client import ON_CHANNELS_1, sent_to
from .conftest import OUR_LAYERS, STOCK_LAYERS

pytestmark = pytest.mark.django_db
in_memory = pytest.mark.parametrize('layer', [*STOCK_LAYERS[:1], OUR_LAYERS[0]], indirect=True)
LAYER = 'sockets.layers.RedisChannelLayer' if ON_CHANNELS_1 else 'channels_redis.pubsub.RedisPubSubChannelLayer'
ELSEWHERE = 'daphne.response.elsewhere!'


def make_elsewhere():
    # Not create(), which would be by this process.
    Socket.objects.bulk_create([Socket(channel_name=ELSEWHERE + 'a', server=ELSEWHERE, path='/page/')])


@pytest.fixture
def mine(layer, connect, monkeypatch):
    """A connection of this process, and the row of one of another."""
    # As outside of a sandbox.
    monkeypatch.setattr(fanout, 'local_servers', set())
    monkeypatch.setattr(fanout, '_logged', set())
    connection = connect(RoutedSocketHandler)
    connection.messages()
    make_elsewhere()
    return connection


@in_memory
@pytest.mark.parametrize(
    'send, got',
    [
        (lambda rows: rows.send_json({'a': 1}), {'text': '{"a":1}'}),
        (lambda rows: rows.send(bytes=b'x'), {'bytes': b'x'}),
        (lambda rows: rows.close(4000), {'close': 4000}),
        (lambda rows: sum(row.send_json({'a': 1}) for row in rows), {'text': '{"a":1}'}),
        (lambda rows: sum(row.close(4000) for row in rows), {'close': 4000}),
    ],
    ids=['json', 'bytes', 'close', 'a row', 'closing a row'],
)
def test_unreachable_connections_are_not_counted_and_one_warning_says_why(mine, layer, caplog, send, got):
    # It was 2, and the message lay in a mailbox that nobody reads.
    for _ in range(2):
        assert send(Socket.objects.all()) == 1
        assert mine.messages() == [got]
    assert sent_to(ELSEWHERE) == []
    (warning,) = [record for record in caplog.records if record.levelname == 'WARNING']
    assert ELSEWHERE in warning.getMessage() and LAYER in warning.getMessage()


@in_memory
def test_followers_of_another_process_are_left_to_it_without_a_warning(mine, caplog):
    # It said that they get nothing, and they had the message a second later.
    names = list(Socket.objects.values_list('channel_name', flat=True))
    assert pushes.send({None: names}, '{"a":1}') and pushes.send({None: [ELSEWHERE + 'a']}, '{"a":1}')
    assert mine.messages() == [{'text': '{"a":1}'}] and sent_to(ELSEWHERE) == []
    assert [record for record in caplog.records if record.levelname == 'WARNING'] == []


@in_memory
@pytest.mark.parametrize('args', [['send', '{"type": "NEWS"}'], ['close']])
def test_commands_refuse_and_send_nothing(mine, args):
    with pytest.raises(CommandError, match='(?s)' + ELSEWHERE + '.*' + LAYER):
        call_command('sockets', *args, all=True)
    assert mine.messages() == []
    Socket.objects.filter(server=ELSEWHERE).delete()
    call_command('sockets', *args, all=True)
    assert len(mine.messages()) == 1


@in_memory
def test_an_unreachable_connection_of_a_living_server_is_not_marked(mine, monkeypatch, caplog):
    # A client that answered every question of its own server was removed for its silence.
    monkeypatch.setattr(engine.current(), 'live_servers', lambda servers: [ELSEWHERE])
    assert Socket.objects.cleanup_stale() == 1
    assert Socket.objects.get(active=True).server == ELSEWHERE
    assert caplog.records == []


@in_memory
def test_an_unreachable_connection_of_an_unknown_server_is_judged_by_its_silence(mine):
    assert Socket.objects.cleanup_stale() == 1
    assert Socket.objects.filter(active=False).count() == 2
    Socket.objects.filter(server=ELSEWHERE).update(last_ping=timezone.now() - timedelta(minutes=6))
    assert Socket.objects.purge_inactive() == 1


@in_memory
def test_the_end_of_an_unreachable_connection_is_handled(mine, caplog):
    assert Socket.objects.filter(server=ELSEWHERE).revoke() == 1
    assert 'get nothing' in caplog.text and Socket.objects.count() == 1


@pytest.mark.channels1('what a layer of Channels 4 reaches, live tests show')
@pytest.mark.parametrize('layer', STOCK_LAYERS[1:] + OUR_LAYERS[1:], indirect=True)
def test_redis_reaches_everybody(mine, layer, caplog):
    assert Socket.objects.send_json({'a': 1}) == 2
    assert layer.receive([ELSEWHERE]) != (None, None) and caplog.records == []


@in_memory
def test_a_sandbox_reaches_rows_that_are_made_by_hand(layer):
    make_elsewhere()
    assert Socket.objects.send_json({'a': 1}) == 1


@in_memory
def test_a_row_that_is_made_by_hand_is_of_this_process(layer, monkeypatch):
    # As in a test of a project, with no sandbox of ours.
    monkeypatch.setattr(fanout, 'local_servers', set())
    Socket.objects.create(channel_name='kitchen!1', path='/page/')
    assert Socket.objects.send_json({'a': 1}) == 1
