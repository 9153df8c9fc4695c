"""Runs the blocks and the lines of docs/how-to/authenticate.md, and does what the page says of them."""

import re
import sys
import types
import unittest
from datetime import datetime, timedelta, timezone
from pathlib import Path

import jwt
import pytest
from rest_framework.authentication import TokenAuthentication
from rest_framework.authtoken.models import Token

from sockets import authentication, checks, conf, testing
from sockets.models import Socket
from sockets.testing import SocketClient

PAGE = (Path(__file__).resolve().parent.parent / 'docs/how-to/authenticate.md').read_text()
LINES = dict(re.findall(r'^\| (.+?) \| `(rest_framework\(.+\))` \|$', PAGE, re.MULTILINE))

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def page(monkeypatch):
    """A function that returns a module of the page; the page's modules can be imported as long as the test runs."""
    package = types.ModuleType('shop')
    package.__path__ = []
    monkeypatch.setitem(sys.modules, 'shop', package)
    for name, text in re.findall(r'^```python\n# shop/(\w+)\.py\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL):
        module = types.ModuleType('shop.' + name)
        monkeypatch.setitem(sys.modules, 'shop.' + name, module)
        setattr(package, name, module)
        exec(compile(text, name, 'exec'), module.__dict__)
    with testing.sandbox():
        yield lambda name: sys.modules['shop.' + name]
    # The receiver of the page goes with it.
    from django.db.models.signals import post_delete

    post_delete.disconnect(sys.modules['shop.tokens'].close_its_connections, sender=Token)


def handler_with(*entries, base):
    return type('Tokens', (base,), {'authentication': list(entries)})


def open_(handler, query='', **headers):
    return SocketClient('/orders/' + query, handler=handler, pattern='^/orders/$', headers=headers).connect()


def name_of(client):
    return client.request('WHO')['name']


def test_the_files_of_the_page_pass_its_tests(page):
    suite = unittest.defaultTestLoader.loadTestsFromModule(page('tests'))
    result = unittest.TestResult()
    suite.run(result)
    assert result.testsRun == 2 and result.wasSuccessful(), result.failures + result.errors


def test_each_line_of_rest_framework_finds_the_token_where_it_says(page, alice):
    orders = page('orders').OrdersHandler
    key = Token.objects.create(user=alice).key
    names = {'rest_framework': authentication.rest_framework, 'TokenAuthentication': TokenAuthentication}
    sent = {
        'Authorization: Token': ('', {'Authorization': 'Token ' + key}),
        'Authorization: Bearer': ('', {'Authorization': 'Bearer ' + key}),
        'wss:': ('?token=' + key, {}),
        'new WebSocket': ('', {'Sec-WebSocket-Protocol': 'bearer, ' + key}),
    }
    lines = {told: line for told, line in LINES.items() if 'JWT' not in line}
    assert len(lines) == len(sent)
    for told, line in lines.items():
        (query, headers), *others = [sent[start] for start in sent if told.strip('`').startswith(start)]
        assert not others
        assert name_of(open_(handler_with(eval(line, names), base=orders), query, **headers)) == 'alice'


def test_the_line_of_simplejwt(page, alice):
    simplejwt = pytest.importorskip('rest_framework_simplejwt.authentication')
    from rest_framework_simplejwt.tokens import AccessToken

    (line,) = [line for line in LINES.values() if 'JWT' in line]
    names = {'rest_framework': authentication.rest_framework, 'JWTAuthentication': simplejwt.JWTAuthentication}
    handler = handler_with(eval(line, names), base=page('orders').OrdersHandler)
    key = str(AccessToken.for_user(alice))
    for query, headers in (
        ('', {'Authorization': 'Bearer ' + key}),
        ('?token=' + key, {}),
        ('', {'Sec-WebSocket-Protocol': 'bearer, ' + key}),
    ):
        assert name_of(open_(handler, query, **headers)) == 'alice'


def test_the_function_for_json_web_tokens_and_its_setting(page, alice, settings):
    settings.SOCKETS = page('settings').SOCKETS
    settings.SECRET_KEY = 'a secret of at least thirty-two bytes'
    orders = type('Orders', (page('orders').OrdersHandler,), {'authentication': None})
    end = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(minutes=1)

    def encoded(**claims):
        return jwt.encode({'sub': str(alice.pk), 'exp': end, **claims}, settings.SECRET_KEY, algorithm='HS256')

    assert name_of(open_(orders, '?token=' + encoded())) == 'alice'
    assert Socket.objects.get().authenticated_until == end
    for bad in (encoded(sub='0'), encoded(exp=end - timedelta(hours=1)), 'x'):
        client = open_(orders, '?token=' + bad)
        assert client.close_code == 4401 and client.received()[0]['details'] == 'This token is not valid.'


def test_a_token_that_is_deleted_ends_its_connections_and_no_others(page, alice):
    token = Token.objects.create(user=alice)
    orders = page('orders').OrdersHandler
    client = open_(orders, Authorization='Token ' + token.key)
    session = SocketClient('/orders/', alice, handler=orders, pattern='^/orders/$').connect()
    token.delete()
    assert client.close_code == 4401 and client.received()[0]['details'] == 'Your token has been deleted.'
    assert name_of(session) == 'alice'


def test_the_settings_of_the_page_pass_the_checks(page, settings):
    for name in ('settings', 'origins'):
        settings.SOCKETS = page(name).SOCKETS
        assert set(settings.SOCKETS) <= set(conf.DEFAULTS) and checks.settings.check_settings() == []
