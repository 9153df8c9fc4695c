"""Options of a handler class: those that there are count, and those that there are not are refused."""

import json

import pytest
from django import forms
from django.contrib.auth.mixins import LoginRequiredMixin
from django.contrib.auth.models import Permission
from django.core.exceptions import ImproperlyConfigured
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter, signals
from sockets.models import Socket
from sockets.multiplexing import SocketDemultiplexer

from .client import ON_CHANNELS_1
from .conftest import both_ways

seen = []


class Staff(RoutedSocketHandler):
    # It let everybody in.
    permission = 'sockets.delete_socket'
    routes = (*RoutedSocketHandler.routes, ('LOOK', lambda socket: seen.append('frame') or {'type': 'SEEN'}))

    def connect(self, message, **kwargs):
        seen.append('connect')
        self.accept()


@pytest.fixture(autouse=True)
def nothing_seen():
    seen.clear()


@pytest.fixture
def may_delete(db):
    return Permission.objects.get(codename='delete_socket')


REFUSED = {'type': 'ERROR', 'code': 'not_allowed', 'details': 'You may not use this socket.'}


def assert_refused(connection):
    accept, told, close = connection.messages()
    assert accept == {'accept': True} and close == {'close': 4403}
    assert json.loads(told['text']) == REFUSED
    connection.disconnect(4403)
    assert seen == [] and not Socket.objects.exists()


@pytest.mark.django_db
@both_ways
def test_the_permission_of_a_handler_class_counts_at_connect_for_anonymous_clients_too(connect, alice, login):
    for cookies in (None, login(alice)):
        # The client of streams looks at what comes on its stream; this comes for the connection as a whole.
        assert_refused(connect(Staff, cookies=cookies))


@pytest.mark.django_db
@both_ways
def test_the_permission_of_a_handler_class_counts_at_each_frame(connect, alice, login, may_delete):
    alice.user_permissions.add(may_delete)
    staff = connect(Staff, cookies=login(alice))
    assert staff.send({'type': 'LOOK', 'ref': 1}) == [{'type': 'SEEN', 'ref': 1}]
    alice.user_permissions.clear()
    outcomes = []

    def listen(outcome, **kwargs):
        outcomes.append(outcome)

    signals.message_handled.connect(listen)
    staff._put(text='{"type": "LOOK", "ref": 2}')
    told, close = staff.messages()
    signals.message_handled.disconnect(listen)
    assert json.loads(told['text']) == {**REFUSED, 'ref': 2} and close == {'close': 4403}
    assert seen == ['connect', 'frame'] and outcomes == ['not_allowed']


@pytest.mark.django_db
def test_the_permission_of_a_stream_is_that_of_the_connection_and_of_all_its_streams(connect, alice, login, may_delete):
    free = type('Free', (RoutedSocketHandler,), {'routes': Staff.routes, 'connect': Staff.connect})
    both = type('Both', (SocketDemultiplexer,), {'streams': {'free': free, 'staff': Staff}})
    outer = type('Outer', (SocketDemultiplexer,), {'streams': {'both': both}})
    own = type('Own', (SocketDemultiplexer,), {'streams': {'free': free}, 'permission': 'sockets.delete_socket'})
    for handler in (both, outer, own):
        assert_refused(connect(handler, cookies=login(alice)))
    alice.user_permissions.add(may_delete)
    connection = connect(own, cookies=login(alice))
    frame = {'stream': 'free', 'payload': {'type': 'LOOK'}}
    assert connection.send(frame) == [{'stream': 'free', 'payload': {'type': 'SEEN'}}]
    alice.user_permissions.clear()
    connection._put(text=json.dumps(frame))
    told, close = connection.messages()
    assert json.loads(told['text']) == REFUSED and close == {'close': 4403}


@pytest.mark.django_db
@both_ways
def test_several_permissions_are_all_wanted_and_a_login_first_if_that_is_wanted_too(connect, alice, login, may_delete):
    names = ['sockets.delete_socket', 'auth.add_group']
    several = type('Several', (Staff,), {'permission': names, 'login_required': True})
    assert connect(several).messages()[-1] == {'close': 4401}
    alice.user_permissions.add(may_delete)
    assert connect(several, cookies=login(alice)).messages()[-1] == {'close': 4403}
    alice.user_permissions.add(Permission.objects.get(codename='add_group'))
    assert connect(several, cookies=login(alice)).messages() == [{'accept': True}]
    # A subclass may let others in.
    for nothing in ((), None, []):
        assert connect(type('Open', (several,), {'permission': nothing, 'login_required': False})).messages() == [
            {'accept': True}
        ]


@pytest.mark.channels1('a routing of Channels 4 gives a handler class no attributes')
@pytest.mark.django_db
def test_a_permission_given_in_a_routing_counts(connect):
    handler = RoutedSocketHandler.as_route(path='^/x/$', attrs={'permission': 'a.b'}).consumer
    assert_refused(connect(handler))


@pytest.mark.django_db
def test_an_async_has_perms_is_run_before_its_result_is_used(connect, alice, login, monkeypatch):
    async def has_perms(self, names):
        return False

    monkeypatch.setattr(type(alice), 'has_perms', has_perms)
    assert_refused(connect(Staff, cookies=login(alice)))


@pytest.mark.parametrize(
    'permission',
    ['staff', 'app.', '.may', '', True, 7, ['a.b', None], lambda self: 'a.b', property(lambda self: 'a.b'), {'a.b': 1}],
)
def test_a_wrong_permission_is_an_error_at_import(permission):
    with pytest.raises(ImproperlyConfigured, match=r"Members\.permission: A permission is a name like 'app.may_do"):
        type('Members', (RoutedSocketHandler,), {'permission': permission})


class BetForm(forms.Form):
    pass


@pytest.mark.parametrize(
    'attributes, remedy',
    [
        ({'rate': 5}, "Route('TYPE', 'method_name', rate=...)"),
        ({'rate': '5/s'}, "SOCKETS['MAX_FRAMES_PER_SECOND']"),
        ({'per': 'user'}, 'per=...'),
        ({'form': BetForm}, "@socket.route('TYPE', form=...)"),
        ({'permissions': ['a.b']}, 'it is called permission.'),
        ({'permission_required': 'a.b'}, 'it is called permission.'),
        ({'permission_classes': []}, 'it is called permission.'),
        ({'permision': 'a.b'}, 'it is called permission.'),
        ({'login_requierd': True}, 'it is called login_required.'),
        ({'loginrequired': True}, 'it is called login_required.'),
        ({'MAX_MESSAGE_SIZE': 100}, "SOCKETS['MAX_MESSAGE_SIZE']"),
        ({'max_bad_frames': 3}, "SOCKETS['MAX_BAD_FRAMES']"),
        ({'require_login': True}, 'it is called login_required.'),
        ({'middlewares': []}, 'it is called middleware.'),
        ({'requires_auth': True}, 'it is called login_required.'),
        ({'require_permission': 'a.b'}, 'it is called permission.'),
        ({'middleware_classes': []}, 'it is called middleware.'),
    ],
)
def test_an_attribute_that_only_looks_like_an_option_is_an_error_that_names_the_right_one(attributes, remedy):
    (name,) = attributes
    mixin = type('Mixin', (), attributes)
    makers = [
        lambda: type('Members', (RoutedSocketHandler,), attributes),
        lambda: type('Members', (mixin, RoutedSocketHandler), {}),
        lambda: type('Members', (SocketDemultiplexer,), attributes),
    ]
    if ON_CHANNELS_1:
        makers.append(lambda: RoutedSocketHandler.as_route(attrs=attributes, path='^/$'))
    for make in makers:
        with pytest.raises(ImproperlyConfigured, match=rf'\.{name} has no effect') as caught:
            make()
        assert remedy in str(caught.value)
    with pytest.raises(AttributeError, match='attributes of a handler class'):
        setattr(SocketRouter(), name, attributes[name])


def test_a_guard_is_of_a_router_and_on_a_handler_class_an_error():
    # It was an attribute that nobody read, and the socket was open.
    with pytest.raises(ImproperlyConfigured, match=r"Members\.guard has no effect: .*SocketRouter\(handler=.*'view'"):
        type('Members', (RoutedSocketHandler,), {'guard': 'view'})
    router = SocketRouter(guard='view')
    router.guard = False
    assert router.guard is False


def test_what_a_router_sends_is_given_as_it_is_made():
    with pytest.raises(AttributeError, match='attributes of a handler class'):
        SocketRouter().sends = {'SAID': None}


def test_methods_of_such_names_are_the_authors_own():
    class Own(RoutedSocketHandler):
        routes = (('RATE', 'rate'),)
        permissions = None
        rates = [1, 2]
        _rate = 44100
        formats = ('a', 'b')
        mission = 'to boldly go'

        def rate(self, content):
            return {'type': 'RATED'}

        @property
        def form(self):
            return BetForm

        @staticmethod
        def permission_classes():
            pass

    assert Own._route_table.match('RATE') is not None


def test_a_mixin_that_guards_views_is_refused_in_a_handler_class():
    with pytest.raises(ImproperlyConfigured, match='LoginRequiredMixin, which guards views.*login_required'):
        type('Members', (LoginRequiredMixin, RoutedSocketHandler), {})


def test_what_a_router_was_told_elsewhere_is_not_ignored():
    class Page(View):
        socket = SocketRouter()

    for name in ('login_required', 'permission', 'routes'):
        with pytest.raises(AttributeError, match=r'SocketRouter\(handler=ThatClass\)'):
            setattr(Page.socket, name, True)
