"""Runs the blocks of docs/how-to/streams.md, and does what the page says of them."""

import itertools
import json
import re
import sys
import types
from pathlib import Path

import django
import pytest
from django.contrib.auth.models import Group
from django.db import transaction
from django.template import Context, Template

from sockets import conf, testing
from sockets.streams import Stream, numbering, retention
from sockets.testing import SocketClient

PAGE = (Path(__file__).resolve().parent.parent / 'docs/how-to/streams.md').read_text()

pytestmark = pytest.mark.django_db


@pytest.fixture
def page(monkeypatch):
    """A function that returns a module of the page."""
    monkeypatch.setitem(sys.modules, 'chat', types.ModuleType('chat'))
    modules = {}
    for name, text in re.findall(r'^```python\n# (\S+)\.py\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL):
        if name == 'chat/urls' and django.VERSION < (2,):
            # It has path(), as the README's first page.
            continue
        modules[name] = module = types.ModuleType(name.replace('/', '.'))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(text, name, 'exec'), module.__dict__)
    with testing.sandbox():
        yield modules.__getitem__


def missed(client, following):
    """Return what a client gets that asks for what it has missed."""
    name = following['stream']
    return client.request('RESUME', streams={name: following.get('since', following)})['streams'][name]


def texts(messages):
    return [message['text'] for message in messages]


def test_the_history_of_a_chat_takes_ten_lines(page):
    handler = page('chat/streams').Room.socket.Handler
    options = {'handler': handler, 'pattern': r'^/chat/(?P<room>\w+)/$'}
    anna, bob = SocketClient('/chat/tea/', **options).connect(), SocketClient('/chat/tea/', **options).connect()
    (following,) = bob.received()
    anna.received()
    for n in range(60):
        anna.send('SAY', text=f'{n}')
    assert texts(anna.received()) == texts(bob.received()) == [f'{n}' for n in range(60)]
    # bob was away, and had nothing of it.
    bob = SocketClient('/chat/tea/', **options).connect()
    assert texts(missed(bob, following)['messages']) == [f'{n}' for n in range(60)]
    # Who comes in gets the last 50.
    carol = SocketClient('/chat/tea/', **options).connect()
    assert texts(missed(carol, carol.received()[0])['messages']) == [f'{n}' for n in range(10, 60)]
    (block,) = re.findall(r'^```python\n# chat/streams\.py\n.*?    socket = (.*?)^```$', PAGE, re.MULTILINE | re.DOTALL)
    assert len([line for line in block.splitlines() if line]) <= 10


@pytest.mark.skipif(django.VERSION < (2,), reason='the page has path(), which Django 2.0 brought')
def test_the_page_around_it_leads_to_the_view_and_its_socket(page, monkeypatch):
    (entry,) = page('chat/urls').urlpatterns
    assert entry.resolve('chat/tea-1/').func.view_class is page('chat/streams').Room
    assert page('chat/routing').channel_routing
    room = '^/chat/(?P<room>[\\w-]+)/$'
    assert room in PAGE
    handler = page('chat/streams').Room.socket.Handler
    client = SocketClient('/chat/tea-1/', handler=handler, pattern=room).connect()
    assert [content['stream'] for content in client.received()] == ['room:tea-1']
    (block,) = re.findall(r'^```html\n<!-- chat/templates/.*?(\{.*?)^```$', PAGE, re.MULTILINE | re.DOTALL)
    printed = Template(block).render(Context({'room': 'tea-1'}))
    assert '<title>tea-1</title>' in printed
    # The script that it needs comes before its own, which runs after it.
    assert re.findall('<script type="module"( src=)?', printed) == [' src=', '']


def test_who_is_no_member_does_not_follow(page, alice):
    options = {'handler': page('chat/members').Members.socket.Handler, 'pattern': r'^/members/(?P<room>\w+)/$'}
    stranger = SocketClient('/members/tea/', user=alice, **options).connect()
    assert stranger.close_code == 4403 and not Stream('members:tea').followers().exists()
    alice.groups.add(Group.objects.create(name='tea'))
    member = SocketClient('/members/tea/', user=alice, **options).connect()
    assert [content['stream'] for content in member.received()] == ['members:tea']
    assert Stream('members:tea').followers().count() == 1


def test_who_follows_may_read_all_that_is_kept(page):
    handler = page('chat/streams').Room.socket.Handler
    for n in range(60):
        Stream('room:tea').send_action('SAID', text=f'{n}')
    client = SocketClient('/chat/tea/', handler=handler, pattern=r'^/chat/(?P<room>\w+)/$').connect()
    (following,) = client.received()
    everything = missed(client, {**following, 'since': {'epoch': following['epoch'], 'offset': 0}})
    assert len(everything['messages']) == 60


@pytest.mark.django_db(transaction=True)
def test_a_message_is_there_if_and_only_if_its_row_is(page):
    found_group = page('chat/orders').found_group
    found_group('one')
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        found_group('two')
        raise ZeroDivisionError
    assert [message['name'] for message in Stream('groups').history()] == ['one'] == texts_of_groups()


def texts_of_groups():
    return list(Group.objects.values_list('name', flat=True))


def test_a_page_with_its_data_says_where_it_stands(page):
    view = page('chat/pages').Groups()
    context = view.get_context_data()
    Group.objects.create(name='late')
    Stream('groups').send_action('FOUNDED', name='late')
    client = SocketClient('/groups/', handler=page('chat/pages').Groups.socket.Handler).connect()
    client.received()
    assert [message['name'] for message in missed(client, context['position'])['messages']] == ['late']
    assert list(context['groups']) == [Group.objects.get()]


def test_the_view_of_the_page_is_rendered_with_its_position(page, rf, settings):
    block = '\n'.join(re.findall(r'^```html\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL))
    loaders = [('django.template.loaders.locmem.Loader', {'chat/groups.html': block})]
    settings.TEMPLATES = [
        {'BACKEND': 'django.template.backends.django.DjangoTemplates', 'OPTIONS': {'loaders': loaders}, 'DIRS': []}
    ]
    Stream('groups').send_action('FOUNDED', name='one')
    position = Stream('groups').position()
    response = page('chat/pages').Groups.as_view()(rf.get('/groups/')).render()
    (printed,) = re.findall(r'<script[^>]*data-stream-positions[^>]*>(.*?)</script>', response.content.decode())
    # As the browser client reads it: see the test of the blocks of this page in browser_client.test.mjs.
    assert json.loads(printed) == [position] and position['offset'] == 1


def test_notifications_wait_for_their_user(page, alice):
    module = page('chat/notifications')
    module.notify(alice, 'Tea is ready.')
    handler = module.Home.socket.Handler
    client = SocketClient('/', handler=handler, user=alice).connect()
    (following,) = client.received()
    assert texts(missed(client, following)['messages']) == ['Tea is ready.']
    module.notify(alice, 'More tea.')
    assert texts(client.received()) == ['More tea.']
    (message,) = module.stream_of(alice).history(limit=1)
    (shown,) = re.findall(r'^\[(\{.*\})\]$', PAGE, re.MULTILINE)
    shown = eval(shown)
    assert set(message) == set(shown) and set(message['kept']) == set(shown['kept'])
    assert len(message['kept']['epoch']) == len(shown['kept']['epoch'])


def test_a_board_keeps_the_last_value(page):
    client = SocketClient('/board/', handler=page('chat/boards').Board.socket.Handler).connect()
    (at_first,) = client.received()
    assert client.request('VALUES') == {'type': 'VALUES', 'orders': None}
    for value in range(5):
        page('chat/board').show('orders', value)
    assert [message['value'] for message in client.received()] == list(range(5))
    retention.trim()
    assert [message['value'] for message in Stream('board:orders').history()] == [4]
    again = SocketClient('/board/', handler=page('chat/boards').Board.socket.Handler).connect()
    assert [message['value'] for message in missed(again, again.received()[0])['messages']] == [4]
    answer = missed(again, at_first)
    assert answer['lost'] and not answer['messages'] and answer['offset'] == 5
    assert again.request('VALUES')['orders'] == 4


def test_the_figures_of_the_page_are_those_of_the_code():
    assert f"`SOCKETS['STREAM_MAX_MESSAGES']`: {conf.DEFAULTS['STREAM_MAX_MESSAGES']} " in PAGE
    assert f"`SOCKETS['STREAM_MAX_AGE']`: {conf.DEFAULTS['STREAM_MAX_AGE'] // 86400} days " in PAGE
    # Each is so long after the one before.
    assert '{}, {} and {}\n  seconds after the message'.format(*itertools.accumulate(numbering.REMIND_AFTER)) in PAGE
    assert f'up to {numbering.PART} at a time' in PAGE


def test_every_python_block_is_run():
    blocks = re.findall(r'^```python\n(.*)$', PAGE, re.MULTILINE)
    assert all(re.match(r'# \S+\.py$|>>> ', line) for line in blocks)
