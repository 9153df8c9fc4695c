"""Who arrives and who leaves: people, not connections."""

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.db import OperationalError
from django.views.generic import View

from sockets import SocketRouter, callbacks, presence
from sockets.connection import claims, visits
from sockets.connection.memory import memories
from sockets.models import Ending, Socket, removal
from sockets.multiplexing import SocketDemultiplexer

from .client import Connection
from .conftest import OUR_LAYERS, both_ways

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.parametrize('layer', [OUR_LAYERS[0]], indirect=True)]

told = []


class Room(View):
    socket = SocketRouter()

    @socket.connect
    def on_connect(socket):
        if socket.request.GET.get('close'):
            socket.close(4403)
        if socket.request.GET.get('raise'):
            raise KeyError('raise')

    @socket.arrived
    def on_arrived(socket, room=None):
        told.append(('arrived', socket.user.get_username(), room))

    @socket.left
    def on_left(socket, room=None):
        told.append(('left', socket.user.get_username(), socket.rooms))


class Patient(View):
    socket = SocketRouter(handler=Room.socket.Handler)

    @socket.left(after=60)
    def on_left(socket):
        told.append(('patient', socket.path))


@pytest.fixture(autouse=True)
def nothing_told():
    told.clear()


@pytest.fixture
def waits(layer, monkeypatch):
    """Somebody who leaves is waited for, as outside of tests."""
    monkeypatch.setattr(removal, 'delay_of', lambda handler: handler.left_after)
    monkeypatch.setattr(callbacks, 'end_later', lambda: None)


def pass_time():
    """Have the seconds pass in which people may come back."""
    Ending.objects.filter(due__isnull=False).update(due=removal.in_seconds(0))
    claims.run_due(late=True)


@both_ways
def test_in_a_test_who_closes_the_last_connection_has_left_at_once(connect, alice, login):
    cookies = login(alice)
    one, two = connect(Room.socket.Handler, cookies=cookies), connect(Room.socket.Handler, cookies=cookies)
    assert told == [('arrived', 'alice', None)]
    one.disconnect()
    assert told == [('arrived', 'alice', None)]
    two.disconnect()
    assert told == [('arrived', 'alice', None), ('left', 'alice', [])]
    assert not Ending.objects.exists()


def test_who_comes_back_has_neither_left_nor_arrived(waits, connect, alice, login):
    cookies = login(alice)
    for _ in range(3):
        tab = connect(Room.socket.Handler, cookies=cookies)
        tab.disconnect()
        assert Ending.objects.get().claimed_by is None
        claims.run_due(late=True)
    assert told == [('arrived', 'alice', None)]
    pass_time()
    assert told == [('arrived', 'alice', None), ('left', 'alice', [])]
    pass_time()
    connect(Room.socket.Handler, cookies=cookies)
    assert told[2:] == [('arrived', 'alice', None)]


def test_of_several_connections_that_end_one_says_so(waits, connect, alice, login):
    cookies = login(alice)
    tabs = [connect(Room.socket.Handler, cookies=cookies) for _ in range(3)]
    for tab in tabs:
        tab.disconnect()
    assert Ending.objects.count() == 3
    pass_time()
    assert told == [('arrived', 'alice', None), ('left', 'alice', [])]
    assert not Ending.objects.exists()


def test_people_and_paths_are_kept_apart(waits, connect, alice, login, client):
    bob = get_user_model().objects.create_user('bob')
    pattern = r'^/room/(?P<room>\w+)/$'
    tea = connect(Room.socket.Handler, '/room/tea/', pattern=pattern, cookies=login(alice))
    connect(Room.socket.Handler, '/room/cake/', pattern=pattern, cookies=login(alice))
    connect(Room.socket.Handler, '/room/tea/', pattern=pattern, cookies=login(bob))
    # Of those without a session, each is somebody else.
    nobody = connect(Room.socket.Handler, '/room/tea/', pattern=pattern)
    connect(Room.socket.Handler, '/room/tea/', pattern=pattern)
    assert [name for _, name, _ in told] == ['alice', 'alice', 'bob', '', '']
    del told[:]
    Socket.objects.get(channel_name=tea.name).join('tea')
    tea.disconnect(), nobody.disconnect()
    pass_time()
    assert sorted(told) == [('left', '', []), ('left', 'alice', ['tea'])]


def test_a_visitor_is_known_by_the_session(waits, connect, settings, client):
    session = client.session
    session['name'] = 'Anna'
    session.save()
    cookies = {settings.SESSION_COOKIE_NAME: session.session_key}
    for _ in range(2):
        connect(Room.socket.Handler, cookies=cookies).disconnect()
    pass_time()
    assert [what for what, *_ in told] == ['arrived', 'left']


@pytest.mark.parametrize(
    'end',
    [
        lambda: Socket.objects.all().revoke(),
        lambda: Socket.objects.all().delete(),
        lambda: (Socket.objects.mark_inactive(), Socket.objects.purge_inactive(in_last_mins=-1)),
    ],
)
def test_whoever_ends_the_connection_its_person_may_come_back(waits, connect, alice, login, end):
    cookies = login(alice)
    connect(Room.socket.Handler, cookies=cookies)
    end()
    connect(Room.socket.Handler, cookies=cookies)
    assert told == [('arrived', 'alice', None)]
    end()
    pass_time()
    assert told == [('arrived', 'alice', None), ('left', 'alice', [])]


def test_who_is_turned_away_has_not_been_there(waits, layer):
    refused = Connection('/page/?close=1', handler=Room.socket.Handler)
    refused.disconnect(4403)
    pass_time()
    assert told == [] and not Ending.objects.exists()


def test_a_process_that_has_just_started_leaves_people_the_time_to_come_back(waits, connect, alice, login):
    # It may have been the only one: who comes back to it would have left first.
    connect(Room.socket.Handler, cookies=login(alice)).disconnect()
    Ending.objects.update(due=removal.in_seconds(0))
    housekeeper = presence.Housekeeper()
    housekeeper.look()
    assert [what for what, *_ in told] == ['arrived']
    housekeeper.began -= presence.TIME_TO_RETURN
    housekeeper.look()
    assert [what for what, *_ in told] == ['arrived', 'left']


def test_a_process_that_dies_as_it_says_so_leaves_that_to_another_one(waits, connect, alice, login, monkeypatch):
    connect(Room.socket.Handler, cookies=login(alice)).disconnect()
    leave = visits.disconnect.run

    def die(row, event):
        raise SystemExit

    monkeypatch.setattr(visits.disconnect, 'run', die)
    with pytest.raises(SystemExit):
        pass_time()
    monkeypatch.setattr(visits.disconnect, 'run', leave)
    end = Ending.objects.get()
    assert end.has_left and end.claimed_by
    # Who comes now has left before: the first process may have said so.
    connect(Room.socket.Handler, cookies=login(alice))
    assert told[1:] == [('arrived', 'alice', None)]
    Ending.objects.update(claimed_until=removal.in_seconds(-1))
    pass_time()
    assert told[2:] == [('left', 'alice', [])] and not Ending.objects.exists()


def test_a_view_says_how_long_it_waits_and_hears_what_it_builds_on_hears(waits, connect, alice, login):
    assert (Room.socket.Handler.left_after, Patient.socket.Handler.left_after) == (3, 60)
    connect(Patient.socket.Handler, cookies=login(alice)).disconnect()
    pass_time()
    assert told == [('arrived', 'alice', None), ('patient', '/page/'), ('left', 'alice', [])]


def test_streams_hear_of_it(waits, connect, alice, login):
    class Both(SocketDemultiplexer):
        streams = {'room': Room.socket.Handler, 'patient': Patient.socket.Handler}

    assert Both.left_after == 60
    connect(Both, cookies=login(alice)).disconnect()
    pass_time()
    assert [what for what, *_ in told] == ['arrived', 'arrived', 'left', 'patient', 'left']


def test_what_is_no_time_is_refused(layer):
    for after in (0, -1, '3', None, True):
        with pytest.raises(TypeError, match='takes a number of seconds'):
            SocketRouter().left(after=after)


def test_a_database_that_is_away_is_asked_again(waits, connect, alice, login, monkeypatch, caplog):
    # The claim would have been renewed for ever.
    connect(Room.socket.Handler, cookies=login(alice)).disconnect()
    others = visits._others

    def away(row):
        raise OperationalError('away')

    monkeypatch.setattr(visits, '_others', away)
    pass_time()
    assert 'is not known yet: away' in caplog.text and not claims._held
    monkeypatch.setattr(visits, '_others', others)
    Ending.objects.update(claimed_until=removal.in_seconds(-1))
    pass_time()
    assert [what for what, *_ in told] == ['arrived', 'left']


def test_what_is_written_to_the_session_as_somebody_leaves_is_saved(waits, connect, alice, login):
    class Polite(View):
        socket = SocketRouter()

        @socket.left
        def on_left(socket):
            socket.session['left'] = True

    mine = connect(Polite.socket.Handler, cookies=login(alice))
    mine.disconnect()
    pass_time()
    assert mine.name not in memories._memories
    (session,) = Session.objects.all()
    assert session.get_decoded()['left'] is True


def test_a_connection_that_ends_as_its_person_comes_back_is_not_overlooked(waits, connect, alice, login, monkeypatch):
    cookies = login(alice)
    connect(Room.socket.Handler, cookies=cookies)
    first, endings = Socket.objects.select_related('user', 'session').get(), type(Ending.objects.all())
    delete = endings._raw_delete

    def delete_and_end(self, using):
        count = delete(self, using)
        if Socket.objects.filter(pk=first.pk).exists():
            # In another server, just when nothing was found that waits.
            removal.close(first, using)
        return count

    monkeypatch.setattr(endings, '_raw_delete', delete_and_end)
    connect(Room.socket.Handler, cookies=cookies)
    assert told == [('arrived', 'alice', None)]


def test_of_two_connections_with_which_somebody_comes_back_none_takes_the_other_for_an_arrival(
    waits, connect, alice, login, monkeypatch
):
    cookies = login(alice)
    connect(Room.socket.Handler, cookies=cookies).disconnect()
    arrive, late = visits.arrive, []
    # The first one is slow, and the second one overtakes it.
    monkeypatch.setattr(visits, 'arrive', late.append)
    connect(Room.socket.Handler, cookies=cookies)
    monkeypatch.setattr(visits, 'arrive', arrive)
    connect(Room.socket.Handler, cookies=cookies)
    arrive(late[0])
    pass_time()
    assert told == [('arrived', 'alice', None)] and not Ending.objects.exists()


@pytest.mark.parametrize('how', ['close', 'raise'])
def test_who_was_turned_away_a_moment_before_arrives(waits, connect, alice, login, how):
    cookies = login(alice)
    away = connect(Room.socket.Handler, path=f'/page/?{how}=1', cookies=cookies)
    # Its client has not answered the close yet.
    assert Socket.objects.count() == 1
    connect(Room.socket.Handler, cookies=cookies)
    assert told == [('arrived', 'alice', None)]
    away.disconnect()
    assert told == [('arrived', 'alice', None)]
