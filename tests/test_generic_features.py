"""What Channels' generic consumers can do, on our handlers."""
import functools

import pytest
from channels import Channel, Group, channel_layers
from channels.routing import route_class
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter
from sockets.models import Socket
from sockets.testing import work

from .client import Connection

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
    user = {'channel_session': None, 'channel_session_user': ''}.get(attribute, 'alice')
    assert page.send({'type': 'ASK'}) == [{'user': user, 'kept': 7, 'ours': 'alice'}]


def test_group_send_and_the_groups_of_a_connection(connect):
    class Grouped(Handler):
        def connection_groups(self, **kwargs):
            return ['of-{}'.format(kwargs['room'])]

    tea, milk = [connect(Grouped, '/{}/'.format(room), pattern=r'^/(?P<room>\w+)/$') for room in ('tea', 'milk')]
    tea.messages(), milk.messages()
    Grouped.group_send('of-tea', text='{"type": "TEA"}')
    assert (tea.received(), milk.received()) == ([{'type': 'TEA'}], [])
