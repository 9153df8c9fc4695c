"""Exceptions that refuse a client are answers, not crashes."""

import logging

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404
from django.shortcuts import get_object_or_404
from django.urls import Resolver404
from django.utils.translation import gettext_lazy

from sockets import RoutedSocketHandler
from sockets.contracts import refusals
from sockets.exceptions import FrameError
from sockets.models import Socket

from .conftest import both_ways

pytestmark = pytest.mark.django_db


def of_rest_framework(name, *args):
    return lambda: getattr(pytest.importorskip('rest_framework.exceptions'), name)(*args)


def of_pydantic():
    pydantic = pytest.importorskip('pydantic')

    class Bet(pydantic.BaseModel):
        amount: int

    try:
        Bet(amount='many')
    except pydantic.ValidationError as error:
        return error


REFUSALS = [
    (lambda: Http404(), 'not_found', 'There is no such thing.', None),
    (lambda: Http404('No such lot.'), 'not_found', 'No such lot.', None),
    (lambda: Http404(gettext_lazy('No such lot.')), 'not_found', 'No such lot.', None),
    # A list of the URLs of the site.
    (lambda: Resolver404({'tried': [['/secret/']], 'path': 'x'}), 'not_found', 'There is no such thing.', None),
    (lambda: PermissionDenied(), 'not_allowed', 'You may not do this.', None),
    (lambda: PermissionDenied('Not yours.'), 'not_allowed', 'Not yours.', None),
    (lambda: ValidationError('Too low.'), 'invalid_content', 'Too low.', {'__all__': ['Too low.']}),
    (
        lambda: ValidationError('At least %(n)d.', params={'n': 5}),
        'invalid_content',
        'At least 5.',
        {'__all__': ['At least 5.']},
    ),
    (
        lambda: ValidationError(['Too low.', 'Too late.']),
        'invalid_content',
        'Too low.',
        {'__all__': ['Too low.', 'Too late.']},
    ),
    (
        lambda: ValidationError({'amount': ['Too low.']}),
        'invalid_content',
        'amount: Too low.',
        {'amount': ['Too low.']},
    ),
    (lambda: ValidationError([]), 'invalid_content', '', {'__all__': []}),
    (
        of_rest_framework('ValidationError', {'amount': ['Too low.']}),
        'invalid_content',
        'amount: Too low.',
        {'amount': ['Too low.']},
    ),
    (
        of_rest_framework('ValidationError', {'bets': [{}, {'amount': ['Too low.']}]}),
        'invalid_content',
        'bets: Too low.',
        {'bets': [{}, {'amount': ['Too low.']}]},
    ),
    (
        of_rest_framework('ValidationError', 'Too low.'),
        'invalid_content',
        'Too low.',
        {'non_field_errors': ['Too low.']},
    ),
    (of_rest_framework('ParseError', 'No bet.'), 'invalid_content', 'No bet.', {'non_field_errors': ['No bet.']}),
    (of_rest_framework('NotFound'), 'not_found', 'Not found.', None),
    (of_rest_framework('PermissionDenied', 'Not yours.'), 'not_allowed', 'Not yours.', None),
    (of_rest_framework('NotAuthenticated'), 'not_allowed', 'Authentication credentials were not provided.', None),
    (
        of_rest_framework('Throttled', 5),
        'rate_limited',
        'Request was throttled. Expected available in 5 seconds.',
        None,
    ),
]


class Raising(RoutedSocketHandler):
    """Raises what it is told to, in the function that it is told to."""

    make = where = None
    routes = (*RoutedSocketHandler.routes, ('RAISE', 'on_raise'), ('LATER', 'on_later'), ('HARD', 'on_hard'))

    def connect(self, message, **kwargs):
        if self.where == 'before':
            raise self.make()
        super().connect(message, **kwargs)
        if self.where == 'after':
            raise self.make()

    def default_route(self, content):
        raise self.make()

    def on_raise(self, content):
        raise self.make()

    async def on_later(self, content):
        raise self.make()

    def on_hard(self, content):
        try:
            1 / 0
        except ZeroDivisionError:
            raise self.make()

    def on_bytes(self, data):
        raise self.make()


def raising(make, where=None):
    # Skips the test if it needs what is not installed, which a handler would take for an exit.
    make()
    return type('Raising', (Raising,), {'make': staticmethod(make), 'where': where})


@pytest.mark.parametrize('make, code, details, errors', REFUSALS)
def test_an_exception_of_a_framework_becomes_a_frame_error(make, code, details, errors):
    error = refusals.frame_error(make())
    assert isinstance(error, FrameError)
    assert (error.code, error.details, error.errors) == (code, details, errors)


def test_a_model_of_pydantic_that_is_not_valid_names_the_field():
    error = refusals.frame_error(of_pydantic())
    assert (error.code, list(error.errors)) == ('invalid_content', ['amount'])
    assert error.details.startswith('amount: ')


@both_ways
@pytest.mark.parametrize('sent', ['RAISE', 'LATER', 'HARD', 'UNKNOWN'])
@pytest.mark.parametrize(
    'make, code',
    [
        (lambda: Http404(), 'not_found'),
        (lambda: PermissionDenied(), 'not_allowed'),
        (lambda: ValidationError({'amount': 'Too low.'}), 'invalid_content'),
        (of_rest_framework('NotFound'), 'not_found'),
        (of_pydantic, 'invalid_content'),
    ],
)
def test_such_an_exception_in_a_function_is_an_answer_without_a_traceback_in_the_log(connect, caplog, make, code, sent):
    connection = connect(raising(make))
    connection.received()
    (answer,) = connection.send({'type': sent, 'ref': 1})
    assert (answer['type'], answer['code'], answer['ref']) == ('ERROR', code, 1)
    assert ('errors' in answer) is (code == 'invalid_content')
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING or record.exc_info]
    assert connection.send({'type': 'PING', 'ref': 2}) == [{'type': 'ACK', 'ref': 2}]


def test_a_binary_frame_and_a_missing_row_are_answered_alike(connect, caplog):
    connection = connect(raising(PermissionDenied))
    connection.received()
    assert connection.send(b'x')[0]['code'] == 'not_allowed'
    connection = connect(
        type(
            'Lots',
            (RoutedSocketHandler,),
            {'routes': [('SHOW', lambda socket, content: {'id': get_object_or_404(Socket, pk=content['id']).pk})]},
        )
    )
    connection.received()
    assert connection.send({'type': 'SHOW', 'id': 0, 'ref': 1}) == [
        {'type': 'ERROR', 'code': 'not_found', 'details': 'No Socket matches the given query.', 'ref': 1}
    ]
    assert 'Traceback' not in caplog.text


@both_ways
@pytest.mark.parametrize(
    'make, code',
    [(PermissionDenied, 'not_allowed'), (Http404, 'not_found'), (lambda: FrameError('mine', 'No.'), 'mine')],
)
def test_a_connect_that_raises_such_an_exception_is_refused_for_good_without_a_traceback(connect, caplog, make, code):
    caplog.set_level('INFO', 'sockets')
    assert connect(raising(make, 'before')).messages() == [{'close': 4403}]
    assert not Socket.objects.exists()
    connection = connect(raising(make, 'after'))
    accepted, told, closed = connection.messages()
    assert accepted == {'accept': True} and f'"code":"{code}"' in told['text'] and closed == {'close': 4403}
    connection.disconnect(4403)
    assert not Socket.objects.exists()
    assert not any(record.exc_info for record in caplog.records) and caplog.text.count('Refused') == 2


class Stubborn(ValueError):
    """Says nothing of what is wrong."""

    def __getattr__(self, name):
        raise SystemExit if name in ('detail', 'errors') else AttributeError(name)


class Elastic(Exception):
    status_code, detail = 404, 'index missing'


@both_ways
@pytest.mark.parametrize(
    'make',
    [
        Stubborn,
        Elastic,
        Socket.DoesNotExist,
        ValueError,
        KeyError,
        of_rest_framework('APIException'),
        of_rest_framework('MethodNotAllowed', 'GET'),
        lambda: type('Odd', (ValueError,), {'errors': lambda self: [1]})(),
    ],
)
def test_an_exception_that_only_resembles_one_is_a_server_error(connect, caplog, make):
    connection = connect(raising(make))
    connection.received()
    assert connection.send({'type': 'RAISE', 'ref': 1})[0]['code'] == 'server_error'
    assert 'raised in a frame' in caplog.text
    assert connection.send({'type': 'PING', 'ref': 2}) == [{'type': 'ACK', 'ref': 2}]


# What is answered after a close.


def closing(result):
    def close(socket):
        socket.close(4000)
        if isinstance(result, Exception):
            raise result
        return result

    return type(
        'Closing', (RoutedSocketHandler,), {'routes': [('CLOSE', close)], 'on_bytes': lambda self, data: close(self)}
    )


@both_ways
@pytest.mark.parametrize(
    'result', [{'type': 'LOST'}, b'lost', bytearray(b'lost'), FrameError('mine'), Http404()], ids=repr
)
def test_an_answer_after_a_close_is_dropped_and_the_log_says_so(connect, caplog, result):
    connection = connect(closing(result))
    connection.messages()
    connection._put(text='{"type": "CLOSE", "ref": 1}')
    assert connection.messages() == [{'close': 4000}]
    (record,) = caplog.records
    assert record.levelname == 'WARNING' and 'Traceback' not in caplog.text
    assert "dropped its answer to a frame of 'CLOSE'" in record.getMessage()
    assert 'Closing' in record.getMessage() and "'/page/'" in record.getMessage()


def test_an_answer_to_a_binary_frame_after_a_close_is_dropped_too(connect, caplog):
    connection = connect(closing(b'lost'))
    connection.messages()
    connection._put(bytes=b'x')
    assert connection.messages() == [{'close': 4000}] and "dropped its answer to a frame of 'bytes'" in caplog.text


@both_ways
def test_a_close_without_an_answer_says_nothing(connect, caplog):
    connection = connect(closing(None))
    connection.messages()
    connection._put(text='{"type": "CLOSE", "ref": 1}')
    assert connection.messages() == [{'close': 4000}] and not caplog.records
