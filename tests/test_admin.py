import json
import re
from datetime import timedelta

import django
import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from sockets import RoutedSocketHandler
from sockets.access import revocation
from sockets.models import Socket
from sockets.testing import sandbox

from .client import sent_to
from .conftest import InMemoryChannelLayer

LIST = '/admin/sockets/socket/'


@pytest.fixture
def layer():
    """One layer will do."""
    layer = InMemoryChannelLayer()
    with sandbox(layer, routing=[]):
        yield layer


@pytest.fixture
def staff(client, db):
    client.force_login(get_user_model().objects.create_superuser('admin', 'admin@example.com', 'x'))
    return client


@pytest.fixture
def helper(client, db):
    """A function that returns the browser of somebody who may look at connections and has ``permissions``."""

    def log_in(*permissions):
        user = get_user_model().objects.create_user('helper', is_staff=True)
        look = 'view_socket' if django.VERSION >= (2, 1) else 'change_socket'
        user.user_permissions.set(Permission.objects.filter(codename__in=(look,) + permissions))
        client.force_login(user)
        return client

    return log_in


def make_rows(count, user=None, **fields):
    Socket.objects.bulk_create(
        [
            Socket(
                **dict(
                    {
                        'channel_name': f'daphne.response.a!{n}',
                        'server': 'daphne.response.a!',
                        'path': f'/page/{n}/',
                        'user': user,
                        'user_ip': f'192.0.2.{n % 250}',
                    },
                    **fields,
                )
            )
            for n in range(count)
        ]
    )


def act(browser, action, rows=None, address=LIST, **fields):
    """Choose ``action`` for ``rows``, or for all that match, and fill in its form; return the page that follows."""
    selected = [row.pk for row in ([Socket.objects.last()] if rows is None else rows)]
    data = {'action': action, '_selected_action': selected, 'select_across': int(rows is None)}
    first = browser.post(address, dict(data, index=0))
    if first.status_code != 200:
        return first
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', first.content.decode())
    data = {name: [value for other, value in hidden if other == name] for name, _ in hidden}
    return browser.post(address, dict(data, **fields), follow=True)


def notices(response):
    return [str(message) for message in response.context['messages']]


def test_connections_are_listed_at_a_number_of_queries_that_does_not_grow(staff, alice):
    counts = []
    for size in (20, 100):
        Socket.objects.all()._raw_delete('default')
        make_rows(size, alice)
        with CaptureQueriesContext(connection) as queries:
            response = staff.get(LIST)
        assert response.content.count(b'name="_selected_action"') == size
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 6
    assert b'192.0.2.7' in response.content and b'alice' in response.content


def test_the_list_says_how_long_a_connection_is_open_and_who_does_not_answer(staff):
    make_rows(1, active=False, last_ping=timezone.now() - timedelta(minutes=3))
    Socket.objects.update(created=timezone.now() - timedelta(hours=5))
    page = staff.get(LIST).content.decode()
    assert '>5 h<' in page and '>3 min ago<' in page and 'alt="asked, no answer yet"' in page
    Socket.objects.mark_active()
    page = staff.get(LIST).content.decode()
    assert '>0 s ago<' in page and 'alt="asked, no answer yet"' not in page


@pytest.mark.parametrize(
    'query, found',
    [
        ('q=/page/7/', 1),
        ('q=/page/1', 11),
        ('q=/7/', 0),
        ('q=alice', 20),
        ('q=al+/page/7/', 1),
        ('q=192.0.2.19', 1),
        ('q=192.0.2', 0),
        ('q=daphne.response.a!3', 1),
        ('q=daphne.response.a!', 20),
        ('q=nobody', 0),
        ('q=2001:db8::7', 0),
        ('state=alive', 10),
        ('state=asked', 10),
        ('login=yes', 20),
        ('login=no', 0),
        ('age=1min', 20),
        ('age=1h', 20),
        ('age=over-1h', 0),
        ('age=over-1d', 0),
        ('seen=1min', 20),
        ('seen=over-2min', 0),
        ('seen=over-1h', 0),
        ('server=daphne.response.a!', 20),
        ('server=daphne.response.b!', 0),
        ('path=/page/7/', 1),
        ('o=-1.2.3.4.5.6', 20),
    ],
)
def test_connections_are_searched_filtered_and_sorted(staff, alice, query, found):
    make_rows(20, alice)
    Socket.objects.filter(pk__in=Socket.objects.all()[:10].values('pk')).update(active=False)
    response = staff.get(LIST + '?' + query)
    assert response.context['cl'].result_count == found


@pytest.mark.parametrize(
    'query',
    [
        'q=/page/7/',
        'q=alice',
        'q=192.0.2.19',
        'q=daphne.response.a!3',
        'q=daphne.response.a!',
        'state=asked',
        'age=1min',
        'server=daphne.response.a!',
        'q=alice&state=asked',
    ],
)
def test_what_is_searched_and_filtered_is_found_by_an_index(staff, alice, query):
    if connection.vendor == 'sqlite' and '=/' in query:
        pytest.skip('SQLite has no index for LIKE')
    make_rows(20, alice)
    with CaptureQueriesContext(connection) as queries:
        staff.get(LIST + '?' + query)
    (count,) = [query['sql'] for query in queries if 'COUNT(*)' in query['sql'] and 'sockets_socket' in query['sql']]
    with connection.cursor() as cursor:
        if connection.vendor == 'postgresql':
            # It prefers to read so few rows from the first to the last.
            cursor.execute('SET LOCAL enable_seqscan = off')
        cursor.execute({'sqlite': 'EXPLAIN QUERY PLAN '}.get(connection.vendor, 'EXPLAIN ') + count)
        plan = '\n'.join(str(line) for line in cursor.fetchall())
    assert re.search('Index Cond|SEARCH.* sockets_socket', plan) and not re.search(
        'Seq Scan on sockets_socket|SCAN (TABLE )?sockets_socket', plan
    ), plan


def test_an_unknown_choice_of_a_filter_is_not_everything(staff):
    make_rows(2)
    assert staff.get(LIST + '?state=dead')['Location'].endswith('?e=1')
    assert act(staff, 'send_json', address=LIST + '?state=dead', content='{}').status_code == 302


def test_a_choice_of_servers_is_offered_and_any_can_be_asked_for(staff):
    for n in range(30):
        Socket.objects.create(channel_name=f'server{n:02}!a', path='/page/')
    page = staff.get(LIST).content.decode()
    assert [n for n in range(30) if f'?server=server{n:02}%21' in page] == list(range(20))
    assert staff.get(LIST + '?server=server25!').context['cl'].result_count == 1


def test_connections_can_be_read_and_not_made_or_changed(staff):
    make_rows(1)
    row = Socket.objects.get()
    page = staff.get(f'{LIST}{row.pk}/change/').content.decode()
    assert row.channel_name in page and 'name="_save"' not in page
    assert staff.post(f'{LIST}{row.pk}/change/', {'path': '/other/'}).status_code == 403
    assert staff.get(LIST + 'add/').status_code == 403
    modified = row.modified
    row.refresh_from_db()
    assert (row.path, row.modified) == ('/page/0/', modified)


@pytest.mark.django_db(transaction=True)
def test_a_row_is_deleted_on_its_page_by_those_who_may_and_its_connection_closed(connect, helper):
    mine = connect(RoutedSocketHandler)
    mine.messages()
    address = f'{LIST}{Socket.objects.get().pk}/delete/'
    browser = helper()
    assert browser.post(address, {'post': 'yes'}).status_code == 403 and mine.messages() == []
    get_user_model().objects.get().user_permissions.add(Permission.objects.get(codename='delete_socket'))
    assert browser.post(address, {'post': 'yes'}).status_code == 302
    assert [message['close'] for message in mine.messages()] == [4401] and not Socket.objects.exists()


def test_a_session_key_is_neither_shown_nor_guessed(staff, alice, login):
    (key,) = login(alice).values()
    make_rows(1, alice, session_id=key)
    for address in (LIST, f'{LIST}{Socket.objects.get().pk}/change/'):
        assert key.encode() not in staff.get(address).content
    for lookup in ('session__gt=a', 'session__session_key__startswith=a', 'session=' + key, 'handshake__contains=a'):
        assert staff.get(LIST + '?' + lookup).status_code == 400


ACTIONS = {
    'send_json': ('send_socket', {'content': '{"type": "NEWS"}'}),
    'close': ('close_socket', {'code': '4000'}),
    'log_out': ('logout_socket', {}),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize('action', ACTIONS)
def test_an_action_is_offered_to_those_who_may_run_it_and_runs_for_nobody_else(connect, helper, action):
    permission, fields = ACTIONS[action]
    mine = connect(RoutedSocketHandler)
    mine.messages()
    others = [other for other, _ in ACTIONS.values() if other != permission]
    browser = helper(*others, 'delete_socket')
    assert f'value="{action}"' not in browser.get(LIST).content.decode()
    row = Socket.objects.get()
    browser.post(LIST, dict(fields, action=action, _selected_action=row.pk, confirmed='yes'))
    assert mine.messages() == [] and Socket.objects.exists() and not LogEntry.objects.exists()

    get_user_model().objects.get().user_permissions.set(
        Permission.objects.filter(codename__in=[permission, 'view_socket', 'change_socket'])
    )
    page = browser.get(LIST).content.decode()
    assert f'value="{action}"' in page
    assert not [
        other for other in list(ACTIONS) + ['delete_selected'] if other != action and f'value="{other}"' in page
    ]
    act(browser, action, [row], **fields)
    assert mine.messages() != []
    entry = LogEntry.objects.get()
    assert entry.user == get_user_model().objects.get() and entry.get_admin_url() is None
    assert entry.object_repr.endswith(': 1 connection') and '1' in entry.change_message


def test_who_may_not_look_may_not_act(client, db, alice):
    make_rows(1)
    alice.is_staff = True
    alice.save()
    alice.user_permissions.set(Permission.objects.filter(codename__in=[name for name, _ in ACTIONS.values()]))
    client.force_login(alice)
    row = Socket.objects.get()
    for action, (_, fields) in ACTIONS.items():
        data = dict(fields, action=action, _selected_action=row.pk, confirmed='yes')
        assert client.post(LIST, data).status_code == 403


@pytest.mark.parametrize(
    'text, said',
    [
        ('', 'required'),
        ('{"type": ', 'This is not JSON'),
        ('["NEWS"]', 'A frame is a JSON object'),
        ('{"n": NaN}', 'NaN is not a JSON number'),
        ('{"n": 1e999}', 'too large a number'),
        (r'{"t": "\u0000"}', 'NUL'),
        (r'{"t": "\ud800"}', 'surrogate'),
        ('{"type": "<script>"}}', 'Extra data'),
    ],
)
def test_what_is_no_json_object_is_said_at_the_field_and_sent_to_nobody(staff, connect, text, said):
    mine = connect(RoutedSocketHandler)
    mine.messages()
    response = act(staff, 'send_json', Socket.objects.all(), content=text)
    assert said in str(response.context['form'].errors['content'])
    assert 'This goes to 1 connection.' in response.content.decode() and b'<script>"' not in response.content
    assert mine.messages() == [] and not LogEntry.objects.exists()


def test_json_is_sent_to_those_who_are_selected(staff, connect):
    first, second, third = (connect(RoutedSocketHandler) for _ in range(3))
    for each in (first, second, third):
        each.messages()
    rows = Socket.objects.filter(channel_name__in=[first.name, second.name])
    response = act(staff, 'send_json', rows, content=' {"type": "NEWS", "text": "ü"} ')
    assert notices(response) == [r'Handed to 2 of 2 connections: {"type":"NEWS","text":"\u00fc"}']
    assert first.received() == second.received() == [{'type': 'NEWS', 'text': 'ü'}] and third.received() == []
    assert LogEntry.objects.get().change_message == notices(response)[0]


@pytest.mark.parametrize('code', ['', 'x', '99', '1005', '1006', '1015', '2999', '5000', '-1'])
def test_what_is_no_close_code_is_said_at_the_field_and_closes_nothing(staff, connect, code):
    mine = connect(RoutedSocketHandler)
    mine.messages()
    response = act(staff, 'close', Socket.objects.all(), code=code)
    said = str(response.context['form'].errors['code'])
    assert 'from 4000 to 4999' in said or code in ('', 'x')
    assert mine.messages() == []


def test_connections_are_closed_with_a_code(staff, connect):
    mine, other = connect(RoutedSocketHandler), connect(RoutedSocketHandler)
    mine.messages(), other.messages()
    response = act(staff, 'close', Socket.objects.filter(channel_name=mine.name), code='4000')
    assert notices(response) == ['Told 1 of 1 connection to close with 4000. Rows go as their connections close.']
    assert mine.messages() == [{'close': 4000}] and other.messages() == []


def test_all_that_match_are_meant_without_being_listed(staff, layer):
    make_rows(150, path='/a/')
    Socket.objects.filter(pk__in=Socket.objects.all()[:30].values('pk')).update(path='/b/')
    address = LIST + '?q=/a/&state=alive'
    page = staff.post(
        address,
        {
            'action': 'send_json',
            'select_across': 1,
            'index': 0,
            '_selected_action': [row.pk for row in Socket.objects.filter(path='/a/')[:100]],
        },
    ).content.decode()
    assert page.count('name="_selected_action"') == 1 and 'This goes to 120 connections.' in page
    response = act(staff, 'send_json', address=address, content='{"type": "NEWS"}')
    assert notices(response) == ['Handed to 120 of 120 connections: {"type":"NEWS"}']
    assert response.redirect_chain == [(address, 302)]
    assert [json.loads(message['text']) for message in sent_to('daphne.response.a!')] == [{'type': 'NEWS'}] * 120


def test_what_a_server_did_not_take_is_a_warning(staff, monkeypatch):
    make_rows(3)
    monkeypatch.setattr('sockets.fanout.send_many', lambda names, message: len(names) - 1)
    for action, (_, fields) in ACTIONS.items():
        if action != 'log_out':
            response = act(staff, action, Socket.objects.all(), **fields)
            (message,) = response.context['messages']
            assert '2 of 3 connections' in str(message) and message.level_tag == 'warning'


@pytest.mark.django_db(transaction=True)
def test_a_person_is_logged_out_everywhere(staff, connect, login, alice, settings):
    here, elsewhere, idle = login(alice), login(alice), login(alice)
    bob = get_user_model().objects.create_user('bob')
    mine, other, his = (connect(RoutedSocketHandler, cookies=cookies) for cookies in (here, elsewhere, login(bob)))
    for each in (mine, other, his):
        each.messages()
    rows = Socket.objects.filter(channel_name=mine.name)
    page = staff.post(LIST, {'action': 'log_out', '_selected_action': rows.get().pk, 'index': 0}).content.decode()
    assert 'ends the sessions of alice in every browser' in page
    response = act(staff, 'log_out', rows)
    assert notices(response) == ['Ended 3 sessions and closed 2 connections. Users: alice.']
    assert [message['close'] for message in mine.messages() + other.messages()] == [4401, 4401]
    assert his.messages() == [] and Socket.objects.get().user == bob
    name = settings.SESSION_COOKIE_NAME
    assert not Session.objects.filter(pk__in=[cookies[name] for cookies in (here, elsewhere, idle)]).exists()
    assert response.context['user'].username == 'admin'


@pytest.mark.django_db(transaction=True)
def test_sessions_that_cannot_be_searched_are_said_to_go_on(staff, alice, monkeypatch, settings):
    make_rows(1, alice)
    monkeypatch.setattr(revocation, 'SESSIONS_READ', 0)
    response = act(staff, 'log_out', Socket.objects.all())
    (message,) = response.context['messages']
    assert 'could not be searched' in str(message) and message.level_tag == 'warning'

    settings.SESSION_ENGINE = 'django.contrib.sessions.backends.signed_cookies'
    staff = Client()
    staff.force_login(get_user_model().objects.get(username='admin'))
    make_rows(1, alice)
    data = {'action': 'log_out', '_selected_action': Socket.objects.get().pk, 'index': 0}
    page = staff.post(LIST, data).content.decode()
    assert 'They stay logged in: django.contrib.sessions.backends.signed_cookies keeps' in page
    response = act(staff, 'log_out', Socket.objects.all())
    assert notices(response) == [
        (
            'Ended 0 sessions and closed 1 connection. Users: alice. They may have more sessions, '
            'which could not be searched; a new password ends those.'
        )
    ]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize('engine', ['db', 'signed_cookies'])
def test_who_logs_himself_out_is_logged_out(db, settings, engine):
    settings.SESSION_ENGINE = 'django.contrib.sessions.backends.' + engine
    settings.SESSION_SAVE_EVERY_REQUEST = True
    admin = get_user_model().objects.create_superuser('admin', 'admin@example.com', 'x')
    browser = Client()
    browser.force_login(admin)
    make_rows(1, admin)
    response = act(browser, 'log_out', Socket.objects.all())
    assert response.status_code == 200 and response.redirect_chain[-1][0].startswith('/admin/login/')
    assert LogEntry.objects.get().user == admin and not Socket.objects.exists()


@pytest.mark.parametrize(
    'query',
    [
        'q=%00',
        'q=a%20%00b',
        'state=%00',
        'login=%00',
        'age=%00',
        'seen=%00',
        'server=%00',
        'o=%00',
        'p=%00',
        'e=%00',
        'user=%00',
        'user__id__exact=%00',
        'path=%00',
        'path__startswith=%00',
        'created__gte=%00',
        '%00=1',
        '_popup=%00',
    ],
)
def test_a_nul_is_no_question_to_a_database(staff, query):
    # PostgreSQL's driver raises, and that was a 500.
    make_rows(1)
    answer = staff.get(LIST + '?' + query)
    assert (answer.status_code, answer['location']) == (302, LIST + '?e=1')
    assert staff.get(answer['location']).status_code == 200


@pytest.mark.parametrize(
    'field, value',
    [
        ('_selected_action', '\0'),
        ('_selected_action', '1\0'),
        ('_selected_action', 'x'),
        ('_selected_action', '9' * 30),
        ('action', '\0'),
        ('content', '{"type": "\0"}'),
        ('select_across', '\0'),
        ('index', '\0'),
        ('code', '\0'),
    ],
)
def test_an_action_with_what_no_row_can_have_is_no_action(staff, field, value):
    make_rows(1)
    data = dict(
        {
            'action': 'send_json',
            '_selected_action': [Socket.objects.get().pk],
            'select_across': 0,
            'index': 0,
            'confirmed': 'yes',
            'content': '{"type": "X"}',
            'code': 1000,
        },
        **{field: value},
    )
    answer = staff.post(LIST, data)
    assert (answer.status_code, answer['location']) == (302, LIST + '?e=1')
    assert not LogEntry.objects.exists()
