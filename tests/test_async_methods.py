"""What an ``async def`` calls on its socket, on rows and on querysets: the same on every engine."""

import inspect

import pytest
from django.contrib import auth
from django.utils import translation
from django.utils.functional import lazy

from sockets import RoutedSocketHandler
from sockets.models import Socket
from sockets.models.queryset import SocketQuerySet
from sockets.multiplexing import SocketDemultiplexer
from sockets.testing import SocketClient, sandbox

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def one_process():
    with sandbox(routing=[]):
        yield


class Talkative(RoutedSocketHandler):
    async def connect(self, message, **kwargs):
        await self.aaccept()
        await self.ajoin('tea')
        await self.asend_json({'type': 'HELLO', 'rooms': await self.arooms()})

    routes = (
        ('SAY', 'on_say'),
        ('TEXT', 'on_text'),
        ('LEAVE', 'on_leave'),
        ('CLOSE', 'on_close_wanted'),
        ('ROW', 'on_row'),
        ('ALL', 'on_all'),
        ('REVOKE', 'on_revoke'),
    )

    async def on_say(self, content):
        await self.asend_action('SAID', text=content['text'])
        return {'type': 'DONE'}

    async def on_text(self, content):
        await self.asend(text='{"type": "TEXT"}')

    async def on_leave(self, content):
        await self.aleave('tea')
        return {'type': 'LEFT', 'rooms': await self.arooms()}

    async def on_close_wanted(self, content):
        await self.aclose(4007)

    async def on_row(self, content):
        assert await self.row.ajoin('cup')
        count = await self.row.asend_action('OF_THE_ROW') + await self.row.asend(text='{"type": "TEXT"}')
        return {'type': 'ROW', 'count': count, 'left': await self.row.aleave('cup')}

    async def on_all(self, content):
        rows = Socket.objects.in_room('tea')
        count = await rows.asend_json({'type': 'ALL'}) + await rows.asend(text='{"type": "TEXT"}')
        return {'type': 'COUNT', 'count': count, 'none': await rows.none().aclose()}

    async def on_revoke(self, content):
        assert await Socket.objects.filter(pk=self.row.pk).arevoke('Go away.') == 1


class Both(SocketDemultiplexer):
    streams = {'it': Talkative}


def open_connection(handler):
    return SocketClient('/page/', handler=handler).connect()


def test_a_coroutine_sends_joins_leaves_and_closes():
    client = open_connection(Talkative)
    assert client.received() == [{'type': 'HELLO', 'rooms': ['tea']}]
    client.send('SAY', text='hi')
    assert client.received() == [{'type': 'SAID', 'text': 'hi'}, {'type': 'DONE'}]
    client.send('TEXT')
    assert client.received() == [{'type': 'TEXT'}]
    assert client.request('LEAVE') == {'type': 'LEFT', 'rooms': []}
    client.send('CLOSE')
    assert client.close_code == 4007


def test_a_stream_has_the_same_methods():
    client = open_connection(Both)
    client.send_json({'stream': 'it', 'payload': {'type': 'SAY', 'text': 'hi'}})
    assert [content['payload']['type'] for content in client.received()] == ['HELLO', 'SAID', 'DONE']


def test_a_coroutine_speaks_to_rows_and_querysets():
    client, other = open_connection(Talkative), open_connection(Talkative)
    client.received(), other.received()
    assert client.request('ROW') == {'type': 'ROW', 'count': 2, 'left': True}
    assert [content['type'] for content in client.received()] == ['OF_THE_ROW', 'TEXT']
    assert client.request('ALL') == {'type': 'COUNT', 'count': 4, 'none': 0}
    assert [content['type'] for content in other.received()] == ['ALL', 'TEXT']
    client.send('REVOKE')
    assert client.close_code == 4401 and not Socket.objects.filter(channel_name=client.channel_name).exists()


@pytest.mark.parametrize('kind', [RoutedSocketHandler, Socket, SocketQuerySet])
def test_each_method_for_coroutines_takes_what_the_plain_one_takes(kind):
    ours = [
        name
        for base in kind.__mro__
        if base.__module__.endswith('.coroutines')
        for name, member in vars(base).items()
        if inspect.iscoroutinefunction(member)
    ]
    assert {'asend_json', 'asend_action', 'asend', 'aclose'} <= set(ours)
    for name in ours:
        plain = getattr(kind, name[1:])
        if isinstance(plain, property):
            continue
        taken = [list(inspect.signature(method).parameters.items()) for method in (plain, getattr(kind, name))]
        # Of a handler, close= is a method of its own.
        taken[0] = [parameter for parameter in taken[0] if (name, parameter[0]) != ('asend', 'close')]
        assert [(key, value.default) for key, value in taken[0]] == [(key, value.default) for key, value in taken[1]]


def test_what_a_manager_has_a_coroutine_awaits_too():
    assert inspect.iscoroutinefunction(SocketQuerySet.asend_json) and callable(Socket.objects.asend_json)


language = lazy(translation.get_language, str)


class Polite(RoutedSocketHandler):
    routes = (('THANKS', 'on_thanks'),)

    async def on_thanks(self, content):
        with translation.override('de'):
            await self.asend_json({'type': 'TEXT', 'text': language()})
            await Socket.objects.filter(path=self.path).asend_json({'type': 'TEXT', 'text': language()})


def test_lazy_texts_are_in_the_language_of_the_coroutine():
    client = open_connection(Polite)
    client.send('THANKS')
    assert [content['text'] for content in client.received()] == ['de', 'de'] and str(language()) != 'de'


class Knowing(RoutedSocketHandler):
    seen = []

    async def connect(self, message, **kwargs):
        self.seen.append(('connect', self.user.pk))

    async def default_route(self, content):
        return {'type': 'YOU', 'user': self.user.pk, 'path': self.row.path}

    async def known(self, content):
        return {'type': 'YOU', 'user': self.user.pk, 'path': self.row.path}

    routes = (('KNOWN', 'known'),)

    async def disconnect(self, message, **kwargs):
        self.seen.append(('disconnect', self.user.pk))


class Decoding(Knowing):
    def decode(self, text, data):
        return super().decode(text, data)


class Within(Knowing):
    middleware = [lambda next: lambda socket, content: next(socket, content)]


class Receiving(Knowing):
    async def receive(self, content, **kwargs):
        return {'type': 'YOU', 'user': self.user.pk, 'path': self.row.path}


@pytest.mark.parametrize('handler', [Knowing, Decoding, Within, Receiving])
@pytest.mark.parametrize('type', ['KNOWN', 'OTHER'])
def test_the_user_and_the_row_are_at_hand_in_each_coroutine(alice, handler, type):
    Knowing.seen.clear()
    client = SocketClient('/page/', handler=handler, user=alice).connect()
    assert client.request(type) == {'type': 'YOU', 'user': alice.pk, 'path': '/page/'}
    client.close()
    assert Knowing.seen == [('connect', alice.pk), ('disconnect', alice.pk)]


class Curious(RoutedSocketHandler):
    """Asks for the user as views of Django 5 that are coroutines do."""

    at_connect = None
    routes = (('WHO', 'on_who'), ('WHO_THERE', 'on_who_there'))

    async def connect(self, message, **kwargs):
        Curious.at_connect = await self.request.auser()
        await self.aaccept()

    async def on_who(self, content):
        user = await self.request.auser()
        return {'type': 'USER', 'name': user.get_username(), 'is_same': user == self.user}

    def on_who_there(self, content):
        return {'type': 'USER', 'name': self.request.user.get_username()}


@pytest.mark.skipif(not hasattr(auth, 'aget_user'), reason='request.auser() is there since Django 5')
@pytest.mark.parametrize('name', ['alice', ''])
def test_a_coroutine_awaits_the_user_of_the_request(django_user_model, name):
    client = SocketClient('/page/', handler=Curious)
    if name:
        client = SocketClient('/page/', handler=Curious, user=django_user_model.objects.create(username=name))
    client.connect()
    assert Curious.at_connect.get_username() == name
    assert client.request('WHO') == {'type': 'USER', 'name': name, 'is_same': True}
    assert client.request('WHO_THERE')['name'] == name
