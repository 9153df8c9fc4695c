"""Streams: what an attack on them found."""

import pytest
from django.db import InterfaceError, transaction

from sockets.connection.memory import memories
from sockets.models import Membership, StreamHead, StreamMessage
from sockets.streams import Stream, numbering, retention
from sockets.streams import following as telling
from sockets.testing import SocketClient

from .test_streams import Room, resume, said, say

pytestmark = pytest.mark.django_db


class Hall(Room):
    routes = (*Room.routes, ('ROLLED_BACK', 'on_rolled_back'), ('BOTH', 'on_both'))

    def on_rolled_back(self, content):
        with transaction.atomic():
            try:
                with transaction.atomic():
                    getattr(self, content['do'])(content['name'])
                    raise KeyError
            except KeyError:
                pass

    def on_both(self, content):
        with transaction.atomic():
            for do in content['do']:
                getattr(self, do)(content['name'])


@pytest.fixture
def client(db):
    with SocketClient('/room/', handler=Hall) as client:
        yield client


def texts(answer):
    return [message['text'] for message in answer['messages']]


def asked(client, name):
    return client.request('RESUME', streams={name: {'epoch': '', 'offset': 0}})['streams']


def test_who_follows_in_a_transaction_that_is_rolled_back_is_given_nothing(client):
    # The process took it for a follower, and gave it the whole stream.
    say('tea', 'a', 'b')
    client.send('ROLLED_BACK', do='follow', name='tea')
    assert not Membership.objects.exists()
    assert asked(client, 'tea') == {}


def test_who_ceases_to_follow_in_a_transaction_that_is_rolled_back_is_given_what_it_has_missed(client):
    # The messages were pushed, and a gap could not be filled.
    client.send('FOLLOW', name='tea')
    client.send('ROLLED_BACK', do='unfollow', name='tea')
    say('tea', 'a')
    assert said('tea', 1, 'a') in client.received()
    assert texts(resume(client, 'tea', 0, '')) == ['a']


def test_who_ceases_to_follow_in_a_transaction_that_is_rolled_back_is_told_again_where_to_begin(client):
    client.send('FOLLOW', name='tea')
    client.send('ROLLED_BACK', do='unfollow', name='tea')
    assert telling.teller._following


@pytest.mark.parametrize('do, is_followed', [(['follow', 'unfollow'], False), (['unfollow', 'follow'], True)])
@pytest.mark.parametrize('begins', [True, False])
def test_what_is_done_last_in_a_transaction_holds(client, do, is_followed, begins):
    say('tea', 'a')
    if begins:
        client.send('FOLLOW', name='tea')
    client.send('BOTH', do=do, name='tea')
    assert bool(Membership.objects.exists()) is is_followed
    assert bool(asked(client, 'tea')) is is_followed
    assert bool(telling.teller._following) is False


def test_who_only_listens_for_long_is_given_what_it_has_missed(client, monkeypatch):
    # Its process forgot after an hour what it follows, and answered that nothing was missed.
    client.send('FOLLOW', name='tea')
    client.send('FOLLOW', name='coffee')
    say('tea', 'a', 'b')
    memories.forget(client.channel_name)
    assert texts(resume(client, 'tea', 0, '')) == ['a', 'b']
    # Also once it is known again, as who follows another stream.
    client.send('FOLLOW', name='milk')
    client.send('LEAVE', name='coffee')
    assert set(asked(client, 'tea')) == {'tea'} and asked(client, 'coffee') == {}
    assert set(asked(client, 'milk')) == {'milk'}


def test_who_follows_is_known_without_a_query(client):
    # All who come back after a restart ask.
    client.send('FOLLOW', name='tea')
    assert memories.get(client.channel_name).follows == set(Membership.objects.values_list('key', flat=True))


def left(name):
    numbering.number_and_push(Stream(name))
    return [message['text'] for message in Stream(name).history()]


@pytest.mark.parametrize('before', [[], ['old']])
def test_what_was_committed_before_a_stream_is_cleared_is_gone_without_a_number_too(client, monkeypatch, before):
    # Another thread had the numbering: the message got its number after it was cleared, and was kept.
    say('tea', *before)
    with monkeypatch.context() as busy:
        busy.setattr(numbering, '_is_at_work', [True])
        say('tea', 'a', 'b')
        say('milk', 'c')
        Stream('tea').clear()
    assert left('tea') == [] and left('milk') == ['c']
    say('tea', 'd')
    assert left('tea') == ['d'] and StreamMessage.objects.filter(name='tea').count() == 1
    assert Stream('tea').position()['offset'] == len(before) + 1


def test_a_stream_in_which_nothing_was_ever_said_is_cleared_without_a_trace(client):
    Stream('tea').clear()
    assert not StreamHead.objects.exists()


@pytest.mark.parametrize('is_numbered_first', [True, False])
@pytest.mark.parametrize('before', [[], ['old']])
def test_what_a_transaction_sends_after_it_has_cleared_a_stream_is_kept(client, monkeypatch, before, is_numbered_first):
    # The first message had all of them numbered once they were committed, and then all were cleared.
    say('tea', *before)
    with monkeypatch.context() as busy:
        busy.setattr(numbering, '_is_at_work', [not is_numbered_first])
        with transaction.atomic():
            say('tea', 'a')
            Stream('tea').clear()
            say('tea', 'b', 'c')
    assert left('tea') == ['b', 'c']
    assert StreamMessage.objects.count() == 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize('failures, is_cleared', [(1, True), (3, False)])
def test_a_stream_that_could_not_be_cleared_is_tried_again_and_raises_nothing(monkeypatch, failures, is_cleared):
    # A connection that was cut is no DatabaseError on PostgreSQL.
    logged, failing, clear = [], [InterfaceError('connection already closed')] * failures, retention._clear

    def fail(*args):
        if failing:
            raise failing.pop()
        clear(*args)

    monkeypatch.setattr(retention, '_clear', fail)
    monkeypatch.setattr(retention.logger, 'error', lambda text, *args: logged.append(text % args))
    say('tea', 'a')
    Stream('tea').clear()
    assert (Stream('tea').history() == []) is is_cleared
    assert logged == (
        [] if is_cleared else ['A stream could not be cleared: InterfaceError: connection already closed']
    )
