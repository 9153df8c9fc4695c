"""What frames must hold: those of a route, before its function is called, and those that a handler sends."""
import json

from django import forms
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import DataError
from django.utils.dateparse import parse_datetime

from . import messages, schemas
from .exceptions import FrameError

_TEXTS = forms.DateField, forms.DateTimeField, forms.TimeField, forms.UUIDField, forms.GenericIPAddressField


def check(route, socket, content):
    """Return what the function of ``route`` gets for ``content``; ``FrameError`` if it gets nothing."""
    if route.login_required and not socket.user.is_authenticated:
        raise FrameError(messages.NOT_ALLOWED, 'Log in to do this.')
    if route.permissions and not socket.user.has_perms(route.permissions):
        raise FrameError(messages.NOT_ALLOWED, 'You may not do this.')
    return content if route.form is None else clean(route.form, messages.fields(content))


def clean(form, data):
    """Return what ``form`` makes of the ``dict`` ``data``; ``FrameError`` with errors per field if it refuses.

    ``form`` is a class of Django's forms or of Django REST framework's serializers (the result is ``cleaned_data`` or
    ``validated_data``), a pydantic model (an instance of it), or a function that returns the result and refuses with
    ``ValueError`` or Django's ``ValidationError``.
    """
    if hasattr(form, 'is_valid'):
        bound = form(data=_for_form(form, data))
        try:
            is_valid = bound.is_valid()
        except (OverflowError, DataError):
            # Fields that look for a row let it through when the database has no number as large.
            raise _refusal({NON_FIELD_ERRORS: ['A number is out of range.']})
        if not is_valid:
            raise _refusal(bound.errors)
        return bound.cleaned_data if hasattr(bound, 'cleaned_data') else bound.validated_data
    # pydantic 2 and 1
    validate = getattr(form, 'model_validate', None) or getattr(form, 'parse_obj', None) or form
    try:
        return validate(data)
    except ValidationError as error:
        raise _refusal(error.message_dict if hasattr(error, 'error_dict') else {NON_FIELD_ERRORS: error.messages})
    except ValueError as error:
        if validate is form:
            raise _refusal({NON_FIELD_ERRORS: [str(error)]})
        found = {}
        for entry in error.errors():
            found.setdefault('.'.join(map(str, entry['loc'])) or NON_FIELD_ERRORS, []).append(entry['msg'])
        raise _refusal(found)


def _for_form(form, data):
    """Return ``data`` as Django's fields can read it, which know no other values than the texts of an HTML form."""
    data = dict(data)
    for name, field in getattr(form, 'base_fields', {}).items():
        value = data.get(name)
        if isinstance(field, _TEXTS) and value is not None and not isinstance(value, str):
            # These raise no ValidationError, but whatever comes of calling strip() on a number.
            data[name] = str(value)
        elif isinstance(field, forms.NullBooleanField) and isinstance(value, (list, dict)):
            data[name] = None
        elif isinstance(field, forms.DateTimeField) and isinstance(value, str):
            # As JSON has it. Forms themselves know it since Django 3.1.
            try:
                data[name] = parse_datetime(value) or value
            except ValueError:
                pass
    return data


def check_sent(handler, content):
    """Raise ``TypeError`` unless ``content`` is what ``handler.sends`` declares. Our own types need no declaration."""
    type = content.get(messages.TYPE)
    if isinstance(type, str) and type in messages.SENT_BY_US and type not in handler.sends:
        return
    if not isinstance(type, str) or type not in handler.sends:
        raise TypeError('{} sends the type {!r:.100}, which its sends does not declare; it has {}.'.format(
            handler.__name__, type, ', '.join(map(repr, sorted(handler.sends)))))
    form = handler.sends[type]
    if form is None:
        return
    try:
        # As a client gets it: a date is a text.
        content = json.loads(messages.encode(content))
    except TypeError:
        # The handler has an encoding of its own, which knows more than JSON.
        pass
    fields = messages.fields(content)
    try:
        clean(form, fields)
        # Fields that a serializer makes of a row are none that it would miss.
        for name in schemas.schema_of_sent(form).get('required', ()):
            if name not in fields:
                raise FrameError(messages.INVALID_CONTENT, '{} is missing.'.format(name))
    except FrameError as error:
        raise TypeError('{} sends {!r}, which does not fit {}: {}'.format(
            handler.__name__, type, getattr(form, '__qualname__', form), error.details))


def _refusal(errors):
    errors = _plain(errors)
    field, texts = next(iter(errors.items()))
    while isinstance(texts, (list, dict)) and texts:
        texts = texts[0] if isinstance(texts, list) else next(iter(texts.values()))
    details = texts if field in (NON_FIELD_ERRORS, 'non_field_errors') else '{}: {}'.format(field, texts)
    return FrameError(messages.INVALID_CONTENT, details, errors)


def _plain(errors):
    """Return ``errors``, nested as serializers nest them, as what JSON can be made of."""
    if isinstance(errors, dict):
        return {str(field): _plain(texts) for field, texts in errors.items()}
    return [_plain(text) for text in errors] if isinstance(errors, list) else str(errors)
