"""Runs the blocks of docs/coming-from.md, and does what the page says of them."""

import asyncio
import json
import re
import sys
import types
from pathlib import Path

import pytest
from django.contrib.auth.models import Group, Permission
from django.db.models import signals

from sockets import testing
from sockets.models import Socket
from sockets.operations import description
from sockets.testing import SocketClient

from .client import ON_CHANNELS_1

PAGE = (Path(__file__).resolve().parent.parent / 'docs/coming-from.md').read_text()
BLOCKS = re.findall(r'^```python\n# ([^\n]*)\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL)

# What does not run beside this version of Django or Channels: its blocks are only compiled.
THEIRS = ['Channels 2 to 4', 'djwebsockets 0.9', 'chanx 2', 'djangochannelsrestframework 1', 'python-socketio 5']
OURS = [
    'before/consumers.py',
    'after/handlers.py',
    'chat/views.py',
    'lobby/views.py',
    'poker/views.py',
    'staff/views.py',
    'talk/views.py',
]

pytestmark = pytest.mark.django_db


@pytest.fixture
def page(monkeypatch):
    """A function that runs a block of the page and returns its module; nothing of it listens when the test is over."""
    for signal in (signals.pre_save, signals.post_save, signals.pre_delete, signals.post_delete):
        monkeypatch.setattr(signal, 'receivers', list(signal.receivers))
    if ON_CHANNELS_1:
        from channels.binding.base import BindingMetaclass

        monkeypatch.setattr(BindingMetaclass, 'binding_classes', [])

    def run(path):
        name = path[: -len('.py')].replace('/', '.')
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(dict(BLOCKS)[path], path, 'exec'), module.__dict__)
        return module

    with testing.sandbox():
        yield run
    monkeypatch.undo()
    for signal in (signals.pre_save, signals.post_save, signals.pre_delete, signals.post_delete):
        signal.sender_receivers_cache.clear()


def on(stream, **payload):
    return {'stream': stream, 'payload': payload}


def test_every_block_is_run_or_somebody_elses():
    assert sorted(title for title, _ in BLOCKS) == sorted(THEIRS + OURS)
    assert PAGE.count('```') == 2 * len(BLOCKS)
    for title, text in BLOCKS:
        compile(text, title, 'exec')


@pytest.mark.channels1('a data binding is of Channels 1')
def test_channels_1_before(page, alice):
    alice.user_permissions.add(Permission.objects.get(codename='change_group'))
    client = SocketClient('/everything/', user=alice, handler=page('before/consumers.py').Everything).connect()
    client.send_json(on('echo', text='hi'))
    assert client.received() == [on('echo', said='hi')]
    group = Group.objects.create(name='a')
    client.send_json(on('groups', action='update', pk=group.pk, data={'name': 'b'}))
    group.refresh_from_db()
    group.delete()
    assert [(frame['payload']['action'], frame['payload']['data']['name']) for frame in client.received()] == [
        ('create', 'a'),
        ('update', 'b'),
        ('delete', 'b'),
    ]


def test_channels_1_after(page, alice):
    client = SocketClient('/everything/', user=alice, handler=page('after/handlers.py').Everything).connect()
    client.send_json(on('echo', type='ECHO', text='hi'))
    assert client.received() == [on('echo', said='hi')]
    group = Group.objects.create(name='a')
    for permitted in (False, True):
        client.send_json(on('groups', type='RENAME', pk=group.pk, name='b'))
        group.refresh_from_db()
        assert group.name == ('b' if permitted else 'a')
        alice.user_permissions.add(Permission.objects.get(codename='change_group'))
    client.send_json(on('groups', type='RENAME', pk=0))
    group.delete()
    created, refused, renamed, invalid, deleted = [frame['payload'] for frame in client.received()]
    assert (refused['code'], sorted(invalid['errors'])) == ('not_allowed', ['name', 'pk'])
    assert [(content['action'], content['name']) for content in (created, renamed, deleted)] == [
        ('create', 'a'),
        ('update', 'b'),
        ('delete', 'b'),
    ]


def test_the_chat_of_the_channels_2_tutorial(page):
    handler = page('chat/views.py').Chat.socket.Handler
    one, two, other = [
        SocketClient(f'/ws/chat/{room}/', handler=handler, pattern=r'^/ws/chat/(?P<room_name>\w+)/$').connect()
        for room in ('lobby', 'lobby', 'kitchen')
    ]
    one.send_json({'message': 'hello'})
    assert (one.received(), two.received(), other.received()) == ([{'message': 'hello'}], [{'message': 'hello'}], [])


@pytest.mark.channels4('URLRouter is of Channels 4')
@pytest.mark.django_db(transaction=True)
def test_it_stands_beside_consumers_of_channels_4():
    from channels.routing import URLRouter
    from channels.testing import WebsocketCommunicator
    from django.urls import re_path

    # Not in a sandbox: messages go to the connection.
    module = {'__name__': 'chat.views'}
    exec(compile(dict(BLOCKS)['chat/views.py'], 'chat/views.py', 'exec'), module)
    pattern, entry = re.search(r"^`re_path\(r'(.+)', Chat\.socket\.Handler\.(\w+)\(\)\)`", PAGE, re.MULTILINE).groups()
    router = URLRouter([re_path(pattern, getattr(module['Chat'].socket.Handler, entry)())])

    async def talk():
        client = WebsocketCommunicator(router, '/ws/chat/lobby/', [(b'host', b'example.com')])
        client.scope.update(client=['127.0.0.1', 1], server=['example.com', 80])
        assert (await client.connect(timeout=10))[0]
        await client.send_json_to({'message': 'hello'})
        received = await client.receive_json_from(timeout=10)
        await client.disconnect(timeout=10)
        return received

    assert asyncio.run(talk()) == {'message': 'hello'}


def test_djwebsockets(page, alice):
    handler = page('lobby/views.py').Lobby.socket.Handler
    one, two = [SocketClient('/lobby/', handler=handler, user=user).connect() for user in (alice, None)]
    two.send_text('hi, all')
    two.send_text('HI')
    assert two.close_code == 4403
    assert one.received() == [
        'alice has come',
        'AnonymousUser has come',
        'AnonymousUser: hi, all',
        'AnonymousUser has gone',
    ]


def test_chanx(page, alice):
    pytest.importorskip('pydantic')
    handler = page('poker/views.py').Table.socket.Handler
    stranger, client = [SocketClient('/table/', handler=handler, user=user).connect() for user in (None, alice)]
    assert stranger.request('bet', amount=1)['code'] == 'not_allowed'
    assert list(client.request('bet', amount=-1)['errors']) == ['amount']
    assert client.request('bet', amount=5) == {'type': 'bet_taken'}
    assert stranger.received() == [{'type': 'bet_placed', 'amount': 5}]
    assert '"amount"' in json.dumps(description.as_asyncapi(description.endpoints(), 'Poker', '1'))


def test_djangochannelsrestframework(page, alice):
    pytest.importorskip('rest_framework')
    handler = page('staff/views.py').Groups.socket.Handler
    assert SocketClient('/groups/', handler=handler).connect().request('list')['code'] == 'not_allowed'
    client = SocketClient('/groups/', handler=handler, user=alice).connect()
    assert client.request('create', name='a')['code'] == 'not_allowed'
    alice.user_permissions.add(Permission.objects.get(codename='add_group'))
    data = client.request('create', name='a')['data']
    assert data == {'id': Group.objects.get().pk, 'name': 'a'}
    assert client.request('list') == {'type': 'list', 'data': [data]}
    assert client.request('count') == {'type': 'count', 'count': 1}
    assert client.request('create', name='a')['code'] == 'invalid_content'
    assert client.request('subscribe_instance', pk=0)['code'] == 'invalid_content'
    assert client.request('subscribe_instance', pk=data['id']) == {'type': 'ACK'}
    Group.objects.get().save()
    assert client.received() == [{'type': 'update', 'data': data}]


def test_python_socketio(page, alice):
    handler = page('talk/views.py').Talk.socket.Handler
    one, two = [SocketClient('/talk/', handler=handler, user=alice).connect() for _ in range(2)]
    for client in (one, two):
        assert client.request('enter', room='tea') == {'type': 'welcome'}
    assert one.request('say', room='tea', text='hi') == {'type': 'ACK'}
    assert one.request('shrug') == {'type': 'what?'}
    assert (one.received(), two.received()) == ([], [{'type': 'said', 'name': 'alice', 'text': 'hi'}])
    assert Socket.objects.in_room('tea').count() == 2
