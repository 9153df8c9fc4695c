"""Sessions and users of clients that connect at the same time, which are read together."""

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import ModelBackend
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from sockets import RoutedSocketHandler
from sockets.connection import openings as module
from sockets.connection.openings import openings
from sockets.models import Socket

from .client import ON_CHANNELS_1, Connection
from .conftest import OUR_LAYERS

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.parametrize('layer', [OUR_LAYERS[0]], indirect=True)]


class Page(RoutedSocketHandler):
    def connect(self, message, **kwargs):
        self.session['seen'] = self.user.get_username()
        self.user.first_name = 'changed'
        super().connect(message, **kwargs)


class Waiting:
    """What ``openings`` asks of a connection: who waits behind it."""

    def __init__(self, name, key, line=()):
        self.name, self.key, self.line = name, key, list(line)

    @property
    def content(self):
        return {'headers': [(b'cookie', f'a=b; sessionid={self.key}'.encode())]}

    def waiting(self, count):
        return [(other.name, other.content) for other in self.line[:count]]


@pytest.fixture(autouse=True)
def nothing_found(monkeypatch):
    # A slow machine is not to read twice.
    monkeypatch.setattr(module, 'GOOD_FOR', 60)
    openings._found.clear()
    yield
    openings._found.clear()


@pytest.fixture
def people(django_user_model):
    """Three users and the keys of their sessions."""
    return [person(django_user_model, name) for name in ('ann', 'bob', 'cat')]


def person(model, name):
    user, client = model.objects.create_user(name, password='x'), Client()
    client.force_login(user, backend='django.contrib.auth.backends.ModelBackend')
    return user, client.cookies['sessionid'].value


def line_of(keys):
    connections = [Waiting(f'a!{number}', key) for number, key in enumerate(keys)]
    for number, waiting in enumerate(connections):
        waiting.line = connections[number + 1 :]
    return connections


def queries(function):
    with CaptureQueriesContext(connection) as context:
        found = function()
    return found, [query['sql'] for query in context.captured_queries]


def test_whoever_waits_is_read_by_one_query_for_sessions_and_one_for_users(layer, people):
    line = line_of([key for _, key in people] * 20)
    found, asked = queries(lambda: [openings.take(waiting, waiting.key) for waiting in line])
    assert len(asked) == 2
    assert [(store.session_key, user) for store, user in found] == [(key, user) for user, key in people] * 20
    assert [store['_auth_user_id'] for store, _ in found] == [str(user.pk) for user, _ in people] * 20
    # Nobody shares what can be changed.
    assert len({id(user) for _, user in found}) == len({id(store._session) for store, _ in found}) == 60
    assert len(openings) == 0


def test_a_lone_client_is_read_for_itself(layer, people):
    alone = Waiting('a!1', people[0][1])
    assert queries(lambda: openings.take(alone, alone.key)) == (None, [])


def test_who_has_come_after_the_read_is_not_judged_by_it(layer, people, monkeypatch):
    first, second, *_ = line_of([key for _, key in people])
    assert openings.take(first, first.key)
    later = module.time.monotonic() + 61
    monkeypatch.setattr(module.time, 'monotonic', lambda: later)
    Session.objects.filter(session_key=second.key).delete()
    assert openings.take(second, second.key) is None


def change_password(user, key):
    user.set_password('y')
    user.save()


@pytest.mark.parametrize(
    'change',
    [
        change_password,
        lambda user, key: get_user_model().objects.filter(pk=user.pk).update(is_active=False),
        lambda user, key: Session.objects.filter(pk=key).update(expire_date=timezone.now()),
        lambda user, key: Session.objects.filter(pk=key).delete(),
        lambda user, key: Session.objects.filter(pk=key).update(session_data='nonsense'),
        lambda user, key: user.delete(),
    ],
)
def test_what_is_unusual_is_left_to_django(layer, people, change):
    change(*people[1])
    first, second, third = line_of([key for _, key in people])
    found = [openings.take(waiting, waiting.key) for waiting in (first, second, third)]
    assert [entry and entry[1] and str(entry[1]) for entry in (found[0], found[2])] == ['ann', 'cat']
    assert found[1] is None or not found[1][1].is_authenticated


class Own(ModelBackend):
    def get_user(self, user_id):
        return super().get_user(user_id)


def test_so_are_backends_and_engines_of_the_project(layer, people, settings):
    settings.AUTHENTICATION_BACKENDS = ['tests.test_openings.Own']
    user, client = people[0][0], Client()
    client.force_login(user)
    first, second = line_of([client.cookies['sessionid'].value, people[1][1]])
    # That of bob is no backend of this project any more.
    assert openings.take(first, first.key) is openings.take(second, second.key) is None
    settings.SESSION_ENGINE = 'django.contrib.sessions.backends.cache'
    assert queries(lambda: openings.take(first, first.key)) == (None, [])


def test_a_visitor_with_a_session_is_nobody(layer, people):
    client = Client()
    session = client.session
    session['colour'] = 'red'
    session.save()
    first, second = line_of([session.session_key, people[0][1]])
    store, user = openings.take(first, first.key)
    assert store['colour'] == 'red' and not user.is_authenticated


def test_a_session_that_was_changed_between_is_read_again(layer, people):
    first, second, _ = line_of([key for _, key in people])
    assert openings.take(first, first.key)
    assert openings.take(second, people[2][1]) is None


@pytest.mark.skipif(not ON_CHANNELS_1, reason='In the sandbox of Channels 4, each connect is taken at once.')
def test_connects_that_wait_together_are_each_opened_as_before(layer, people):
    line = [
        Connection('/page/', handler=Page, cookies={'sessionid': key}, connect=False)
        for _, key in people
        for _ in range(4)
    ]
    for one in line:
        one._connection.put('websocket.connect', **one._handshake())
    _, asked = queries(line[0]._settle)
    assert all({'accept': True} in one.messages() for one in line)
    rows = {row.channel_name: row for row in Socket.objects.all()}
    assert [(rows[one.name].user_id, rows[one.name].session_id) for one in line] == [
        (user.pk, key) for user, key in people for _ in range(4)
    ]
    # The connect function has written to it.
    assert {session.get_decoded()['seen'] for session in Session.objects.all()} == {'ann', 'bob', 'cat'}
    assert get_user_model().objects.filter(first_name='changed').count() == 0
    assert len([sql for sql in asked if 'FROM "auth_user"' in sql or 'FROM `auth_user`' in sql]) == 1
