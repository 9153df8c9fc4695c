"""Tokens of REST framework and JSON web tokens, with the real packages, wherever a client can put one."""

import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import jwt
import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from rest_framework.authentication import (
    BaseAuthentication,
    BasicAuthentication,
    SessionAuthentication,
    TokenAuthentication,
)
from rest_framework.authtoken.models import Token
from rest_framework.exceptions import APIException, AuthenticationFailed, Throttled

from sockets import presence
from sockets.authentication import expiry_of, rest_framework, token
from sockets.models import Socket
from sockets.testing import SocketClient

from .test_authentication import Who, in_sandbox, of, who  # noqa: F401

try:
    from rest_framework_simplejwt.authentication import JWTAuthentication
    from rest_framework_simplejwt.tokens import AccessToken
except ImportError:
    JWTAuthentication = None

pytestmark = pytest.mark.django_db(transaction=True)

# Where a client puts a token: a function of the scheme and the token that returns a query and headers.
PLACES = {
    'header': lambda scheme, key: ('', {'Authorization': f'{scheme} {key}'}),
    'query': lambda scheme, key: (f'?token={key}', {}),
    'subprotocol': lambda scheme, key: ('', {'Sec-WebSocket-Protocol': f'bearer, {key}'}),
}
ANYWHERE = {'parameter': 'token', 'subprotocol': 'bearer'}


def connect(handler, place=None, scheme='Token', key='', user=None):
    query, headers = PLACES[place](scheme, key) if place else ('', {})
    client = SocketClient('/page/' + query, user, handler=handler, pattern='^/page/$', headers=headers)
    return client.connect()


@pytest.fixture
def key(alice):
    return Token.objects.create(user=alice).key


@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize(
    'authenticator',
    [TokenAuthentication, 'rest_framework.authentication.TokenAuthentication'],
    ids=['class', 'dotted path'],
)
def test_a_token_of_rest_framework_says_who_its_client_is(place, authenticator, key):
    client = connect(of(rest_framework(authenticator, **ANYWHERE)), place, key=key)
    assert who(client) == 'alice'
    row = Socket.objects.get()
    assert row.authentication == 'rest_framework.authentication.TokenAuthentication'
    assert row.authenticated_until is None and key not in str(vars(row))


@pytest.mark.parametrize('place', PLACES)
def test_a_token_that_is_not_known_is_refused_with_4401(place, key, alice):
    client = connect(of(rest_framework(TokenAuthentication, **ANYWHERE)), place, key='0' * 40, user=alice)
    assert client.close_code == 4401 and not Socket.objects.exists()
    assert client.received() == [{'type': 'RECONNECT', 'details': 'Invalid token.'}]


def test_who_sends_no_token_is_asked_for_a_session(key, alice):
    handler = of(rest_framework(TokenAuthentication))
    assert who(connect(handler)) == '' and who(connect(handler, user=alice)) == 'alice'
    # What is not named is not looked at.
    assert who(connect(handler, 'query', key=key)) == who(connect(handler, 'subprotocol', key=key)) == ''


def test_another_scheme_than_that_of_the_class(key):
    handler = of(rest_framework(TokenAuthentication, scheme='Bearer'))
    assert who(connect(handler, 'header', 'Bearer', key)) == 'alice'
    assert who(connect(of(rest_framework(TokenAuthentication)), 'header', 'Bearer', key)) == ''

    class Bearer(TokenAuthentication):
        keyword = 'Bearer'

    for place in PLACES:
        assert who(connect(of(rest_framework(Bearer, **ANYWHERE)), place, 'Bearer', key)) == 'alice'


def test_a_token_of_an_account_that_is_not_active_is_refused(key, alice):
    get_user_model().objects.update(is_active=False)
    client = connect(of(rest_framework(TokenAuthentication)), 'header', key=key)
    assert client.close_code == 4401 and client.received()[0]['details'] == 'User inactive or deleted.'


def test_other_classes_of_rest_framework(alice):
    import base64

    basic = base64.b64encode(b'alice:wonderland').decode()
    assert who(connect(of(rest_framework(BasicAuthentication)), 'header', 'Basic', basic)) == 'alice'
    wrong = base64.b64encode(b'alice:other').decode()
    assert connect(of(rest_framework(BasicAuthentication)), 'header', 'Basic', wrong).close_code == 4401
    # The session is asked all the same, and is one.
    assert who(connect(of(rest_framework(SessionAuthentication)), user=alice)) == 'alice'
    assert Socket.objects.get(session__isnull=False).authentication is None


@pytest.mark.parametrize(
    'error, code',
    [
        (AuthenticationFailed('No.'), 4401),
        (Throttled(), 4429),
        # A fault of the server.
        (APIException('Broken.'), 1006),
        (RuntimeError('Broken.'), 1006),
    ],
)
def test_what_a_class_of_a_project_raises(error, code):
    class Fails(BaseAuthentication):
        def authenticate(self, request):
            raise error

    client = SocketClient(
        '/page/', handler=of(rest_framework(Fails)), pattern='^/page/$', raise_exceptions=False
    ).connect()
    assert client.close_code == code


def test_a_class_may_read_the_headers_and_data_of_its_request(key, alice):
    class Reads(BaseAuthentication):
        def authenticate(self, request):
            request._request.headers.get('Authorization') if hasattr(request._request, 'headers') else None
            found = Token.objects.get(key=request.META['HTTP_AUTHORIZATION'].split()[1])
            assert request.query_params['token'] == found.key
            return found.user, found

    assert who(connect(of(rest_framework(Reads, **ANYWHERE)), 'query', key=key)) == 'alice'


@pytest.mark.parametrize('wrong', [7, dict, lambda request: None])
def test_what_is_no_such_class_is_refused_where_it_is_written(wrong):
    with pytest.raises(TypeError, match='authentication class of REST framework'):
        rest_framework(wrong)


def test_a_parameter_that_rows_would_keep_is_refused_at_the_check():
    from sockets.declaration import authentication

    handler = of(rest_framework(TokenAuthentication, parameter='key'))
    with pytest.raises(ImproperlyConfigured, match="Tokens.authentication.*'key'"):
        authentication.of_class(handler)
    for path in ('no.such.Class', 'rest_framework.authentication.Nothing'):
        with pytest.raises(ImproperlyConfigured, match='cannot be imported'):
            authentication.of_class(of(rest_framework(path)))


def test_settings_may_name_it(tmp_path):
    (tmp_path / 'mysettings.py').write_text(
        'from tests.settings import *\n'
        'from sockets.authentication import rest_framework\n'
        "SOCKETS = {'AUTHENTICATION': [rest_framework('rest_framework.authentication.TokenAuthentication',"
        " parameter='token')]}\n"
    )
    code = 'import django; django.setup(); from django.core.management import call_command; call_command("check")'
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        env={**os.environ, 'DJANGO_SETTINGS_MODULE': 'mysettings', 'PYTHONPATH': f'{tmp_path}:.'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0 and 'identified' in done.stdout, done.stdout


# JSON web tokens.


def in_seconds(seconds):
    return datetime.now(timezone.utc) + timedelta(seconds=seconds)


SECRET = 'a secret of at least thirty-two bytes'


def encoded(user, end, secret=SECRET):
    return jwt.encode({'sub': str(user.pk), 'exp': end}, secret, algorithm='HS256')


def by_jwt(request):
    """As the how-to has it."""
    sent = token(request, **ANYWHERE)
    if sent is None:
        return None
    try:
        claims = jwt.decode(sent, SECRET, algorithms=['HS256'])
        user = get_user_model().objects.get(pk=claims['sub'])
    except (jwt.InvalidTokenError, get_user_model().DoesNotExist):
        raise PermissionDenied('This token is not valid.')
    return user, datetime.fromtimestamp(claims['exp'], timezone.utc)


@pytest.mark.parametrize('place', PLACES)
def test_a_json_web_token_says_who_its_client_is_and_until_when(place, alice):
    end = in_seconds(60).replace(microsecond=0)
    client = connect(of(by_jwt), place, 'Bearer', encoded(alice, end))
    assert who(client) == 'alice' and Socket.objects.get().authenticated_until == end
    Socket.objects.update(authenticated_until=in_seconds(-1))
    assert presence.revoke_expired() == 1 and client.close_code == 4401


@pytest.mark.parametrize('place', PLACES)
def test_a_json_web_token_that_does_not_hold_is_refused(place, alice, caplog):
    gone = get_user_model()(pk=alice.pk + 1)
    for bad in (
        encoded(alice, in_seconds(-1)),
        encoded(alice, in_seconds(60), 'another secret of at least 32 bytes'),
        encoded(gone, in_seconds(60)),
        'garbage',
        'a.b.c',
    ):
        client = connect(of(by_jwt), place, 'Bearer', bad)
        assert client.close_code == 4401
        assert client.received() == [{'type': 'RECONNECT', 'details': 'This token is not valid.'}]
    assert not Socket.objects.exists() and not [record for record in caplog.records if record.levelname == 'ERROR']


simplejwt = pytest.mark.skipif(JWTAuthentication is None, reason='simplejwt has no release for this Django')


@simplejwt
@pytest.mark.parametrize('place', PLACES)
def test_simplejwt_says_who_its_client_is_and_until_when(place, alice, settings):
    access = AccessToken.for_user(alice)
    client = connect(of(rest_framework(JWTAuthentication, **ANYWHERE)), place, 'Bearer', str(access))
    assert who(client) == 'alice'
    row = Socket.objects.get()
    assert row.authenticated_until == datetime.fromtimestamp(access['exp'], timezone.utc)
    assert row.authentication == 'rest_framework_simplejwt.authentication.JWTAuthentication'
    assert str(access) not in str(vars(row))
    Socket.objects.update(authenticated_until=in_seconds(-1))
    assert presence.revoke_expired() == 1 and client.close_code == 4401


@simplejwt
@pytest.mark.parametrize('place', PLACES)
def test_a_token_of_simplejwt_that_does_not_hold_is_refused(place, alice):
    access = AccessToken.for_user(alice)
    access.set_exp(lifetime=timedelta(seconds=-1))
    for bad in (str(access), 'garbage'):
        client = connect(of(rest_framework(JWTAuthentication, **ANYWHERE)), place, 'Bearer', bad)
        assert client.close_code == 4401 and 'token' in client.received()[0]['details'].lower()


@simplejwt
def test_two_kinds_of_tokens_with_schemes_of_their_own(alice, key):
    handler = of(rest_framework(TokenAuthentication), rest_framework(JWTAuthentication))
    assert who(connect(handler, 'header', 'Token', key)) == 'alice'
    assert who(connect(handler, 'header', 'Bearer', str(AccessToken.for_user(alice)))) == 'alice'


@simplejwt
def test_a_user_without_a_row_is_a_fault_that_says_so(alice, caplog):
    from rest_framework_simplejwt import authentication

    stateless = (
        getattr(authentication, 'JWTStatelessUserAuthentication', None) or authentication.JWTTokenUserAuthentication
    )
    client = SocketClient(
        '/page/',
        handler=of(rest_framework(stateless)),
        pattern='^/page/$',
        headers={'Authorization': f'Bearer {AccessToken.for_user(alice)}'},
        raise_exceptions=False,
    )
    assert client.connect().refused and 'TokenUser, which is no saved instance' in caplog.text


class Knox:
    expiry = datetime(2100, 1, 1, tzinfo=timezone.utc)


class OAuth:
    expires = datetime(2100, 1, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    'auth, end',
    [
        ({'exp': 4102444800}, Knox.expiry),
        (Knox(), Knox.expiry),
        (OAuth(), Knox.expiry),
        ({}, None),
        (None, None),
        ('a text', None),
        (b'bytes', None),
    ],
)
def test_when_what_a_class_returns_expires(auth, end):
    assert expiry_of(auth) == end


def test_a_function_of_its_own_says_when(key):
    end = in_seconds(60)
    connect(of(rest_framework(TokenAuthentication, until=lambda auth: end)), 'header', key=key)
    assert Socket.objects.get().authenticated_until == end
