"""Streams: what is kept, numbered, sent, and asked for again."""

import contextlib
import math
import re
import time
from datetime import timedelta
from datetime import timezone as zone

import pytest
from django.db import DatabaseError, connections, transaction
from django.db.models.functions import Now
from django.utils import timezone

from sockets import RoutedSocketHandler, engine
from sockets.models import Socket, StreamHead, StreamMessage
from sockets.models.ends import in_seconds
from sockets.multiplexing import SocketDemultiplexer
from sockets.presence import Housekeeper
from sockets.streams import Stream, numbering, pushes, replays, retention
from sockets.streams import following as telling
from sockets.testing import SocketClient

from . import servers as programs

pytestmark = pytest.mark.django_db


class Room(RoutedSocketHandler):
    routes = (
        *RoutedSocketHandler.routes,
        ('FOLLOW', 'on_follow'),
        ('LEAVE', 'on_leave'),
        ('SAY', 'on_say'),
        ('FOLLOW_NEXT', 'on_follow_next'),
    )
    follow_next = None

    def on_follow(self, content):
        self.follow(content['name'], content.get('since'), content.get('last'))

    def on_follow_next(self):
        # No frame of a client can name every text.
        self.follow(self.follow_next)

    def on_leave(self, content):
        self.unfollow(content['name'])

    def on_say(self, content):
        Stream(content['name']).send_action('SAID', text=content['text'])


@pytest.fixture
def client(db):
    with SocketClient('/room/', handler=Room) as client:
        yield client


def following(name, offset, **fields):
    head = StreamHead.objects.get(name=name)
    return {'type': 'FOLLOWING', 'stream': name, 'epoch': head.epoch, 'offset': offset, **fields}


def said(name, offset, text):
    epoch = StreamHead.objects.get(name=name).epoch
    return {'type': 'SAID', 'text': text, 'kept': {'stream': name, 'epoch': epoch, 'offset': offset}}


def say(name, *texts):
    for text in texts:
        Stream(name).send_action('SAID', text=text)


def resume(client, name, offset, epoch=None):
    epoch = StreamHead.objects.get(name=name).epoch if epoch is None else epoch
    return client.request('RESUME', streams={name: {'epoch': epoch, 'offset': offset}})['streams'][name]


def test_a_follower_is_told_where_the_stream_stands_and_then_gets_its_messages(client):
    say('tea', 'before')
    client.send('FOLLOW', name='tea')
    say('tea', 'after')
    say('coffee', 'to others')
    assert client.received() == [following('tea', 1), said('tea', 2, 'after')]
    client.send('LEAVE', name='tea')
    say('tea', 'later')
    assert client.received() == []


def test_a_stream_without_messages_stands_at_0_of_no_epoch(client):
    assert Stream('tea').position() == {'stream': 'tea', 'epoch': '', 'offset': 0}
    client.send('FOLLOW', name='tea', last=10)
    assert client.received() == [{'type': 'FOLLOWING', 'stream': 'tea', 'epoch': '', 'offset': 0}]
    say('tea', 'first')
    assert client.received() == [said('tea', 1, 'first')]
    assert [message['text'] for message in resume(client, 'tea', 0, epoch='')['messages']] == ['first']


def test_who_comes_back_is_given_what_it_has_missed(client):
    say('tea', 'a', 'b', 'c')
    client.send('FOLLOW', name='tea')
    epoch = StreamHead.objects.get().epoch
    messages = [said('tea', 2, 'b'), said('tea', 3, 'c')]
    missed = {'epoch': epoch, 'offset': 3, 'lost': False, 'more': False, 'messages': messages}
    assert resume(client, 'tea', 1) == missed
    assert resume(client, 'tea', 3) == {**missed, 'messages': []}


@pytest.mark.parametrize('epoch, offset', [('other', 1), ('', 1), (None, 4), ('other', 0)])
def test_what_cannot_be_told_apart_from_a_gap_is_lost(client, epoch, offset):
    say('tea', 'a', 'b', 'c')
    client.send('FOLLOW', name='tea')
    answer = resume(client, 'tea', offset, epoch)
    epoch = StreamHead.objects.get().epoch
    assert answer == {'epoch': epoch, 'offset': 3, 'lost': True, 'more': False, 'messages': []}


def test_a_position_in_a_stream_that_is_gone_is_lost(client):
    client.send('FOLLOW', name='tea')
    lost = {'epoch': '', 'offset': 0, 'lost': True, 'more': False, 'messages': []}
    assert resume(client, 'tea', 7, 'k3f9') == lost
    assert resume(client, 'tea', 0, '')['lost'] is False


@pytest.mark.parametrize('name', ['a\0b', 'a\ud800b', 'ä' * 300, ' Tea ', ''])
def test_a_name_may_be_any_text(client, name):
    Stream(name).send_action('FOLLOW')
    Room.follow_next = name
    client.send('FOLLOW_NEXT')
    (told,) = client.received()
    answer = client.request('RESUME', streams={told['stream']: {'epoch': told['epoch'], 'offset': 0}})
    assert [message['kept']['offset'] for message in answer['streams'][told['stream']]['messages']] == [1]
    client.send('LEAVE', name=told['stream'])
    assert not Stream(name).followers().exists()


def test_only_streams_that_are_followed_are_answered(client):
    say('tea', 'a')
    say('coffee', 'b')
    client.send('FOLLOW', name='tea')
    streams = {name: {'epoch': '', 'offset': 0} for name in ('tea', 'coffee', 'milk')}
    assert set(client.request('RESUME', streams=streams)['streams']) == {'tea'}
    client.send('LEAVE', name='tea')
    assert client.request('RESUME', streams=streams)['streams'] == {}


@pytest.mark.parametrize(
    'streams',
    [
        None,
        [],
        'tea',
        {'tea': None},
        {'tea': {}},
        {'tea': {'epoch': 'a', 'offset': -1}},
        {'tea': {'epoch': 'a', 'offset': True}},
        {'tea': {'epoch': 'a', 'offset': 1.5}},
        {'tea': {'epoch': 'a', 'offset': 2**63}},
        {'tea': {'epoch': 1, 'offset': 1}},
        {str(n): {'epoch': 'a', 'offset': 1} for n in range(101)},
    ],
)
def test_a_resume_that_cannot_be_understood_is_the_mistake_of_the_client(client, streams):
    client.send('RESUME', ref=1, streams=streams)
    (answer,) = client.received()
    assert (answer['type'], answer['code'], answer['ref']) == ('ERROR', 'invalid_content', 1)


def test_what_is_rolled_back_was_never_sent_and_leaves_no_gap(client):
    client.send('FOLLOW', name='tea')
    say('tea', 'a')
    with pytest.raises(KeyError), transaction.atomic():
        say('tea', 'b')
        raise KeyError
    with transaction.atomic():
        say('tea', 'c')
        with pytest.raises(KeyError), transaction.atomic():
            say('tea', 'd')
            raise KeyError
        assert len(client.received()) == 2
    assert client.received() == [said('tea', 2, 'c')]
    assert [row.offset for row in StreamMessage.objects.order_by('pk')] == [1, 2]


def test_a_message_needs_no_more_than_its_queries(client, django_assert_num_queries):
    say('tea', 'a')
    # The message; a savepoint here, a transaction elsewhere: the lock, the head, what waits, its number, the head; and who
    # follows.
    with django_assert_num_queries(9):
        say('tea', 'b')


def test_history_is_the_last_messages_or_those_after_a_position(client):
    say('tea', *'abcde')
    history = Stream('tea').history
    assert history(limit=2) == [said('tea', 4, 'd'), said('tea', 5, 'e')]
    assert [message['text'] for message in history()] == list('abcde')
    since = history()[1]['kept']
    assert [message['text'] for message in history(since)] == list('cde')
    assert [message['text'] for message in history(since, limit=2)] == list('cd')
    assert [message['text'] for message in history({'epoch': 'other', 'offset': 1}, limit=2)] == list('de')
    assert history(Stream('tea').position()) == [] == Stream('milk').history()


def test_who_has_had_nothing_begins_where_it_is_told(client):
    say('tea', *'abcde')
    client.send('FOLLOW', name='tea', last=2)
    client.send('FOLLOW', name='tea', last=99)
    client.send('FOLLOW', name='tea', since={'epoch': 'k3f9', 'offset': 1})
    epoch = StreamHead.objects.get().epoch
    assert [message['since'] for message in client.received()] == [
        {'epoch': epoch, 'offset': 3},
        {'epoch': epoch, 'offset': 0},
        {'epoch': 'k3f9', 'offset': 1},
    ]


@pytest.mark.parametrize(
    'mistake',
    [
        lambda: Stream(5),
        lambda: Stream('tea', max_messages=0),
        lambda: Stream('tea', max_age=1.5),
        lambda: Stream('tea').send_json({'type': 'SAID', 'kept': 1}),
        lambda: Stream('tea').send_json(['SAID']),
        lambda: Stream('tea').send_action('SAID', at=object()),
        lambda: Stream('tea').history(limit=0),
        lambda: Stream('tea').history(since=3),
    ],
)
def test_a_mistake_is_refused_before_anything_is_kept(db, mistake):
    with pytest.raises(TypeError, match='stream|number|position|yours|dict|JSON|message'):
        mistake()
    assert not StreamMessage.objects.exists()


@pytest.mark.parametrize('name', ['tea', 'milk', 'ä', 'a\0b'])
def test_a_position_in_another_stream_is_refused(client, name):
    # It was taken for one in this stream: the client was told that all was lost, or had less than it should.
    say(name, 'a', 'b')
    say('coffee', 'c')
    here, elsewhere = Stream(name).position(), Stream('coffee').position()
    for since in (elsewhere, Stream('coffee').history()[0]['kept']):
        with pytest.raises(ValueError, match="'coffee', and not in"):
            Stream(name).history(since=since)
        with pytest.raises(ValueError, match="'coffee', and not in"):
            client.send('FOLLOW', name=Stream(name).name, since=since)
    assert not Stream(name).followers().exists()
    client.received()
    # One that names none is taken as it is.
    del elsewhere['stream']
    assert Stream('coffee').history(since=elsewhere) == Stream(name).history(since=here) == []
    client.send('FOLLOW', name=Stream(name).name, since=here)
    assert client.received()[0]['since']['offset'] == 2


def test_messages_beyond_the_retention_are_removed_in_parts_and_then_lost(client, settings):
    settings.SOCKETS = {'STREAM_MAX_MESSAGES': 3}
    client.send('FOLLOW', name='tea')
    say('tea', *'abcdefgh')
    assert StreamMessage.objects.count() == 8
    Housekeeper().look()
    assert [row.offset for row in StreamMessage.objects.order_by('offset')] == [6, 7, 8]
    assert resume(client, 'tea', 4)['lost'] is True
    assert [message['text'] for message in resume(client, 'tea', 5)['messages']] == list('fgh')
    assert StreamHead.objects.get().trim_at is not None


def test_messages_that_are_too_old_are_removed(client):
    say('tea', *'abc')
    StreamMessage.objects.filter(offset__lt=3).update(created=timezone.now() - timedelta(days=8))
    StreamHead.objects.update(trim_at=timezone.now() - timedelta(seconds=2))
    Housekeeper().look()
    assert [row.offset for row in StreamMessage.objects.all()] == [3]
    head = StreamHead.objects.get()
    assert head.trimmed == 2 and head.trim_at > timezone.now() + timedelta(days=6)


def test_a_stream_may_keep_more_or_less_than_others(client):
    for text in 'abcdef':
        Stream('tea', max_messages=2, max_age=60).send_action('SAID', text=text)
    Housekeeper().look()
    assert StreamMessage.objects.count() == 2
    assert StreamHead.objects.get().trim_at < timezone.now() + timedelta(seconds=61)


@pytest.mark.parametrize('name', [5, None, b'tea', Stream('tea')])
def test_what_is_no_name_of_a_stream_is_refused_with_what_is_one(client, name):
    client.send('FOLLOW', name='tea')
    for call in (Stream, lambda name: client.send('FOLLOW', name=name), lambda name: client.send('LEAVE', name=name)):
        if call is not Stream and not isinstance(name, (int, type(None))):
            # JSON has none of these.
            continue
        with pytest.raises(
            TypeError, match=r"A stream is called by a str, not .*: f'user:\{user.pk\}', or the name of a Stream"
        ):
            call(name)


def test_who_follows_too_early_is_told_what_comes_first(client):
    class Early(RoutedSocketHandler):
        def connect(self, message, **kwargs):
            self.follow('tea')

    with pytest.raises(RuntimeError, match=r"Call accept\(\) first: 'tea' cannot be followed"):
        SocketClient('/early/', handler=Early).connect()


@pytest.mark.parametrize('name', ['by', 'a'])
def test_a_field_that_cannot_be_json_is_named(client, name):
    value = {'by': object(), 'a': [{'by': {1, 2}}]}[name]
    senders = Stream('tea').send_action, Socket.objects.all().send_action, Socket.objects.get().send_action
    for send in senders:
        with pytest.raises(TypeError, match=f"is not JSON serializable, in '{name}'. Send what names it"):
            send('SAID', n=1, **{name: value})
        with pytest.raises(TypeError, match='A type is a str.*A dict is for send_json'):
            send({'type': 'SAID'})
    assert not StreamMessage.objects.exists()


def test_limits_of_a_stream_stay_until_others_are_given(client, settings):
    # None said nothing: what a stream had once was never taken back, and none could keep all.
    settings.SOCKETS = {'STREAM_MAX_MESSAGES': 3, 'STREAM_MAX_AGE': 3600}

    def kept(**limits):
        for text in 'abcdef':
            Stream('tea', **limits).send_action('SAID', text=text)
            limits = {}
        StreamHead.objects.update(trim_at=timezone.now() - timedelta(seconds=2))
        Housekeeper().look()
        return StreamMessage.objects.count()

    assert kept(max_messages=2, max_age=60) == 2
    assert kept() == 2
    assert kept(max_messages=math.inf) == 8
    StreamMessage.objects.update(created=timezone.now() - timedelta(seconds=100))
    assert kept() == 6
    assert kept(max_age=math.inf) == 12
    StreamMessage.objects.update(created=timezone.now() - timedelta(days=36500))
    assert kept() == 18 and StreamHead.objects.get().trim_at is None
    # As the settings say now, and later.
    assert kept(max_messages=None) == 3
    assert StreamHead.objects.get().trim_at is None
    assert kept(max_age=None) == 3
    assert StreamHead.objects.get().trim_at < timezone.now() + timedelta(seconds=3602)
    settings.SOCKETS = {'STREAM_MAX_MESSAGES': 5}
    assert kept() == 5
    assert list(StreamHead.objects.values_list('max_messages', 'max_age')) == [(None, None)]


@pytest.mark.parametrize('name', ['max_messages', 'max_age'])
@pytest.mark.parametrize('value', [0, -1, 1.5, -math.inf, math.nan, '5', True, 2**31, timedelta(days=1)])
def test_what_is_no_limit_is_refused_with_what_is_one(name, value):
    with pytest.raises(TypeError, match=f'{name} is a positive whole number.*None for what SOCKETS say, or math.inf'):
        Stream('tea', **{name: value})
    if name == 'max_age':
        with pytest.raises(TypeError, match='of seconds'):
            Stream('tea', **{name: value})


def test_history_without_a_limit_is_all_that_is_kept(client):
    # It was nothing.
    assert Stream('tea').history(limit=None) == []
    say('tea', *'a' * 105)
    assert len(Stream('tea').history()) == 100
    assert [got['kept']['offset'] for got in Stream('tea').history(limit=None)] == list(range(1, 106))
    since = Stream('tea').history(limit=None)[1]['kept']
    assert [got['kept']['offset'] for got in Stream('tea').history(since, limit=None)] == list(range(3, 106))


def test_what_is_beyond_the_retention_is_removed_as_fast_as_it_is_sent(client, settings, monkeypatch):
    # One part of a stream was removed a second, and a busy one grew for ever.
    monkeypatch.setattr(retention, 'PART', 2)
    monkeypatch.setattr(retention, 'SECONDS', 60)
    say('tea', *'abcdefgh')
    Stream('milk', max_age=3600).send_action('SAID')
    say('milk', *'abcdef')
    StreamMessage.objects.filter(name='milk').update(created=timezone.now() - timedelta(days=1))
    StreamHead.objects.update(trim_at=timezone.now() - timedelta(seconds=2))
    settings.SOCKETS = {'STREAM_MAX_MESSAGES': 3}
    parts = []
    monkeypatch.setattr(retention, '_trim_part', lambda key, trim=retention._trim_part: parts.append(key) or trim(key))
    Housekeeper().look()
    assert list(StreamMessage.objects.order_by('offset').values_list('name', 'offset')) == [
        ('tea', n) for n in (6, 7, 8)
    ]
    # In turn.
    tea, milk = Stream('tea').key, Stream('milk').key
    assert all(set(parts[n : n + 2]) == {tea, milk} for n in (0, 2, 4))
    # One that another has locked is tried a few times, and left for the next look.
    StreamHead.objects.update(trim_at=timezone.now() - timedelta(seconds=2))
    held = []
    monkeypatch.setattr(retention, 'lock', lambda *args, lock=retention.lock: {} if held.pop() else lock(*args))
    held[:] = [True] * 100
    del parts[:]
    Housekeeper().look()
    assert len(parts) == 2 * retention.TRIES
    held[:] = [False, False, True, True]
    del parts[:]
    Housekeeper().look()
    assert len(parts) == 4 and not StreamHead.objects.to_trim().exists()


@pytest.mark.parametrize('hours', [-5, 0, 5])
def test_messages_are_kept_as_long_as_they_should_whatever_the_time_zone_of_the_database(client, monkeypatch, hours):
    # What Python wrote was in it, and was compared with the clock of the database, which was not.
    monkeypatch.setitem(connections['default'].__dict__, 'timezone', zone(timedelta(hours=hours)))

    def trimmed_in(low, high):
        heads = StreamHead.objects.filter(trim_at__gt=in_seconds(low - 10), trim_at__lte=in_seconds(high + 10))
        return heads.count() == 1

    Stream('tea', max_age=7200).send_action('SAID')
    assert trimmed_in(7200, 7200)
    StreamMessage.objects.update(created=timezone.now() - timedelta(seconds=5000))
    Stream('tea').send_action('SAID')
    assert trimmed_in(7200, 7200)
    StreamHead.objects.update(trim_at=Now())
    Housekeeper().look()
    assert trimmed_in(2200, 2200) and StreamMessage.objects.count() == 2
    if hours:
        # Django 2.2 reads a column of SQLite in another time zone than the clock of SQLite.
        return
    # A lower one holds from the next message on.
    Stream('tea', max_age=600).send_action('SAID')
    assert trimmed_in(600, 600)
    StreamHead.objects.update(trim_at=Now())
    Housekeeper().look()
    assert trimmed_in(600, 600) and StreamMessage.objects.count() == 2


def test_what_is_cleared_is_gone_and_numbers_go_on(client):
    say('tea', *'abc')
    Stream('tea').clear()
    say('tea', 'd')
    assert Stream('tea').history() == [said('tea', 4, 'd')]
    Stream('milk').clear()


def test_a_message_whose_writer_died_after_the_commit_is_numbered_by_the_housekeeper(client):
    client.send('FOLLOW', name='tea')
    client.received()
    StreamMessage.objects.create(key=Stream('tea').key, name='tea', text='{"type":"SAID","text":"a"}')
    Housekeeper().look()
    assert client.received() == []
    StreamMessage.objects.update(created=timezone.now() - timedelta(seconds=3))
    Housekeeper().look()
    assert client.received() == [said('tea', 1, 'a')]


def test_followers_of_a_stream_that_has_moved_are_told_again_where_it_stands(client):
    client.send('FOLLOW', name='tea')
    say('tea', 'a')
    client.received()
    for _ in range(5):
        StreamHead.objects.filter(remind_at__isnull=False).update(remind_at=timezone.now() - timedelta(seconds=2))
        Housekeeper().look()
    # Once a second later, and twice more: one of these may be lost as well.
    assert client.received() == [following('tea', 1, again=True)] * 3


@pytest.mark.parametrize('type', ['FOLLOW', 'LEAVE'])
def test_a_stream_that_is_called_by_no_text_is_a_type_error(client, type):
    with pytest.raises(TypeError, match='A stream is called by a str, not 5'):
        client.send(type, name=5)


def test_rooms_and_streams_of_the_same_name_are_apart(client):
    client.send('FOLLOW', name='tea')
    row = Socket.objects.get()
    assert row.rooms == [] and not Socket.objects.in_room('tea').exists()
    assert list(Stream('tea').followers()) == [row]
    row.join('tea')
    client.send('LEAVE', name='tea')
    assert row.rooms == ['tea'] and not Stream('tea').followers().exists()


def test_through_a_demultiplexer_messages_come_in_the_envelope_of_the_stream(db):
    class Whole(SocketDemultiplexer):
        streams = {'chat': Room, 'game': Room}

    with SocketClient('/room/', handler=Whole) as client:
        for stream in ('chat', 'game'):
            client.send_json({'stream': stream, 'payload': {'type': 'FOLLOW', 'name': 'tea'}})
        say('tea', 'a')
        assert client.received() == [
            {'stream': 'chat', 'payload': {'type': 'FOLLOWING', 'stream': 'tea', 'epoch': '', 'offset': 0}},
            {'stream': 'game', 'payload': {'type': 'FOLLOWING', 'stream': 'tea', 'epoch': '', 'offset': 0}},
            {'stream': 'chat', 'payload': said('tea', 1, 'a')},
            {'stream': 'game', 'payload': said('tea', 1, 'a')},
        ]
        position = {'tea': {'epoch': '', 'offset': 0}}
        client.send_json({'stream': 'chat', 'payload': {'type': 'RESUME', 'ref': 7, 'streams': position}})
        (answer,) = client.received()
        assert answer['stream'] == 'chat' and answer['payload']['ref'] == 7
        assert answer['payload']['streams']['tea']['messages'] == [said('tea', 1, 'a')]
        client.send_json({'stream': 'chat', 'payload': {'type': 'LEAVE', 'name': 'tea'}})
        say('tea', 'b')
        assert client.received() == [{'stream': 'game', 'payload': said('tea', 2, 'b')}]


def test_a_regex_that_matches_anything_leaves_resume_alone(db):
    class Greedy(Room):
        routes = (*Room.routes, (re.compile('.*'), lambda socket, content: {'type': 'MINE'}))

    with SocketClient('/room/', handler=Greedy) as client:
        assert client.request('RESUME', streams={})['type'] == 'RESUMED'

    class Own(Room):
        routes = (('RESUME', lambda socket, content: {'type': 'MINE'}),)

    with SocketClient('/room/', handler=Own) as client:
        assert client.request('RESUME', streams={})['type'] == 'MINE'


def test_parts_are_of_so_many_messages_and_so_much_text(client, monkeypatch):
    monkeypatch.setattr(replays, 'MAX_SIZE', 200)
    say('tea', 'a', 'x' * 300, *'bcd')
    client.send('FOLLOW', name='tea')
    offset, parts = 0, []
    while not parts or parts[-1]['more']:
        parts.append(resume(client, 'tea', offset))
        offset = parts[-1]['offset']
    assert [[message['kept']['offset'] for message in part['messages']] for part in parts] == [[1], [2], [3, 4, 5]]


def test_streams_share_what_one_answer_may_have(client, monkeypatch):
    monkeypatch.setattr(replays, 'MAX_MESSAGES', 3)
    for name in ('tea', 'milk'):
        say(name, 'a', 'b')
        client.send('FOLLOW', name=name)
    streams = {name: {'epoch': '', 'offset': 0} for name in ('tea', 'milk')}
    answer = client.request('RESUME', streams=streams)['streams']
    assert [(part['offset'], part['more']) for part in answer.values()] == [(2, False), (1, True)]


@pytest.mark.django_db(transaction=True)
def test_a_storm_of_clients_that_come_back_shares_what_is_read(client, django_assert_num_queries):
    say('tea', *'abc')
    client.send('FOLLOW', name='tea')
    resume(client, 'tea', 1)
    epoch = StreamHead.objects.get().epoch
    with django_assert_num_queries(0):
        for _ in range(100):
            replays.cache.read(Stream('tea').key, epoch, 1)


@pytest.mark.django_db(transaction=True)
def test_a_storm_in_many_streams_shares_what_is_read_and_that_nothing_was_missed(django_assert_num_queries):
    # It was not shared with a 17th stream, and never that nothing was missed.
    names = [f'tea {n}' for n in range(20)]
    for name in names:
        say(name, 'a')
    epochs = dict(StreamHead.objects.values_list('key', 'epoch'))
    asked = [(Stream(name).key, epochs[Stream(name).key], offset) for name in names for offset in (0, 1)]
    # The head each, and the messages of half of them.
    with django_assert_num_queries(60):
        for _ in range(20):
            found = [replays.cache.read(*one) for one in asked]
    assert [len(replay.rows) for replay in found] == [1, 0] * 20
    # What is sent here meanwhile is there at once.
    say(names[0], 'b')
    assert [len(replays.cache.read(*one).rows) for one in asked[:2]] == [2, 1]


@pytest.mark.django_db(transaction=True)
def test_what_is_shared_is_bounded_by_its_size(monkeypatch, django_assert_num_queries):
    say('tea', *('x' * 1000 for _ in range(10)))
    monkeypatch.setattr(replays, '_AT_MOST', 5 * (replays._EACH + 1000))
    cache = replays.ReplayCache()
    epoch = StreamHead.objects.get().epoch
    for offset in range(10):
        cache.read(Stream('tea').key, epoch, offset)
    assert len(cache._shared) < 6
    assert cache._size == sum(shared.size for shared in cache._shared.values())
    cache.forget(Stream('tea').key)
    assert not cache._shared and cache._size == 0


def test_an_answer_that_is_full_reads_no_more_messages(client, monkeypatch, django_assert_num_queries):
    # One RESUME for 100 streams read 91 MB for an answer of one.
    monkeypatch.setattr(replays, 'MAX_SIZE', 1000)
    names = [f'tea {n}' for n in range(30)]
    for name in names:
        say(name, *('x' * 400 for _ in range(4)))
        client.send('FOLLOW', name=name)
    say('milk', 'a')
    Stream('oat').send_action('SAID')
    Stream('oat').clear()
    for name in ('milk', 'oat', 'rice'):
        client.send('FOLLOW', name=name)
    client.received()
    streams = {name: {'epoch': '', 'offset': 0} for name in (*names, 'oat', 'rice')}
    streams['milk'] = Stream('milk').position()
    read = []
    monkeypatch.setattr(replays, '_read_part', lambda *args, part=replays._read_part: read.extend(part(*args)) or read)
    # A head and messages of it, and all other heads.
    with django_assert_num_queries(3):
        answer = client.request('RESUME', streams=streams)['streams']
    assert len(read) == 2
    assert list(answer) == list(streams)
    assert [part['more'] for part in answer.values()] == [True] * 30 + [False] * 3
    assert [len(part['messages']) for part in answer.values()] == [2] + [0] * 32
    assert [name for name in answer if answer[name]['lost']] == ['oat']
    at = [(answer[name]['epoch'], answer[name]['offset']) for name in ('tea 7', 'oat', 'rice', 'milk')]
    epochs = dict(StreamHead.objects.values_list('name', 'epoch'))
    assert at == [(epochs['tea 7'], 0), (epochs['oat'], 1), ('', 0), (epochs['milk'], 1)]


def test_who_could_not_be_told_where_a_stream_stands_is_told_when_that_is_possible(monkeypatch):
    # A client that came back while the database or the layer was away waited until the stream moved.
    told, failing = [], [OSError('away'), 'untold']

    def tell(due):
        if failing:
            failure = failing.pop(0)
            if failure == 'untold':
                return due
            raise failure
        told.extend(due)
        return {}

    monkeypatch.setattr(telling, 'tell', tell)
    monkeypatch.setattr(telling.time, 'sleep', lambda seconds: None)
    monkeypatch.setattr(telling.background, 'run', lambda function, name: function())
    teller = telling.Teller()
    monkeypatch.setattr(teller._buckets, 'wait', lambda *args: 0)
    waiting = telling.Waiting('key', 'tea', 'server!1', 'membership', None, None, None)
    teller.follow(waiting)
    assert told == ['key'] and not teller._waiting
    failing += [OSError('away')] * (telling.TRIES + 1)
    teller.follow(waiting)
    assert told == ['key'] and not teller._waiting and not teller._following


def test_a_reminder_that_the_layer_did_not_take_does_not_count(client, monkeypatch):
    client.send('FOLLOW', name='tea')
    say('tea', 'a')
    client.received()

    def due():
        StreamHead.objects.update(remind_at=timezone.now() - timedelta(seconds=2))
        Housekeeper().look()

    def refuse(*args):
        raise OSError('away')

    with monkeypatch.context() as away:
        away.setattr(pushes.fanout, 'send_many', refuse)
        for _ in range(4):
            due()
    assert StreamHead.objects.get().reminders == 0
    due()
    assert client.received() == [following('tea', 1, again=True)]


def test_a_server_that_hangs_is_waited_for_once_and_not_for_each_message(client, monkeypatch, settings):
    # One thread numbers and pushes for all streams: each message to the server that hung delayed those of all others.
    settings.SOCKETS = {'SEND_TIMEOUT': 0.2}
    client.send('FOLLOW', name='tea')
    client.send('FOLLOW', name='milk')
    client.received()
    asked, hangs = [], [True]

    def hand_over(names, message):
        asked.append(message)
        return list(names) if hangs else []

    monkeypatch.setattr(pushes, '_stuck', set())
    monkeypatch.setattr(engine.current(), 'hand_over', hand_over)
    started = time.monotonic()
    for number in range(20):
        say('tea', str(number))
        say('milk', str(number))
    assert 0.2 <= time.monotonic() - started < 2
    hangs.clear()
    del asked[:]
    say('tea', 'again')
    assert len(asked) == 1 and not pushes._stuck


def test_a_part_is_read_as_far_as_it_goes_and_not_all_that_was_missed(client, monkeypatch, django_assert_num_queries):
    # 300 messages of a megabyte were read for each answer, which had one of them.
    say('tea', *(str(n) for n in range(40)))
    epoch = StreamHead.objects.get().epoch
    key = Stream('tea').key
    # The head, the first messages, and all others.
    with django_assert_num_queries(3):
        assert [row.offset for row in replays.read(key, epoch, 0).rows] == list(range(1, 41))
    with django_assert_num_queries(2):
        assert len(replays.read(key, epoch, 35).rows) == 5
    found = replays.read(key, epoch, 0, limit=10)
    assert len(found.rows) == 10 and found.has_more
    monkeypatch.setattr(replays, 'MAX_SIZE', 10)
    with django_assert_num_queries(2):
        found = replays.read(key, epoch, 0)
    assert len(found.rows) == 1 and found.has_more


class LosesFollowing:
    """Loses each FOLLOWING on its way to a connection until it is told otherwise."""

    def __init__(self, monkeypatch):
        self.loses, self.send = True, pushes.send
        monkeypatch.setattr(pushes, 'send', self)

    def __call__(self, names, text):
        return True if self.loses and '"FOLLOWING"' in text else self.send(names, text)


def time_goes_by():
    """Have all told again that are told some times more."""
    for told in telling.teller._told:
        due = [(0, waiting) for _, waiting in told]
        told.clear()
        told.extend(due)
    StreamHead.objects.filter(remind_at__isnull=False).update(remind_at=timezone.now() - timedelta(seconds=2))
    Housekeeper().look()


@pytest.mark.parametrize('where', [{'since': {'epoch': '', 'offset': 0}}, {'last': 2}, {}])
def test_who_was_told_where_it_begins_and_did_not_hear_it_is_told_again(client, monkeypatch, where):
    # It began where the next reminder said that the stream stands, and had nothing of what was before.
    say('tea', *'abc')
    faulty = LosesFollowing(monkeypatch)
    client.send('FOLLOW', name='tea', **where)
    say('tea', 'd')
    assert client.received() == [said('tea', 4, 'd')]
    time_goes_by()
    faulty.loses = False
    time_goes_by()
    epoch = StreamHead.objects.get().epoch
    begins = {'since': where.get('since'), 'last': {'epoch': epoch, 'offset': 1}}
    since = begins[next(iter(where))] if where else {'epoch': epoch, 'offset': 3}
    told = [content for content in client.received() if 'again' not in content]
    assert told == [following('tea', 4, since=since)]
    # Once more, and no more than that.
    for _ in range(5):
        time_goes_by()
    assert len([content for content in client.received() if 'again' not in content]) == 1
    assert not telling.teller._following


@pytest.mark.parametrize(
    'then, times',
    [
        (lambda client: None, 1),
        (lambda client: resume(client, 'tea', 0), 0),
        (lambda client: client.send('LEAVE', name='tea'), 0),
        # Only of where it was to begin last.
        (lambda client: client.send('FOLLOW', name='tea', last=1), 1),
        (lambda client: client.close(1006), 0),
    ],
)
def test_who_has_asked_or_does_not_follow_any_more_or_has_left_is_told_no_more(client, monkeypatch, then, times):
    told = []
    say('tea', 'a', 'b')
    client.send('FOLLOW', name='tea', last=2)
    then(client)
    monkeypatch.setattr(pushes, 'send', lambda names, text: told.append(text) or True)
    StreamHead.objects.update(remind_at=None)
    time_goes_by()
    assert len(told) == times
    for _ in range(5):
        time_goes_by()
    assert not telling.teller._following


def test_through_a_demultiplexer_it_is_told_again_within_the_envelope(db, monkeypatch):
    class Whole(SocketDemultiplexer):
        streams = {'chat': Room, 'game': Room}

    faulty = LosesFollowing(monkeypatch)
    with SocketClient('/room/', handler=Whole) as client:
        say('tea', 'a', 'b')
        for stream, last in (('chat', 1), ('game', 2)):
            client.send_json({'stream': stream, 'payload': {'type': 'FOLLOW', 'name': 'tea', 'last': last}})
        faulty.loses = False
        time_goes_by()
        told = {
            content['stream']: content['payload'] for content in client.received() if 'again' not in content['payload']
        }
        assert {stream: payload['since']['offset'] for stream, payload in told.items()} == {'chat': 1, 'game': 0}
        client.resume()
        came = [(content['stream'], content['payload']['text']) for content in client.received()]
        assert came == [('chat', 'b'), ('game', 'a'), ('game', 'b')]


def test_who_follows_while_the_layer_is_away_begins_where_the_stream_stood_then(monkeypatch):
    # It began where the stream stood when the layer was back, and what was sent meanwhile was not pushed either.
    head = StreamHead(key='key', epoch='k3f9', offset=3)
    waiting = telling.Waiting('key', 'tea', 'server!1', 'membership', None, None, None)
    assert 'since' not in waiting.text(head)
    head.offset = 5
    assert '"since":{"epoch":"k3f9","offset":3}' in waiting.text(head).replace(' ', '')


@pytest.mark.parametrize('end', [SystemExit, KeyboardInterrupt])
def test_what_ends_a_process_or_a_thread_during_a_push_keeps_nobody_else_from_pushing(client, monkeypatch, end):
    client.send('FOLLOW', name='tea')
    client.received()

    def push(*args):
        raise end

    with monkeypatch.context() as ending:
        ending.setattr(pushes, 'push', push)
        with pytest.raises(end):
            say('tea', 'a')
    say('tea', 'b')
    assert client.received() == [said('tea', 2, 'b')]
    assert Stream('tea').history() == [said('tea', 1, 'a'), said('tea', 2, 'b')]


def test_what_ends_the_thread_that_tells_where_streams_stand_keeps_no_other_from_it(monkeypatch):
    told = []

    def tell(due):
        told.append(due)
        if len(told) == 1:
            raise SystemExit
        return {}

    def run(function, name):
        with contextlib.suppress(SystemExit):
            function()

    monkeypatch.setattr(telling, 'tell', tell)
    monkeypatch.setattr(telling.background, 'run', run)
    monkeypatch.setattr(telling.time, 'sleep', lambda seconds: None)
    teller = telling.Teller()
    for key in ('one', 'two'):
        teller.follow(telling.Waiting(key, 'tea', 'server!1', 'membership', None, None, None))
    assert [list(due) for due in told] == [['one'], ['two']]


def test_a_failure_to_find_the_followers_is_no_failure_of_who_sends(client, monkeypatch):
    # The message is committed, and numbered.
    client.send('FOLLOW', name='tea')
    client.received()

    def fail(*keys):
        raise DatabaseError('away')

    StreamMessage.objects.create(key=Stream('tea').key, name='tea', text='{"type":"SAID","text":"a"}')
    with monkeypatch.context() as away:
        away.setattr(pushes, 'followers', fail)
        # What it logs would be the failure of this test.
        away.setattr(numbering.logger, 'exception', lambda *args: None)
        numbering.number_and_push(Stream('tea'))
    StreamHead.objects.update(remind_at=timezone.now() - timedelta(seconds=2))
    Housekeeper().look()
    assert following('tea', 1, again=True) in client.received()


def test_without_limits_all_is_kept_until_it_is_cleared(client, settings):
    settings.SOCKETS = {'STREAM_MAX_MESSAGES': None, 'STREAM_MAX_AGE': None}
    say('tea', *'abcde')
    StreamMessage.objects.update(created=timezone.now() - timedelta(days=1000))
    assert StreamHead.objects.get().trim_at is None
    StreamHead.objects.update(trim_at=timezone.now() - timedelta(seconds=2))
    Housekeeper().look()
    assert StreamMessage.objects.count() == 5 and StreamHead.objects.get().trim_at is None
    # One limit is enough.
    Stream('milk', max_messages=2).send_action('SAID', text='a')
    for text in 'bcdef':
        Stream('milk').send_action('SAID', text=text)
    Housekeeper().look()
    assert [message['text'] for message in Stream('milk').history()] == list('ef')
    Stream('tea').clear()
    Housekeeper().look()
    assert Stream('tea').history() == [] and StreamHead.objects.get(name='tea').trim_at is None
    say('tea', 'f')
    assert Stream('tea').history() == [said('tea', 6, 'f')]


FORK = """
import os, signal, time
os.environ['DJANGO_SETTINGS_MODULE'] = 'tests.settings'
import django
django.setup()
from django.core.management import call_command
from django.db import connections
from sockets.connection.memory import memories
from sockets.streams import Stream, following, numbering, replays
call_command('migrate', verbosity=0)
stream = Stream('tea')
stream.send_action('SAID')
told = []
following.tell = lambda due: told.extend(due)
# Threads of this process are at work, and hold what there is to hold.
replays.cache.read(stream.key, 'epoch', 0)
numbering._is_at_work[0] = following.teller._is_at_work = True
locks = [numbering._lock, following.teller._lock, replays.cache._lock]
locks += [shared.lock for shared in replays.cache._shared.values()]
for lock in locks:
    lock.acquire()
connections.close_all()
child = os.fork()
if not child:
    signal.alarm(20)
    stream.send_action('SAID')
    assert stream.position()['offset'] == 2
    epoch = stream.position()['epoch']
    assert len(replays.cache.read(stream.key, epoch, 0).rows) == 2
    following.teller.follow(following.Waiting(stream.key, 'tea', 'server!1', 'membership', None, None, None))
    while not told:
        time.sleep(0.05)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_process_that_was_forked_does_its_own_work(tmp_path):
    # It waited for a thread, and for locks, of the process that it was forked from.
    programs.run_python('-W', 'ignore', '-c', FORK, env={'TEST_DATABASE_URL': f'sqlite:///{tmp_path}/rows'})


@pytest.mark.parametrize('ahead', [-3, 3600])
def test_a_message_of_a_writer_whose_clock_is_ahead_is_numbered_as_soon(client, ahead):
    # It waited for the time that the clock of its writer had shown.
    StreamMessage.objects.create(key=Stream('tea').key, name='tea', text='{"type":"SAID","text":"a"}')
    StreamMessage.objects.update(created=timezone.now() + timedelta(seconds=ahead))
    Housekeeper().look()
    assert [message['text'] for message in Stream('tea').history()] == ['a']


@pytest.mark.parametrize('before', [{}, {'STREAM_MAX_MESSAGES': None, 'STREAM_MAX_AGE': None}])
@pytest.mark.parametrize('limit, left', [({'STREAM_MAX_MESSAGES': 3}, 'fgh'), ({'STREAM_MAX_AGE': 3600}, 'gh')])
def test_lower_limits_reach_streams_in_which_nothing_is_said(client, settings, monkeypatch, before, limit, left):
    # They were trimmed when the older limits said so, or with the next message.
    monkeypatch.setattr(retention, '_next_look', [0])
    settings.SOCKETS = before
    say('tea', *'abcdefgh')
    Stream('own', max_messages=100, max_age=9 * 24 * 3600).send_action('SAID', text='own')
    StreamMessage.objects.filter(offset__lt=7).update(created=timezone.now() - timedelta(hours=2))
    StreamMessage.objects.filter(name='own').update(created=timezone.now() - timedelta(hours=2))
    Housekeeper().look()
    assert StreamMessage.objects.count() == 9
    settings.SOCKETS = {**before, **limit}
    retention._next_look[0] = 0
    for _ in range(2):
        Housekeeper().look()
    assert [message['text'] for message in Stream('tea').history()] == list(left)
    assert [message['text'] for message in Stream('own').history()] == ['own']
    assert not retention.beyond_settings().exists()


@pytest.mark.parametrize(
    'send',
    [
        lambda client, content: client.request('RETURN'),
        lambda client, content: client.send('SEND'),
        lambda client, content: client.socket.send_json(content),
        lambda client, content: Socket.objects.send_json(content),
        lambda client, content: Socket.objects.send_json(
            {'stream': 'a', 'payload': {'stream': 'b', 'payload': content}}
        ),
        lambda client, content: Stream('milk').send_json(content),
    ],
)
def test_what_history_returns_is_sent_within_a_content_of_ones_own(client, monkeypatch, send):
    # Clients took it for a message that was pushed: a request was never answered, and no page got the others.
    say('tea', 'a')
    (content,) = Stream('tea').history()
    routes = (*Room.routes, ('RETURN', lambda socket: content), ('SEND', lambda socket: socket.send_json(content)))
    with SocketClient('/room/', handler=type('Handler', (Room,), {'routes': routes})) as client:
        with pytest.raises(TypeError, match='OLDER'):
            send(client, content)


def test_what_history_returns_is_sent_through_a_demultiplexer_within_a_content_of_ones_own(db):
    part = type('Part', (Room,), {'routes': (('RETURN', lambda socket: Stream('tea').history()[0]),)})
    whole = type('Whole', (SocketDemultiplexer,), {'streams': {'part': part}})
    with SocketClient('/room/', handler=whole) as client:
        say('tea', 'a')
        with pytest.raises(TypeError, match='OLDER'):
            client.send_json({'stream': 'part', 'payload': {'type': 'RETURN', 'ref': 1}})


@pytest.mark.parametrize('kept', [True, 7, 'x', [1], {'cards': 2}, None])
def test_a_field_that_is_no_place_in_a_stream_is_sent_whatever_it_is_called(client, kept):
    assert Socket.objects.send_json({'type': 'DEALT', 'kept': kept}) == 1
    assert Socket.objects.send_json({'type': 'OLDER', 'payload': {'kept': {'epoch': '', 'offset': 1}}}) == 1
    assert client.received()[0] == {'type': 'DEALT', 'kept': kept}
    # A client may send anything.
    client.send('LEAVE', name='tea', kept={'stream': 'tea', 'epoch': '', 'offset': 1})
