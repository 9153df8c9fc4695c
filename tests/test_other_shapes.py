"""Inputs of the same kinds as those that were mended, in other shapes."""

import asyncio
import functools
import time

import pytest
from django import forms
from django.contrib.auth.mixins import LoginRequiredMixin
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db import ProgrammingError, transaction
from django.db.utils import ConnectionHandler
from django.http import HttpResponse
from django.urls import set_script_prefix
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter, contracts
from sockets.contracts import refusals
from sockets.execution import coroutines, thread_state
from sockets.models import Socket
from sockets.routes import Function
from sockets.testing import SocketClient, sandbox

from .paths import re_path


@pytest.fixture(autouse=True)
def no_prefix_is_left():
    yield
    set_script_prefix('/')


@pytest.mark.parametrize('combine', ['union', 'intersection', 'difference'])
def test_a_union_is_told_while_debugging(db, settings, combine):
    settings.DEBUG = True
    with SocketClient('/page/', handler=RoutedSocketHandler) as one, SocketClient(
        '/other/', handler=RoutedSocketHandler
    ):
        mine = Socket.objects.filter(path='/page/')
        other = Socket.objects.filter(path='/other/')
        found = getattr(mine, combine)(mine if combine == 'intersection' else other)
        told = 2 if combine == 'union' else 1
        assert [found.send_action('HI'), found.send_action('HI'), found.count()] == [told] * 3
        assert [content['type'] for content in one.received()] == ['HI'] * 2


@pytest.mark.parametrize('option', ['login_required', 'permission'])
def test_an_option_of_a_mixin_that_comes_too_late_is_an_error(option):
    mixin = type('Guarded', (), {option: 'a.b'})
    assert getattr(type('Right', (mixin, RoutedSocketHandler), {}), option) == 'a.b'
    with pytest.raises(ImproperlyConfigured, match=rf'Guarded\.{option}.*class Wrong\(Guarded, \.\.\.\)'):
        type('Wrong', (RoutedSocketHandler, mixin), {})
    # Who says so means it.
    type('Open', (RoutedSocketHandler, mixin), {option: ()})


def test_a_setup_that_refuses_a_page_refuses_its_guarded_socket(db, django_user_model):
    class Staff(LoginRequiredMixin, View):
        socket = SocketRouter(guard='view')

        def setup(self, request, *args, **kwargs):
            super().setup(request, *args, **kwargs)
            if not request.user.is_staff:
                raise PermissionDenied()

    if not hasattr(View, 'setup'):
        pytest.skip('This Django has no setup().')
    for name, is_staff, code in (('guest', False, 4403), ('boss', True, None)):
        user = django_user_model.objects.create(username=name, is_staff=is_staff)
        with SocketClient('/x/', user=user, handler=Staff.socket.Handler) as client:
            assert client.close_code == code


def test_a_throttled_client_hears_how_long_and_a_422_is_invalid_content():
    exceptions = pytest.importorskip('rest_framework.exceptions')
    assert refusals.frame_error(exceptions.Throttled(wait=5)).retry_after == 5

    class Unprocessable(exceptions.ValidationError):
        status_code = 422

    error = refusals.frame_error(Unprocessable({'amount': ['Too much.']}))
    assert (error.code, error.errors) == ('invalid_content', {'amount': ['Too much.']})


@pytest.mark.channels1('on Channels 4, Django serves pages itself')
@pytest.mark.django_db
@pytest.mark.parametrize(
    'forced, path, full',
    [
        ('/shop', '/shopping/', '/shop/shopping/'),
        ('/shop', '/shop/', '/shop/'),
        ('/shop', '/shop', '/shop'),
        ('/shop', '/shop/a/', '/shop/a/'),
        ('/shop/', '/item/', '/shop/item/'),
        ('/', '/item/', '/item/'),
        ('/a', '/admin/', '/a/admin/'),
        (None, '/item/', '/item/'),
    ],
)
def test_a_page_is_found_that_begins_as_the_prefix_does(settings, forced, path, full):
    settings.ROOT_URLCONF, settings.FORCE_SCRIPT_NAME = __name__, forced
    from channels import channel_layers
    from channels.message import Message

    from sockets.engines.channels1 import page_consumers

    with sandbox():
        layer = channel_layers['default']
        page_consumers.PageConsumer()(
            Message(
                {
                    'reply_channel': 'daphne.response.test!page',
                    'method': 'GET',
                    'path': path,
                    'root_path': '',
                    'headers': [[b'host', b'example.com']],
                    'query_string': b'a=1',
                },
                'http.request',
                layer,
            )
        )
        channel, reply = layer.receive(['daphne.response.test!'])
    taken = (forced or '').rstrip('/')
    info = full[len(taken) :] or '/'
    assert reply['content'].decode() == '{} {} {}'.format(full + '?a=1', info, info)


@pytest.mark.channels1('on Channels 4, Django serves pages itself')
@pytest.mark.django_db
@pytest.mark.parametrize('static_url', ['/static/', '/shop/static/'])
def test_static_files_are_found_below_a_prefix(settings, static_url):
    settings.ROOT_URLCONF, settings.FORCE_SCRIPT_NAME, settings.STATIC_URL = __name__, '/shop', static_url
    from channels import channel_layers
    from channels.message import Message

    from sockets.engines.channels1 import page_consumers

    with sandbox():
        layer = channel_layers['default']
        page_consumers.StaticFilesPageConsumer()(
            Message(
                {
                    'reply_channel': 'daphne.response.test!page',
                    'method': 'GET',
                    'path': '/static/sockets/sockets.js',
                    'headers': [[b'host', b'example.com']],
                    'query_string': b'',
                },
                'http.request',
                layer,
            )
        )
        channel, reply = layer.receive(['daphne.response.test!'])
    assert reply['status'] == 200 and b'class SocketRouter' in reply['content']


def tell(request, rest):
    return HttpResponse('{} {} {}'.format(request.get_full_path(), request.path_info, request.META['PATH_INFO']))


urlpatterns = [re_path('^(.*)$', tell)]


async def work(socket, content):
    return {'type': 'DONE'}


def test_an_async_static_method_is_no_decorated_function():
    if callable(staticmethod(work)):
        assert Function(staticmethod(work), 'content')(None, {}, {}) == {'type': 'DONE'}


def test_an_async_def_behind_a_decorator_is_seen_through_a_partialmethod():
    routes = (('X', 'on_x'),)
    type('Fine', (RoutedSocketHandler,), {'routes': routes, 'on_x': functools.partialmethod(work)})
    with pytest.raises(ImproperlyConfigured, match='async def behind a decorator'):
        type(
            'Lost',
            (RoutedSocketHandler,),
            {'routes': routes, 'on_x': functools.partialmethod(transaction.atomic(work))},
        )


def unseen(function):
    """A decorator that nobody can see through."""
    return lambda *args: function(*args)


async def checked(form, content=None):
    return content


def form_that(name):
    return type('Hidden', (forms.Form,), {'a': forms.CharField(), name: unseen(checked)})


def serializer_that(name):
    serializers = pytest.importorskip('rest_framework.serializers')
    return type('Hidden', (serializers.Serializer,), {'a': serializers.CharField(), name: unseen(checked)})


@pytest.mark.parametrize(
    'make, name',
    [(form_that, 'clean'), (form_that, 'clean_a'), (serializer_that, 'validate'), (serializer_that, 'validate_a')],
)
@pytest.mark.filterwarnings('ignore:coroutine')
def test_a_check_of_a_form_that_has_not_run_lets_nothing_through(make, name):
    with pytest.raises(TypeError, match='has not been run'):
        contracts.clean(make(name), {'a': 'x'})


@pytest.mark.filterwarnings('ignore:coroutine')
def test_coroutines_in_a_list_and_generators_are_errors_and_not_acks():
    for function in (lambda socket, content: [work(socket, content)], lambda socket, content: map(print, [1])):
        with pytest.raises(TypeError, match='not run here'):
            Function(function, 'content')(None, {}, {})
    assert Function(lambda socket, content: [1], 'content')(None, {}, {}) == [1]


def test_delete_says_how_many_connections_that_were(db):
    with SocketClient('/a/', handler=RoutedSocketHandler) as one, SocketClient(
        '/b/', handler=RoutedSocketHandler
    ) as two:
        Socket.objects.get(path='/a/').join('tea')
        assert Socket.objects.get(path='/b/').delete()[1]['sockets.Socket'] == 1
        total, of_models = Socket.objects.all().delete()
        assert (total, of_models['sockets.Socket'], of_models['sockets.Membership']) == (2, 1, 1)
        assert Socket.objects.all().delete()[0] == 0
        assert [one.close_code, two.close_code] == [4401] * 2


def test_an_async_generator_that_is_left_behind_is_closed_with_its_frame():
    noted = []

    async def rows():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            noted.append('closed')

    async def looks():
        found = rows()
        async for row in found:
            raise KeyError(row)

    async def keeps():
        noted.append(rows())
        await noted[0].__anext__()
        return 'kept'

    with pytest.raises(KeyError):
        coroutines.run(looks())
    assert noted == ['closed']
    noted.clear()
    assert coroutines.run(keeps()) == 'kept' and noted[1:] == ['closed']
    assert coroutines.run(work(None, {})) == {'type': 'DONE'}


def test_a_transaction_that_is_left_open_ends_the_use_of_its_connection_only(db, monkeypatch, caplog, tmp_path):
    known = ConnectionHandler({'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': str(tmp_path / 'db')}})
    monkeypatch.setattr(thread_state, 'connections', known)
    database = known['default']
    # As atomic() does, and what Channels does after each consumer.
    database.set_autocommit(False)
    database.in_atomic_block = True
    database.close_if_unusable_or_obsolete()
    with pytest.raises(ProgrammingError):
        database.cursor().execute('select 1')
    thread_state.close_stale()
    assert known['default'].cursor().execute('select 1').fetchone() == (1,)
    assert 'left a transaction open' in caplog.text
    # Once more, right after a look: all that came to this thread within a tenth of a second failed, as sixty connects do.
    thread_state.close_stale()
    database = known['default']
    database.set_autocommit(False)
    database.in_atomic_block = True
    database.close_if_unusable_or_obsolete()
    monkeypatch.setattr(thread_state._thread, 'next_look', time.monotonic() + 60, raising=False)
    thread_state.begin()
    assert known['default'].cursor().execute('select 1').fetchone() == (1,)
    known.close_all()
