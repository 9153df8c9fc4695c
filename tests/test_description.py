import json
import re
from io import StringIO

import pytest
from django import forms
from django.core.management import call_command
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter
from sockets.multiplexing import SocketDemultiplexer
from sockets.operations import description
from sockets.routing import include, route_class
from sockets.testing import SocketClient, sandbox


class BetForm(forms.Form):
    amount = forms.IntegerField(min_value=1)
    colour = forms.ChoiceField(choices=[('red', 'Red')], required=False)


class Table(View):
    socket = SocketRouter()

    @socket.route('BET', form=BetForm, login_required=True, rate='30/m')
    def on_bet(socket, content):
        """Bets on a colour.

        And more about it.
        """

    @socket.route(re.compile('MOVE_(UP|DOWN)$'))
    def on_move(socket, content):
        pass


class Quiet(RoutedSocketHandler):
    """Says little."""

    login_required = True


class Talk(View):
    socket = SocketRouter()

    @socket.default_route
    def anything(socket, content):
        """Says it to all."""


class SaidForm(forms.Form):
    """Somebody said something.

    To all.
    """

    text = forms.CharField()
    colour = forms.ChoiceField(choices=[('red', 'Red')], required=False)


class Room(View):
    socket = SocketRouter(sends={'SAID': SaidForm, 'SAY': None, 'ERROR': SaidForm})

    @socket.route('SAY')
    def on_say(socket, content):
        pass


class Files(RoutedSocketHandler):
    def on_bytes(self, data):
        """Takes a picture."""


ROUTING = [
    route_class(Table.socket.Handler, path=r'^/table/(?P<table>\d+)/$'),
    include([route_class(Quiet, path=r'^/quiet/$')], path=r'^/api'),
    route_class(Talk.socket.Handler, path='^/talk/$'),
]


class Everything(SocketDemultiplexer):
    streams = {'table': Table.socket.Handler, 'room': Room.socket.Handler}


OTHERS = [route_class(Room.socket.Handler, path='^/room/$'), route_class(Files, path='^/files/$')]


@pytest.fixture(autouse=True)
def routed():
    with sandbox(routing=ROUTING):
        yield


def describe(*options):
    out = StringIO()
    call_command('sockets', 'describe', *options, stdout=out)
    return out.getvalue()


def test_text_names_each_path_route_and_option():
    assert (
        describe()
        == """\
/table/{table}/  tests.test_description.TableSocketHandler
    The websocket of Table.
  BET                Bets on a colour. (login required, 30/m)
      amount: number
      colour?: "red"
  /MOVE_(UP|DOWN)$/

/api/quiet/  tests.test_description.Quiet  (login required)
    Says little.

/talk/  tests.test_description.TalkSocketHandler
    The websocket of Talk.
  (any other type)  Says it to all.
"""
    )


def test_asyncapi_has_a_channel_for_each_path_and_a_message_for_each_route():
    document = json.loads(describe('--asyncapi'))
    assert document['asyncapi'] == '3.0.0'
    table = document['channels']['Table']
    assert table['address'] == '/table/{table}/' and table['parameters'] == {'table': {}}
    bet = table['messages']['BET']
    assert bet['summary'] == 'Bets on a colour.'
    assert bet['payload']['required'] == ['type', 'amount']
    assert bet['payload']['properties']['type'] == {'const': 'BET'}
    assert bet['payload']['properties']['amount']['minimum'] == 1
    assert table['messages']['MOVE_UP_DOWN']['payload']['properties']['type']['pattern'] == '^(?:MOVE_(UP|DOWN)$)'
    assert document['channels']['Quiet']['address'] == '/api/quiet/'
    assert {key for operation in document['operations'].values() for key in operation} == {
        'action',
        'channel',
        'messages',
    }


def test_typescript_has_an_interface_for_each_path():
    text = describe('--typescript')
    assert (
        """\
/** /table/{table}/ */
export interface TableMessages {
  receives: Record<string, any>;
  sends: {
    /** Bets on a colour. */
    "BET": {fields: {"amount": number; "colour"?: "red"}; reply: any};
    [type: string]: {fields: any; reply: any};
  };
}
"""
        in text
    )
    assert 'export interface TalkMessages' in text and 'export interface QuietMessages' in text


@pytest.fixture
def others():
    with sandbox(routing=OTHERS):
        yield


def test_text_names_what_a_handler_sends_and_that_it_takes_bytes(others):
    assert (
        describe()
        == """\
/room/  tests.test_description.RoomSocketHandler
    The websocket of Room.
  SAY
  sends SAID  Somebody said something.
      text: string
      colour?: "red"
  sends SAY
  sends ERROR  Somebody said something.
      text: string
      colour?: "red"

/files/  tests.test_description.Files
  (binary frames)  Takes a picture.
"""
    )


def test_asyncapi_has_what_a_handler_sends_apart_from_what_it_takes(others):
    document = json.loads(describe('--asyncapi'))
    room, files = document['channels']['Room']['messages'], document['channels']['Files']['messages']
    said = room['SAID']
    assert said['payload']['required'] == ['type', 'text'] and said['summary'] == 'Somebody said something.'
    assert said['payload']['properties']['type'] == {'const': 'SAID'}
    assert room['SAY']['payload']['properties'] == {'type': {'const': 'SAY'}, 'ref': {}}
    assert 'text' in room['ERROR']['payload']['properties']
    operations = document['operations']
    sent = [message['$ref'].rpartition('/')[2] for message in operations['Room.send']['messages']]
    assert sorted(sent) == ['ACK', 'ERROR', 'GOT_HELLO', 'RECONNECT', 'SAID', 'SAY']
    taken = [message['$ref'].rpartition('/')[2] for message in operations['Room.receive']['messages']]
    assert sorted(taken) == ['HELLO', 'PING', 'SAY2']
    assert files['bytes'] == {
        'payload': {'type': 'string', 'format': 'binary'},
        'summary': 'Takes a picture.',
        'contentType': 'application/octet-stream',
    }
    assert files['ERROR'] == {'$ref': '#/components/messages/ERROR'}


def test_typescript_has_both_directions(others):
    text = describe('--typescript')
    assert (
        """\
/** /room/ */
export interface RoomMessages {
  receives: {
    "SAID": {"text": string; "colour"?: "red"};
    "SAY": Record<string, any>;
    "ERROR": {"text": string; "colour"?: "red"};
  };
  sends: {
    "SAY": {fields: Record<string, any>; reply: any};
  };
}
"""
        in text
    )
    assert '/** /files/ takes binary frames, too */' in text


def test_streams_are_described_each_with_its_handler():
    with sandbox(routing=[route_class(Everything, path='^/all/$')]):
        text, document = describe(), json.loads(describe('--asyncapi'))
    assert (
        text
        == """\
/all/  tests.test_description.Everything
  stream table  tests.test_description.TableSocketHandler
      The websocket of Table.
    BET                Bets on a colour. (login required, 30/m)
        amount: number
        colour?: "red"
    /MOVE_(UP|DOWN)$/
  stream room  tests.test_description.RoomSocketHandler
      The websocket of Room.
    SAY
    sends SAID  Somebody said something.
        text: string
        colour?: "red"
    sends SAY
    sends ERROR  Somebody said something.
        text: string
        colour?: "red"
"""
    )
    messages = document['channels']['Everything']['messages']
    assert messages['table_BET']['payload']['properties']['stream'] == {'const': 'table'}
    assert messages['table_BET']['payload']['properties']['payload']['required'] == ['type', 'amount']
    assert messages['room_SAID']['payload']['properties']['payload']['properties']['type'] == {'const': 'SAID'}
    sent = [message['$ref'].rpartition('/')[2] for message in document['operations']['Everything.send']['messages']]
    assert {'room_SAID', 'room_SAY2'} <= set(sent) and 'table_BET' not in sent


def test_a_stream_is_not_described_as_taking_binary_frames(db):
    everything = type('Everything', (SocketDemultiplexer,), {'streams': {'files': Files}})
    with sandbox(routing=[route_class(everything, path='^/all/$')]):
        assert 'stream files' in describe() and '(binary frames)' not in describe()
        client = SocketClient('/all/').connect()
        assert client.request_bytes(b'a picture')['code'] == 'invalid_message'


@pytest.mark.parametrize(
    'schema, type',
    [
        ({'type': 'array', 'items': {'type': 'integer'}}, 'Array<number>'),
        ({'type': ['boolean', 'null']}, 'boolean | null'),
        ({'anyOf': [{'type': 'string'}, {'const': 3}]}, 'string | 3'),
        ({'type': 'object'}, 'Record<string, any>'),
        ({'enum': ['a', 'b']}, '"a" | "b"'),
        ({}, 'any'),
    ],
)
def test_a_schema_is_a_type(schema, type):
    assert description.typescript(schema) == type


@pytest.mark.parametrize(
    'pattern, path',
    [(r'^/room/(?P<room>\w+)/$', '/room/{room}/'), ('^/a/$', '/a/'), (r'^/(?P<a>x|y)/(?P<b>\d+)$', '/{a}/{b}')],
)
def test_a_pattern_is_a_path_with_names(pattern, path):
    assert description.address(pattern)[0] == path


def test_text_names_the_permission_of_a_handler_class():
    staff = type('Staff', (RoutedSocketHandler,), {'permission': ['poker.sit', 'poker.bet']})
    with sandbox(routing=[route_class(staff, path='^/staff/$')]):
        assert describe() == '/staff/  tests.test_description.Staff  (permission poker.sit, poker.bet)\n'
