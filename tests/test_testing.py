import ast
import datetime
import importlib
import inspect
import logging
import os
import re
import subprocess
import sys
import unittest
import uuid
from pathlib import Path

import django
import pytest
from django.contrib.auth import get_user_model
from django.db import IntegrityError, connection, transaction
from django.test import TestCase, TransactionTestCase, override_settings
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter, engine, signals, testing
from sockets.exceptions import FrameError
from sockets.models import Socket
from sockets.routing import route_class
from sockets.testing import (
    SocketClient,
    SocketTestMixin,
    assert_not_received,
    assert_received,
    capture_sends,
    isolation,
    run_on_commit,
    sandbox,
    work,
)

from .client import ON_CHANNELS_1
from .conftest import InMemoryChannelLayer
from .servers import ROOT

if ON_CHANNELS_1:
    from channels import channel_layers
else:
    from channels.layers import channel_layers

pytestmark = pytest.mark.django_db


class Room(View):
    socket = SocketRouter()
    left = []

    @socket.connect
    def on_open(socket, message):
        socket.send_action('WELCOME', user=socket.user.get_username())

    @socket.route('SAY')
    def on_say(socket, content):
        Socket.objects.filter(path=socket.path).send_action('SAID', text=content['text'])

    @socket.route('ECHO')
    def on_echo(socket, content):
        return content

    @socket.route('CLOSE')
    def on_close_yourself(socket, content):
        socket.close(content['code'])

    @socket.route('LATER')
    def on_later(socket, content):
        with transaction.atomic():
            transaction.on_commit(lambda: socket.send_action('COMMITTED'))
            socket.send_action('NOT_YET')

    @socket.route('REFUSE')
    def on_refuse(socket, content):
        raise FrameError('invalid_content', 'No.')

    @socket.disconnect
    def on_close(socket, message):
        Room.left.append(message['code'])


class Broken(RoutedSocketHandler):
    """Raises where it is told to."""

    routes = (('FAIL', 'fail'), ('UNJSONABLE', lambda socket: {'x': object()}))
    where = None

    def connect(self, message, **kwargs):
        super().connect(message, **kwargs)
        self.fail('connect')

    def disconnect(self, message, **kwargs):
        self.fail('disconnect')

    def fail(self, content):
        if content == self.where or isinstance(content, dict):
            raise KeyError('as told')


ROUTING = [
    route_class(Room.socket.Handler, path='^/room/$'),
    route_class(type('Members', (RoutedSocketHandler,), {'login_required': True}), path='^/members/$'),
]


def settings_of(routing):
    """Return the settings of a project that has ``routing``, and a layer that cannot be reached."""
    away = {'CONFIG': {'hosts': ['redis://192.0.2.1:1/0']}}
    if ON_CHANNELS_1:
        away.update(BACKEND='sockets.layers.RedisChannelLayer', ROUTING=routing)
        return {'CHANNEL_LAYERS': {'default': away}}
    away.update(BACKEND='channels_redis.core.RedisChannelLayer')
    return {'CHANNEL_LAYERS': {'default': away}, 'SOCKETS': {'ROUTING': routing}}


@pytest.fixture(autouse=True)
def routed(monkeypatch):
    """Have the project's layer be one that cannot be reached, with our routing."""
    monkeypatch.setattr(channel_layers, 'backends', {})
    with override_settings(**settings_of(ROUTING)):
        yield
    del Room.left[:]


# A client is what daphne is.


def test_it_speaks_and_hears(socket_client):
    one, two = socket_client('/room/'), socket_client('/room/')
    assert one.accepted and not one.refused and one.close_code is None
    assert one.received() == two.received() == [{'type': 'WELCOME', 'user': ''}]
    one.send('SAY', text='hi')
    assert one.received() == two.received() == [{'type': 'SAID', 'text': 'hi'}]
    one.send_json({'type': 'SAY', 'text': datetime.date(2020, 2, 2)})
    assert two.received() == [{'type': 'SAID', 'text': '2020-02-02'}]
    one.send_text('no JSON'), one.send_bytes(b'{}'), one.send_text('[]')
    assert [content.get('code') for content in one.received()] == [
        None,
        'invalid_json',
        'invalid_message',
        'invalid_message',
    ]
    assert two.received() == []


def test_a_request_returns_its_reply_and_leaves_the_rest(socket_client):
    client = socket_client('/room/')
    assert client.request('ECHO', n=1) == {'type': 'ECHO', 'n': 1}
    assert client.request('SAY', text='hi') == {'type': 'ACK'}
    assert client.request('REFUSE') == {'type': 'ERROR', 'code': 'invalid_content', 'details': 'No.'}
    assert [content['type'] for content in client.received()] == ['WELCOME', 'SAID']
    with pytest.raises(AssertionError, match='(?s)no reply to CLOSE.*nothing.*Taken before:.*SAID.*Closed with 4242'):
        client.request('CLOSE', code=4242)


def test_a_connection_that_is_closed_by_either_side_has_ended(socket_client):
    leaving, closed = socket_client('/room/'), socket_client('/room/')
    assert leaving.socket.channel_name == leaving.channel_name
    leaving.close(1001)
    assert (leaving.close_code, leaving.socket, Room.left) == (1001, None, [1001])
    closed.send('CLOSE', code=4242)
    assert (closed.close_code, closed.socket, Room.left) == (4242, None, [1001, 4242])
    for client in (leaving, closed):
        assert client.accepted and not client.refused
        client.close()
        with pytest.raises(RuntimeError, match='cannot send: its connection was closed with'):
            client.send('ECHO')
    assert Room.left == [1001, 4242]


def test_one_that_is_closed_by_somebody_else_notices_whatever_it_is_asked(socket_client):
    assert Socket.objects.close(4000) == 0
    for ask in (
        lambda client: client.close_code,
        lambda client: client.socket,
        lambda client: client.received(),
        lambda client: client.accepted,
        lambda client: client.refused,
        lambda client: client.close(),
        lambda client: assert_received(client),
    ):
        client = socket_client('/room/')
        assert Socket.objects.close(4000) == 1
        ask(client)
        assert client._state.close_code == 4000 and not Socket.objects.exists()


@pytest.mark.parametrize('path, options', [('/nowhere/', {}), ('/room/', {'origin': 'https://evil.example'})])
def test_who_is_refused_knows_it(socket_client, path, options):
    client = socket_client(path, **options)
    assert client.refused and not client.accepted and client.close_code == 1006
    with pytest.raises(RuntimeError, match='refused, and the log says why'):
        client.send('ECHO')
    assert Room.left == [] and not Socket.objects.exists()


def test_a_close_after_the_accept_is_no_refusal(socket_client):
    client = socket_client('/members/')
    assert client.accepted and client.close_code == 4401
    assert_received(client, type='RECONNECT')


def test_a_client_connects_once_at_a_time(socket_client):
    client = socket_client('/room/')
    with pytest.raises(RuntimeError, match='connected already'):
        client.connect()
    client.close()
    first = client.channel_name
    assert client.connect().close_code is None and client.channel_name != first
    assert Socket.objects.get() == client.socket


# Who is there.


def test_a_user_or_a_browser_is_logged_in(socket_client, alice, client):
    assert_received(socket_client('/room/', user=alice), type='WELCOME', user='alice')
    client.force_login(alice)
    page = socket_client('/room/', browser=client)
    assert page.socket.user == alice and page.socket.session_id == client.session.session_key
    client.logout()
    assert page.close_code == 4401 and Socket.objects.count() == 1
    with pytest.raises(TypeError, match='a user or a browser'):
        SocketClient('/room/', user=alice, browser=client)


@pytest.mark.parametrize('engine', ['cached_db', 'signed_cookies'])
def test_a_user_is_logged_in_whatever_keeps_the_session(socket_client, alice, settings, engine):
    settings.SESSION_ENGINE = 'django.contrib.sessions.backends.' + engine
    client = socket_client('/room/', user=alice)
    assert_received(client, user='alice')
    client.browser.logout()
    assert client.close_code == 4401


def test_the_address_is_the_clients(socket_client):
    assert [socket_client('/room/', address=address).socket.user_ip for address in ('2001:db8::1', None)] == [
        '2001:db8::1',
        None,
    ]
    assert socket_client('/room/').socket.user_ip == '127.0.0.1'


def test_a_handler_needs_no_routing(socket_client):
    class Slugs(RoutedSocketHandler):
        def receive(self, content, **kwargs):
            return kwargs

    assert socket_client('/a.b/', handler=Slugs).request('X') == {}
    assert socket_client('/aXb/').refused
    client = socket_client('/tea/', handler=Slugs, pattern=r'^/(?P<slug>\w+)/$')
    assert client.request('X') == {'slug': 'tea'}
    assert len(ROUTING) == 2


# What handlers raise.


@pytest.mark.parametrize('disabled', [False, True])
def test_what_a_function_raises_is_raised_by_the_call_that_brought_it_about(socket_client, monkeypatch, disabled):
    logging.disable(logging.CRITICAL if disabled else logging.NOTSET)
    try:
        client = socket_client('/', handler=Broken)
        with pytest.raises(KeyError, match='as told') as raised:
            client.send('FAIL')
        assert raised.traceback[-1].name == 'fail'
        assert_received(client, type='ERROR', code='server_error')
        with pytest.raises(TypeError):
            client.send('UNJSONABLE')
        monkeypatch.setattr(Broken, 'where', 'disconnect')
        with pytest.raises(KeyError):
            client.close()
        assert client.close_code == 1000 and client.socket is None
        monkeypatch.setattr(Broken, 'where', 'connect')
        with pytest.raises(KeyError):
            client.connect()
        assert client.close_code == 1011
    finally:
        logging.disable(logging.NOTSET)


def test_who_wants_to_see_what_a_client_sees_gets_no_exception(socket_client, caplog):
    client, other = socket_client('/', handler=Broken, raise_exceptions=False), socket_client('/room/')
    assert client.request('FAIL')['code'] == 'server_error'
    assert other.request('ECHO') == {'type': 'ECHO'}
    (record,) = caplog.records
    assert record.exc_info[0] is KeyError
    if sys.version_info >= (3, 8):
        assert record.pathname.endswith('replies.py')


def test_what_a_receiver_raises_or_a_disconnect_function_that_a_view_made_run(socket_client, monkeypatch):
    def fail(**kwargs):
        raise KeyError('in a receiver')

    client, other = socket_client('/', handler=Broken), socket_client('/room/')
    monkeypatch.setattr(Broken, 'where', 'disconnect')
    Socket.objects.filter(path='/').revoke()
    with pytest.raises(KeyError, match='as told'):
        other.received()
    assert client.close_code == 4401
    signals.socket_connected.connect(fail)
    with pytest.raises(KeyError, match='in a receiver'):
        socket_client('/room/')
    signals.socket_connected.disconnect(fail)


def test_a_with_block_raises_what_went_wrong_first(monkeypatch):
    monkeypatch.setattr(Broken, 'where', 'disconnect')
    with pytest.raises(KeyError, match='as told'), SocketClient('/', handler=Broken):
        pass
    with pytest.raises(ZeroDivisionError), SocketClient('/', handler=Broken):
        1 / 0
    monkeypatch.setattr(Broken, 'where', 'connect')
    with pytest.raises(KeyError, match='as told'), SocketClient('/', handler=Broken):
        pytest.fail('is not connected')
    assert isolation._current is None and not Socket.objects.exists()


# Assertions.


def test_a_frame_is_taken_once(socket_client):
    client = socket_client('/room/')
    for n in (1, 2, 1):
        client.send('ECHO', n=n)
    assert assert_received(client, type='ECHO', n=2) == {'type': 'ECHO', 'n': 2}
    assert_received(client, n=1), assert_received(client, n=1)
    with pytest.raises(AssertionError) as error:
        assert_received(client, type='ECHO', n=1)
    assert str(error.value) == '\n'.join(
        [
            "<SocketClient /room/> received no {'type': 'ECHO', 'n': 1}.",
            'Received:',
            "  {'type': 'WELCOME', 'user': ''}",
            'Taken before:',
            "  {'type': 'ECHO', 'n': 2}",
            "  {'type': 'ECHO', 'n': 1}",
            "  {'type': 'ECHO', 'n': 1}",
        ]
    )
    assert_not_received(client, type='ECHO')
    with pytest.raises(AssertionError, match="received {'type': 'WELCOME', 'user': ''}"):
        assert_not_received(client)
    assert client.received() == [{'type': 'WELCOME', 'user': ''}]
    assert_not_received(client)
    with pytest.raises(AssertionError, match="received no frame.\nReceived:\n  'nothing'"):
        assert_received(client)


@pytest.mark.parametrize(
    'value', [1, None, 'x', [1, {'a': 2}], (1, 2), datetime.datetime(2020, 2, 2, 2, 2), uuid.uuid4(), unittest.mock.ANY]
)
def test_a_field_is_what_was_sent_or_what_came_of_it(socket_client, value):
    client = socket_client('/room/')
    client.send('ECHO', value='other')
    if value is not unittest.mock.ANY:
        assert_not_received(client, value=value)
        client.send('ECHO', value=value)
    assert assert_received(client, value=value)['type'] == 'ECHO'
    assert_not_received(client, no_such_field=None)
    assert_not_received(client, value=object())


# Fan-out.


def test_fan_outs_are_noted_and_go_on_their_way(alice):
    with SocketClient('/room/') as client:
        client.received()
        other = Socket.objects.create(channel_name='server!1', path='/elsewhere/')
        with capture_sends() as sent:
            assert Socket.objects.send_action('NEWS', on=datetime.date(2020, 2, 2)) == 2
            assert other.send_json({'to': 'one'}) == other.close(4000) == 1
            assert Socket.objects.filter(path='/nowhere/').send_action('TO_NOBODY') == 0
            client.send('SAY', text='hi')
            client.send('ECHO')
            Socket.objects.filter(path='/room/').revoke('Go.')
        Socket.objects.send_action('AFTER')
        assert [(each.content, each.close_code, len(each.channel_names)) for each in sent] == [
            ({'type': 'NEWS', 'on': '2020-02-02'}, None, 2),
            ({'to': 'one'}, None, 1),
            (None, 4000, 1),
            ({'type': 'TO_NOBODY'}, None, 0),
            ({'type': 'SAID', 'text': 'hi'}, None, 1),
            ({'type': 'RECONNECT', 'details': 'Go.'}, 4401, 1),
        ]
        assert set(sent[0].channel_names) == {client.channel_name, 'server!1'}
        assert repr(sent[1:3]) == "[<Sent {'to': 'one'} to 1 connections>, <Sent 4000 to 1 connections>]"
        assert [content['type'] for content in client.received()] == ['NEWS', 'SAID', 'ECHO', 'RECONNECT']


def test_fan_outs_are_noted_where_nobody_is_connected():
    Socket.objects.create(channel_name='server!1', path='/')
    with capture_sends() as sent:
        transaction.on_commit(lambda: Socket.objects.send_action('NEWS'))
    assert [each.channel_names for each in sent] == [['server!1']]


def test_more_may_wait_for_a_client_than_for_a_browser(socket_client):
    client = socket_client('/room/')
    row = client.socket
    for n in range(200):
        row.send_json({'n': n})
    assert len(client.received()) == 201


# Transactions.


def add(ran, name):
    transaction.on_commit(lambda: ran.append(name))


def test_functions_run_when_they_would_outside_of_a_test():
    ran = []
    add(ran, 'before')
    with run_on_commit():
        add(ran, 1)
        assert ran == [1]
        with transaction.atomic():
            add(ran, 2)
            with transaction.atomic():
                add(ran, 3)
            with transaction.atomic(savepoint=False):
                add(ran, 4)
            with pytest.raises(KeyError), transaction.atomic():
                add(ran, 'rolled back')
                with transaction.atomic():
                    add(ran, 'rolled back, too')
                raise KeyError
            with pytest.raises(IntegrityError), transaction.atomic():
                add(ran, 'broken')
                Socket.objects.create(channel_name='a'), Socket.objects.create(channel_name='a')
            assert ran == [1]
        assert ran == [1, 2, 3, 4]
        with transaction.atomic(savepoint=False):
            add(ran, 5)
        assert ran[4:] == [5]
        with pytest.raises(KeyError), transaction.atomic():
            add(ran, 'all is rolled back')
            raise KeyError
        with transaction.atomic():
            # A function that asks for another one: that is outside of the block.
            transaction.on_commit(lambda: add(ran, 6))
        assert ran[5:] == [6]
    add(ran, 'after')
    with transaction.atomic():
        add(ran, 'after')
    assert len(ran) == 6


def test_what_runs_may_raise_and_keeps_those_after_it_from_running():
    ran = []

    def fail():
        raise KeyError('at commit')

    with run_on_commit():
        with pytest.raises(KeyError, match='at commit'), transaction.atomic():
            add(ran, 1), transaction.on_commit(fail), add(ran, 2)
        with transaction.atomic():
            add(ran, 3)
    assert ran == [1, 3]


@pytest.mark.skipif(django.VERSION < (4, 2), reason='on_commit(robust=True) came with Django 4.2')
def test_a_robust_function_that_raises_is_logged_and_those_after_it_run(caplog):
    ran = []

    def fail():
        raise KeyError('at commit')

    with run_on_commit():
        with transaction.atomic():
            add(ran, 1), transaction.on_commit(fail, robust=True), add(ran, 2)
        # As where there is no transaction.
        transaction.on_commit(fail, robust=True)
    assert ran == [1, 2] and caplog.text.count('which was to run on a commit') == 2


def test_a_block_without_a_savepoint_that_fails_runs_nothing():
    ran = []
    with run_on_commit(), transaction.atomic():
        with run_on_commit():
            with pytest.raises(KeyError), transaction.atomic(savepoint=False):
                add(ran, 1)
                raise KeyError
            transaction.set_rollback(False)
            with transaction.atomic():
                add(ran, 2)
    assert ran == [2]


@pytest.mark.django_db(transaction=True)
def test_where_transactions_are_committed_nothing_runs_twice():
    ran = []
    with run_on_commit():
        add(ran, 1)
        with transaction.atomic():
            add(ran, 2)
            assert ran == [1]
    assert ran == [1, 2]


def test_a_handler_has_its_functions_run_before_it_returns(socket_client):
    client = socket_client('/room/')
    client.send('LATER')
    assert [content['type'] for content in client.received()] == ['WELCOME', 'NOT_YET', 'COMMITTED']


# The sandbox.


def test_nothing_is_left_of_a_sandbox_and_nothing_gets_out(alice):
    backends = dict(channel_layers.backends)
    with SocketClient('/room/') as client:
        layer = channel_layers['default']
        with sandbox(), SocketClient('/room/', user=alice):
            assert channel_layers['default'] is layer
        assert len(Room.left) == 1 and client.close_code is None
        with sandbox(InMemoryChannelLayer()) as inner:
            assert channel_layers['default'] is not layer and inner is None
        Socket.objects.send_action('UNREAD')
    # What was there before the end can still be asked for.
    assert client.close_code == 1000 and client.received() == [{'type': 'WELCOME', 'user': ''}, {'type': 'UNREAD'}]
    assert channel_layers.backends == backends and isolation._current is None
    assert logging.getLogger('sockets').error.__func__ is logging.Logger.error
    with pytest.raises(RuntimeError, match='fixture socket_client'):
        SocketClient('/room/').connect()
    with pytest.raises(RuntimeError, match='SocketTestMixin'):
        work()


def test_a_handler_may_look_at_a_client(socket_client):
    class Looking(RoutedSocketHandler):
        def receive(self, content, **kwargs):
            self.send_json({'n': 1})
            other.socket.close(4000)
            seen.extend([client.received(), other.close_code, other.socket is None])

    seen, other = [], socket_client('/room/')
    client = socket_client('/', handler=Looking)
    client.send('X')
    # Its disconnect comes after this frame.
    assert seen == [[{'n': 1}], 4000, False] and other.socket is None and Room.left == [4000]


def test_one_end_may_bring_about_another(socket_client):
    class Domino(RoutedSocketHandler):
        def receive(self, content, **kwargs):
            self.close(4000)

        def disconnect(self, message, **kwargs):
            Socket.objects.close(4001)

    first, second, third = (socket_client('/', handler=Domino) for _ in range(3))
    first.send('X')
    assert not Socket.objects.exists()
    assert [client.close_code for client in (first, second, third)] == [4000, 4001, 4001]


def test_the_connection_to_the_database_stays_open(socket_client, monkeypatch):
    monkeypatch.setattr(connection, 'close', lambda: pytest.fail('The test has lost its transaction.'))
    socket_client('/room/').send('ECHO')


class InATestCase(TestCase):
    def test_a_client_works_in_any_test_case(self):
        user = get_user_model().objects.create_user('bob')
        with SocketClient('/room/', user=user) as client:
            assert_received(client, user='bob')
            user.delete()
            self.assertEqual(client.close_code, 4401)


class InATransactionTestCase(TransactionTestCase):
    test_a_client_works_in_any_test_case = InATestCase.test_a_client_works_in_any_test_case


class WithTheMixin(SocketTestMixin, TestCase):
    def setUp(self):
        self.socket = SocketClient('/room/').connect()

    def test_every_test_has_a_sandbox(self):
        with transaction.atomic():
            transaction.on_commit(lambda: Socket.objects.send_action('COMMITTED'))
        assert_received(self.socket, type='COMMITTED')

    def test_and_its_own(self):
        self.assertEqual(Socket.objects.get(), self.socket.socket)
        self.assertEqual(len(self.socket.received()), 1)


class WithTheMixinAndTransactions(SocketTestMixin, TransactionTestCase):
    setUp = WithTheMixin.setUp
    test_every_test_has_a_sandbox = WithTheMixin.test_every_test_has_a_sandbox


def test_a_test_whose_sandbox_cannot_be_made_is_an_error_and_the_others_run(monkeypatch):
    def fail(*args):
        raise LookupError('as told')

    monkeypatch.setattr(engine.current(), 'sandbox', fail)
    result = unittest.TestResult()
    WithTheMixin('test_and_its_own').run(result)
    assert len(result.errors) == 1 and 'as told' in result.errors[0][1] and not result.failures


# What it imports, and when.


def test_pytest_can_find_the_fixture_before_there_are_settings_and_the_kit_needs_no_pytest():
    subprocess.check_call([sys.executable, '-W', 'error', '-c', 'import sockets.pytest_plugin'], cwd=str(ROOT))
    for path in Path(testing.__file__).parent.glob('*.py'):
        assert not re.search(r'^\s*(import|from) pytest', path.read_text(), re.MULTILINE)


def test_to_import_it_imports_no_engine_to_run_on():
    program = (
        'import sys, django; django.setup(); import sockets.testing;'
        'print([name for name in sys.modules if name.startswith("sockets.engines") and "sandbox" in name])'
    )
    environment = dict(os.environ, DJANGO_SETTINGS_MODULE='tests.settings')
    assert subprocess.check_output([sys.executable, '-c', program], cwd=str(ROOT), env=environment).strip() == b'[]'


def test_the_exported_names_are_there():
    for name in testing.__all__:
        assert inspect.getdoc(getattr(testing, name))
    assert testing.__all__ == sorted(testing.__all__)


def test_everything_public_is_annotated():
    found = [getattr(testing, name) for name in testing.__all__]
    for each in found:
        methods = vars(each).items() if isinstance(each, type) else ()
        found += [
            getattr(method, 'fget', method)
            for name, method in methods
            if not name.startswith('_') and (inspect.isfunction(method) or isinstance(method, property))
        ]
    assert len(found) > 18
    for each in found:
        signature = inspect.signature(each)
        annotations = [parameter.annotation for name, parameter in signature.parameters.items() if name != 'self']
        assert inspect.Signature.empty not in annotations, each
        assert isinstance(each, type) or signature.return_annotation is not inspect.Signature.empty, each


# docs/testing.md, to the letter.

PAGE = (ROOT / 'docs/testing.md').read_text()
# tests/live/test_docs.py runs what needs a Redis.
LIVE_FILES = ('mysite/live_settings', 'mysite/live_server_tests')
FILES = dict(re.findall(r'^```python\n# (mysite/[\w/]+)\.py\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL))
LIVE = {name: FILES.pop(name) for name in LIVE_FILES}
# A client of Channels 4.
COMMUNICATOR = FILES.pop('mysite/tests/test_communicator')
if not ON_CHANNELS_1:
    FILES['mysite/tests/test_communicator'] = COMMUNICATOR
PYTEST_FUNCTIONS = [
    (name, node.name)
    for name, text in FILES.items()
    for node in ast.parse(text).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith('test_')
]
TEST_CASES = [
    (name, node.name)
    for name, text in FILES.items()
    for node in ast.parse(text).body
    if isinstance(node, ast.ClassDef) and node.name.endswith('Tests')
]


@pytest.fixture
def example(tmp_path, monkeypatch):
    """A function that returns something of one of the page's files."""
    for name, text in FILES.items():
        path = tmp_path / (name + '.py')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with override_settings(**settings_of('mysite.routing.channel_routing')):
        yield lambda file, name: getattr(importlib.import_module(file.replace('/', '.')), name)
    for name in [name for name in sys.modules if name.partition('.')[0] == 'mysite']:
        del sys.modules[name]


def test_every_block_of_the_page_is_run_here():
    # And the lines that start the live ones.
    assert (
        PAGE.count('```') == 2 * len({*FILES, *LIVE, 'communicator'} - {'mysite/tests/test_communicator'}) + 2
        and len(TEST_CASES) > 3
        and len(PYTEST_FUNCTIONS) > 3
    )
    assert {name for name in FILES if 'tests' in name} == {name for name, _ in TEST_CASES + PYTEST_FUNCTIONS}


@pytest.mark.parametrize('file, name', PYTEST_FUNCTIONS)
def test_the_functions_of_the_page_do_what_they_say(request, example, file, name):
    function = example(file, name)
    function(**{name: request.getfixturevalue(name) for name in inspect.signature(function).parameters})


@pytest.mark.parametrize('file, name', TEST_CASES)
@pytest.mark.django_db(transaction=True)
def test_the_test_cases_of_the_page_do_what_they_say(example, file, name):
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(example(file, name))
    result = unittest.TestResult()
    suite.run(result)
    assert result.testsRun and not result.errors + result.failures
