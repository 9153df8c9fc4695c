"""A view that asks its visitors for something, and its socket."""

import functools
import json

import pytest
from django.contrib.admin.views.decorators import staff_member_required
from django.contrib.auth.decorators import login_required, permission_required, user_passes_test
from django.contrib.auth.mixins import (
    AccessMixin,
    LoginRequiredMixin,
    PermissionRequiredMixin,
    UserPassesTestMixin,
)
from django.contrib.auth.models import Permission
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import Http404
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.generic import TemplateView, View

from sockets import RoutedSocketHandler, SocketRouter
from sockets.access import guards
from sockets.multiplexing import SocketDemultiplexer
from sockets.routing import route_class

from .conftest import both_ways


class ManagerRequiredMixin(AccessMixin):
    """As Django's documentation has it."""

    def dispatch(self, request, *args, **kwargs):
        if not request.user.is_superuser:
            return self.handle_no_permission()
        return super().dispatch(request, *args, **kwargs)


class OldLoginRequiredMixin:
    """As people have written it since Django 1.0."""

    @method_decorator(login_required)
    def dispatch(self, *args, **kwargs):
        return super().dispatch(*args, **kwargs)


def guarded(*bases, decorate=None, guard='view', **attributes):
    """Return a view with a socket of ``guard``, and a route."""
    handler = attributes.pop('handler', None)
    router = SocketRouter(handler=handler, guard=guard)
    router.route('PEEK')(lambda socket: {'type': 'SEEN'})
    view = type('Page', (*bases, View), dict(attributes, socket=router, __module__=__name__))
    return view if decorate is None else decorate(view)


def on_dispatch(*decorators):
    return method_decorator(list(decorators), name='dispatch')


def says_no(user):
    raise PermissionDenied


STAFF, CHANGE = {'is_staff': True}, 'auth.change_group'
# A view, the code that strangers and alice get, and what makes alice one who may.
VIEWS = [
    (lambda: guarded(LoginRequiredMixin), 4401, None, {}),
    (lambda: guarded(OldLoginRequiredMixin), 4401, None, {}),
    (lambda: guarded(decorate=on_dispatch(login_required)), 4401, None, {}),
    (lambda: guarded(decorate=on_dispatch(never_cache, login_required)), 4401, None, {}),
    (lambda: guarded(get=method_decorator(login_required)(lambda self, request: None)), 4401, None, {}),
    (lambda: guarded(PermissionRequiredMixin, permission_required=CHANGE), 4403, 4403, CHANGE),
    (lambda: guarded(LoginRequiredMixin, PermissionRequiredMixin, permission_required=(CHANGE,)), 4401, 4403, CHANGE),
    (
        lambda: guarded(PermissionRequiredMixin, has_permission=lambda self: self.request.user.is_staff),
        4403,
        4403,
        STAFF,
    ),
    (lambda: guarded(PermissionRequiredMixin, get_permission_required=lambda self: (CHANGE,)), 4403, 4403, CHANGE),
    (lambda: guarded(decorate=on_dispatch(permission_required(CHANGE))), 4403, 4403, CHANGE),
    (lambda: guarded(decorate=on_dispatch(permission_required(CHANGE, raise_exception=True))), 4403, 4403, CHANGE),
    (lambda: guarded(decorate=on_dispatch(staff_member_required)), 4403, 4403, STAFF),
    (lambda: guarded(decorate=on_dispatch(user_passes_test(lambda user: user.is_staff))), 4403, 4403, STAFF),
    (lambda: guarded(UserPassesTestMixin, test_func=lambda self: self.request.user.is_staff), 4403, 4403, STAFF),
    (
        lambda: guarded(
            UserPassesTestMixin, mine=lambda self: self.request.user.is_staff, get_test_func=lambda self: self.mine
        ),
        4403,
        4403,
        STAFF,
    ),
    (
        lambda: guarded(
            UserPassesTestMixin,
            test_func=lambda self: (
                self.kwargs['name'] == 'tea' and (self.request.path == '/tea/' and self.request.user.is_staff)
            ),
        ),
        4403,
        4403,
        STAFF,
    ),
]


def close_of(connection):
    return connection.messages()[-1].get('close')


@pytest.mark.parametrize('make, stranger, alices, key', VIEWS)
@pytest.mark.django_db
@both_ways
def test_a_socket_that_takes_over_the_guard_of_its_view_accepts_the_same_users(
    connect, login, alice, make, stranger, alices, key
):
    open_ = functools.partial(connect, make().socket.Handler, '/tea/', pattern=r'^/(?P<name>\w+)/$')
    # All of them were open to everybody.
    assert close_of(open_()) == stranger
    assert close_of(open_(cookies=login(alice))) == alices
    if isinstance(key, dict):
        type(alice).objects.filter(pk=alice.pk).update(**key)
    else:
        alice.user_permissions.add(Permission.objects.get(codename=key.partition('.')[2]))
    page = open_(cookies=login(alice))
    assert page.messages() == [{'accept': True}] and page.send({'type': 'PEEK'}) == [{'type': 'SEEN'}]
    if key == {}:
        return
    # It is asked for again with each frame.
    type(alice).objects.filter(pk=alice.pk).update(is_staff=False)
    alice.user_permissions.clear()
    page._put(text='{"type": "PEEK", "ref": 1}')
    told, close = page.messages()
    assert json.loads(told['text']) == {
        'type': 'ERROR',
        'code': 'not_allowed',
        'details': 'You may not use this socket.',
        'ref': 1,
    }
    assert close == {'close': 4403}


@pytest.mark.parametrize('refuse', [PermissionDenied(), Http404()])
@pytest.mark.django_db
def test_a_test_that_raises_or_fails_refuses(connect, refuse):
    def test_func(self):
        raise refuse

    assert close_of(connect(guarded(UserPassesTestMixin, test_func=test_func).socket.Handler)) == 4403
    assert close_of(connect(guarded(UserPassesTestMixin, test_func=lambda self: 1 / 0).socket.Handler)) is not None
    assert close_of(connect(guarded(UserPassesTestMixin).socket.Handler)) is not None
    assert close_of(connect(guarded(PermissionRequiredMixin).socket.Handler)) is not None
    assert close_of(connect(guarded(decorate=on_dispatch(user_passes_test(says_no))).socket.Handler)) == 4403


async def never(*args):
    return False


@pytest.mark.parametrize(
    'make',
    [
        lambda: guarded(UserPassesTestMixin, test_func=never),
        lambda: guarded(PermissionRequiredMixin, has_permission=never),
        lambda: guarded(decorate=on_dispatch(user_passes_test(never))),
    ],
)
@pytest.mark.django_db
def test_an_async_test_is_run_before_its_result_is_used(connect, make):
    assert close_of(connect(make().socket.Handler)) == 4403


@pytest.mark.django_db
def test_a_guard_is_asked_for_beside_what_the_handler_class_asks_for(connect, login, alice):
    base = type('Members', (RoutedSocketHandler,), {'permission': 'auth.add_group'})
    handler = guarded(PermissionRequiredMixin, permission_required=CHANGE, handler=base).socket.Handler
    for codename in ('change_group', 'add_group'):
        assert close_of(connect(handler, cookies=login(alice))) == 4403
        alice.user_permissions.add(Permission.objects.get(codename=codename))
    assert connect(handler, cookies=login(alice)).messages() == [{'accept': True}]
    # A view of its own on top asks for both.
    above = guarded(UserPassesTestMixin, test_func=lambda self: self.request.user.is_staff, handler=handler)
    assert close_of(connect(above.socket.Handler, cookies=login(alice))) == 4403


@pytest.mark.django_db
def test_a_demultiplexer_asks_for_what_the_views_of_its_streams_do(connect, login, alice):
    staff = guarded(UserPassesTestMixin, test_func=lambda self: self.request.user.is_staff).socket.Handler
    both = type('Both', (SocketDemultiplexer,), {'streams': {'staff': staff, 'other': RoutedSocketHandler}})
    outer = type('Outer', (SocketDemultiplexer,), {'streams': {'both': both}})
    for handler in (both, outer):
        assert close_of(connect(handler, cookies=login(alice))) == 4403


@pytest.mark.django_db
def test_a_guard_that_asks_the_view_costs_no_query_of_its_own(connect, login, alice, django_assert_num_queries):
    # What a row keeps of the request was asked for with each frame, where another process holds the connection.
    alice.is_staff = True
    alice.save()
    page = guarded(UserPassesTestMixin, test_func=lambda self: self.request.user.is_staff)
    connection = connect(page.socket.Handler, cookies=login(alice))
    connection.send({'type': 'PEEK'})
    with django_assert_num_queries(1):
        assert connection.send({'type': 'PEEK'}) == [{'type': 'SEEN'}]


@pytest.mark.parametrize('guard', ['views', True, 'login', LoginRequiredMixin, '', 0])
def test_a_wrong_guard_is_an_error(guard):
    with pytest.raises(TypeError, match="takes 'view'"):
        SocketRouter(guard=guard)


def dispatch(self, request, *args, **kwargs):
    if request.GET.get('key') != 'secret':
        raise PermissionDenied
    return View.dispatch(self, request, *args, **kwargs)


def homemade(function):
    @functools.wraps(function)
    def wrapped(request, *args, **kwargs):
        return function(request, *args, **kwargs)

    return wrapped


@pytest.mark.parametrize(
    'make, word',
    [
        (lambda: guarded(), 'has no mixin or decorator'),
        (lambda: guarded(TemplateView), 'has no mixin or decorator'),
        (lambda: guarded(ManagerRequiredMixin), 'ManagerRequiredMixin'),
        (lambda: guarded(LoginRequiredMixin, dispatch=dispatch), r'dispatch\(\)'),
        (lambda: guarded(LoginRequiredMixin, decorate=on_dispatch(homemade)), r'homemade'),
        # It was left out without a word.
        (lambda: guarded(LoginRequiredMixin, get=method_decorator(homemade)(lambda self, request: None)), r'homemade'),
        (lambda: guarded(LoginRequiredMixin, get=homemade(lambda self, request: None)), r'lambda'),
        (lambda: guarded(type('GroupRequiredMixin', (), {'group_required': 'staff'})), 'GroupRequiredMixin'),
        (lambda: guarded(permission_classes=[type('IsAuthenticated', (), {})]), 'IsAuthenticated'),
    ],
)
def test_what_cannot_be_taken_over_is_an_error_and_leaves_nothing_open(make, word):
    with pytest.raises(ImproperlyConfigured, match=word):
        make().socket.Handler


def test_a_router_on_no_view_has_no_guard_to_take_over():
    with pytest.raises(ImproperlyConfigured, match='is not an attribute of a view'):
        SocketRouter(guard='view').Handler


def test_a_page_asks_for_nothing_whatever_it_does():
    def get(self, request, more=homemade):
        return super(Page, self).get(request, more)

    Page = guarded(LoginRequiredMixin, get=method_decorator(never_cache)(get))
    assert Page.socket.Handler.login_required


def test_a_dispatch_that_only_passes_on_asks_for_nothing():
    class Page(LoginRequiredMixin, View):
        socket = SocketRouter(guard='view')

        def dispatch(self, *args, **kwargs):
            return super().dispatch(*args, **kwargs)

    assert Page.socket.Handler.login_required


@pytest.fixture
def found(monkeypatch):
    """A function that returns what the checks say of the sockets of views: ids, and the messages."""
    from sockets.checks import handlers
    from sockets.testing import sandbox

    def check(*views, routing=None):
        monkeypatch.setattr(handlers, 'attached_routers', {view.socket for view in views})
        monkeypatch.setattr(handlers, '_leaves', lambda known: [])
        routing = (
            [route_class(view.socket.Handler, path=f'^/{n}/$') for n, view in enumerate(views)]
            if routing is None
            else routing
        )
        with sandbox(routing=routing):
            return handlers.check_handlers()

    return check


@pytest.mark.parametrize('guard', [None, False])
@pytest.mark.parametrize(
    'bases, decorate, attributes, named',
    [
        ((LoginRequiredMixin,), None, {}, 'LoginRequiredMixin'),
        ((OldLoginRequiredMixin,), None, {}, 'login_required'),
        ((PermissionRequiredMixin,), None, {'permission_required': CHANGE}, 'PermissionRequiredMixin'),
        ((UserPassesTestMixin,), None, {'test_func': lambda self: True}, 'UserPassesTestMixin'),
        ((), on_dispatch(login_required), {}, 'login_required'),
        ((), on_dispatch(permission_required(CHANGE)), {}, 'permission_required'),
        ((), None, {'get': method_decorator(login_required)(lambda self, request: None)}, 'login_required'),
        ((ManagerRequiredMixin,), None, {}, 'ManagerRequiredMixin'),
        ((type('LoginRequiredMixin', (), {}),), None, {}, 'LoginRequiredMixin'),
        ((), None, {'permission_classes': [type('IsAdminUser', (), {})]}, 'IsAdminUser'),
    ],
)
def test_a_guarded_page_with_an_open_socket_is_named_unless_that_is_meant(
    found, guard, bases, decorate, attributes, named
):
    view = guarded(*bases, decorate=decorate, guard=guard, **attributes)
    messages = found(view)
    assert [message.id for message in messages] == ([] if guard is False else ['sockets.W016'])
    for message in messages:
        assert message.obj is view and f'The page of Page asks for {named}, and its socket' in message.msg
        line = (
            'guard=False'
            if named in ('ManagerRequiredMixin', 'IsAdminUser')
            or (bases and bases[0].__module__ == __name__ and 'Old' not in bases[0].__name__)
            else "guard='view'"
        )
        assert line in message.hint


def test_a_socket_as_guarded_as_its_page_is_not_named(found):
    members = type('Members', (RoutedSocketHandler,), {'login_required': True})
    may = type('May', (RoutedSocketHandler,), {'permission': CHANGE})
    login = guarded(LoginRequiredMixin, guard=None, handler=members)
    permission = guarded(PermissionRequiredMixin, permission_required=CHANGE, guard=None, handler=may)
    open_ = guarded(guard=None)
    taken_over = [make() for make, *_ in VIEWS]
    assert found(login, permission, open_, *taken_over) == []
    # A login is less than a permission or a test.
    less = guarded(PermissionRequiredMixin, permission_required=CHANGE, guard=None, handler=members)
    (message,) = found(less)
    assert "SocketRouter(handler=Members, guard='view')" in message.hint
    # What the routing leads to may be closed by a subclass, or by a demultiplexer.
    plain = guarded(LoginRequiredMixin, guard=None)
    closed = type('Closed', (plain.socket.Handler,), {'login_required': True})
    whole = type('Whole', (SocketDemultiplexer,), {'streams': {'page': plain.socket.Handler}, 'login_required': True})
    half = type('Half', (SocketDemultiplexer,), {'streams': {'page': plain.socket.Handler}})
    assert found(plain, routing=[route_class(closed)]) == found(plain, routing=[route_class(whole)]) == []
    assert [message.id for message in found(plain, routing=[route_class(half)])] == ['sockets.W016']


def test_a_subclass_that_is_guarded_and_shares_an_open_socket_is_named(found):
    page = guarded(guard=None)
    sub = type('Sub', (LoginRequiredMixin, page), {})
    (message,) = found(page)
    assert message.obj is sub and "socket = SocketRouter(handler=Page.socket.Handler, guard='view')" in message.hint
    own = type('Own', (LoginRequiredMixin, page), {'socket': SocketRouter(handler=page.socket.Handler, guard='view')})
    assert [message.obj for message in found(page, own)] == [sub]
    heir = guarded(LoginRequiredMixin, guard=None)
    type('Heir', (heir,), {})
    assert [message.obj for message in found(heir)] == [heir]
    guarded_page = guarded(UserPassesTestMixin, test_func=lambda self: True)
    type('Heir', (guarded_page,), {})
    assert found(guarded_page) == []
    other = type('Other', (guarded_page,), {'test_func': lambda self: False})
    assert [message.obj for message in found(guarded_page)] == [other]


def test_a_view_that_is_decorated_in_the_urlconf_is_named(found, settings):
    import sys
    import types

    from django.conf.urls import include

    from .paths import re_path

    page, plain = guarded(guard=None), guarded(guard=None)
    urls = types.ModuleType('guarded_urls')
    urls.urlpatterns = [
        re_path('^a/', include([re_path('^b/$', login_required(page.as_view()))])),
        re_path('^c/$', plain.as_view()),
    ]
    settings.ROOT_URLCONF = 'guarded_urls'
    sys.modules['guarded_urls'] = urls
    try:
        (message,) = found(page, plain)
        assert message.obj is page and "name='dispatch')" in message.hint and 'login_required' in message.msg
        login = guarded(guard=None, handler=type('Members', (RoutedSocketHandler,), {'login_required': True}))
        urls.urlpatterns.append(re_path('^d/$', login_required(login.as_view())))
        from django.urls import clear_url_caches

        clear_url_caches()
        assert [message.obj for message in found(page, plain, login)] == [page]
    finally:
        del sys.modules['guarded_urls']


class Base(View):
    socket = SocketRouter()

    @socket.connect
    def on_open(socket):
        pass

    @socket.route('SAY')
    def on_say(socket, content):
        return {'type': 'SAID'}

    @staticmethod
    @socket.route('SHOUT')
    def on_shout(socket):
        pass


def names_of(messages):
    return [(message.id, message.msg.partition('(')[0]) for message in messages]


def test_a_subclass_that_overrides_a_routed_function_by_its_plain_name_is_named(found):
    class Shares(Base):
        def on_say(self, content):
            return {'type': 'OTHER'}

        def on_shout(self):
            pass

        def something_else(self):
            pass

    class Own(Base):
        socket = SocketRouter(handler=Base.socket.Handler)

        def on_open(self):
            pass

        @socket.route('SAY')
        def on_say(socket, content):
            return {'type': 'OWN'}

        def on_shout(self):
            pass

    assert names_of(found(Base, Own)) == [
        ('sockets.W017', 'Shares.on_say'),
        ('sockets.W017', 'Shares.on_shout'),
        ('sockets.W017', 'Own.on_shout'),
        ('sockets.W017', 'Own.on_open'),
    ]
    message = found(Base)[0]
    assert 'that is Base.on_say()' in message.msg and message.obj is Shares
    assert 'socket = SocketRouter(handler=Base.socket.Handler)' in message.hint


def test_a_handler_class_that_overrides_a_function_in_its_routes_is_named(found):
    def handler(self, content):
        pass

    class ByFunction(RoutedSocketHandler):
        def on_bet(self, content):
            pass

        routes = (('BET', on_bet),)

    class ByName(RoutedSocketHandler):
        on_bet = handler
        routes = (('BET', 'on_bet'),)

    sub, fine = (type('Sub', (base,), {'on_bet': lambda self, content: None}) for base in (ByFunction, ByName))
    (message,) = found(routing=[route_class(sub, path='^/a/$'), route_class(fine, path='^/b/$')])
    assert names_of([message]) == [('sockets.W017', 'Sub.on_bet')]
    assert "('TYPE', 'on_bet')" in message.hint
    assert guards.overridden(ByFunction, ByFunction) is not None and not list(guards.overridden(ByFunction, ByFunction))


def test_a_project_without_a_urlconf_has_no_views_to_ask(found, settings):
    # "migrate" ended with an AttributeError there.
    del settings.ROOT_URLCONF
    assert found() == []
