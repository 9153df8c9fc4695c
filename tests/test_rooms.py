import json

import pytest
from django.contrib.sessions.models import Session
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter, presence
from sockets.models import Membership, Socket

pytestmark = pytest.mark.django_db

NAMES = ['tea', 'Tea', 'TEA ', '', 'ünïcödé 😀', 'a/b?c=d', 'x' * 100000, "'; drop table", '\0', '\ud800', '%s', '*']


class Page(View):
    socket = SocketRouter()

    @socket.connect
    def on_open(socket, room=None):
        if room:
            socket.join(room)

    @socket.route('JOIN')
    def on_join(socket, content):
        socket.join(content['room'])

    @socket.route('LEAVE')
    def on_leave(socket, content):
        socket.leave(content['room'])

    @socket.disconnect
    def on_close(socket):
        for room in socket.rooms:
            Socket.objects.in_room(room).send_action('LEFT', room=room)


@pytest.fixture
def open_page(connect):
    def open_one(path='/room/tea/', **kwargs):
        page = connect(Page.socket.Handler, path, pattern=r'^/room/(?P<room>\w+)/$', **kwargs)
        page.received()
        return page

    return open_one


def test_a_room_reaches_who_has_joined_and_not_left(open_page):
    one, two, other = open_page(), open_page(), open_page('/room/coffee/')
    assert Socket.objects.in_room('tea').send_json({'type': 'X'}) == 2
    assert (one.received(), two.received(), other.received()) == ([{'type': 'X'}], [{'type': 'X'}], [])
    other.send({'type': 'JOIN', 'room': 'tea'})
    two.send({'type': 'LEAVE', 'room': 'tea'})
    two.send({'type': 'LEAVE', 'room': 'tea'})
    other.send({'type': 'JOIN', 'room': 'tea'})
    assert Socket.objects.in_room('tea').send_json({'type': 'Y'}) == 2
    assert (one.received(), two.received(), other.received()) == ([{'type': 'Y'}], [], [{'type': 'Y'}])
    assert Socket.objects.in_room('tea').in_room('coffee').count() == 1


@pytest.mark.parametrize('name', NAMES, ids=lambda name: ascii(name[:12]))
def test_any_name_is_a_room_and_no_other(name):
    row = Socket.objects.create(channel_name='daphne.response.a!1', path='/')
    assert row.join(name) and row.join(name)
    assert [other for other in NAMES if Socket.objects.in_room(other).exists()] == [name]
    assert row.leave(name) and not row.leave(name)
    assert not Socket.objects.in_room(name).exists() and not Membership.objects.exists()


def test_a_room_that_is_no_str_is_a_type_error():
    row = Socket.objects.create(channel_name='daphne.response.a!1', path='/')
    for call in (row.join, row.leave, Socket.objects.in_room):
        with pytest.raises(TypeError, match='A room is called by a str, not 7'):
            call(7)


def test_who_ends_leaves_its_rooms_and_can_tell_them(open_page):
    one, two = open_page(), open_page()
    two.send({'type': 'JOIN', 'room': 'cake'})
    two.disconnect()
    assert one.received() == [{'type': 'LEFT', 'room': 'tea'}]
    assert [str(membership) for membership in Membership.objects.all()] == ['tea']


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    'end',
    [
        lambda: Socket.objects.all().revoke(),
        lambda: Socket.objects.all().delete(),
        lambda: Session.objects.all().delete(),
        lambda: (Socket.objects.mark_inactive(), Socket.objects.purge_inactive(in_last_mins=-1)),
    ],
)
def test_however_a_connection_ends_it_leaves_its_rooms(open_page, alice, login, end):
    open_page(cookies=login(alice))
    assert Socket.objects.in_room('tea').count() == 1
    end()
    assert not Socket.objects.exists() and not Membership.objects.exists()


def test_a_connection_that_has_ended_joins_nothing():
    row = Socket.objects.create(channel_name='daphne.response.a!1', path='/')
    row.remove()
    assert not row.join('tea') and not Membership.objects.exists()
    row.forget()
    assert not row.join('tea')


def test_rooms_wait_for_the_accept(connect, caplog):
    class Early(RoutedSocketHandler):
        def connect(self, message, **kwargs):
            self.leave('tea')
            assert self.rooms == []
            self.join('tea')

    assert 'accept' not in connect(Early).messages()[0]
    assert "Cannot join 'tea' before the connection is accepted." in caplog.text


def test_what_a_process_that_died_has_left_in_a_room_is_swept(open_page):
    open_page()
    Membership.objects.create(socket_id=12345, key=Membership.key_of('tea'), name='tea')
    assert Socket.objects.in_room('tea').count() == 1
    presence.purge()
    assert Membership.objects.count() == 1


# The chat of the Channels 2 tutorial, with the messages of its own page.


class TutorialChat(View):
    socket = SocketRouter()

    @socket.connect
    def on_open(socket, room_name):
        socket.join('chat_' + room_name)

    @socket.default_route
    def on_message(socket, content, room_name):
        Socket.objects.in_room('chat_' + room_name).send_json({'message': content['message']})


def test_the_chat_of_the_channels_2_tutorial_in_a_few_lines(connect):
    one, two, other = [
        connect(TutorialChat.socket.Handler, f'/ws/chat/{room}/', pattern=r'^/ws/chat/(?P<room_name>\w+)/$')
        for room in ('lobby', 'lobby', 'kitchen')
    ]
    for client in (one, two, other):
        client.messages()
    assert one.send(json.dumps({'message': 'hello'})) == [{'message': 'hello'}]
    assert (two.received(), other.received()) == ([{'message': 'hello'}], [])
