"""What proves who a client is: in no row, in no dump, and found where its own request is at hand."""

import io
import json
from importlib import import_module

import django
import pytest
from django.apps import apps
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db import connection as database

from sockets import RoutedSocketHandler
from sockets.access import credentials
from sockets.models import Membership, Socket
from sockets.testing import SocketClient, sandbox

from .client import ON_CHANNELS_1

pytestmark = pytest.mark.django_db(transaction=True)

SECRET = 's3cr3t'


class Reader(RoutedSocketHandler):
    """Reads its request in a frame."""

    def default_route(self, content):
        request, where, name = self.request, content['type'], content.get('name')
        if where == 'HEADERS':
            return {'type': 'READ', 'value': request.headers.get(name)}
        mapping = getattr(request, where)
        if content.get('list'):
            return {'type': 'READ', 'value': mapping.getlist(name)}
        try:
            by_key = mapping[name]
        except KeyError:
            by_key = None
        assert by_key == mapping.get(name) and (name in mapping) is (by_key is not None)
        return {'type': 'READ', 'value': by_key}


@pytest.fixture(autouse=True)
def nothing_said():
    credentials._said.clear()


def reads(connection, where, name, **fields):
    (reply,) = connection.send({'type': where, 'name': name, **fields})
    return reply['value']


def stripped(**content):
    """Return what is kept of a request, which is to have lost its secret."""
    kept = credentials.strip({'headers': [], 'query_string': '', **content}, 'sessionid')
    assert SECRET not in json.dumps(kept)
    return kept


@pytest.mark.parametrize(
    'header',
    [
        'Authorization',
        'Proxy-Authorization',
        'X-Auth-Token',
        'x-api-key',
        'X-Forwarded-Access-Token',
        'X-Session-Id',
        'Cf-Access-Jwt-Assertion',
        'X-Amzn-Oidc-Data',
        'X-Goog-Iap-Jwt-Assertion',
        'Sec-WebSocket-Protocol',
    ],
)
def test_a_header_that_is_a_credential_is_left_out(header):
    assert stripped(headers=[['accept', '*/*'], [header, 'Bearer ' + SECRET]])['headers'] == [['accept', '*/*']]


@pytest.mark.parametrize(
    'name', ['token', 'access_token', 'Token', 'api_key', 'jwt', 'sig', 'ticket', 'p%61ssword', 'X-Amz-Signature']
)
@pytest.mark.parametrize(
    'query, kept',
    [
        ('a=1&{}={}&b=2', 'a=1&b=2'),
        ('{}={}', ''),
        ('a=1;{}={}', 'a=1'),
        ('{0}={1}&{0}={1}', ''),
        ('{0}&a={0}', 'a={0}'),
    ],
)
def test_a_query_parameter_that_is_a_credential_is_left_out(name, query, kept):
    assert stripped(query_string=query.format(name, SECRET))['query_string'] == kept.format(name)


@pytest.mark.parametrize(
    'name',
    [
        'sessionid',
        'csrftoken',
        'access_token',
        'jwt',
        'PHPSESSID',
        'connect.sid',
        'laravel_session',
        '_oauth2_proxy',
        'remember_token',
    ],
)
def test_a_cookie_that_is_a_credential_is_left_out(name):
    cookies = f'theme=dark; {name}={SECRET}; lang=de'
    assert stripped(headers=[['cookie', cookies]])['headers'] == [['cookie', 'theme=dark; lang=de']]


def test_what_was_stripped_once_says_so_when_it_is_stripped_again():
    once = stripped(query_string='token=' + SECRET)
    assert credentials.strip(once, 'sessionid') == once
    assert once['dropped'] == {'headers': [], 'parameters': ['token'], 'cookies': []}


def test_no_row_keeps_a_credential(connect):
    connect(
        Reader,
        '/page/?token=' + SECRET,
        headers={'Authorization': SECRET},
        cookies={'sessionid': SECRET, 'theme': 'dark'},
    )
    text = Socket.objects.get().handshake
    assert SECRET not in text and 'theme=dark' in text


def test_everything_but_credentials_stays_as_it_was(connect):
    path = '/page/?monkey=1&author=ada&room=tea&x=%20+%C3%A9&x=2&empty=&alone'
    connection = connect(Reader, path, headers={'User-Agent': 'a browser', 'Accept-Language': 'de'})
    assert json.loads(Socket.objects.get().handshake)['query_string'] == path.partition('?')[2]
    assert reads(connection, 'META', 'HTTP_USER_AGENT') == 'a browser'
    assert reads(connection, 'GET', 'x', list=True) == ['  é', '2']


@pytest.mark.channels1('on Channels 4, the process that holds a connection runs its functions')
def test_a_function_in_another_process_does_not_find_it_and_one_line_is_logged(connect, caplog):
    # As a worker does whose daphne is another process.
    connection = connect(
        Reader, f'/page/?token={SECRET}&room=tea', cookies={'jwt': SECRET}, headers={'Authorization': SECRET}
    )
    for _ in range(2):
        for where, name in (('META', 'HTTP_AUTHORIZATION'), ('GET', 'token'), ('COOKIES', 'jwt')):
            assert reads(connection, where, name) is None
            said = [record.getMessage() for record in caplog.records if where + '[' in record.getMessage()]
            assert len(said) == 1 and repr(name) in said[0] and "SOCKETS['CREDENTIALS']" in said[0]
    assert reads(connection, 'GET', 'token', list=True) == []
    if django.VERSION >= (2, 2):
        assert reads(connection, 'HEADERS', 'Authorization') is None
        assert caplog.text.count('request.headers[') == 1
    before = len(caplog.records)
    # What it has not sent is not there, and that is all.
    assert reads(connection, 'META', 'HTTP_X_API_KEY') is reads(connection, 'GET', 'jwt') is None
    assert reads(connection, 'GET', 'room') == 'tea'
    assert len(caplog.records) == before


def test_a_function_finds_it_where_the_process_holds_the_request(db, caplog):
    with sandbox():
        client = SocketClient('/page/?token=' + SECRET, handler=Reader, headers={'Authorization': SECRET})
        client.connect()
        for where, name in (('GET', 'token'), ('META', 'HTTP_AUTHORIZATION')):
            assert client.request(where, name=name)['value'] == SECRET
        assert SECRET not in Socket.objects.get().handshake and not caplog.records


def test_a_process_that_holds_the_request_does_not_ask_the_database_for_it(db, django_assert_num_queries):
    # What a row keeps was loaded with each frame, and not looked at.
    with sandbox():
        client = SocketClient('/page/?room=tea', handler=Reader)
        client.connect()
        with django_assert_num_queries(1):
            assert client.request('GET', name='room')['value'] == 'tea'


def test_a_process_forgets_a_request_with_its_connection():
    class Holder:
        request_info = {'path': '/'}

    holder = Holder()
    credentials.hold('a!1', holder)
    assert credentials.held('a!1') == {'path': '/'}
    del holder
    assert credentials.held('a!1') is None


def test_a_setting_names_the_credentials_of_a_site(connect, settings):
    settings.SOCKETS = {'CREDENTIALS': ['X-Visitor', 'pass_*']}
    connect(Reader, f'/page/?pass_code={SECRET}&token=mine', headers={'x-visitor': SECRET, 'x-visitors': 'ours'})
    text = Socket.objects.get().handshake
    assert SECRET not in text and 'mine' in text and 'ours' in text
    settings.SOCKETS = {'CREDENTIALS': []}
    connect(Reader, '/page/?token=mine', cookies={'sessionid': SECRET})
    text = Socket.objects.latest('pk').handshake
    # The session's cookie is never kept.
    assert SECRET not in text and 'mine' in text


def test_the_migration_takes_credentials_out_of_rows_that_are_there(connect):
    migration = import_module('sockets.migrations.0007_credentials')
    kept = {
        'path': '/',
        'query_string': f'token={SECRET}&room=tea',
        'headers': [['authorization', SECRET], ['cookie', f'jwt={SECRET}; theme=dark'], ['accept', '*/*']],
    }
    plain = json.dumps({'path': '/', 'query_string': 'room=tea', 'headers': [['accept', '*/*']]})
    connections = [connect(Reader) for _ in range(4)]
    for connection, text in zip(connections, [json.dumps(kept), plain, '', 'no JSON']):
        Socket.objects.filter(channel_name=connection.name).update(handshake=text)
    with database.schema_editor(atomic=False) as editor:
        for _ in range(2):
            migration.strip_handshakes(apps, editor)
            first, second, *others = Socket.objects.order_by('pk').values_list('handshake', flat=True)
            assert SECRET not in first and second == plain and others == ['', '']
    if not ON_CHANNELS_1:
        # Its process knows the request itself.
        return
    assert reads(connections[0], 'GET', 'room') == 'tea' and reads(connections[0], 'COOKIES', 'theme') == 'dark'
    assert reads(connections[0], 'GET', 'token') is None
    assert credentials._said == {('GET', 'token')}


def test_a_dump_of_a_site_with_open_connections_holds_none_and_can_be_loaded_elsewhere(connect, login, alice, tmp_path):
    connection = connect(Reader, cookies=login(alice), headers={'Authorization': SECRET})
    Socket.objects.get().join('tea')
    assert connection and Membership.objects.count() == 1
    fixture = tmp_path / 'site.json'
    # As people do: sessions are nobody else's, and a row's session was missing where it was loaded.
    call_command(
        'dumpdata',
        '--exclude',
        'sessions',
        '--exclude',
        'contenttypes',
        '--exclude',
        'auth.permission',
        output=str(fixture),
    )
    found = {entry['model'] for entry in json.loads(fixture.read_text())}
    assert 'auth.user' in found and not {model for model in found if model.startswith(('sockets', 'sessions'))}
    Socket.objects.all().remove(), Session.objects.all().delete(), type(alice).objects.all().delete()
    call_command('loaddata', str(fixture), verbosity=0)
    assert type(alice).objects.get().get_username() == 'alice' and not Socket.objects.exists()


def test_dumpdata_has_the_rows_if_they_are_named(connect):
    connect(Reader)
    out = io.StringIO()
    call_command('dumpdata', 'sockets', stdout=out)
    assert [entry['model'] for entry in json.loads(out.getvalue())] == ['sockets.socket']
