"""Subprotocols that a handler class speaks."""

import json

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter
from sockets.authentication import token
from sockets.models import Socket
from sockets.multiplexing import SocketDemultiplexer
from sockets.testing import SocketClient, sandbox

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def one_process():
    with sandbox(routing=[]):
        yield


class Chat(RoutedSocketHandler):
    subprotocols = ('v2.chat', 'v1.chat')
    at_the_end = []

    def connect(self, message, **kwargs):
        self.at_connect = self.subprotocol
        super().connect(message, **kwargs)
        self.send_action('CONNECTED', subprotocol=self.at_connect)

    def ask(self, content):
        return {'type': 'IT_IS', 'subprotocol': self.subprotocol}

    async def ask_later(self, content):
        return {'type': 'IT_IS', 'subprotocol': self.subprotocol}

    routes = (('ASK', 'ask'), ('ASK_LATER', 'ask_later'))

    def disconnect(self, message, **kwargs):
        self.at_the_end.append(self.subprotocol)


def open_connection(offered, handler=Chat, **options):
    headers = {} if offered is None else {'sec-websocket-protocol': offered}
    return SocketClient('/page/', handler=handler, headers=headers, **options).connect()


@pytest.mark.parametrize(
    'offered, chosen',
    [
        ('v1.chat', 'v1.chat'),
        ('v2.chat,v1.chat', 'v2.chat'),
        # The client says what it likes best.
        ('v1.chat, v2.chat', 'v1.chat'),
        ('v3.chat, v2.chat', 'v2.chat'),
        ('V2.CHAT', None),
        ('v3.chat', None),
        ('', None),
        (None, None),
    ],
)
def test_the_first_one_offered_that_it_speaks_is_chosen(offered, chosen):
    Chat.at_the_end.clear()
    client = open_connection(offered)
    assert client.received() == [{'type': 'CONNECTED', 'subprotocol': chosen}]
    for type in ('ASK', 'ASK_LATER', 'ASK'):
        assert client.request(type) == {'type': 'IT_IS', 'subprotocol': chosen}
    client.close()
    assert Chat.at_the_end == [chosen]


def test_it_is_in_the_row_for_other_processes():
    open_connection('v1.chat')
    assert json.loads(Socket.objects.get().handshake)['subprotocol'] == 'v1.chat'
    Socket.objects.all().delete()
    open_connection('v3.chat')
    assert 'subprotocol' not in json.loads(Socket.objects.get().handshake)


def test_a_handler_that_speaks_none_answers_none():
    class Plain(Chat):
        subprotocols = ()

    assert open_connection('v1.chat', Plain).received() == [{'type': 'CONNECTED', 'subprotocol': None}]


def test_a_client_that_is_told_why_it_is_closed_gets_one_too():
    """A browser that gets none of those it has offered takes the connection for broken, and does not see the close."""

    class Members(Chat):
        login_required = True
        seen = []

        @property
        def _connection(self):
            return self.__dict__['_connection']

        @_connection.setter
        def _connection(self, connection):
            self.seen.append(connection)
            self.__dict__['_connection'] = connection

    client = open_connection('v1.chat', Members)
    assert client.close_code == 4401 and Members.seen[0].subprotocol == 'v1.chat'


def test_it_is_chosen_before_the_name_that_comes_before_a_token(settings):
    def by_token(request):
        token(request, subprotocol='bearer')

    settings.SOCKETS = {**getattr(settings, 'SOCKETS', {}), 'AUTHENTICATION': [by_token]}
    client = open_connection('bearer, secret, v1.chat')
    assert client.request('ASK')['subprotocol'] == 'v1.chat'
    client = open_connection('bearer, secret')
    assert client.request('ASK')['subprotocol'] == 'bearer'


def test_a_view_and_a_demultiplexer_have_it_from_their_handler_class():
    class Page(View):
        socket = SocketRouter(handler=Chat)

    class Both(SocketDemultiplexer):
        subprotocols = ['v1.chat']
        streams = {'it': Chat}

    assert open_connection('v1.chat', Page.socket.Handler).request('ASK')['subprotocol'] == 'v1.chat'
    client = open_connection('v2.chat, v1.chat', Both)
    client.send_json({'stream': 'it', 'payload': {'type': 'ASK'}})
    assert [content['payload']['subprotocol'] for content in client.received()] == ['v1.chat', 'v1.chat']


@pytest.mark.parametrize('value', ['v1.chat', {'v1.chat'}, None, [1], ['v1 chat'], ['v1,chat'], [''], ['v1\n']])
def test_what_is_no_list_of_names_is_refused(value):
    with pytest.raises(ImproperlyConfigured, match='subprotocols is'):
        type('Wrong', (RoutedSocketHandler,), {'subprotocols': value})


@pytest.mark.parametrize('name', ['subprotocol', 'ws_protocols', 'sub_protocols'])
def test_a_name_that_is_close_is_refused(name):
    with pytest.raises(ImproperlyConfigured, match='called subprotocols'):
        type('Wrong', (RoutedSocketHandler,), {name: ['v1.chat']})
