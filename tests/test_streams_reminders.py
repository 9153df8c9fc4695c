"""Reminders: many streams that have moved are told of together."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from sockets import RoutedSocketHandler
from sockets.models import StreamHead
from sockets.streams import Stream, numbering, pushes
from sockets.testing import SocketClient

pytestmark = pytest.mark.django_db


class Room(RoutedSocketHandler):
    names = ()

    def connect(self, message, **kwargs):
        super().connect(message, **kwargs)
        for name in self.names:
            self.follow(name)


@pytest.fixture
def client(db, request):
    names = [f's{n}' for n in range(request.param)]
    with SocketClient('/room/', handler=type('OwnRoom', (Room,), {'names': names})) as client:
        for name in names:
            Stream(name).send_action('SAID')
        client.received()
        yield client


def due(**fields):
    StreamHead.objects.update(remind_at=timezone.now() - timedelta(seconds=2), **fields)


def remind():
    with CaptureQueriesContext(
        connection,
    ) as queries:
        pushes.remind(numbering.REMIND_AFTER)
    return len(queries)


def reminded(client):
    return sorted(content['stream'] for content in client.received() if content.get('again'))


def reminders():
    return sorted(StreamHead.objects.values_list('reminders', flat=True))


@pytest.mark.parametrize('client', [40], indirect=True)
def test_the_queries_of_reminders_do_not_grow_with_the_streams(client, monkeypatch):
    monkeypatch.setattr(pushes, 'SECONDS', 60)
    # Each stream took five statements in a transaction of its own, and 100 streams a look were the most.
    StreamHead.objects.update(remind_at=None)
    StreamHead.objects.filter(name='s0').update(remind_at=timezone.now() - timedelta(seconds=2))
    alone = remind()
    assert reminded(client) == ['s0']
    due(reminders=0)
    assert remind() == alone
    assert reminded(client) == sorted(f's{n}' for n in range(40))
    assert reminders() == [1] * 40
    assert not StreamHead.objects.filter(remind_at__lte=timezone.now() + timedelta(seconds=2)).exists()


@pytest.mark.parametrize('client', [7], indirect=True)
def test_one_look_reminds_of_more_streams_than_it_takes_at_once(client, monkeypatch):
    monkeypatch.setattr(pushes, 'STREAMS', 2)
    monkeypatch.setattr(pushes, 'SECONDS', 60)
    due()
    for number, name in enumerate(['s1', 's2', 's3']):
        StreamHead.objects.filter(name=name).update(reminders=number)
    remind()
    assert reminded(client) == sorted(f's{n}' for n in range(7))
    assert reminders() == [1, 1, 1, 1, 1, 2, 3]
    # Who was told three times is told no more.
    assert StreamHead.objects.get(reminders=3).remind_at is None


@pytest.mark.parametrize('client', [5], indirect=True)
def test_streams_for_which_a_look_has_no_time_are_due_still(client, monkeypatch):
    due()
    monkeypatch.setattr(pushes, 'time', SimpleNamespace(monotonic=iter(range(100)).__next__))
    monkeypatch.setattr(pushes, 'SECONDS', 1.5)
    told = []
    for _ in range(5):
        remind()
        told.append(reminded(client))
    # Each time at least one, and none twice.
    assert sorted(name for names in told for name in names) == [f's{n}' for n in range(5)] and len(told[0]) == 1
    assert reminders() == [1] * 5


@pytest.mark.parametrize('client', [4], indirect=True)
def test_only_what_the_layer_did_not_take_does_not_count(client, monkeypatch):
    due()
    send_many = pushes.fanout.send_many

    def refuse_some(names, message, *args):
        if '"s1"' in message['text'] or '"s3"' in message['text']:
            raise OSError('away')
        return send_many(names, message, *args)

    with monkeypatch.context() as away:
        away.setattr(pushes.fanout, 'send_many', refuse_some)
        remind()
    assert reminded(client) == ['s0', 's2'] and reminders() == [0, 0, 1, 1]
    remind()
    # It is tried again in some time.
    assert reminded(client) == []


@pytest.mark.parametrize('client', [4], indirect=True)
@pytest.mark.parametrize('change', [{'offset': 9}, {'epoch': 'other'}, {'reminders': 2}])
def test_a_stream_that_has_moved_or_that_another_has_locked_or_reminded_of_is_left(client, monkeypatch, change):
    found = list(StreamHead.objects.order_by('name'))
    StreamHead.objects.filter(name='s1').update(**change)
    lock = pushes.lock

    def lock_most(keys, using):
        return {key: head for key, head in lock(keys, using).items() if head.name != 's2'}

    monkeypatch.setattr(pushes, 'lock', lock_most)
    noted = pushes._note_reminded(found, numbering.REMIND_AFTER)
    assert [head.name for head in noted] == ['s0', 's3']
    assert reminders() == sorted([1, change.get('reminders', 0), 0, 1])


@pytest.mark.parametrize('client', [2], indirect=True)
def test_nothing_is_noted_if_the_followers_cannot_be_read(client, monkeypatch):
    due()

    def fail(*keys):
        raise OSError('away')

    with monkeypatch.context() as away:
        away.setattr(pushes, 'followers', fail)
        with pytest.raises(OSError):
            remind()
    assert reminders() == [0, 0]
    remind()
    assert reminded(client) == ['s0', 's1']
