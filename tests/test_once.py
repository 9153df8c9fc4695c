"""A queryset may find a connection twice. Whatever is done with it is done to the connection once."""

import json
from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import connection
from django.db.models import Count
from django.utils import timezone

from sockets import RoutedSocketHandler, engine
from sockets.models import Membership, Socket

from .conftest import OUR_LAYERS

pytestmark = [pytest.mark.django_db, pytest.mark.parametrize('layer', [OUR_LAYERS[0]], indirect=True)]


def by_groups():
    return Socket.objects.filter(user__groups__name__in=['red', 'blue'])


# Each finds alice's connection, and not the other one, and finds it twice where nobody looks after that.
TWICE = {
    'a join': by_groups,
    'two joins': lambda: (
        Socket.objects.filter(user__groups__name='red') | Socket.objects.filter(user__groups__name='blue')
    ),
    'rooms and a join': lambda: Socket.objects.in_room('tea') | by_groups(),
    'the table of the rooms': lambda: Socket.objects.filter(memberships__name__in=['tea', 'cake']),
    'an order': lambda: Socket.objects.filter(user__isnull=False).order_by('user__groups__name'),
    'an order and distinct': lambda: (
        Socket.objects.filter(user__isnull=False).order_by('-user__groups__name').distinct()
    ),
    'a slice': lambda: by_groups()[:5],
    'a slice of an order': lambda: by_groups().order_by('-user__groups__name')[:2],
    'a union': lambda: Socket.objects.in_room('tea').union(Socket.objects.in_room('cake')),
    'a union of all': lambda: Socket.objects.in_room('tea').union(Socket.objects.in_room('cake'), all=True),
    'only some columns': lambda: by_groups().only('path'),
    'without a column': lambda: by_groups().defer('user'),
    'an order by related': lambda: by_groups().select_related('user'),
    'of a user': lambda: (
        get_user_model().objects.get(username='alice').sockets.filter(user__groups__name__in=['red', 'blue'])
    ),
    'an aggregate': lambda: Socket.objects.annotate(n=Count('memberships')).filter(n=2),
    'extra': lambda: by_groups().extra(where=['1 = 1']),
}
twice = pytest.mark.parametrize('find', TWICE.values(), ids=TWICE)


@pytest.fixture
def alices(connect, alice, login):
    """A connection of alice, who is in two groups, that is in two rooms; and one of nobody in another room."""
    alice.groups.set([Group.objects.create(name=name) for name in ('red', 'blue')])
    mine, other = connect(RoutedSocketHandler, cookies=login(alice)), connect(RoutedSocketHandler)
    mine.messages(), other.messages()
    row = Socket.objects.get(user=alice)
    row.join('tea'), row.join('cake')
    Socket.objects.get(user=None).join('garden')
    yield mine
    assert other.messages() == []


def test_these_querysets_find_a_connection_twice(alices):
    # Or the tests below would show nothing.
    assert len(list(by_groups())) == 2


@twice
def test_a_connection_found_twice_is_sent_to_once_and_closed_once(alices, find):
    assert find().send_action('NEWS') == 1
    assert find().send(text='{}') == 1
    assert find().close(4000) == 1
    assert alices.messages() == [{'text': '{"type":"NEWS"}'}, {'text': '{}'}, {'close': 4000}]


@twice
def test_with_debug_a_connection_found_twice_is_sent_to_once(alices, find, settings):
    # To look at the paths of a union changed the querysets that it is of, and the send raised IndexError.
    settings.DEBUG = True
    rows = find()
    assert rows.send_action('NEWS') == rows.send_action('NEWS') == 1
    assert alices.messages() == [{'text': '{"type":"NEWS"}'}] * 2


@twice
def test_a_connection_found_twice_is_counted_once_before_and_after_the_query(alices, find):
    found = find()
    assert found.count() == 1
    assert list(found) and found.count() == 1


@twice
def test_a_connection_found_twice_is_marked_once_and_no_other_is(alices, find):
    Socket.objects.update(last_ping=timezone.now() - timedelta(minutes=9))
    assert find().mark_inactive() == 1
    assert Socket.objects.filter(active=False).count() == 1
    assert find().mark_active() == 1
    assert find().note_life(60) == 0 and find().note_life() == 1
    assert Socket.objects.filter(last_ping__gt=timezone.now() - timedelta(minutes=1)).count() == 1


@twice
def test_a_connection_found_twice_is_asked_once_for_a_sign_of_life(alices, find):
    assert find().cleanup_stale() == 1
    assert alices.received() == [{'type': 'PING'}]
    assert Socket.objects.get(active=False).user.username == 'alice'


@twice
def test_a_connection_found_twice_is_removed_once_if_it_is_silent(alices, find):
    # A filter() of a union says nothing and does nothing: it removed connections that were alive.
    assert find().purge_inactive() == 0
    Socket.objects.update(active=False, last_ping=timezone.now() - timedelta(minutes=6))
    assert find().purge_inactive() == 1
    assert [message['close'] for message in alices.messages()] == [1000]
    assert Socket.objects.get().user is None


@twice
def test_a_connection_found_twice_is_removed_once_if_its_server_is_gone(alices, find, monkeypatch):
    dead = []
    monkeypatch.setattr(engine.current(), 'dead_servers', lambda prefixes=None: dead)
    monkeypatch.setattr(engine.current(), 'forget_server', lambda server: None)
    assert find().purge_dead() == 0
    dead.append(Socket.objects.first().server)
    assert find().purge_dead(at_most=1) == 1
    assert Socket.objects.get().user is None
    assert find().purge_dead(at_most=1) == 0


@twice
def test_a_connection_found_twice_is_revoked_once(alices, find):
    assert find().revoke('Gone.') == 1
    (message,) = alices.messages()
    assert (json.loads(message['text'])['details'], message['close']) == ('Gone.', 4401)
    assert Socket.objects.get().user is None


def test_of_distinct_users_one_connection_each_is_meant(connect, alice, login):
    if connection.vendor != 'postgresql':
        pytest.skip('distinct(*fields) is PostgreSQL')
    cookies = login(alice)
    for _ in range(3):
        connect(RoutedSocketHandler, cookies=cookies)
    found = Socket.objects.order_by('user', 'pk').distinct('user')
    assert (found.count(), found.mark_inactive(), found.revoke()) == (1, 1, 1)
    assert Socket.objects.count() == 2


def test_many_are_treated_in_parts(layer):
    names = [f'daphne.response.a!{n}' for n in range(1203)]
    Socket.objects.bulk_create([Socket(channel_name=name, path='/', server='daphne.response.a!') for name in names])
    found = Socket.objects.order_by('-pk')[:1201]
    assert (found.count(), found.mark_inactive(), found.cleanup_stale()) == (1201,) * 3
    Socket.objects.update(last_ping=timezone.now() - timedelta(minutes=6))
    assert found.purge_inactive() == 1201 and Socket.objects.count() == 2


def test_one_query_counts_and_one_marks(layer, django_assert_num_queries):
    for method in ('count', 'mark_active', 'mark_inactive', 'note_life'):
        for found in (Socket.objects.all(), Socket.objects.in_room('tea'), by_groups()):
            with django_assert_num_queries(1):
                getattr(found, method)()


def test_other_counts_are_as_they_were(layer):
    for path in ('/a/', '/a/', '/b/'):
        Socket.objects.create(channel_name=f'a!{Socket.objects.count()}', path=path)
    assert Socket.objects.values('path').annotate(n=Count('pk')).count() == 2
    assert Socket.objects.values_list('path', flat=True).distinct().count() == 2
    assert Socket.objects.all()[1:].count() == 2
    assert Socket.objects.none().count() == 0
    assert list(Socket.objects.order_by('pk').in_room('x')) == []


def test_two_rooms_are_one_queryset(alices):
    both = Socket.objects.in_room('tea') | Socket.objects.in_room('cake')
    assert len(list(both)) == both.count() == 1
    assert Socket.objects.in_room('tea').in_room('cake').count() == 1
    assert Socket.objects.in_room('tea').exclude(pk__in=Socket.objects.in_room('cake')).count() == 0
    assert Socket.objects.exclude(memberships__key=Membership.key_of('tea')).count() == 1
    assert (Socket.objects.in_room('tea') & Socket.objects.in_room('garden')).count() == 0
