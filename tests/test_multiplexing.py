import json

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter
from sockets.models import Socket
from sockets.multiplexing import SocketDemultiplexer

pytestmark = pytest.mark.django_db

seen = []


class Chat(View):
    socket = SocketRouter()

    @socket.connect
    def on_open(socket, room):
        seen.append(('open', room))
        socket.send_json({'type': 'WELCOME'})

    @socket.route('SAY')
    def on_say(socket, content, room):
        return {'type': 'SAID', 'text': content['text'], 'room': room, 'id': socket.socket.pk}

    @socket.route('COUNT')
    def on_count(socket):
        socket.session['count'] = socket.session.get('count', 0) + 1
        return {'type': 'COUNT', 'n': socket.session['count']}

    @socket.disconnect
    def on_close(socket):
        seen.append(('close', socket.socket.path))


class Secret(RoutedSocketHandler):
    login_required = True
    routes = *RoutedSocketHandler.routes, ('FAIL', lambda socket: 1 / 0)


class All(SocketDemultiplexer):
    streams = {'chat': Chat.socket.Handler, 'again': Chat.socket.Handler, 'secret': Secret}


@pytest.fixture
def all_(connect, alice, login):
    seen.clear()
    return connect(All, '/all/tea/', pattern=r'^/all/(?P<room>\w+)/$', cookies=login(alice))


def on(stream, **payload):
    return {'stream': stream, 'payload': payload}


def test_each_stream_has_its_handler_and_all_share_the_connection(all_):
    assert [json.loads(message['text']) for message in all_.messages() if 'text' in message] == [
        on('chat', type='WELCOME'), on('again', type='WELCOME')]
    row = Socket.objects.get()
    assert all_.send(on('chat', type='SAY', text='hi')) == [on('chat', type='SAID', text='hi', room='tea', id=row.pk)]
    assert all_.send(on('again', type='SAY', text='hi', ref=1)) == [
        on('again', type='SAID', text='hi', room='tea', id=row.pk, ref=1)]
    assert all_.send(on('chat', type='COUNT')) == [on('chat', type='COUNT', n=1)]
    assert all_.send(on('again', type='COUNT')) == [on('again', type='COUNT', n=2)]
    all_.disconnect()
    assert seen == [('open', 'tea'), ('open', 'tea'), ('close', '/all/tea/'), ('close', '/all/tea/')]


def test_mistakes_are_told_on_their_stream_and_those_of_the_envelope_on_none(all_, caplog):
    all_.received()
    answer, = all_.send(on('chat', type='NONE', ref=1))
    assert (answer['stream'], answer['payload']['code'], answer['payload']['ref']) == ('chat', 'unknown_type', 1)
    answer, = all_.send(on('secret', type='FAIL'))
    assert (answer['stream'], answer['payload']['code']) == ('secret', 'server_error')
    assert 'Secret at \'/all/tea/\' raised' in caplog.text
    for content, code in (
            ({'stream': 'none', 'payload': {}}, 'unknown_type'), ({'stream': [], 'payload': {}}, 'unknown_type'),
            ({'stream': 'chat', 'payload': 'x'}, 'invalid_message'), ({'stream': 'chat'}, 'invalid_message')):
        answer, = all_.send({**content, 'ref': 2})
        assert (answer['type'], answer['code'], answer['ref']) == ('ERROR', code, 2)


def test_frames_without_a_stream_and_refs_of_the_envelope_are_ours(all_):
    all_.received()
    assert all_.send({'type': 'PING', 'ref': 1}) == [{'type': 'ACK', 'ref': 1}]
    assert all_.send({**on('chat', type='SAY', text='hi'), 'ref': 2})[-1] == {'type': 'ACK', 'ref': 2}


def test_a_stream_that_wants_a_user_ends_the_connection_of_a_stranger(connect):
    stranger = connect(All, '/all/tea/', pattern=r'^/all/(?P<room>\w+)/$')
    stranger.messages()
    stranger._put('websocket.receive', text=json.dumps(on('secret', type='PING')))
    told = stranger.messages()
    assert json.loads(told[0]['text'])['payload']['type'] == 'RECONNECT' and told[-1]['close'] == 4401


@pytest.mark.parametrize('stream', [Chat, 'chat', View])
def test_a_stream_that_is_no_handler_is_refused_when_its_class_is_made(stream):
    with pytest.raises(ImproperlyConfigured, match=r"Broken.streams\['chat'\]"):
        type('Broken', (SocketDemultiplexer,), {'streams': {'chat': stream}})
