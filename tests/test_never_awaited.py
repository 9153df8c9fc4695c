"""What is ``async def`` is run to its end or refused by name; nothing is answered, or let in, without having run."""

import asyncio
import contextlib
import functools
import types

import django
import pytest
from django import forms
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connection as database
from django.db import transaction
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter, contracts, signals
from sockets.connection import calls
from sockets.exceptions import FrameError
from sockets.execution import coroutines
from sockets.models import Socket
from sockets.multiplexing import SocketDemultiplexer
from sockets.routes import Function, Route
from sockets.testing import sandbox

from .client import ON_CHANNELS_1
from .conftest import both_ways

# A coroutine that nobody awaits is a warning that Python gives when it throws it away.
pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings('error::pytest.PytestUnraisableExceptionWarning'),
    pytest.mark.filterwarnings('error::RuntimeWarning'),
]

seen = []


@pytest.fixture(autouse=True)
def forget():
    seen.clear()


async def function(socket, content):
    await asyncio.sleep(0)
    seen.append(content)
    return {'type': 'RAN'}


def wrapped(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def awaiting(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        return await function(*args, **kwargs)

    return wrapper


class Wrapping:
    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.function = function

    def __call__(self, *args, **kwargs):
        return self.function(*args, **kwargs)


class HalfWrapped:
    @wrapped
    async def __call__(self, socket, content):
        pass

    @wrapped
    async def method(self, socket, content):
        pass


HIDDEN = {
    'atomic': transaction.atomic(function),
    'wraps': wrapped(function),
    'twice': wrapped(wrapped(function)),
    'within an async decorator': awaiting(wrapped(function)),
    'a callable': Wrapping(function),
    'lru_cache': functools.lru_cache(maxsize=None)(function),
    'a context manager': contextlib.ContextDecorator.__call__(
        type('C', (contextlib.ContextDecorator,), {'_recreate_cm': lambda self: self})(), function
    ),
    'a partial of it': functools.partial(wrapped(function)),
    'a method': HalfWrapped().method,
    'a __call__': HalfWrapped(),
}


if django.VERSION < (5, 2):
    # Later ones say that they are async, and those of their decorators that are not see to it themselves.
    HIDDEN['method_decorator'] = method_decorator(never_cache)(function)


@pytest.mark.parametrize('hidden', HIDDEN.values(), ids=HIDDEN)
def test_an_async_function_behind_a_plain_decorator_is_refused_at_import_with_the_remedy(hidden):
    router = SocketRouter()
    for decorate in (router.route('X'), router.bytes, router.connect, router.disconnect, router.default_route):
        with pytest.raises(TypeError, match='Write def'):
            decorate(hidden)
    with pytest.raises(TypeError, match='Write def'):
        Route('X', function, form=hidden)
    with pytest.raises(ImproperlyConfigured, match=r"'X'.*Write def"):
        type('Handler', (RoutedSocketHandler,), {'routes': [('X', hidden)]})


@pytest.mark.parametrize('name', ['connect', 'receive', 'disconnect', 'on_bytes', 'default_route', 'on_hello'])
def test_an_async_method_behind_a_plain_decorator_is_refused_too(name):
    with pytest.raises(ImproperlyConfigured, match=rf'(?s){name}.*Write def'):
        type('Handler', (RoutedSocketHandler,), {name: wrapped(function)})


of_consumers = pytest.mark.channels1('these are methods of its consumers')


@pytest.mark.parametrize(
    'name',
    [
        'decode',
        'encode',
        'accept',
        'send_json',
        'user',
        'channel_name',
        *(pytest.param(name, marks=of_consumers) for name in ('connection_groups', 'raw_receive')),
    ],
)
def test_what_is_not_awaited_cannot_be_async(name):
    async def method(self, *args, **kwargs):
        pass

    with pytest.raises(ImproperlyConfigured, match=rf'Handler\.{name}\(\) is an async def.*write def'):
        type('Handler', (RoutedSocketHandler,), {name: property(method) if name == 'user' else method})


@pytest.mark.parametrize('name', ['connect', 'receive', 'on_bytes', 'default_route', 'disconnect', 'on_x'])
def test_a_def_over_the_async_def_of_a_base_is_refused(name):
    async def method(self, content, **kwargs):
        pass

    def over(self, content, **kwargs):
        # Which would let everybody in, as what this returns is lost.
        getattr(super(Handler, self), name)(content, **kwargs)

    routes = [('X', 'on_x')] if name == 'on_x' else []
    Guarded = type('Guarded', (RoutedSocketHandler,), {name: method, 'routes': routes})
    with pytest.raises(ImproperlyConfigured, match=rf'{name}\(\) is a def over the async def of Guarded'):
        Handler = type('Handler', (Guarded,), {name: over})


@pytest.mark.parametrize('function', [lambda socket, content: (yield), pytest.param('async', id='async')])
def test_a_generator_is_refused(function):
    async def produce(socket, content):
        yield {'type': 'NEVER'}

    with pytest.raises(TypeError, match='has a yield'):
        Function(produce if function == 'async' else function, 'content')
    with pytest.raises(ImproperlyConfigured, match='has a yield'):
        type('Handler', (RoutedSocketHandler,), {'connect': produce})


@types.coroutine
def old_style(socket, content):
    yield from asyncio.sleep(0).__await__()
    return {'type': 'RAN'}


def unseen(function):
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


UNSEEN = {
    'a lambda': lambda socket, content: function(socket, content),
    'a partial': functools.partial(function),
    'a decorator without wraps': unseen(function),
    'a coroutine of a coroutine': awaiting(lambda socket, content: function(socket, content)),
    'an async decorator': awaiting(function),
    'old style': old_style,
}


@pytest.mark.parametrize('handed_back', UNSEEN.values(), ids=UNSEEN)
@both_ways
def test_a_coroutine_that_is_returned_is_run(connect, handed_back):
    handler = type(
        'Handler', (RoutedSocketHandler,), {'routes': [('X', handed_back)], 'default_route': unseen(function)}
    )
    connection = connect(handler)
    connection.received()
    assert connection.send({'type': 'X', 'ref': 1}) == [{'type': 'RAN', 'ref': 1}]
    assert connection.send({'type': 'OTHER', 'ref': 2}) == [{'type': 'RAN', 'ref': 2}]


@both_ways
def test_a_generator_that_is_returned_is_an_error_and_not_an_ack(connect, caplog):
    def lazily(socket, content):
        return (socket.send_json({'type': 'NEVER'}) for _ in range(3))

    def chunks(socket, content):
        async def produce():
            yield {'type': 'NEVER'}

        return produce()

    connection = connect(type('Handler', (RoutedSocketHandler,), {'routes': [('X', lazily), ('Y', chunks)]}))
    connection.received()
    assert [connection.send({'type': type, 'ref': 1})[0]['code'] for type in 'XY'] == ['server_error'] * 2
    assert 'is not run here' in caplog.text


async def count():
    # Since Django 3, no coroutine may wait for the database.
    return Socket.objects.count() if ON_CHANNELS_1 else await Socket.objects.acount()


class Async(RoutedSocketHandler):
    """All that may be async, each on top of ours."""

    routes = (*RoutedSocketHandler.routes, ('ADD', 'on_add'))
    refuses = False

    async def connect(self, message, **kwargs):
        await asyncio.sleep(0)
        seen.append('connect')
        if self.request.GET.get('key') != 'right':
            raise FrameError('not_allowed', 'The key is wrong.')
        await self.aaccept()

    async def receive(self, content, **kwargs):
        await asyncio.sleep(0)
        seen.append('receive')
        return super().receive(content, **kwargs)

    async def on_add(self, content):
        await asyncio.sleep(0)
        return {'type': 'SUM', 'n': content['n'] + 1, 'rows': await count()}

    async def on_bytes(self, data):
        await asyncio.sleep(0)
        return data[::-1]

    async def default_route(self, content):
        await asyncio.sleep(0)
        return {'type': 'UNKNOWN'}

    async def disconnect(self, message, **kwargs):
        await asyncio.sleep(0)
        seen.append('disconnect')


def test_async_methods_of_a_handler_class_are_run_to_their_end(connect):
    connection = connect(Async, '/page/?key=right')
    assert connection.messages() == [{'accept': True}]
    assert connection.send({'type': 'ADD', 'n': 1, 'ref': 1}) == [{'type': 'SUM', 'n': 2, 'rows': 1, 'ref': 1}]
    assert connection.send({'type': 'ELSE'}) == [{'type': 'UNKNOWN'}]
    connection._put(bytes=b'abc')
    assert connection.messages() == [{'bytes': b'cba'}]
    connection.disconnect()
    assert seen == ['connect', 'receive', 'receive', 'disconnect'] and not Socket.objects.exists()


def test_binary_frames_go_to_async_functions_whose_async_forms_have_agreed(connect):
    class Pictures(View):
        socket = SocketRouter()

        @socket.bytes(form=lambda data: sign(data))
        async def on_picture(socket, data, pk):
            await asyncio.sleep(0)
            return data + pk.encode()

    async def sign(data):
        if data == b'bad':
            raise ValueError('Not this one.')
        return data.upper()

    connection = connect(Pictures.socket.Handler, '/picture/7/', pattern=r'^/picture/(?P<pk>\d+)/$')
    connection.messages()
    connection._put(bytes=b'abc')
    assert connection.messages() == [{'bytes': b'ABC7'}]
    assert connection.send(b'bad')[0]['details'] == 'Not this one.'


@both_ways
def test_an_async_connect_can_refuse(connect):
    assert connect(Async, '/page/?key=wrong').messages() == [{'close': 4403}]
    assert seen == ['connect'] and not Socket.objects.exists()


@both_ways
def test_an_async_connect_of_a_mixin_refuses_too(connect):
    class Guard:
        async def connect(self, message, **kwargs):
            raise FrameError('not_allowed', 'No.')

    class Guarded(Guard, RoutedSocketHandler):
        pass

    assert connect(Guarded).messages() == [{'close': 4403}]


def test_an_async_connect_of_a_stream_refuses_the_whole_connection(connect):
    everything = type('Everything', (SocketDemultiplexer,), {'streams': {'open': RoutedSocketHandler, 'async': Async}})
    stranger = connect(everything, '/page/?key=wrong')
    assert stranger.messages()[-1] == {'close': 4403}
    stranger.disconnect()
    connection = connect(everything, '/page/?key=right')
    assert connection.messages() == [{'accept': True}]
    assert connection.send({'stream': 'async', 'payload': {'type': 'ADD', 'n': 1, 'ref': 1}}) == [
        {'stream': 'async', 'payload': {'type': 'SUM', 'n': 2, 'rows': 1, 'ref': 1}}
    ]


# Forms.


async def check(data):
    await asyncio.sleep(0)
    if 'amount' not in data:
        raise ValueError('How much?')
    return int(data['amount'])


@pytest.mark.parametrize('form', [check, lambda data: check(data), functools.partial(check), unseen(check)])
@both_ways
def test_an_async_form_validates(connect, form):
    connection = connect(
        type(
            'Handler',
            (RoutedSocketHandler,),
            {'routes': [Route('BET', lambda socket, content: {'n': content + 1}, form=form)]},
        )
    )
    connection.received()
    assert connection.send({'type': 'BET', 'amount': '1'}) == [{'n': 2}]
    (answer,) = connection.send({'type': 'BET', 'ref': 1})
    assert (answer['code'], answer['details']) == ('invalid_content', 'How much?')


async def not_now(value):
    raise forms.ValidationError('Not now.')


def form_class(**attributes):
    return type('BetForm', (forms.Form,), {'amount': forms.IntegerField(), **attributes})


async def method(self, *args):
    raise forms.ValidationError('Not now.')


def rest_framework(**attributes):
    serializers = pytest.importorskip('rest_framework.serializers')
    return type('Bet', (serializers.Serializer,), {'amount': serializers.IntegerField(), **attributes})


def within_a_serializer():
    inner = rest_framework(validate_amount=method)
    return rest_framework(bets=inner(many=True))


def pydantic_model():
    pydantic = pytest.importorskip('pydantic')
    # Of pydantic 2, or 1.
    validator = getattr(pydantic, 'field_validator', pydantic.validator)

    class Bet(pydantic.BaseModel):
        amount: int

        @validator('amount')
        async def check_amount(cls, value):
            raise ValueError('Not now.')

    return Bet


def annotated_model():
    pydantic = pytest.importorskip('pydantic', minversion='2')
    return pydantic.create_model(
        'Bet',
        amount=(pydantic.conint(gt=0), ...),
        __validators__={'check_amount': pydantic.model_validator(mode='after')(method)},
    )


@pytest.mark.parametrize(
    'make',
    [
        lambda: form_class(clean_amount=method),
        lambda: form_class(clean=method),
        lambda: form_class(is_valid=method),
        lambda: form_class(clean=wrapped(method)),
        lambda: form_class(n=forms.CharField(validators=[not_now])),
        lambda: form_class(n=type('Field', (forms.CharField,), {'clean': method})()),
        lambda: rest_framework(validate=method),
        lambda: rest_framework(validate_amount=method),
        within_a_serializer,
        pydantic_model,
        annotated_model,
    ],
)
def test_a_class_of_forms_whose_checks_would_not_run_is_refused(make):
    with pytest.raises(TypeError, match='async def'):
        Route('BET', function, form=make())


def test_a_coroutine_within_validated_content_is_an_error():
    unseen = method(None)
    with pytest.raises(TypeError, match="coroutine of 'amount'"):
        contracts.clean(form_class(clean_amount=lambda self: unseen), {'amount': 1})
    unseen.close()


def test_a_function_that_makes_a_form_has_it_asked():
    assert contracts.clean(lambda data: form_class()(data), {'amount': '1'}) == {'amount': 1}
    with pytest.raises(FrameError):
        contracts.clean(lambda data: form_class()(data), {'amount': 'x'})


@both_ways
def test_a_permission_that_comes_back_as_a_coroutine_is_asked(connect, alice, login, monkeypatch):
    async def has_perms(self, permissions):
        return self.username == 'bob'

    monkeypatch.setattr(type(alice), 'has_perms', has_perms)
    connection = connect(
        type(
            'Handler',
            (RoutedSocketHandler,),
            {'routes': [Route('X', lambda socket: {'type': 'DONE'}, permission='sockets.x')]},
        ),
        cookies=login(alice),
    )
    connection.received()
    assert connection.send({'type': 'X', 'ref': 1})[0]['code'] == 'not_allowed'


# Middleware.


async def async_factory(next):
    return next


def async_handle(next):
    async def handle(socket, content):
        return next(socket, content)

    return handle


def wrapped_handle(next):
    return wrapped(async_handle(next))


class AsyncMiddleware:
    def __init__(self, next):
        self.next = next

    async def __call__(self, socket, content):
        return self.next(socket, content)


@pytest.mark.parametrize('entry', [async_factory, async_handle, wrapped_handle, AsyncMiddleware])
def test_an_async_middleware_is_refused_by_name_and_by_the_check(entry):
    if entry is async_factory:
        with pytest.raises(ImproperlyConfigured, match='async_factory.* is an async def.*write def'):
            type('Handler', (RoutedSocketHandler,), {'middleware': [entry]})
    Handler = type(
        'Handler',
        (RoutedSocketHandler,),
        {'middleware': [f'{__name__}.{entry.__name__}'], '__module__': 'site_wide.handlers'},
    )
    with pytest.raises(ImproperlyConfigured, match=f'(?i){entry.__name__}.*write def'):
        calls.chain(Handler)
    from sockets.routing import route_class

    with sandbox(routing=[route_class(Handler, path='^/x/$')]):
        assert [error.id for error in run_checks(tags=['sockets']) if error.is_serious()] == ['sockets.E011']


@pytest.mark.channels1('on Channels 4, a coroutine may not wait, as the next middleware and functions may')
@both_ways
def test_a_coroutine_of_a_middleware_is_run_before_the_middleware_around_it_goes_on(connect):
    def inner(next):
        async def later(socket, content):
            await asyncio.sleep(0)
            return next(socket, content)

        return lambda socket, content: later(socket, content)

    def outer(next):
        def handle(socket, content):
            answer = next(socket, content)
            seen.append((socket.event, answer))
            return answer

        return handle

    async def echo(socket, content):
        await asyncio.sleep(0)
        return content

    connection = connect(
        type('Handler', (RoutedSocketHandler,), {'middleware': [outer, inner], 'routes': [('ECHO', echo)]})
    )
    assert connection.messages() == [{'accept': True}]
    assert connection.send({'type': 'ECHO'}) == [{'type': 'ECHO'}]
    assert seen == [('connect', None), ('receive', {'type': 'ECHO'})]


def test_a_middleware_can_refuse_within_a_coroutine(connect):
    def guard(next):
        async def refuse():
            raise FrameError('not_allowed', 'No.')

        return lambda socket, content: refuse()

    assert connect(type('Handler', (RoutedSocketHandler,), {'middleware': [guard]})).messages() == [{'close': 4403}]


def test_an_async_receiver_of_a_signal_is_run(connect, caplog):
    async def receive(outcome, **kwargs):
        await asyncio.sleep(0)
        seen.append(outcome)
        raise KeyError('no')

    signals.message_handled.connect(receive)
    try:
        connect(RoutedSocketHandler).send({'type': 'PING'})
    finally:
        signals.message_handled.disconnect(receive)
    assert seen == ['ok'] and 'A receiver of a signal raised' in caplog.text


@pytest.mark.django_db(transaction=True)
@pytest.mark.channels1('since Django 3, no coroutine may begin a transaction')
def test_atomic_around_what_is_run_is_a_transaction():
    async def write():
        with transaction.atomic():
            seen.append(database.in_atomic_block)
            return {'type': 'DONE'}

    assert coroutines.settle(write()) == {'type': 'DONE'} and seen == [True]


def test_a_loop_within_a_loop_runs_and_leaves_the_outer_one_running():
    async def inner():
        await asyncio.sleep(0)
        return asyncio.get_event_loop()

    async def outer():
        loop = asyncio.get_event_loop()
        first, task = coroutines.run(inner()), asyncio.ensure_future(asyncio.sleep(0, 'task'))
        assert first is not loop and first.is_closed()
        with pytest.raises(KeyError):
            coroutines.run(fail())
        assert asyncio.get_event_loop() is loop
        return await task

    async def fail():
        raise KeyError('no')

    assert coroutines.run(outer()) == 'task'
