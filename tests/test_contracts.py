from datetime import datetime, timezone

import pytest
from django import forms
from django.contrib.auth.models import Permission
from django.core.exceptions import ValidationError
from django.views.generic import View

from sockets import RoutedSocketHandler, SocketRouter, contracts, messages
from sockets.exceptions import FrameError
from sockets.routes import Route

from .conftest import both_ways


class BetForm(forms.Form):
    amount = forms.IntegerField(min_value=1)
    note = forms.CharField(required=False)

    def clean(self):
        if self.cleaned_data.get('note') == 'bluff':
            raise forms.ValidationError('We do not bluff.')


def serializer():
    serializers = pytest.importorskip('rest_framework.serializers')

    class Chip(serializers.Serializer):
        colour = serializers.CharField()

    class Bet(serializers.Serializer):
        amount = serializers.IntegerField(min_value=1)
        chips = Chip(many=True, required=False)

    return Bet


def model():
    pydantic = pytest.importorskip('pydantic')

    class Bet(pydantic.BaseModel):
        amount: int
        chips: list = []

    return Bet


def amount_of(content):
    if content == {'amount': 'django'}:
        raise ValidationError({'amount': ['Not that.']})
    if 'amount' not in content:
        raise ValidationError('Where is it?')
    return int(content['amount'])


def refusal(form, content):
    with pytest.raises(FrameError) as raised:
        contracts.clean(form, content)
    assert raised.value.code == messages.INVALID_CONTENT
    return raised.value


def test_a_django_form_gives_its_cleaned_data_and_its_errors_per_field():
    assert contracts.clean(BetForm, {'amount': '5'}) == {'amount': 5, 'note': ''}
    error = refusal(BetForm, {'amount': 0})
    assert list(error.errors) == ['amount'] and error.details == 'amount: ' + error.errors['amount'][0]
    error = refusal(BetForm, {'amount': 1, 'note': 'bluff'})
    assert (error.details, error.errors) == ('We do not bluff.', {'__all__': ['We do not bluff.']})


class DayForm(forms.Form):
    start = forms.DateTimeField()


@pytest.mark.parametrize('text', ['2019-04-01T12:30:00.000Z', '2019-04-01T14:30:00+02:00', '2019-04-01 12:30'])
def test_a_django_form_takes_a_date_as_browsers_write_it(settings, text):
    # Django 2.2 refuses what new Date().toJSON() returns.
    settings.USE_TZ, settings.TIME_ZONE = True, 'UTC'
    assert contracts.clean(DayForm, {'start': text})['start'] == datetime(2019, 4, 1, 12, 30, tzinfo=timezone.utc)


@pytest.mark.parametrize('text', ['2019-06-31T12:30:00Z', 'noon', '', None])
def test_a_django_form_refuses_a_value_that_is_not_a_date(text):
    assert list(refusal(DayForm, {'start': text}).errors) == ['start']


# Those of django.forms that a class of forms can have as they are.
FIELDS = [
    field()
    for field in vars(forms).values()
    if isinstance(field, type)
    and issubclass(field, forms.Field)
    and field.__module__ == 'django.forms.fields'
    and field not in (forms.ComboField, forms.MultiValueField, forms.FilePathField, forms.RegexField)
]
FIELDS += [
    forms.RegexField('.'),
    forms.ModelChoiceField(Permission.objects.all()),
    forms.ModelMultipleChoiceField(Permission.objects.all()),
]


@pytest.mark.django_db
@pytest.mark.parametrize('value', [5, 1.5, True, [1], {'a': 1}, [[1]], [{}], 10**30, [10**30]], ids=repr)
@pytest.mark.parametrize('field', FIELDS, ids=lambda field: type(field).__name__)
def test_no_json_value_crashes_a_field_of_django(field, value):
    # Fields such as that of dates called strip() on a number, and the client got server_error.
    try:
        contracts.clean(type('Form', (forms.Form,), {'value': field}), {'value': value})
    except FrameError as error:
        assert list(error.errors) in (['value'], ['__all__'])


@pytest.mark.django_db
def test_a_number_too_large_for_the_database_does_not_crash_a_serializer():
    serializers = pytest.importorskip('rest_framework.serializers')

    class Give(serializers.Serializer):
        permission = serializers.PrimaryKeyRelatedField(queryset=Permission.objects.all())

    # Newer ones look for it.
    assert list(refusal(Give, {'permission': 10**30}).errors) in (['__all__'], ['permission'])


def test_a_serializer_gives_its_validated_data_and_its_errors_however_nested(settings):
    bet = serializer()
    assert contracts.clean(bet, {'amount': '5'}) == {'amount': 5}
    error = refusal(bet, {'amount': 1, 'chips': [{'colour': 'red'}, {}]})
    # Newer ones leave out what is right.
    required = {'colour': ['This field is required.']}
    assert error.errors in ({'chips': [{}, required]}, {'chips': {'1': required}})
    assert messages.encode(error.errors)
    assert refusal(bet, {}).details == 'amount: This field is required.'


def test_a_pydantic_model_gives_an_instance_and_its_errors_by_place():
    bet = contracts.clean(model(), {'amount': '5'})
    assert bet.amount == 5
    error = refusal(model(), {'amount': 'x'})
    assert list(error.errors) == ['amount'] and error.details.startswith('amount: ')


def test_a_function_gives_what_it_returns_and_refuses_with_what_it_raises():
    assert contracts.clean(amount_of, {'amount': '5'}) == 5
    assert refusal(amount_of, {'amount': 'django'}).errors == {'amount': ['Not that.']}
    assert refusal(amount_of, {}).details == 'Where is it?'
    assert 'invalid literal' in refusal(amount_of, {'amount': 'x'}).details
    with pytest.raises(TypeError):
        contracts.clean(amount_of, {'amount': []})


class Table(View):
    socket = SocketRouter()

    @socket.route('BET', form=BetForm, rate='100/s')
    def on_bet(socket, content):
        return {'type': 'TAKEN', 'clean': content, 'raw': socket.content}

    @socket.route('SIT', login_required=True)
    def on_sit(socket):
        return {'type': 'SAT', 'user': socket.user.get_username()}

    @socket.route('KICK', permission='sockets.delete_socket')
    def on_kick(socket):
        return {'type': 'KICKED'}


class Tables(RoutedSocketHandler):
    routes = (
        *RoutedSocketHandler.routes,
        Route('BET', 'on_bet', form=BetForm),
        Route('SIT', 'on_sit', login_required=True),
        Route('KICK', 'on_kick', permission=['sockets.delete_socket']),
    )
    on_bet, on_sit, on_kick = Table.on_bet, Table.on_sit, Table.on_kick


@pytest.mark.parametrize('handler', [Table.socket.Handler, Tables])
@pytest.mark.django_db
@both_ways
def test_a_function_gets_what_its_form_makes_of_the_content(connect, handler):
    table = connect(handler)
    table.received()
    raw = {'type': 'BET', 'amount': '5', 'ref': 1, 'resent': True}
    assert table.send(raw) == [{'type': 'TAKEN', 'clean': {'amount': 5, 'note': ''}, 'raw': raw, 'ref': 1}]
    (error,) = table.send({'type': 'BET', 'amount': 'x', 'ref': 2})
    assert (error['type'], error['code'], error['ref'], list(error['errors'])) == (
        'ERROR',
        'invalid_content',
        2,
        ['amount'],
    )


@pytest.mark.parametrize('handler', [Table.socket.Handler, Tables])
@pytest.mark.django_db
@both_ways
def test_a_route_asks_for_a_user_or_a_permission(connect, handler, alice, login):
    stranger = connect(handler)
    stranger.received()
    assert [stranger.send({'type': type})[0]['code'] for type in ('SIT', 'KICK')] == ['not_allowed'] * 2
    table = connect(handler, cookies=login(alice))
    table.received()
    assert table.send({'type': 'SIT'}) == [{'type': 'SAT', 'user': 'alice'}]
    assert table.send({'type': 'KICK'})[0]['code'] == 'not_allowed'
    alice.user_permissions.add(Permission.objects.get(codename='delete_socket'))
    assert table.send({'type': 'KICK'}) == [{'type': 'KICKED'}]


@pytest.mark.django_db
@both_ways
def test_a_route_without_a_contract_costs_no_query(connect, django_assert_num_queries):
    table = connect(Table.socket.Handler)
    table.send({'type': 'PING'})
    with django_assert_num_queries(0):
        assert table.send({'type': 'BET', 'amount': 1})
