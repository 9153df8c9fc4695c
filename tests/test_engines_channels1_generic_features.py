"""What Channels' generic consumers can do, on our handlers."""

import functools

import pytest
from channels import Channel, Group, channel_layers
from channels.routing import route_class
from django.contrib.sessions.models import Session
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter
from sockets.connection import disconnect
from sockets.models import Socket
from sockets.testing import work

from .client import Connection
from .conftest import both_ways

pytestmark = pytest.mark.django_db


class Page(View):
    socket = SocketRouter()

    @socket.route('ECHO')
    def on_echo(socket, content):
        return content

    @socket.route('FAIL')
    def on_fail(socket):
        raise ValueError()


Handler = Page.socket.Handler


@pytest.fixture
def routed(layer):
    """A function that routes a consumer, as the only one."""

    def put(route):
        router = channel_layers['default'].router
        router.root.routing.insert(0, route)
        router.channels = router.root.channel_names()

    return put


def test_as_route_takes_attributes_and_filters(routed, alice, login):
    routed(Handler.as_route(path=r'^/page/$', attrs={'login_required': True, 'groups': ['pages']}))
    assert Connection('/page/').messages()[-1]['close'] == 4401
    page = Connection('/page/', cookies=login(alice))
    page.messages()
    Group('pages').send({'text': '{"type": "ALL"}'}, immediately=True)
    assert page.received() == [{'type': 'ALL'}]
    assert not Handler.login_required


def test_route_class_takes_filters_of_the_message(routed):
    routed(route_class(Handler, path=r'^/(?P<name>\w+)/$', reply_channel=r'.+!'))
    page = Connection('/anything/')
    page.received()
    assert page.send({'type': 'ECHO'}) == [{'type': 'ECHO'}]


def test_method_mapping_adds_channels_of_a_project(routed):
    done = []

    class Jobs(Handler):
        method_mapping = {**Handler.method_mapping, 'jobs': 'on_job'}

        def on_job(self, message, **kwargs):
            done.append(message['n'])

    routed(route_class(Jobs, path='^/page/$'))
    page = Connection('/page/')
    assert Jobs.channel_names() == {'websocket.connect', 'websocket.receive', 'websocket.disconnect', 'jobs'}
    Channel('jobs').send({'n': 1, 'path': '/page/', 'reply_channel': page.name}, immediately=True)
    work()
    assert done == [1]


def test_get_handler_wraps_each_message(connect):
    seen = []

    def note(function):
        @functools.wraps(function)
        def wrapped(message, **kwargs):
            seen.append(message.channel.name)
            return function(message, **kwargs)

        return wrapped

    class Noted(Handler):
        def get_handler(self, message, **kwargs):
            return note(super().get_handler(message, **kwargs))

    page = connect(Noted)
    page.received()
    assert page.send({'type': 'ECHO'}) == [{'type': 'ECHO'}]
    assert seen == ['websocket.connect', 'websocket.receive']


def test_strict_ordering_handles_all_and_goes_on_after_a_failure(connect):
    class Strict(Handler):
        strict_ordering = True

    page = connect(Strict)
    page.received()
    assert page.send({'type': 'FAIL', 'ref': 1})[0]['code'] == 'server_error'
    assert page.send({'type': 'ECHO', 'n': 2}) == [{'type': 'ECHO', 'n': 2}]
    page.disconnect()
    assert not Socket.objects.exists()


@pytest.mark.parametrize('attribute', ['http_user', 'http_user_and_session', 'channel_session', 'channel_session_user'])
def test_channels_sessions_are_on_the_message(connect, alice, login, attribute):
    class Old(RoutedSocketHandler):
        routes = ('ASK', 'on_ask'), ('KEEP', 'on_keep')

        def on_ask(self, content):
            session = self.message.channel_session
            user = getattr(self.message, 'user', None)
            return {'user': user and user.get_username(), 'kept': session.get('kept'), 'ours': self.user.get_username()}

        def on_keep(self, content):
            self.message.channel_session['kept'] = content['n']

    setattr(Old, attribute, True)
    page = connect(Old, cookies=login(alice))
    page.received()
    page.send({'type': 'KEEP', 'n': 7})
    assert page.send({'type': 'ASK'}) == [{'user': 'alice', 'kept': 7, 'ours': 'alice'}]


ASKS = [None, 'http_user', 'http_user_and_session', 'channel_session_user']


@pytest.mark.parametrize('attribute', ASKS)
@both_ways
def test_every_hook_and_frame_finds_the_user_and_the_session_on_its_message(connect, alice, login, attribute):
    # Where http_user was not set, there was an AttributeError.
    seen = []

    def note(where, socket):
        seen.append((where, socket.message.user, socket.message.http_session.get('n')))

    def middleware(next):
        def handle(socket, content):
            note('around ' + socket.event, socket)
            return next(socket, content)

        return handle

    class Old(RoutedSocketHandler):
        def connect(self, message, **kwargs):
            assert message is self.message
            self.accept()
            note('connect', self)

        def disconnect(self, message, **kwargs):
            note('disconnect', self)

        def on_bytes(self, data):
            note('bytes', self)

        def default_route(self, content):
            note('default', self)
            self.message.http_session['n'] = content['n']

        def connection_groups(self, **kwargs):
            note('groups', self)
            return [f'of-{self.message.user.pk}']

    class Page(View):
        socket = SocketRouter(
            handler=type(
                'Asks',
                (Old,),
                {attribute: True, 'middleware': [middleware]} if attribute else {'middleware': [middleware]},
            )
        )
        on_open = socket.connect(lambda socket, message: note('view connect', socket))
        on_close = socket.disconnect(lambda socket, message: note('view disconnect', socket))

        @socket.route('ASK')
        def on_ask(socket):
            note('route', socket)

    page = connect(Page.socket.Handler, cookies=login(alice))
    for content in ({'type': 'ASK'}, {'type': 'X', 'n': 5}, {'type': 'ASK'}):
        page.send(content)
    is_alone = type(page) is Connection
    page.send(b'bytes')
    page.disconnect()
    assert {user for _, user, _ in seen} == {alice}
    # A stream has no groups and no binary frames of its own.
    assert {where for where, _, _ in seen} == {
        'around connect',
        'connect',
        'view connect',
        'around receive',
        'route',
        'default',
        'around disconnect',
        'disconnect',
        'view disconnect',
        *(['bytes', 'groups'] if is_alone else []),
    }
    assert [n for where, _, n in seen if where == 'route'] == [None, 5]
    assert [n for where, _, n in seen if where == 'disconnect'] == [5]


@pytest.mark.parametrize('attribute', ASKS)
def test_what_is_on_a_message_costs_no_query_until_it_is_touched(
    connect, alice, login, attribute, django_assert_num_queries
):
    handler = type(
        'Old',
        (RoutedSocketHandler,),
        {
            attribute or 'unused': True,
            'routes': (
                ('NOTHING', lambda socket: {'type': 'DONE'}),
                ('ASK', lambda socket: {'user': socket.message.user.pk, 'session': bool(socket.message.http_session)}),
            ),
        },
    )
    page = connect(handler, cookies=login(alice))
    sessions = Session.objects.count()
    page.send({'type': 'NOTHING'})
    with django_assert_num_queries(0):
        assert page.send({'type': 'NOTHING'}) == [{'type': 'DONE'}]
    with django_assert_num_queries(1):
        assert page.send({'type': 'ASK'}) == [{'user': alice.pk, 'session': True}]
    # http_user left one behind for each connection.
    page.disconnect()
    assert Session.objects.count() == sessions == 1


def test_a_stranger_is_an_anonymous_user_without_a_session(connect):
    handler = type(
        'Old',
        (RoutedSocketHandler,),
        {
            'routes': (
                (
                    'ASK',
                    lambda socket: {
                        'known': socket.message.user.is_authenticated,
                        'session': socket.message.http_session is not None,
                        'channel_session': hasattr(socket.message, 'channel_session'),
                    },
                ),
            )
        },
    )
    page = connect(handler)
    assert page.send({'type': 'ASK'}) == [{'known': False, 'session': False, 'channel_session': False}]


def test_what_somebody_has_put_on_a_message_stays_there(connect):
    class Token(RoutedSocketHandler):
        routes = (('ASK', lambda socket: {'user': socket.message.user}),)

        def receive(self, content, **kwargs):
            self.message.user = content['token']
            return super().receive(content, **kwargs)

    assert connect(Token).send({'type': 'ASK', 'token': 'robot'}) == [{'user': 'robot'}]


def test_the_groups_of_a_user_are_left_when_somebody_else_ends_the_connection(connect, alice, login):
    class Grouped(Handler):
        def connection_groups(self, **kwargs):
            return [f'of-{self.message.user.pk}']

    page = connect(Grouped, cookies=login(alice))
    row = Socket.objects.get()
    assert row.remove()
    disconnect.end(row, 1012, None)
    page.messages()
    Group(f'of-{alice.pk}').send({'text': '{}'}, immediately=True)
    assert page.received() == []


def test_group_send_and_the_groups_of_a_connection(connect):
    class Grouped(Handler):
        def connection_groups(self, **kwargs):
            return ['of-{}'.format(kwargs['room'])]

    tea, milk = [connect(Grouped, f'/{room}/', pattern=r'^/(?P<room>\w+)/$') for room in ('tea', 'milk')]
    tea.messages(), milk.messages()
    Grouped.group_send('of-tea', text='{"type": "TEA"}')
    assert (tea.received(), milk.received()) == ([{'type': 'TEA'}], [])
