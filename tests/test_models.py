import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.utils import timezone

from sockets import RoutedSocketHandler, messages, signals
from sockets.models import Socket, removal

from .client import sent_to

pytestmark = pytest.mark.django_db


def rows(count, server='daphne.response.a!', **fields):
    return [Socket.objects.create(channel_name=f'{server}{n}', path='/page/', **fields) for n in range(count)]


def test_everyone_of_a_queryset_gets_the_message(connect, alice, login):
    first, second = connect(RoutedSocketHandler), connect(RoutedSocketHandler, '/other/')
    third = connect(RoutedSocketHandler, cookies=login(alice))
    for connection in (first, second, third):
        connection.messages()
    assert Socket.objects.all().send_json({'type': 'ALL'}) == 3
    assert Socket.objects.filter(path='/page/').send_action('PAGE', n=1) == 2
    assert Socket.objects.exclude(channel_name=first.name).send_action('NOT_FIRST') == 2
    assert alice.sockets.send_action('ALICE') == 1
    assert Socket.objects.filter(user__is_staff=True).send_action('STAFF') == 0
    assert [content['type'] for content in first.received()] == ['ALL', 'PAGE']
    assert [content['type'] for content in second.received()] == ['ALL', 'NOT_FIRST']
    assert third.received() == [{'type': 'ALL'}, {'type': 'PAGE', 'n': 1}, {'type': 'NOT_FIRST'}, {'type': 'ALICE'}]


def test_one_connection_gets_a_message(connect):
    connection = connect(RoutedSocketHandler)
    row = Socket.objects.get()
    assert (row.send_json({'a': 1}), row.send_action('B', b=2), row.close(4242)) == (1, 1, 1)
    assert connection.messages() == [
        {'accept': True},
        {'text': '{"a":1}'},
        {'text': '{"type":"B","b":2}'},
        {'close': 4242},
    ]


@pytest.mark.parametrize('count', [0, 1, 5])
def test_fan_out_is_one_query_and_one_encode_for_any_number_of_rows(
    layer, count, django_assert_num_queries, monkeypatch
):
    rows(count)
    encoded = []
    encode = messages.encode
    monkeypatch.setattr(messages, 'encode', lambda content: encoded.append(content) or encode(content))
    with django_assert_num_queries(1):
        assert Socket.objects.all().send_json({'type': 'X'}) == count
    assert encoded == [{'type': 'X'}]


def test_what_cannot_be_encoded_is_sent_to_nobody(layer, django_assert_num_queries):
    rows(3)
    with django_assert_num_queries(0), pytest.raises(TypeError):
        Socket.objects.all().send_json({'x': object()})
    with pytest.raises(TypeError):
        Socket.objects.get(channel_name='daphne.response.a!0').send_json(['no dict'])
    assert sent_to('daphne.response.a!') == []


def test_a_code_that_no_server_may_close_with_closes_nobody(layer):
    rows(1)
    with pytest.raises(ValueError, match='1006'):
        Socket.objects.all().close(1006)
    assert sent_to('daphne.response.a!') == []


def test_closing_a_queryset_tells_every_connection(layer):
    rows(2)
    assert Socket.objects.all().close(4403) == 2
    assert sent_to('daphne.response.a!') == [{'close': 4403}] * 2


def test_fan_out_works_inside_a_handler(connect):
    class Chat(RoutedSocketHandler):
        routes = (('SAY', 'on_say'),)

        def on_say(self, content):
            return {'heard_by': Socket.objects.filter(path=self.path).send_action('SAID', text=content['text'])}

    one, two = connect(Chat), connect(Chat)
    two.messages()
    assert one.send({'type': 'SAY', 'text': 'hi'}) == [{'type': 'SAID', 'text': 'hi'}, {'heard_by': 2}]
    assert two.received() == [{'type': 'SAID', 'text': 'hi'}]


def test_marking_tells_how_many(db):
    rows(3)
    assert Socket.objects.filter(channel_name__endswith='0').mark_inactive() == 1
    assert Socket.objects.filter(active=True).count() == 2
    before = timezone.now()
    assert Socket.objects.all().mark_active() == 3
    assert Socket.objects.filter(active=True, last_ping__gte=before, modified__gte=before).count() == 3


def test_cleaning_up_asks_and_an_answer_keeps_the_connection(connect):
    answers, silent = connect(RoutedSocketHandler), connect(RoutedSocketHandler)
    answers.messages(), silent.messages()
    # The filter matches nobody any more once they are marked; they used to be marked and not asked.
    assert Socket.objects.filter(active=True).cleanup_stale() == 2
    assert not Socket.objects.filter(active=True).exists()
    assert answers.received() == silent.received() == [{'type': 'PING'}]
    answers.send({'type': 'PING'})
    assert Socket.objects.get(active=True).channel_name == answers.name


def test_purging_removes_closes_and_tells_those_that_stay_silent(connect):
    from sockets import signals

    ended = []

    def on_disconnect(sender, socket, code, **kwargs):
        ended.append((socket.channel_name, code))

    alive, recent, gone = (connect(RoutedSocketHandler) for _ in range(3))
    for connection in (alive, recent, gone):
        connection.messages()
    Socket.objects.exclude(channel_name=alive.name).mark_inactive()
    Socket.objects.filter(channel_name=gone.name).update(last_ping=timezone.now() - timedelta(minutes=6))
    signals.socket_disconnected.connect(on_disconnect)
    assert Socket.objects.purge_inactive(in_last_mins=10) == 0
    assert Socket.objects.purge_inactive() == 1
    (message,) = gone.messages()
    assert (json.loads(message['text'])['type'], message['close']) == ('RECONNECT', 1000)
    assert alive.messages() == recent.messages() == []
    assert ended == [(gone.name, None)]
    # Its own disconnect comes later and is nobody's any more.
    gone.disconnect()
    assert len(ended) == 1


def test_only_one_of_several_is_told_that_it_removed_a_row(db):
    (row,) = rows(1)
    again = Socket.objects.get()
    assert row.remove() is True
    assert again.remove() is False
    assert row.pk == again.pk is not None


def test_many_rows_are_removed_with_one_query(db, django_assert_num_queries, monkeypatch):
    # Those of tests before this one may still be there.
    monkeypatch.setattr(signals.socket_disconnected, 'receivers', [])
    made = rows(100)
    # The rows, and the delete in its savepoint, with that of their rooms.
    with django_assert_num_queries(5):
        assert {row.pk for row in Socket.objects.all().remove()} == {row.pk for row in made}
    assert not Socket.objects.exists()


def test_of_many_rows_that_two_remove_each_is_told_of_its_own(db, monkeypatch):
    made = rows(10)
    remove = removal.remove

    def while_another_does(rows, *args):
        assert Socket.objects.get(pk=made[3].pk).remove()
        return remove(rows, *args)

    monkeypatch.setattr(removal, 'remove', while_another_does)
    assert {row.pk for row in Socket.objects.all().remove()} == {row.pk for row in made} - {made[3].pk}
    assert not Socket.objects.exists()


def test_a_row_goes_with_its_user_and_with_its_session(connect, login, alice):
    connect(RoutedSocketHandler, cookies=login(alice))
    connect(RoutedSocketHandler, cookies=login(alice))
    Socket.objects.first().session.delete()
    assert Socket.objects.count() == 1
    alice.delete()
    assert Socket.objects.count() == 0


PATHS = [
    '/room/tea/',
    '/ROOM/TEA/',
    '/room/Tea/',
    '/room/tea',
    '/room/te\u00e1/',
    '/room/tea/ ',
    '/room/te%/',
    '/room/t_a/',
]


@pytest.mark.parametrize('path', PATHS)
def test_a_path_is_no_other_one(db, path):
    # MySQL took /ROOM/TEA/ for it, so a message for one room reached both.
    for n, each in enumerate(PATHS):
        Socket.objects.create(channel_name='{}!{}'.format('aA'[n % 2], n), path=each)
    assert [row.path for row in Socket.objects.filter(path=path)] == [path]
    assert [row.path for row in Socket.objects.filter(path__in=[path])] == [path]
    assert Socket.objects.exclude(path=path).count() == len(PATHS) - 1
    assert Socket.objects.values('path').distinct().count() == len(PATHS)
    assert Socket.objects.filter(server='a!').count() == Socket.objects.filter(server='A!').count() == len(PATHS) / 2


def test_a_row_is_named_after_its_path_and_channel():
    assert str(Socket(path='/page/', channel_name='daphne.response.a!b')) == '/page/ daphne.response.a!b'


def test_the_migrations_are_those_of_the_models():
    out = StringIO()
    call_command('makemigrations', 'sockets', check=True, dry_run=True, stdout=out)
    assert 'No changes' in out.getvalue()


@pytest.mark.channels1('a layer of Channels 1 keeps messages of connections that have gone')
def test_a_channel_that_has_gone_costs_nothing(layer):
    from channels import channel_layers

    rows(2)
    assert Socket.objects.all().send_json({'type': 'X'}) == 2
    channel_layers['default'].flush()
