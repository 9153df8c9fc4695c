"""What forms, serializers, models and functions get besides the content."""

import functools

import pytest
from django import forms
from django.contrib.auth.forms import PasswordChangeForm

from sockets import RoutedSocketHandler, contracts
from sockets.declaration.forms import asks_for
from sockets.routes import Route

from .conftest import both_ways

pytestmark = pytest.mark.django_db


class BetForm(forms.Form):
    amount = forms.IntegerField()

    def __init__(self, *args, user, socket=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.user, self.socket = user, socket

    def clean(self):
        return {**self.cleaned_data, 'by': self.user.get_username(), 'at': self.socket.path}


class HigherBetForm(BetForm):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


def by_function(data, user, *, socket):
    return {'amount': int(data['amount']), 'by': user.get_username(), 'at': socket.path}


async def by_async_function(data, user, socket, request):
    return {**by_function(data, user, socket=socket), 'at': request.path}


class Checker:
    def __call__(self, data, socket, user=None):
        return by_function(data, user, socket=socket)

    @classmethod
    def check(cls, data, user, socket):
        return by_function(data, user, socket=socket)

    @staticmethod
    def check_too(data, user, socket):
        return by_function(data, user, socket=socket)


def serializer():
    serializers = pytest.importorskip('rest_framework.serializers')

    class Bet(serializers.Serializer):
        amount = serializers.IntegerField()
        by = serializers.HiddenField(default=serializers.CurrentUserDefault())

        def validate(self, data):
            assert self.context['user'] == data['by'] and self.context['request'].user == data['by']
            return {**data, 'by': data['by'].get_username(), 'at': self.context['socket'].path}

    return Bet


def model():
    pydantic = pytest.importorskip('pydantic', minversion='2')

    class Bet(pydantic.BaseModel):
        amount: int
        by: str = ''
        at: str = ''

        @pydantic.model_validator(mode='after')
        def fill(self, info):
            self.by, self.at = info.context['user'].get_username(), info.context['socket'].path
            return self

    return Bet


@pytest.mark.parametrize(
    'make',
    [
        lambda: BetForm,
        lambda: HigherBetForm,
        lambda: by_function,
        lambda: by_async_function,
        lambda: Checker(),
        lambda: Checker.check,
        lambda: Checker.check_too,
        lambda: functools.partial(by_function),
        serializer,
        model,
    ],
)
@both_ways
def test_a_form_of_any_kind_gets_the_user_and_the_socket_if_it_asks_for_them(connect, alice, login, make):
    def answer(socket, content):
        content = content if isinstance(content, dict) else vars(content)
        return {'type': 'TAKEN', **content}

    connection = connect(
        type('Bets', (RoutedSocketHandler,), {'routes': [Route('BET', answer, form=make())]}), cookies=login(alice)
    )
    connection.received()
    assert connection.send({'type': 'BET', 'amount': '5', 'ref': 1}) == [
        {'type': 'TAKEN', 'amount': 5, 'by': 'alice', 'at': '/page/', 'ref': 1}
    ]
    assert connection.send({'type': 'BET', 'amount': 'x', 'ref': 2})[0]['code'] == 'invalid_content'


def test_a_form_of_django_that_wants_a_user_works_as_it_is(connect, alice, login):
    connection = connect(
        type(
            'Passwords',
            (RoutedSocketHandler,),
            {'routes': [Route('CHANGE', lambda socket, content: {'type': 'CHANGED'}, form=PasswordChangeForm)]},
        ),
        cookies=login(alice),
    )
    connection.received()
    (error,) = connection.send({'type': 'CHANGE', 'old_password': 'x', 'new_password1': 'a', 'new_password2': 'a'})
    assert 'old_password' in error['errors']
    fields = {'old_password': 'wonderland', 'new_password1': 'Looking-6lass', 'new_password2': 'Looking-6lass'}
    assert connection.send({'type': 'CHANGE', **fields}) == [{'type': 'CHANGED'}]


class Plain(forms.Form):
    def __init__(self, data=None, **kwargs):
        assert not kwargs
        super().__init__(data)


@pytest.mark.parametrize(
    'form, asked',
    [
        (None, set()),
        (forms.Form, set()),
        (Plain, set()),
        (BetForm, {'user', 'socket'}),
        (HigherBetForm, {'user', 'socket'}),
        (PasswordChangeForm, {'user'}),
        (forms.formset_factory(forms.Form), set()),
        (lambda data: data, set()),
        (lambda user: user, set()),
        (dict, set()),
        (int, set()),
        (lambda socket, user: user, {'user'}),
        (lambda data, **kwargs: data, set()),
        ({}.get, set()),
        (lambda data, amount=0: data, set()),
    ],
)
def test_what_is_not_asked_for_is_not_given(form, asked):
    assert asks_for(form) == asked


def test_nothing_is_read_from_the_database_for_a_form_that_does_not_use_it(connect, django_assert_num_queries):
    serializers = pytest.importorskip('rest_framework.serializers')
    Bet = type('Bet', (serializers.Serializer,), {'amount': serializers.IntegerField()})
    connection = connect(
        type(
            'Bets', (RoutedSocketHandler,), {'routes': [Route('BET', lambda socket, content: dict(content), form=Bet)]}
        )
    )
    connection.send({'type': 'PING'})
    with django_assert_num_queries(0):
        assert connection.send({'type': 'BET', 'amount': 5}) == [{'amount': 5}]


def test_without_a_connection_there_is_no_user():
    assert contracts.clean(lambda data, user, socket: [user, socket], {}) == [None, None]
