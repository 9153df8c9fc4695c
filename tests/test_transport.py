import logging
import os
import subprocess
import sys
import threading
import time

import pytest
from asgiref.inmemory import ChannelLayer
from channels import channel_layers, include, route, route_class
from channels.test import apply_routes, ChannelTestCase, WSClient

from sockets import engine, fanout, messages, RoutedSocketHandler, signals
from sockets.engines.channels1 import delivery, questions, routing
from sockets.exceptions import DeliveryFailed, MailboxFull
from sockets.layers import InMemoryChannelLayer
from sockets.models import Socket
from sockets.testing import sandbox, work

from .client import Connection

MESSAGE = {'text': '{}'}


@pytest.fixture
def small_layer(settings):
    """A layer whose mailboxes hold 3 messages, and that counts what it was asked to send."""
    class Layer(ChannelLayer):
        tries = 0

        def send(self, channel, message):
            self.tries += 1
            super().send(channel, message)

    settings.SOCKETS = {'SEND_TIMEOUT': 0.2}
    with sandbox(Layer(capacity=3)):
        yield channel_layers['default']


def test_a_full_mailbox_is_waited_for_and_nothing_is_lost(small_layer):
    received = []

    def read():
        while len(received) < 50:
            channel, message = small_layer.receive(['server!'])
            if channel:
                received.append(channel)
            time.sleep(0.002)

    reader = threading.Thread(target=read)
    reader.start()
    names = ['server!{}'.format(n) for n in range(50)]
    assert fanout.send_many(names, MESSAGE) == 50
    reader.join()
    assert received == names


def test_a_slow_server_gets_everything_as_long_as_it_takes_something(small_layer):
    received = []

    def read():
        while len(received) < 8:
            time.sleep(0.1)
            received.append(small_layer.receive(['server!'])[0])

    reader = threading.Thread(target=read)
    reader.start()
    # 5 of them wait for 0.5 s in all, and no one for the 0.2 s that a server may take nothing.
    assert fanout.send_many(['server!{}'.format(n) for n in range(8)], MESSAGE) == 8
    reader.join()


def test_a_server_that_takes_nothing_is_given_up_alone_and_said_once(small_layer, caplog):
    def listen(servers, **kwargs):
        told.append(servers)

    told = []
    signals.messages_dropped.connect(listen)
    names = ['dead!{}'.format(n) for n in range(10)] + ['alive!1', 'alive!2']
    started = time.monotonic()
    with caplog.at_level(logging.ERROR, 'sockets'):
        assert fanout.send_many(names, MESSAGE) == 3 + 2
    assert 0.2 <= time.monotonic() - started < 2
    record, = caplog.records
    assert '7 messages' in record.getMessage() and 'dead! (7)' in record.getMessage()
    assert 'alive' not in record.getMessage()
    assert told == [{'dead!': 7}]
    # A mailbox is asked once per pause, however many connections share it.
    assert small_layer.channel_layer.tries < 60


def test_one_message_to_a_server_that_takes_nothing_is_an_error_with_its_name(small_layer):
    for _ in range(3):
        delivery.send(small_layer, 'dead!1', MESSAGE)
    with pytest.raises(MailboxFull, match='dead! has taken no message for 0.2 s'):
        delivery.send(small_layer, 'dead!1', MESSAGE)


def test_the_last_message_of_a_frame_is_left_to_a_layer_that_can_send_it_later(caplog):
    class Patient(ChannelLayer):
        def send_later(self, channel, message, on_failure):
            later.append((channel, message, on_failure))

    later = []
    layer = Patient()
    delivery.send_last(layer, 'a!1', MESSAGE)
    (channel, message, on_failure), = later
    assert (channel, message) == ('a!1', MESSAGE) and layer.receive_many(['a!']) == (None, None)
    # It was full, and may have room now.
    on_failure(layer.ChannelFull(channel))
    assert layer.receive_many(['a!']) == ('a!1', MESSAGE)
    assert not caplog.records
    on_failure(OSError('all is lost'))
    assert 'The answer to a frame of a!1 was lost' in caplog.text and 'all is lost' in caplog.text


def test_the_last_message_of_a_frame_is_sent_at_once_by_any_other_layer():
    layer = ChannelLayer()
    delivery.send_last(layer, 'a!1', MESSAGE)
    assert layer.receive_many(['a!']) == ('a!1', MESSAGE)


def test_a_layer_that_can_send_to_many_is_asked_to(settings):
    class Batching(ChannelLayer):
        def send_many(self, channel_names, message):
            asked.append(list(channel_names))
            return channel_names[2:]

    asked = []
    with sandbox(Batching()):
        assert fanout.send_many(['a!1', 'a!2', 'b!1', 'b!2', 'b!3'], MESSAGE) == 5
    # What was refused, and only that, is tried again.
    assert asked == [['a!1', 'a!2', 'b!1', 'b!2', 'b!3'], ['b!1', 'b!2', 'b!3'], ['b!3']]


class Away(Exception):
    """What a layer raises when its Redis cannot be reached."""


def test_a_fan_out_that_cannot_reach_some_serves_the_others_and_says_how_many():
    class Sharded(ChannelLayer):
        def send_many(self, channel_names, message):
            asked.append(list(channel_names))
            error = Away('Redis is away')
            error.undelivered = [name for name in channel_names if name.startswith('far!')]
            error.refused = [name for name in channel_names if name.startswith('full!')]
            if error.undelivered:
                raise error
            return []

    asked = []
    with sandbox(Sharded()), pytest.raises(DeliveryFailed, match='3 of 5 connections.*Redis is away') as raised:
        fanout.send_many(['far!1', 'near!1', 'full!1', 'far!2', 'near!2'], MESSAGE)
    assert (raised.value.delivered, raised.value.total) == (3, 5)
    assert isinstance(raised.value.__cause__, Away)
    # Who is full is tried again, who cannot be reached is not.
    assert asked[1:] == [['full!1']]


def test_a_fan_out_on_any_other_layer_serves_those_it_can_before_it_fails():
    class Partly(ChannelLayer):
        def send(self, channel, message):
            tried.append(channel)
            if channel.startswith('far!'):
                raise Away('Redis is away')
            super().send(channel, message)

    tried = []
    layer = Partly()
    with sandbox(layer):
        with pytest.raises(DeliveryFailed, match='1 of 3 connections'):
            fanout.send_many(['far!1', 'far!2', 'near!1'], MESSAGE)
        assert tried == ['far!1', 'near!1'] and layer.receive(['near!']) == ('near!1', MESSAGE)
        with pytest.raises(AssertionError):
            fanout.send_many(['near!1'], 'no message')


def test_what_has_expired_is_told_as_dropped():
    told, heard = [], threading.Event()

    def listen(servers, **kwargs):
        told.append(servers)
        heard.set()
    signals.messages_dropped.connect(listen)
    layer = InMemoryChannelLayer(expiry=0.05)
    layer.send('server!1', MESSAGE), layer.send('server!2', MESSAGE), layer.send('background', {})
    time.sleep(0.1)
    assert layer.receive(['server!', 'background']) == (None, None)
    assert heard.wait(5)
    assert told == [{'server!': 2, 'background': 1}]
    assert layer.statistics()['dropped'] == told[0]


@pytest.mark.parametrize('code', [1000, 1001, 1011, 1012, 3000, 4401, 4999])
def test_a_server_may_close_with(code):
    assert messages.close_code(code) == code


@pytest.mark.parametrize('code', [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, None, '1000', 1000.0])
def test_a_server_may_not_close_with(code):
    with pytest.raises(ValueError, match='4000 to 4999'):
        messages.close_code(code)


def test_a_server_prefix_is_what_its_channels_share():
    assert engine.server_of('daphne.response.X!y') == 'daphne.response.X!'
    assert engine.server_of('websocket.connect') == 'websocket.connect'


@pytest.mark.django_db
def test_a_path_whose_frames_are_routed_is_accepted_as_channels_would(layer):
    def receive(message):
        message.reply_channel.send({'text': '"plain channels"'})

    channel_layers['default'].router.root.routing.insert(0, route('websocket.receive', receive, path='^/plain/'))
    plain = Connection('/plain/')
    assert plain.messages() == [{'accept': True}]
    assert plain.send({'x': 1}) == ['plain channels']
    assert Connection('/nowhere/').messages() == [{'close': True}]


def test_the_routing_is_walked_with_its_url_arguments(layer):
    with sandbox(layer, [
        include([route_class(RoutedSocketHandler, path=r'^(?P<room>\w+)/$')], path=r'^/(?P<site>\w+)/'),
        route('http.request', len),
    ]):
        room, page = routing.routed('default')[:2]
    assert (room.consumer, page.consumer, page.channels) == (RoutedSocketHandler, len, {'http.request'})
    assert [regexes['path'].pattern for regexes in room.conditions] == [r'^/(?P<site>\w+)/', r'^(?P<room>\w+)/$']
    assert page.conditions == ({},)


def test_a_worker_says_who_it_is_unless_its_layer_reaches_nobody_else(layer):
    layer.send(questions.DOCTOR, {'reply_channel': 'sockets.doctor?x'})
    work()
    channel, message = layer.receive(['sockets.doctor?x'])
    assert (message is None) == channel_layers['default'].local_only()
    assert message is None or message['process'] == os.getpid()
    assert [entry.consumer for entry in routing.routed('default')].count(questions.answer_doctor) == (
        message is not None)


def test_channels_is_imported_by_the_engine_alone():
    program = (
        'import sys, django; from django.conf import settings;'
        'settings.configure(); import sockets, sockets.router, sockets.routes, sockets.messages, sockets.access.origins,'
        'sockets.conf, sockets.exceptions, sockets.signals; print("channels" in sys.modules)')
    assert subprocess.check_output([sys.executable, '-c', program]).strip() == b'False'


class ClassicHandler(RoutedSocketHandler):
    routes = (*RoutedSocketHandler.routes, ('ECHO', lambda socket, content: content))

    def connect(self, message, **kwargs):
        self.message.reply_channel.send({'accept': True})
        self.send_json({'slug': kwargs.get('slug')})


class ChannelsOwnTestTools(ChannelTestCase):
    """Channels' WSClient, apply_routes and ChannelTestCase, as its documentation shows them."""

    routes = [route_class(ClassicHandler, path=r'^/(?P<slug>\w+)/$')]

    def test_a_connection_from_connect_to_disconnect(self):
        with apply_routes(self.routes):
            ws = WSClient()
            handler = ws.send_and_consume('websocket.connect', path='/page/')
            assert isinstance(handler, ClassicHandler)
            assert handler.socket == Socket.objects.get()
            assert handler.kwargs == {'slug': 'page'}
            assert ws.receive() == {'slug': 'page'}
            handler = ws.send_and_consume('websocket.receive', text={'type': 'ECHO', 'n': 1}, path='/page/')
            assert handler.socket == Socket.objects.get()
            assert ws.receive() == {'type': 'ECHO', 'n': 1}
            handler = ws.send_and_consume('websocket.disconnect', path='/page/')
            assert handler.socket.pk is None
            assert not Socket.objects.exists()
            assert ws.send_and_consume('websocket.disconnect', path='/page/').socket is None
            assert ws.receive() is None

    def test_a_client_that_is_logged_in(self):
        from django.contrib.auth import get_user_model
        user = get_user_model().objects.create_user('bob')
        with apply_routes([ClassicHandler.as_route(path='^/page/$', attrs={'login_required': True})]):
            ws = WSClient()
            ws.force_login(user)
            with self.assertNumQueries(3):
                handler = ws.send_and_consume('websocket.connect', path='/page/')
            assert handler.user == user == handler.socket.user
            assert handler.session.session_key == handler.socket.session_id
            ws.receive()
            Socket.objects.filter(user=user).send_action('YOU')
            assert ws.receive() == {'type': 'YOU'}

    def test_channels_own_ways_to_know_the_user(self):
        from django.contrib.auth import get_user_model
        user = get_user_model().objects.create_user('bob')

        class WithHttpUser(ClassicHandler):
            http_user_and_session = True
            routes = (('ME', lambda socket: {'me': socket.message.user.username}),)

        with apply_routes([route_class(WithHttpUser, path='^/page/$')]):
            ws = WSClient()
            ws.force_login(user)
            ws.send_and_consume('websocket.connect', path='/page/')
            ws.receive()
            ws.send_and_consume('websocket.receive', text={'type': 'ME'}, path='/page/')
            assert ws.receive() == {'me': 'bob'}
