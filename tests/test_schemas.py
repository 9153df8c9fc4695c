import pytest
from django import forms
from django.contrib.auth.models import User

from sockets.contracts.schemas import schema_of, schema_of_sent


class BetForm(forms.Form):
    """A bet on one colour."""

    amount = forms.IntegerField(min_value=1, max_value=100, help_text='In chips.')
    colour = forms.ChoiceField(choices=[('', 'none'), ('r', 'red'), ('Dark', [('b', 'black')])], label='')
    tags = forms.MultipleChoiceField(choices=[('a', 'A')], required=False)
    player = forms.ModelChoiceField(User.objects.all(), required=False)
    when = forms.DateTimeField(required=False)
    sure = forms.BooleanField(required=False)
    mail = forms.EmailField(required=False, max_length=50)


def test_a_django_form_is_a_schema_without_a_query(db, django_assert_num_queries):
    with django_assert_num_queries(0):
        schema = schema_of(BetForm)
    assert schema == {
        'type': 'object',
        'description': 'A bet on one colour.',
        'required': ['amount', 'colour'],
        'properties': {
            'amount': {'type': 'integer', 'minimum': 1, 'maximum': 100, 'description': 'In chips.'},
            'colour': {'type': 'string', 'enum': ['r', 'b']},
            'tags': {'type': 'array', 'items': {'type': 'string', 'enum': ['a']}},
            'player': {},
            'when': {'type': 'string', 'format': 'date-time'},
            'sure': {'type': 'boolean'},
            'mail': {'type': 'string', 'format': 'email', 'maxLength': 50},
        },
    }


def test_a_serializer_is_a_schema_however_nested():
    serializers = pytest.importorskip('rest_framework.serializers')

    class Chip(serializers.Serializer):
        colour = serializers.ChoiceField(choices=['red', 'black'])

    class Bet(serializers.Serializer):
        amount = serializers.IntegerField(min_value=1)
        chips = Chip(many=True, required=False)
        first = Chip(required=False)
        notes = serializers.ListField(child=serializers.CharField(max_length=5), required=False)

    schema = schema_of(Bet)
    chip = {
        'type': 'object',
        'required': ['colour'],
        'properties': {'colour': {'type': 'string', 'enum': ['red', 'black'], 'description': 'Colour'}},
    }
    assert schema['required'] == ['amount']
    assert schema['properties']['chips'] == {'type': 'array', 'items': chip}
    assert schema['properties']['first'] == chip
    assert schema['properties']['notes']['items'] == {'type': 'string', 'maxLength': 5}


def test_a_serializer_takes_no_field_that_is_read_only_and_sends_none_that_is_write_only():
    serializers = pytest.importorskip('rest_framework.serializers')

    class Chip(serializers.Serializer):
        id = serializers.IntegerField(read_only=True)
        secret = serializers.CharField(write_only=True, required=False)

    class Bet(Chip):
        chips = Chip(many=True)

    taken, sent = schema_of(Bet), schema_of_sent(Bet)
    assert list(taken['properties']) == ['secret', 'chips'] and taken['required'] == ['chips']
    assert list(taken['properties']['chips']['items']['properties']) == ['secret']
    assert list(sent['properties']) == ['id', 'chips'] and sent['required'] == ['id', 'chips']
    assert list(sent['properties']['chips']['items']['properties']) == ['id']


def test_what_is_sent_without_a_form_has_any_fields():
    assert schema_of_sent(None) == {'type': 'object'}


def test_a_pydantic_model_tells_its_own_schema():
    pydantic = pytest.importorskip('pydantic')

    class Chip(pydantic.BaseModel):
        colour: str

    # Not as annotations, whose names would be looked for in this module.
    Bet = type('Bet', (pydantic.BaseModel,), {'__annotations__': {'amount': int, 'chip': Chip}, '__module__': __name__})
    schema = schema_of(Bet)
    assert schema['properties']['amount']['type'] == 'integer'
    assert schema['properties']['chip']['properties']['colour']['type'] == 'string'
    assert '$' not in str(schema)


def test_what_a_function_takes_is_not_known():
    def bet(content):
        """A bet."""

    assert schema_of(bet) == {'type': 'object', 'description': 'A bet.'}
    assert schema_of(lambda content: content) == {'type': 'object'}
