"""What a handler declares that it sends: a mistake is told with DEBUG and in tests, and costs nothing without."""

import datetime

import pytest
from django import forms
from django.core.exceptions import ImproperlyConfigured
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter
from sockets.models import Socket
from sockets.multiplexing import SocketDemultiplexer
from sockets.routing import route_class
from sockets.testing import SocketClient, assert_received, sandbox

pytestmark = pytest.mark.django_db


class Said(forms.Form):
    text = forms.CharField()
    when = forms.DateTimeField(required=False)


class Room(View):
    socket = SocketRouter(sends={'SAID': Said, 'LEFT': None})

    @socket.route('SAY')
    def on_say(socket, content):
        Socket.objects.filter(path=socket.path).send_action('SAID', **content['fields'])

    @socket.route('PUSH')
    def on_push(socket, content):
        socket.send_json(content['frame'])

    @socket.route('ASK')
    def on_ask(socket, content):
        return content['frame']


class Silent(View):
    socket = SocketRouter()

    @socket.route('ASK')
    def on_ask(socket, content):
        return content['frame']


class Both(SocketDemultiplexer):
    streams = {'room': Room.socket.Handler, 'silent': Silent.socket.Handler}


ROUTING = [
    route_class(Room.socket.Handler, path='^/room/$'),
    route_class(Silent.socket.Handler, path='^/silent/$'),
    route_class(Both, path='^/both/$'),
]


@pytest.fixture(autouse=True)
def routed():
    with sandbox(routing=ROUTING):
        yield


def refused(text):
    return pytest.raises(TypeError, match=text)


GOOD = {'type': 'SAID', 'text': 'hi', 'when': datetime.datetime(2019, 4, 1, 12)}
UNDECLARED = {'type': 'SHOUTED'}
UNFIT = {'type': 'SAID', 'text': ''}
NO_TYPE = {'text': 'hi'}


def test_what_is_declared_arrives_as_do_our_own_types():
    room = SocketClient('/room/').connect()
    room.send('SAY', fields={'text': 'hi', 'when': datetime.datetime(2019, 4, 1, 12)})
    assert_received(room, type='SAID', text='hi')
    assert room.request('ASK', frame={'type': 'LEFT', 'any': ['thing']}) == {'type': 'LEFT', 'any': ['thing']}
    assert room.request('HELLO')['type'] == 'GOT_HELLO'
    assert room.request('PING') == {'type': 'ACK'}
    room.send_text('rubbish')
    assert_received(room, type='ERROR')


@pytest.mark.parametrize('kind', ['PUSH', 'ASK'])
@pytest.mark.parametrize(
    'frame, text',
    [
        (
            UNDECLARED,
            "RoomSocketHandler sends the type 'SHOUTED', which its sends does not declare; it has 'LEFT', 'SAID'",
        ),
        (NO_TYPE, 'sends the type None'),
        ({'type': ['SAID']}, 'sends the type'),
        (UNFIT, "RoomSocketHandler sends 'SAID', which does not fit Said: text: This field is required"),
    ],
)
def test_a_test_is_told_of_what_is_not_declared_or_does_not_fit(kind, frame, text):
    room = SocketClient('/room/').connect()
    with refused(text):
        room.send(kind, frame=frame)


def test_a_test_is_told_of_a_fan_out_that_does_not_fit_whoever_sends_it():
    SocketClient('/room/').connect()
    silent = SocketClient('/silent/').connect()
    with refused('does not fit Said'):
        Socket.objects.send_action('SAID')
        silent.send('PING')


def test_who_declares_nothing_may_send_anything():
    silent = SocketClient('/silent/').connect()
    assert silent.request('ASK', frame=NO_TYPE) == NO_TYPE


def test_a_client_that_is_to_see_what_browsers_see_gets_the_frame():
    room = SocketClient('/room/', raise_exceptions=False).connect()
    assert room.request('ASK', frame=UNFIT) == UNFIT


def test_a_stream_is_held_to_what_its_handler_declares():
    both = SocketClient('/both/').connect()
    with refused("RoomSocketHandler sends the type 'SHOUTED'"):
        both.send_json({'stream': 'room', 'payload': {'type': 'ASK', 'frame': UNDECLARED}})
    both.received()
    both.send_json({'stream': 'silent', 'payload': {'type': 'ASK', 'frame': UNDECLARED}})
    assert both.received() == [{'stream': 'silent', 'payload': UNDECLARED}]


@pytest.mark.parametrize('kind', ['PUSH', 'ASK'])
def test_with_debug_the_function_that_sends_is_told(settings, kind):
    settings.DEBUG = True
    room = SocketClient('/room/', raise_exceptions=False).connect()
    assert room.request('ASK', frame={'type': 'LEFT'}) == {'type': 'LEFT'}
    error = room.request(kind, frame=UNDECLARED)
    assert error['code'] == 'server_error' and "'SHOUTED'" in error['details'] and 'traceback' in error
    assert 'does not fit Said' in room.request(kind, frame=UNFIT)['details']


def test_with_debug_a_fan_out_raises_where_it_is_sent_and_nobody_gets_it(settings):
    settings.DEBUG = True
    room, silent = SocketClient('/room/').connect(), SocketClient('/silent/').connect()
    with refused('does not fit Said'):
        Socket.objects.send_json(UNFIT)
    with refused('SHOUTED'):
        Socket.objects.get(path='/room/').send_json(UNDECLARED)
    assert room.received() == silent.received() == []
    assert Socket.objects.filter(path='/silent/').send_json(UNDECLARED) == 1
    assert Socket.objects.send_json(GOOD) == 2


def test_without_debug_nothing_is_looked_at(django_assert_num_queries):
    room = SocketClient('/room/', raise_exceptions=False).connect()
    with django_assert_num_queries(1):
        assert Socket.objects.send_json(UNFIT) == 1
    assert room.received() == [UNFIT]


def test_a_router_adds_to_what_its_handler_declares():
    class Base(RoutedSocketHandler):
        sends = {'LEFT': None, 'SAID': None}

    class Page(View):
        socket = SocketRouter(handler=Base, sends={'SAID': Said})

    class Other(View):
        socket = SocketRouter(handler=Base)

    assert Page.socket.Handler.sends == {'LEFT': None, 'SAID': Said}
    assert Other.socket.Handler.sends == Base.sends == {'LEFT': None, 'SAID': None}
    assert RoutedSocketHandler.sends == {}


@pytest.mark.parametrize(
    'sends, text',
    [
        ([('SAID', Said)], "is a dict like {'SAID': SaidForm}"),
        ({1: Said}, 'has the key 1'),
        ({'': Said}, "has the key ''"),
        ({'SAID': {'text': str}}, 'is a class of forms'),
    ],
)
def test_a_wrong_declaration_is_an_error_as_it_is_imported(sends, text):
    with pytest.raises(ImproperlyConfigured, match=text):
        type('Wrong', (RoutedSocketHandler,), {'sends': sends})
    with refused(text):
        SocketRouter(sends=sends)


def test_a_serializer_is_asked_for_what_it_sends():
    serializers = pytest.importorskip('rest_framework.serializers')

    class Bid(serializers.Serializer):
        id = serializers.IntegerField(read_only=True)
        amount = serializers.DecimalField(max_digits=5, decimal_places=2)

    class Lot(View):
        socket = SocketRouter(sends={'BID': Bid})

    lot = SocketClient('/lot/', handler=Lot.socket.Handler).connect()
    Socket.objects.send_action('BID', id=1, amount='5.00')
    assert_received(lot, type='BID', amount='5.00')
    with refused('id is missing'):
        Socket.objects.send_action('BID', amount='5.00')
        lot.received()


def test_a_handler_with_an_encoding_of_its_own_is_held_to_it_too(settings):
    settings.DEBUG = True

    class Raw(RoutedSocketHandler):
        sends = {'SAID': Said}
        routes = (*RoutedSocketHandler.routes, ('ASK', lambda socket, content: {'type': 'SAID', 'data': b'1'}))

        def encode(self, content):
            return repr(content).encode()

    raw = SocketClient('/raw/', handler=Raw, raise_exceptions=False).connect()
    raw.send('ASK')
    assert b'text: This field is required' in raw.received()[0]
