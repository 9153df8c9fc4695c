"""Runs the blocks of docs/how-to/handlers.md, and does what the page says of them."""

import hashlib
import re
import sys
import types
import typing
from pathlib import Path

import pytest
from django import forms
from django.contrib.auth.models import Group, Permission

from sockets import testing
from sockets.contracts import clean
from sockets.exceptions import FrameError
from sockets.models import Socket
from sockets.testing import SocketClient, assert_received

PAGE = (Path(__file__).resolve().parent.parent / 'docs/how-to/handlers.md').read_text()

pytestmark = pytest.mark.django_db


@pytest.fixture
def page(monkeypatch):
    """A function that returns a module of the page; the page's modules can be imported as long as the test runs."""
    for name, text in re.findall(r'^```python\n# (\S+)\.py\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL):
        name = name.replace('/', '.')
        package = name.partition('.')[0]
        if package not in sys.modules:
            monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
            sys.modules[package].__path__ = []
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        setattr(sys.modules[package], name.rpartition('.')[2], module)
        exec(compile(text, name, 'exec'), module.__dict__)
    with testing.sandbox():
        yield sys.modules.__getitem__


def code(client, type, **fields):
    return client.request(type, **fields)['code']


def test_what_a_frame_must_hold(page, alice):
    handler = page('poker.bets').Table.socket.Handler
    stranger, client = SocketClient('/t/', handler=handler).connect(), None
    assert code(stranger, 'BET', amount=1, colour='red') == 'not_allowed'
    client = SocketClient('/t/', handler=handler, user=alice).connect()
    assert client.request('BET', amount='5', colour='red') == {'type': 'TAKEN', 'amount': 10}
    error = client.request('BET', amount=0, colour='green')
    assert error['code'] == 'invalid_content' and sorted(error['errors']) == ['amount', 'colour']
    assert code(client, 'CLOSE_TABLE') == 'not_allowed'
    alice.user_permissions.add(Permission.objects.get(codename='delete_socket'))
    assert client.request('CLOSE_TABLE') == {'type': 'TABLE_CLOSED'}
    assert [code(client, 'BET', amount=0) for _ in range(20)][-1] == 'rate_limited'
    client = SocketClient('/p/', handler=page('poker.handlers').PokerHandler).connect()
    assert client.request('BET', amount='5', colour='red') == {'type': 'TAKEN', 'amount': 5}


def test_who_sent_it_and_how_to_say_no(page, alice):
    client = SocketClient('/seats/', handler=page('poker.seats').Seats.socket.Handler, user=alice).connect()
    assert client.request('NAME', name='alice') == {'type': 'NAMED', 'name': 'alice'}
    assert client.request('NAME', name='bob')['errors'] == {'name': ['This is not your name.']}
    assert client.request('SIT', number='2') == {'type': 'SAT', 'number': 2, 'table': '/seats/'}
    assert [
        (answer['code'], answer['details'])
        for answer in (client.request('SIT', number=number) for number in (9, 1, 'x'))
    ] == [
        ('not_found', 'There is no such seat.'),
        ('not_allowed', "This is the dealer's."),
        ('invalid_content', "invalid literal for int() with base 10: 'x'"),
    ]


def test_a_frame_is_refused(page):
    seats = SocketClient('/seats/', handler=page('theatre.views').Seats.socket.Handler).connect()
    assert seats.request('TAKE', seat=12) == {
        'type': 'ERROR',
        'code': 'seat_taken',
        'details': 'This seat is taken.',
        'errors': {'seat': ['Choose another one.']},
    }
    assert seats.request('TAKE', seat=13) == {'type': 'TAKEN_BY_YOU'}


def test_a_form_says_where_its_errors_are():
    def errors(form, content):
        with pytest.raises(FrameError) as raised:
            clean(form, content)
        return raised.value.errors

    def refuse(content):
        raise ValueError('Never.')

    class Bet(forms.Form):
        amount = forms.IntegerField()

        def clean(self):
            raise forms.ValidationError('Never.')

    assert errors(Bet, {'amount': 'x'}) == {'amount': ['Enter a whole number.'], '__all__': ['Never.']}
    assert errors(refuse, {}) == {'__all__': ['Never.']}
    serializers = pytest.importorskip('rest_framework.serializers')

    class Chip(serializers.Serializer):
        colour = serializers.CharField()

    class Chips(serializers.Serializer):
        chips = Chip(many=True)

        def validate(self, data):
            raise serializers.ValidationError('Never.')

    assert errors(Chips, {'chips': []}) == {'non_field_errors': ['Never.']}
    chips = errors(Chips, {'chips': [{'colour': 'red'}, {}]})['chips']
    # A list before REST framework 3.17 or so.
    assert list(chips['1' if isinstance(chips, dict) else 1]) == ['colour']
    pydantic = pytest.importorskip('pydantic')
    one = type('One', (pydantic.BaseModel,), {'__annotations__': {'colour': str}, '__module__': __name__})
    chips = type(
        'Many', (pydantic.BaseModel,), {'__annotations__': {'chips': typing.List[one]}, '__module__': __name__}
    )
    assert list(errors(chips, {'chips': [{'colour': 'red'}, {}]})) == ['chips.1.colour']


def test_what_a_socket_sends(page, alice):
    handler = page('auctions.views').Lot.socket.Handler
    lot = SocketClient('/lot/', handler=handler, user=alice).connect()
    lot.send('BID', amount=5)
    assert_received(lot, type='BID', amount=5, bidder='alice')
    Socket.objects.send_action('SOLD', to='alice')
    with pytest.raises(TypeError, match='does not fit Bid: amount'):
        Socket.objects.send_action('BID', amount=0)
        lot.received()


def test_rooms(page, alice):
    alice.is_staff = True
    alice.save()
    options = {'handler': page('chat.views').Chat.socket.Handler, 'pattern': r'^/chat/(?P<room>\w+)/$'}
    one = SocketClient('/chat/tea/', user=alice, **options).connect()
    two = SocketClient('/chat/tea/', **options).connect()
    two.send('SAY', text='hi')
    assert one.received() == two.received() == [{'type': 'SAID', 'text': 'hi'}]
    assert two.request('WHISPER', text='psst') == {'type': 'HEARD', 'by': 1}
    assert one.received() == [{'type': 'WHISPERED', 'text': 'psst'}]
    two.close()
    assert one.received() == [{'type': 'LEFT'}]
    one.send('GO')
    assert not Socket.objects.in_room('chat tea').exists()


def test_who_arrives_and_who_leaves(page, alice, django_user_model):
    handler = page('lounge.views').Lounge.socket.Handler
    bob = django_user_model.objects.create_user('bob')
    mine, his = (SocketClient('/lounge/', user=user, handler=handler).connect() for user in (alice, bob))
    assert [content['name'] for content in mine.received()] == ['alice', 'bob']
    second = SocketClient('/lounge/', user=bob, handler=handler).connect()
    second.close()
    assert mine.received() == []
    his.close()
    assert mine.received() == [{'type': 'LEFT', 'name': 'bob'}]


def test_async_functions(page, alice):
    client = SocketClient('/w/', handler=page('weather.views').Weather.socket.Handler, user=alice).connect()
    assert client.request('FORECAST', cities=['Rome', 'Oslo']) == {
        'type': 'FORECAST',
        'forecasts': [{'city': 'Rome', 'degrees': 4}, {'city': 'Oslo', 'degrees': 4}],
    }
    assert client.received() == [{'type': 'ASKING', 'name': 'alice'}]


def test_middleware(page, monkeypatch):
    middleware = page('site_wide.middleware')
    client = SocketClient('/d/', handler=page('site_wide.handlers').DayHandler).connect()
    assert client.request('ECHO') == {'type': 'ECHO'}
    monkeypatch.setattr(middleware.Curfew, 'hour', 23)
    assert code(client, 'ECHO') == 'not_allowed'
    client.close()
    assert [event for event, _ in middleware.timings] == ['connect', 'receive', 'receive', 'disconnect']


def test_the_request(page, alice):
    client = SocketClient(
        '/page/?page=2', user=alice, headers={'accept-language': 'de'}, handler=page('pages.views').Page.socket.Handler
    ).connect()
    assert client.request('WHERE_FROM') == {
        'type': 'WHERE_FROM',
        'host': 'testserver',
        'language': 'de',
        'page': '2',
        'cookies': ['sessionid'],
    }


def test_frames_that_are_no_json(page):
    import msgpack

    files = page('files.handlers')
    client = SocketClient('/f/', handler=files.FileHandler).connect()
    client.send_bytes(b'x')
    assert client.received() == ['as it is', hashlib.sha256(b'x').digest()]
    client = SocketClient('/m/', handler=files.MsgpackHandler).connect()
    for data in (msgpack.packb({'type': 'ADD', 'n': 1}), b'\xc1'):
        client.send_bytes(data)
    answer, error = [msgpack.unpackb(frame, raw=False) for frame in client.received()]
    assert answer == {'type': 'SUM', 'n': 2} and error['code'] == 'invalid_json'


def test_bytes_with_options(page, alice):
    lot = {'handler': page('files.views').Lot.socket.Handler, 'pattern': r'^/lot/(?P<lot>\d+)/$'}
    assert SocketClient('/lot/7/', **lot).connect().request_bytes(b'x')['code'] == 'not_allowed'
    client = SocketClient('/lot/7/', user=alice, **lot).connect()
    assert client.request_bytes(b'abc') == {'type': 'TAKEN', 'lot': '7', 'size': 3}
    assert client.request_bytes(b'')['details'] == 'There is nothing in it.'
    client = SocketClient('/f/', handler=page('files.views').SafeFileHandler, user=alice).connect()
    assert client.request_bytes(b'x')['code'] == 'not_allowed'
    alice.user_permissions.add(Permission.objects.get(codename='delete_socket'))
    assert client.request_bytes(b'x') == hashlib.sha256(b'x').digest()


def test_what_builds_on_another_socket(page):
    options = {'handler': page('lots.views').LiveLot.socket.Handler, 'pattern': r'^/lot/(?P<lot>\d+)/$'}
    client, other = (SocketClient('/lot/7/', **options).connect() for _ in range(2))
    assert client.received() == [{'type': 'LIVE', 'rooms': ['lot 7']}]
    other.close()
    assert client.received() == [{'type': 'LEFT'}]
    none = SocketClient('/lot/0/', **options).connect()
    assert (none.received(), none.close_code) == ([], 4404)
    quiet = SocketClient('/lot/7/', **dict(options, handler=page('lots.views').QuietHandler)).connect()
    quiet.close()
    assert client.received() == []


def test_several_handlers_over_one_connection(page):
    client = SocketClient('/e/tea/', pattern=r'^/e/(?P<room>\w+)/$', handler=page('everything.handlers').Everything)
    client.connect()
    client.send_json({'stream': 'weather', 'payload': {'type': 'FORECAST', 'cities': []}})
    client.send_json({'stream': 'chat', 'payload': {'type': 'GO', 'ref': 1}})
    assert client.received() == [
        {'stream': 'weather', 'payload': {'type': 'ASKING', 'name': ''}},
        {'stream': 'weather', 'payload': {'type': 'FORECAST', 'forecasts': []}},
        {'stream': 'chat', 'payload': {'type': 'ACK', 'ref': 1}},
    ]


def test_tell_pages_what_was_saved(page):
    from django.db.models.signals import post_delete, post_save

    client = SocketClient('/groups/', handler=page('pages.views').Page.socket.Handler).connect()
    try:
        group = Group.objects.create(name='a')
        group.name = 'b'
        group.save()
        group.delete()
    finally:
        for signal in (post_save, post_delete):
            assert signal.disconnect(page('shop.live').tell, sender=Group)
    for type, name in (('GROUP_CREATED', 'a'), ('GROUP_UPDATED', 'b'), ('GROUP_DELETED', 'b')):
        assert_received(client, type=type, name=name)


def test_subprotocols(page):
    handler, headers = page('versions.handlers').ChatHandler, {'sec-websocket-protocol': 'v1.chat'}
    client = SocketClient('/chat/', handler=handler, headers=headers).connect()
    assert client.request('VERSION') == {'type': 'VERSION', 'version': 'v1.chat'}
