"""Who a connection is when something else than a session says so: functions of the opening request."""

import functools
import logging
from datetime import datetime, timedelta
from datetime import timezone as zones

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser, Permission
from django.contrib.sessions.models import Session
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db import connection
from django.http import Http404
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.functional import SimpleLazyObject
from django.utils.html import escape
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter, authentication, engine, presence
from sockets.connection import identity_cache
from sockets.exceptions import ConnectionRevoked, FrameError, TooManyConnections
from sockets.models import Socket
from sockets.multiplexing import SocketDemultiplexer
from sockets.testing import SocketClient, sandbox

pytestmark = pytest.mark.django_db(transaction=True)

TOKEN = 'a-token-that-nobody-may-read'


@pytest.fixture(autouse=True)
def in_sandbox():
    with sandbox():
        yield


class Who(RoutedSocketHandler):
    """Says who it is."""

    def default_route(self, content):
        return {'type': 'WHO', 'user': self.user.get_username(), 'key': self.session.session_key}


def of(*entries, base=Who, **attributes):
    return type('Tokens', (base,), {'authentication': list(entries), '__module__': __name__, **attributes})


def connect(handler, user=None, path='/page/', token=None, **options):
    headers = options.pop('headers', {})
    if token is not None:
        headers = {**headers, 'Authorization': 'Bearer ' + token}
    options.setdefault('raise_exceptions', False)
    return SocketClient(path, user, handler=handler, headers=headers, pattern='^/page/$', **options).connect()


def who(client):
    return client.request('WHO?')['user']


def by_name(request):
    """The token is the name of the user."""
    name = authentication.token(request)
    return None if name is None else get_user_model().objects.get(username=name)


# Whom a coroutine finds without a query, which would have to be awaited since Django 3.
FOUND = []


async def found_async(request):
    return FOUND[0]


def nobody(request):
    return None


class ByName:
    def __call__(self, request):
        return by_name(request)


@pytest.fixture
def bob(db):
    return get_user_model().objects.create_user('bob', password='builder')


def returning(result):
    return lambda request: result


def raising(error):
    def fails(request):
        raise error

    return fails


# What it is.


@pytest.mark.parametrize(
    'entry, name',
    [
        (by_name, f'{__name__}.by_name'),
        (f'{__name__}.by_name', f'{__name__}.by_name'),
        (found_async, f'{__name__}.found_async'),
        (ByName(), f'{__name__}.ByName'),
        (functools.partial(by_name), f'{__name__}.by_name'),
    ],
)
def test_a_function_of_the_request_says_who_it_is_and_the_row_says_which(alice, entry, name):
    FOUND[:] = [alice]
    client = connect(of(entry), token='alice')
    assert who(client) == 'alice'
    row = Socket.objects.get()
    assert (row.user, row.session, row.authentication, row.authenticated_until) == (alice, None, name, None)


def test_the_setting_is_for_all_handlers_and_that_of_a_class_is_used_instead_of_it(alice, settings):
    settings.SOCKETS = {'AUTHENTICATION': [f'{__name__}.by_name']}
    assert who(connect(Who, token='alice')) == 'alice'
    for handler in (of(nobody), of()):
        assert who(connect(handler, token='alice')) == ''
    settings.SOCKETS = {}
    assert who(connect(Who, token='alice')) == ''


def test_the_first_that_finds_somebody_counts_and_the_session_is_asked_last(alice, bob):
    handler = of(nobody, returning(AnonymousUser()), returning((None, None)), by_name, raising(RuntimeError()))
    assert who(connect(handler, bob, token='alice')) == 'alice'
    client = connect(of(nobody, by_name), bob)
    assert who(client) == 'bob'
    row = Socket.objects.latest('pk')
    assert row.session_id == client.browser.session.session_key and row.authentication is None
    assert who(connect(of(nobody, by_name))) == ''


def test_a_connection_that_is_found_by_a_token_reads_no_session(alice, bob):
    client = SocketClient('/page/', bob, handler=of(by_name), headers={'Authorization': 'Bearer alice'})
    with CaptureQueriesContext(connection) as captured:
        client.connect()
    # The user, and the row. Django before 2.2 counts the begin of a transaction.
    tables = [query['sql'].split('"')[1] for query in captured if query['sql'] != 'BEGIN']
    assert tables == ['auth_user', 'sockets_socket']
    assert who(client) == 'alice'


def test_a_frame_asks_as_much_as_with_a_session(alice, django_assert_num_queries, settings):
    settings.SOCKETS = {'IDENTITY_MAX_AGE': 0}
    client = connect(of(by_name, default_route=lambda self, content: {'type': self.user.username}), token='alice')
    with django_assert_num_queries(1):
        assert client.request('X')['type'] == 'alice'


def test_a_user_that_a_middleware_of_the_engine_has_found_counts_unless_that_is_of_the_session(alice, bob, monkeypatch):
    seen = []
    connect(of(connect=lambda self, message: seen.append(type(self._connection))))

    def found(user):
        monkeypatch.setattr(seen[0], 'user_of_middleware', lambda self: user)

    found(SimpleLazyObject(lambda: alice))
    assert who(connect(Who)) == 'alice'
    assert Socket.objects.latest('pk').authentication == 'middleware'
    assert who(connect(Who, bob)) == 'alice'
    # An AuthMiddleware has read the same cookie: a logout ends it.
    client = connect(Who, alice)
    assert Socket.objects.latest('pk').session_id == client.browser.session.session_key
    assert who(connect(of(by_name), token='bob')) == 'bob'
    found(AnonymousUser())
    assert who(connect(Who)) == '' and who(connect(Who, bob)) == 'bob'
    found('somebody')
    assert connect(Who).refused


def test_an_engine_without_middleware_has_found_nobody():
    assert engine.Connection('a!b', '/', False).user_of_middleware() is None


# Until when.


def until(moment):
    def until_then(request):
        user = by_name(request)
        return None if user is None else (user, moment)

    return until_then


def in_seconds(seconds):
    return timezone.now() + timedelta(seconds=seconds)


def test_an_end_in_the_past_is_refused_with_4401():
    get_user_model().objects.create_user('alice')
    client = connect(of(until(in_seconds(-1))), token='alice')
    assert client.close_code == 4401 and not Socket.objects.exists()
    assert client.received() == [{'type': 'RECONNECT', 'details': 'Your authentication has expired.'}]


def test_the_housekeeper_closes_what_has_expired_and_nothing_else(alice):
    ends = []
    handler = of(until(in_seconds(3600)), disconnect=lambda self, message: ends.append(self.user.username))
    short, long, session = connect(handler, token='alice'), connect(handler, token='alice'), connect(handler, alice)
    assert Socket.objects.filter(authenticated_until=None).count() == 1
    assert presence.revoke_expired() == 0 and not presence.expired_otherwise().exists()
    Socket.objects.filter(channel_name=short.channel_name).update(authenticated_until=in_seconds(-1))
    housekeeper = presence.Housekeeper()
    housekeeper.look()
    assert not housekeeper.troubles
    assert short.close_code == 4401 and ends == ['alice']
    assert short.received() == [{'type': 'RECONNECT', 'details': 'Your authentication has expired.'}]
    assert who(long) == who(session) == 'alice'


@pytest.mark.parametrize('max_age', [0, 1])
@pytest.mark.parametrize('asks', [True, False])
def test_no_frame_after_it_reaches_a_route(alice, settings, monkeypatch, max_age, asks):
    settings.SOCKETS = {'IDENTITY_MAX_AGE': max_age}
    seen = []

    class Seen(Who):
        def default_route(self, content):
            seen.append(asks and self.user.username)

    client = connect(of(until(in_seconds(5)), base=Seen), token='alice')
    client.send('X')
    assert len(seen) == 1

    def pass_by(moment):
        monkeypatch.setattr(timezone, 'now', lambda: moment)
        monkeypatch.setattr(identity_cache.time, 'time', moment.timestamp)

    # The right is prolonged, which a frame at the end of the first one finds.
    Socket.objects.update(authenticated_until=in_seconds(10))
    pass_by(in_seconds(6))
    client.send('X')
    assert len(seen) == 2 and client.close_code is None
    pass_by(in_seconds(5))
    client.send('X')
    assert client.close_code == 4401 and len(seen) == 2 and not Socket.objects.exists()


def test_no_frame_after_it_reaches_a_stream(alice, monkeypatch):
    seen = []

    class Seen(Who):
        def default_route(self, content):
            seen.append(content)

    class Both(SocketDemultiplexer):
        streams = {'it': Seen}
        authentication = [until(in_seconds(5))]

    client = connect(Both, token='alice')
    client.send_json({'stream': 'it', 'payload': {'type': 'X'}})
    later = in_seconds(6)
    monkeypatch.setattr(timezone, 'now', lambda: later)
    monkeypatch.setattr(identity_cache.time, 'time', later.timestamp)
    client.send_json({'stream': 'it', 'payload': {'type': 'X'}})
    assert client.close_code == 4401 and len(seen) == 1


def test_an_end_in_another_zone_or_without_zones_is_the_same_moment(alice, settings):
    moment = datetime.now(zones(timedelta(hours=5))) + timedelta(hours=1)
    assert who(connect(of(until(moment)), token='alice')) == 'alice'
    assert Socket.objects.get().authenticated_until == moment
    settings.USE_TZ = False
    for given in (moment, datetime.now() + timedelta(hours=1)):
        client = connect(of(until(given)), token='alice')
        assert who(client) == 'alice'
        left = Socket.objects.latest('pk').authenticated_until - datetime.now()
        assert timedelta(minutes=59) < left <= timedelta(hours=1)


# Who may not.


@pytest.mark.parametrize(
    'error, details',
    [
        (FrameError('not_allowed', 'This token is not known.'), 'This token is not known.'),
        (PermissionDenied('This token is not known.'), 'This token is not known.'),
        (PermissionDenied(), 'You may not do this.'),
        (Http404(), 'There is no such thing.'),
        (ConnectionRevoked('Get a new token.'), 'Get a new token.'),
    ],
)
def test_who_is_refused_is_told_why_and_closed_with_4401(error, details, bob):
    # The session would do, but it is not asked.
    client = connect(of(raising(error), by_name), bob)
    assert client.accepted and client.close_code == 4401
    assert client.received() == [{'type': 'RECONNECT', 'details': details}]
    assert not Socket.objects.exists()


def test_who_tries_too_often_is_closed_with_4429():
    for error in (TooManyConnections('Later.'), FrameError('rate_limited', 'Later.')):
        client = connect(of(raising(error)))
        assert client.close_code == 4429 and client.received()[0]['details'] == 'Later.'


@pytest.mark.parametrize('max_age', [0, 1])
def test_an_account_that_is_not_active_is_refused_and_one_that_is_deactivated_or_deleted_is_closed(
    alice, bob, settings, max_age
):
    settings.SOCKETS = {'IDENTITY_MAX_AGE': max_age}
    clients = [connect(of(by_name), token=name) for name in ('alice', 'bob')]
    assert [who(client) for client in clients] == ['alice', 'bob']
    alice.is_active = False
    alice.save()
    bob.delete()
    assert [client.close_code for client in clients] == [4401, 4401]
    client = connect(of(by_name), token='alice')
    assert client.close_code == 4401 and client.received()[0]['details'] == 'Your account is not active.'
    # As update() leaves it, which sends no signal.
    get_user_model().objects.update(is_active=True)
    client = connect(of(by_name), token='alice')
    get_user_model().objects.update(is_active=False)
    assert presence.revoke_inactive() == 1 and client.close_code == 4401


@pytest.mark.parametrize('fault', [RuntimeError(f'No {TOKEN}'), KeyError(TOKEN), SystemExit(TOKEN)])
def test_a_fault_is_logged_with_the_name_of_the_function_and_without_the_token(caplog, fault):
    def broken(request):
        try:
            raise ValueError(f'at first {TOKEN}')
        except ValueError:
            raise fault

    client = connect(of(broken), token=TOKEN, path=f'/page/?token={TOKEN}')
    assert client.refused and not Socket.objects.exists()
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    text = record.getMessage()
    assert 'broken' in text and type(fault).__name__ in text and 'Traceback' in text and '***' in text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    'result, word',
    [
        ('alice', 'str'),
        ((), 'tuple of 0'),
        ((1, 2, 3), 'tuple of 3'),
        (('alice', None), 'str'),
        (get_user_model()(username='new'), 'no saved instance'),
    ],
)
def test_what_is_no_user_is_a_fault(result, word, caplog):
    assert connect(of(returning(result))).refused
    assert word in caplog.text


@pytest.mark.parametrize('moment', [datetime(2100, 1, 1), 4102444800, 'tomorrow', timedelta(1)])
def test_what_is_no_aware_datetime_is_a_fault(moment, caplog, alice):
    assert connect(of(until(moment)), token='alice').refused
    assert 'aware datetime' in caplog.text and 'until' in caplog.text


def test_a_handler_that_asks_for_a_login_gets_one(alice):
    handler = of(by_name, login_required=True)
    assert who(connect(handler, token='alice')) == 'alice'
    assert connect(handler).close_code == 4401


def test_permissions_are_those_of_the_user_as_they_change(alice):
    handler = of(by_name, permission='sockets.delete_socket')
    assert connect(handler, token='alice').close_code == 4403
    permission = Permission.objects.get(codename='delete_socket')
    alice.user_permissions.add(permission)
    client = connect(handler, token='alice')
    assert who(client) == 'alice'
    alice.user_permissions.remove(permission)
    client.send('X')
    assert client.close_code == 4403


# What is of a session.


class Sessions(Who):
    def default_route(self, content):
        if content['type'] == 'WRITE':
            self.session['x'] = 1
        if content['type'] == 'CREATE':
            self.session.create()
        return {'type': 'READ', 'x': self.session.get('x'), 'key': self.session.session_key}


@pytest.mark.parametrize(
    'engine_of_sessions', ['db', 'cache', 'signed_cookies'], ids=['in rows', 'in a cache', 'in cookies']
)
@pytest.mark.parametrize('max_age', [0, 1])
def test_there_is_no_session_and_who_writes_to_it_is_told_so(alice, bob, settings, engine_of_sessions, max_age, caplog):
    settings.SOCKETS = {'IDENTITY_MAX_AGE': max_age}
    settings.SESSION_ENGINE = 'django.contrib.sessions.backends.' + engine_of_sessions
    client = connect(of(by_name, base=Sessions), bob, token='alice')
    before = Session.objects.count()
    for _ in range(2):
        assert client.request('READ') == {'type': 'READ', 'x': None, 'key': None}
        for type in ('WRITE', 'CREATE'):
            assert client.request(type)['code'] == 'server_error'
    assert 'This connection has no session: an authentication has found its user.' in caplog.text
    assert Session.objects.count() == before


def test_a_disconnect_function_finds_the_user_and_no_session(alice):
    seen = []

    def disconnect(self, message):
        seen.append((self.user.username, self.session.session_key, self.session.get('x')))

    client = connect(of(by_name, disconnect=disconnect), token='alice')
    client.close()
    client = connect(of(by_name, disconnect=disconnect), token='alice')
    assert Socket.objects.all().revoke() == 1 and client.close_code == 4401
    assert seen == [('alice', None, None)] * 2


@pytest.mark.parametrize('backend', ['db', 'cache'])
def test_a_logout_leaves_it_alone(alice, settings, backend):
    settings.SESSION_ENGINE = 'django.contrib.sessions.backends.' + backend
    browser = Client()
    browser.force_login(alice)
    by_token = connect(of(by_name), token='alice', browser=browser)
    by_session = connect(of(by_name), browser=browser)
    assert who(by_token) == who(by_session) == 'alice'
    browser.logout()
    assert by_session.close_code == 4401
    assert who(by_token) == 'alice'


def test_a_new_password_leaves_it_alone(alice):
    client = connect(of(by_name), token='alice')
    alice.set_password('other')
    alice.save()
    assert who(client) == 'alice'


def test_who_is_logged_out_everywhere_by_an_operator_is_closed(alice):
    from sockets.access import revocation

    client = connect(of(by_name), token='alice')
    assert revocation.log_out(Socket.objects.all()).connections == 1
    assert client.close_code == 4401


# What works as for users of sessions.


def test_limits_per_user_count_all_connections_of_a_user(alice, bob, settings):
    settings.SOCKETS = {'MAX_CONNECTIONS_PER_USER': 2}
    handler = of(by_name)
    connect(handler, token='alice'), connect(handler, alice)
    assert connect(handler, token='alice').close_code == 4429
    assert who(connect(handler, token='bob')) == 'bob'


def test_a_person_arrives_once_and_leaves_with_the_last_connection(alice):
    events = []

    class Page(View):
        socket = SocketRouter(handler=of(by_name))

        @socket.arrived
        def on_arrived(socket):
            events.append(('arrived', socket.user.username))

        @socket.left
        def on_left(socket):
            events.append(('left', socket.user.username))

    first = connect(Page.socket.Handler, token='alice')
    second = connect(Page.socket.Handler, alice)
    first.close()
    assert events == [('arrived', 'alice')]
    second.close()
    assert events == [('arrived', 'alice'), ('left', 'alice')]


def test_a_queryset_finds_it_by_its_user(alice):
    client = connect(of(by_name), token='alice')
    assert Socket.objects.filter(user=alice).send_action('NEWS') == 1
    assert client.received() == [{'type': 'NEWS'}]


def test_the_admin_says_what_has_found_the_user_and_shows_no_token(admin_client, alice):
    handler = of(until(in_seconds(3600)))
    connect(handler, token='alice', path=f'/page/?token={TOKEN}', headers={'X-Token': TOKEN})
    row = Socket.objects.get()
    page = admin_client.get(f'/admin/sockets/socket/{row.pk}/change/').content.decode()
    assert 'until_then' in row.authentication and escape(row.authentication) in page
    assert 'authenticated until' in page.lower() and TOKEN not in page
    for query in ('', '?login=yes'):
        page = admin_client.get('/admin/sockets/socket/' + query).content.decode()
        assert 'alice' in page and TOKEN not in page
    assert 'alice' not in admin_client.get('/admin/sockets/socket/?login=no').content.decode().partition('results')[2]


def test_a_token_is_in_no_row_and_no_log_wherever_it_comes(alice, caplog):
    caplog.set_level(logging.DEBUG)
    places = [
        ('', {'Authorization': 'Bearer ' + TOKEN}),
        (f'?token={TOKEN}', {}),
        (f'?access_token={TOKEN}', {}),
        ('', {'Sec-WebSocket-Protocol': 'bearer, ' + TOKEN}),
        ('', {'X-Auth-Token': TOKEN}),
        ('', {'Cookie': 'jwt=' + TOKEN}),
    ]

    class Log(Who):
        def default_route(self, content):
            raise RuntimeError('fails')

    for query, headers in places:
        for handler in (
            of(returning(alice), base=Log),
            of(returning(None)),
            of(raising(RuntimeError(TOKEN))),
            of(raising(PermissionDenied('Not ' + TOKEN))),
            of(returning((alice, in_seconds(-1)))),
            of(returning(alice), login_required=True, permission='no.such'),
        ):
            client = connect(handler, path='/page/' + query, headers=headers)
            if client.close_code is None:
                client.send('X')
                client.send_text('no JSON')
                assert TOKEN not in str([vars(row) for row in Socket.objects.all()])
                client.close()
            connect(handler, path='/page/' + query, headers=headers, origin='https://foreign.example')
    assert caplog.records and TOKEN not in caplog.text


def test_a_demultiplexer_says_who_its_connection_is(alice):
    class Both(SocketDemultiplexer):
        streams = {'who': Who}
        authentication = [by_name]

    client = connect(Both, token='alice')
    client.send_json({'stream': 'who', 'payload': {'type': 'X'}})
    assert client.received()[0]['payload']['user'] == 'alice'


# Pages of other sites, and programs.

OTHER = 'https://app.example.org'


@pytest.mark.parametrize('allowed', [OTHER, 'app.example.org', '.example.org'])
@pytest.mark.parametrize('setting', ['ALLOWED_ORIGINS', 'TOKEN_ORIGINS'])
def test_a_page_of_an_allowed_origin_connects_with_a_token(alice, settings, setting, allowed):
    assert connect(of(by_name), token='alice', origin=OTHER).refused
    settings.SOCKETS = {setting: [allowed]}
    client = connect(of(by_name), token='alice', origin=OTHER)
    assert who(client) == 'alice'
    assert connect(of(by_name), token='alice', origin='https://else.example').refused


@pytest.mark.parametrize('allowed', [[OTHER], ['*']])
def test_a_page_that_may_send_tokens_cannot_use_the_cookies_of_its_visitor(alice, settings, allowed):
    settings.SOCKETS = {'TOKEN_ORIGINS': allowed}
    seen = []

    def by_cookie(request):
        seen.append((dict(request.COOKIES), request.META.get('HTTP_COOKIE')))

    # One that takes tokens asks for one, and the others are closed to it.
    client = connect(of(by_cookie), alice, origin=OTHER)
    assert client.close_code == 4401 and 'token' in client.received()[0]['details']
    assert seen == [({}, None)]
    assert connect(Who, alice, origin=OTHER).refused
    assert connect(of(), alice, origin=OTHER).refused
    # Its own pages go on as they were.
    assert who(connect(of(by_cookie), alice)) == who(connect(Who, alice)) == 'alice'
    assert seen[1][0]
    assert not Socket.objects.filter(authentication__isnull=False).exists()


def test_a_user_of_a_middleware_does_not_count_from_a_page_that_may_send_tokens(alice, settings, monkeypatch):
    settings.SOCKETS = {'TOKEN_ORIGINS': [OTHER]}
    seen = []
    connect(of(connect=lambda self, message: seen.append(type(self._connection))))
    # It may have read a cookie.
    monkeypatch.setattr(seen[0], 'user_of_middleware', lambda self: alice)
    assert connect(of(nobody), origin=OTHER).close_code == 4401


def test_a_handler_that_takes_tokens_opens_no_session_to_foreign_origins(alice):
    for options in ({'user': alice}, {'token': 'alice'}, {'user': alice, 'token': 'alice'}):
        assert connect(of(by_name), origin=OTHER, **options).refused


@pytest.mark.parametrize('origin', ['null', 'http://testserver:81', 'https://app.example.org:444'])
def test_all_pages_may_send_tokens_are_not_those_that_have_no_origin(settings, origin):
    settings.SOCKETS = {'TOKEN_ORIGINS': ['https://app.example.org', 'testserver']}
    assert connect(of(by_name), headers={'host': 'testserver:80'}, origin=origin).refused


def test_a_program_sends_no_origin(alice, settings):
    assert who(connect(of(by_name), token='alice')) == 'alice'
    settings.SOCKETS = {'REQUIRE_ORIGIN': True}
    assert connect(of(by_name), token='alice').refused


# Where the token is.


def request_of(path='/', **meta):
    from django.test import RequestFactory

    return RequestFactory().get(path, **meta)


@pytest.mark.parametrize(
    'header, scheme, found',
    [
        ('Bearer abc', 'Bearer', 'abc'),
        ('bearer  abc ', 'Bearer', 'abc'),
        ('Token abc', 'Token', 'abc'),
        ('Token abc', 'Bearer', None),
        ('Bearer', 'Bearer', None),
        ('Bearerabc', 'Bearer', None),
        ('', 'Bearer', None),
    ],
)
def test_a_token_is_in_the_header(header, scheme, found):
    assert authentication.token(request_of(HTTP_AUTHORIZATION=header), scheme) == found


def test_a_token_is_in_a_query_parameter_that_is_named():
    request = request_of('/?token=abc&other_token=')
    assert authentication.token(request) is None
    assert authentication.token(request, parameter='token') == 'abc'
    assert authentication.token(request, parameter='other_token') is None
    both = request_of('/?token=abc', HTTP_AUTHORIZATION='Bearer def')
    assert authentication.token(both, parameter='token') == 'def'


def test_a_parameter_that_rows_would_keep_is_refused(settings):
    with pytest.raises(ImproperlyConfigured, match="'key'"):
        authentication.token(request_of('/?key=abc'), parameter='key')
    settings.SOCKETS = {'CREDENTIALS': ['key']}
    assert authentication.token(request_of('/?key=abc'), parameter='key') == 'abc'


@pytest.mark.parametrize(
    'offered, found, answer',
    [
        ('bearer, abc', 'abc', 'bearer'),
        ('chat,bearer,abc', 'abc', 'bearer'),
        ('bearer', None, 'bearer'),
        ('abc, bearer', None, 'bearer'),
        ('chat, abc', None, None),
        ('', None, None),
    ],
)
def test_a_token_follows_a_subprotocol(offered, found, answer):
    request = request_of(HTTP_SEC_WEBSOCKET_PROTOCOL=offered)
    assert authentication.token(request, subprotocol='bearer') == found
    assert getattr(request, 'subprotocol', None) == answer


@pytest.mark.parametrize('known', ['alice', 'somebody'])
def test_the_accept_names_the_subprotocol_before_the_token_also_of_who_is_refused(alice, known, monkeypatch):
    accepts = []
    accept = engine.Connection.accept_without_opening

    def noting(self):
        accepts.append(self.subprotocol)
        accept(self)

    monkeypatch.setattr(engine.Connection, 'accept_without_opening', noting)

    def by_subprotocol(request):
        name = authentication.token(request, subprotocol='bearer')
        user = get_user_model().objects.filter(username=name).first()
        if user is None:
            raise PermissionDenied('No.')
        return user

    client = connect(of(by_subprotocol), headers={'Sec-WebSocket-Protocol': 'bearer, ' + known})
    assert client.accepted and accepts == ['bearer']
    assert client.close_code == (None if known == 'alice' else 4401)


def test_a_subprotocol_that_the_client_does_not_offer_is_not_answered(alice):
    def sets(request):
        request.subprotocol = 'graphql'
        return alice

    client = connect(of(sets), headers={'Sec-WebSocket-Protocol': 'bearer'})
    assert client.accepted and who(client) == 'alice'


# What is refused when it is declared.


class Silly:
    def authenticate(self, request):
        return None


@pytest.mark.parametrize(
    'value, words',
    [
        ('mysite.auth.by_token', 'write a list'),
        (7, 'write a list'),
        ({'a': 1}, 'write a list'),
        ([7], 'not a function'),
        ([dict], 'not a function'),
        ([Silly], r'rest_framework\(Silly\)'),
        ([Silly()], r'rest_framework\(Silly\)'),
    ],
)
def test_a_handler_class_with_what_is_none_is_refused_when_it_is_declared(value, words):
    with pytest.raises(ImproperlyConfigured, match='Tokens.authentication.*' + words):
        type('Tokens', (Who,), {'authentication': value})


def test_an_async_def_behind_a_plain_decorator_is_refused():
    @functools.wraps(found_async)
    def plain(request):
        return found_async(request)

    with pytest.raises(ImproperlyConfigured, match='found_async'):
        of(plain)


@pytest.mark.parametrize('name', ['authentication_classes', 'authenticators', 'authentications'])
def test_another_name_for_it_is_refused(name):
    with pytest.raises(ImproperlyConfigured, match='it is called authentication'):
        type('Tokens', (Who,), {name: [by_name]})


def test_a_mixin_that_stands_behind_is_refused():
    class Mixin:
        authentication = [by_name]

    assert type('Tokens', (Mixin, RoutedSocketHandler), {}).authentication == [by_name]
    with pytest.raises(ImproperlyConfigured, match='has no effect'):
        type('Tokens', (RoutedSocketHandler, Mixin), {})


def test_a_class_may_add_to_that_of_its_base(alice):
    handler = of(nobody)
    assert who(connect(of(*handler.authentication, by_name), token='alice')) == 'alice'
    assert who(connect(type('Inherits', (of(by_name),), {}), token='alice')) == 'alice'
