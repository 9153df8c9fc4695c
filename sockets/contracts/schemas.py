"""What a route's form wants, as JSON Schema: for machines that describe, generate and check."""

import inspect

# Django's and REST framework's fields of these names, and of classes built on them. The first that fits counts.
_TYPES = (
    ('ModelMultipleChoiceField', {'type': 'array'}),
    ('MultipleChoiceField', {'type': 'array', 'items': {'type': 'string'}}),
    ('TypedChoiceField', {}),
    ('ModelChoiceField', {}),
    ('ChoiceField', {'type': 'string'}),
    ('NullBooleanField', {'type': ['boolean', 'null']}),
    ('BooleanField', {'type': 'boolean'}),
    ('FloatField', {'type': 'number'}),
    ('DecimalField', {'type': ['number', 'string']}),
    ('IntegerField', {'type': 'integer'}),
    ('DateTimeField', {'type': 'string', 'format': 'date-time'}),
    ('DateField', {'type': 'string', 'format': 'date'}),
    ('TimeField', {'type': 'string', 'format': 'time'}),
    ('DurationField', {'type': 'string'}),
    ('EmailField', {'type': 'string', 'format': 'email'}),
    ('URLField', {'type': 'string', 'format': 'uri'}),
    ('UUIDField', {'type': 'string', 'format': 'uuid'}),
    ('CharField', {'type': 'string'}),
    ('DictField', {'type': 'object'}),
)
_LIMITS = (('min_length', 'minLength'), ('max_length', 'maxLength'), ('min_value', 'minimum'), ('max_value', 'maximum'))


def schema_of(form):
    """Return the JSON Schema of the content that ``form`` takes (see ``sockets.contracts.clean``).

    What cannot be known, such as what a function takes, is an object with any properties.
    """
    if hasattr(form, 'base_fields'):
        return _of_fields(form, form.base_fields)
    if hasattr(form, 'is_valid'):
        # What a serializer makes of a row, no client sends.
        return _of_fields(form, form().fields, without='read_only')
    for name in ('model_json_schema', 'schema'):
        if hasattr(form, name):
            return _inlined(getattr(form, name)())
    return {'type': 'object', **({'description': inspect.getdoc(form)} if inspect.getdoc(form) else {})}


def schema_of_sent(form):
    """Return the JSON Schema of the fields of what a handler sends as ``form``; ``None`` are any fields."""
    if form is None:
        return {'type': 'object'}
    if not hasattr(form, 'base_fields') and hasattr(form, 'is_valid'):
        return _of_fields(form, form().fields, without='write_only')
    return schema_of(form)


def _inlined(schema, definitions=None, inside=()):
    """Return ``schema`` with its own definitions in place of references, which lead nowhere from another document."""
    if isinstance(schema, list):
        return [_inlined(part, definitions, inside) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if definitions is None:
        definitions = schema.get('$defs') or schema.get('definitions') or {}
    if '$ref' in schema:
        name = schema['$ref'].rpartition('/')[2]
        # A model may hold itself.
        return {} if name in inside else _inlined(definitions.get(name, {}), definitions, (*inside, name))
    return {
        key: _inlined(part, definitions, inside) for key, part in schema.items() if key not in ('$defs', 'definitions')
    }


def _of_fields(form, fields, without=''):
    fields = {name: field for name, field in fields.items() if not getattr(field, without, False)}
    schema = {'type': 'object', 'properties': {name: _of_field(field, without) for name, field in fields.items()}}
    # Fields of forms are never read-only; those of a serializer that are come from the row, so that they are there.
    required = [name for name, field in fields.items() if field.required or getattr(field, 'read_only', False)]
    if required:
        schema['required'] = required
    # Not that of the base class.
    if form.__doc__:
        schema['description'] = inspect.cleandoc(form.__doc__)
    return schema


def _of_field(field, without):
    if hasattr(field, 'fields') and hasattr(field, 'run_validation'):
        return _of_fields(type(field), field.fields, without)
    if hasattr(field, 'child'):
        return {'type': 'array', 'items': _of_field(field.child, without)}
    names = [cls.__name__ for cls in type(field).__mro__]
    schema = dict(next((schema for name, schema in _TYPES if name in names), {}))
    for attribute, keyword in _LIMITS:
        limit = getattr(field, attribute, None)
        if isinstance(limit, (int, float)):
            schema[keyword] = limit
    choices = _choices(field)
    if choices and schema.get('type') == 'array':
        schema['items'] = {'type': 'string', 'enum': choices}
    elif choices:
        schema['enum'] = choices
    text = getattr(field, 'help_text', None) or getattr(field, 'label', None)
    if text:
        schema['description'] = str(text)
    return schema


def _choices(field):
    # Those of a model are rows: a query, and other ones tomorrow.
    if hasattr(field, 'queryset') or not getattr(field, 'choices', None):
        return []
    choices = field.choices.items() if isinstance(field.choices, dict) else field.choices
    found = []
    for value, label in choices:
        found += [value for value, _ in label] if isinstance(label, (list, tuple)) else [value]
    return [value for value in found if value != '']
