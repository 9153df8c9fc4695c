import json
import re
from io import StringIO

import pytest
from channels import include, route, route_class
from django import forms
from django.core.management import call_command
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter, description
from sockets.testing import sandbox


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


ROUTING = [
    route_class(Table.socket.Handler, path=r'^/table/(?P<table>\d+)/$'),
    include([route_class(Quiet, path=r'^/quiet/$')], path=r'^/api'),
    route_class(Talk.socket.Handler, path='^/talk/$'),
    route('background', lambda message: None),
]


@pytest.fixture(autouse=True)
def routed():
    with sandbox(routing=ROUTING):
        yield


def describe(*options):
    out = StringIO()
    call_command('sockets', 'describe', *options, stdout=out, skip_checks=True)
    return out.getvalue()


def test_text_names_each_path_route_and_option():
    assert describe() == '''\
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
'''


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
        'action', 'channel', 'messages'}


def test_typescript_has_an_interface_for_each_path():
    text = describe('--typescript')
    assert '''\
/** /table/{table}/ */
export interface TableMessages {
  receives: Record<string, any>;
  sends: {
    /** Bets on a colour. */
    "BET": {fields: {"amount": number; "colour"?: "red"}; reply: any};
    [type: string]: {fields: any; reply: any};
  };
}
''' in text
    assert 'export interface TalkMessages' in text and 'export interface QuietMessages' in text


@pytest.mark.parametrize('schema, type', [
    ({'type': 'array', 'items': {'type': 'integer'}}, 'Array<number>'),
    ({'type': ['boolean', 'null']}, 'boolean | null'),
    ({'anyOf': [{'type': 'string'}, {'const': 3}]}, 'string | 3'),
    ({'type': 'object'}, 'Record<string, any>'),
    ({'enum': ['a', 'b']}, '"a" | "b"'),
    ({}, 'any')])
def test_a_schema_is_a_type(schema, type):
    assert description.typescript(schema) == type


@pytest.mark.parametrize('pattern, path', [
    (r'^/room/(?P<room>\w+)/$', '/room/{room}/'), ('^/a/$', '/a/'), (r'^/(?P<a>x|y)/(?P<b>\d+)$', '/{a}/{b}')])
def test_a_pattern_is_a_path_with_names(pattern, path):
    assert description.address(pattern)[0] == path


def test_text_names_the_permission_of_a_handler_class():
    staff = type('Staff', (RoutedSocketHandler,), {'permission': ['poker.sit', 'poker.bet']})
    with sandbox(routing=[route_class(staff, path='^/staff/$')]):
        assert describe() == '/staff/  tests.test_description.Staff  (permission poker.sit, poker.bet)\n'
