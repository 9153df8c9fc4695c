"""What frames must hold: those of a route, before its function is called, and those that a handler sends."""

import json
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Optional, Union

from django import forms as django_forms
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import DataError
from django.utils.dateparse import parse_datetime

from .. import messages
from ..declaration import forms
from ..exceptions import FrameError
from ..execution import coroutines
from . import refusals, schemas

if TYPE_CHECKING:
    from ..handlers import RoutedSocketHandler

_TEXTS = (
    django_forms.DateField,
    django_forms.DateTimeField,
    django_forms.TimeField,
    django_forms.UUIDField,
    django_forms.GenericIPAddressField,
)


def check(route, socket, content):
    """Return what the function of ``route`` gets for ``content``; ``FrameError`` if it gets nothing."""
    if route.login_required and not socket.user.is_authenticated:
        raise FrameError(messages.NOT_ALLOWED, 'Log in to do this.')
    if not has_permissions(socket, route.permissions):
        raise FrameError(messages.NOT_ALLOWED, 'You may not do this.')
    if route.form is None:
        return content
    data = content if isinstance(content, bytes) else messages.fields(content)
    return clean(route.form, data, socket, route.asks)


def has_permissions(socket, names):
    """Whether the user of ``socket`` has all the permissions ``names``. A backend of the project's own may be async."""
    if not names:
        return True
    user = socket.user
    entry = socket._identity.entry_of(user)
    if entry is None:
        return coroutines.settle(user.has_perms(names))
    allowed = entry.permissions.allowed
    found = allowed.get(names)
    if found is None:
        found = allowed[names] = coroutines.settle(user.has_perms(names))
        entry.note_permissions(user)
    return found


def clean(
    form: Callable[..., Any],
    data: Union[Dict[str, Any], bytes],
    socket: 'Optional[RoutedSocketHandler]' = None,
    asks: Optional[Iterable[str]] = None,
) -> Any:
    """Return what ``form`` makes of the ``dict`` ``data``; ``FrameError`` with errors per field if it refuses.

    ``form`` is a class of Django's forms or of Django REST framework's serializers (the result is ``cleaned_data`` or
    ``validated_data``), a pydantic model (an instance of it), or a function that returns the result, or a form to be
    asked for it, and refuses with ``ValueError`` or Django's ``ValidationError``. Of the connection ``socket`` it gets
    what it ``asks`` for (``sockets.declaration.forms.asks_for``).
    """
    given = forms.arguments(forms.asks_for(form) if asks is None else asks, socket)
    if hasattr(form, 'is_valid'):
        result = form(data=_for_form(form, data), **given)
    else:
        try:
            result = coroutines.settle(forms.model_validator(form)(data, **given))
        except (ValidationError, ValueError) as error:
            refusal = refusals.frame_error(error)
            raise refusals.invalid({NON_FIELD_ERRORS: [str(error)]}) if refusal is error else refusal
    if hasattr(result, 'is_valid'):
        try:
            is_valid = coroutines.settle(result.is_valid())
        except (OverflowError, DataError):
            # Fields that look for a row let it through when the database has no number as large.
            raise refusals.invalid({NON_FIELD_ERRORS: ['A number is out of range.']})
        if not is_valid:
            raise refusals.invalid(result.errors)
        result = result.cleaned_data if hasattr(result, 'cleaned_data') else result.validated_data
    name = forms.has_not_run(result)
    if name is not None:
        raise TypeError(f'{form!r} made a coroutine of {name!r}, which has not been run: write def for what validates.')
    return result


def _for_form(form, data):
    """Return ``data`` as Django's fields can read it, which know no other values than the texts of an HTML form."""
    data = dict(data)
    for name, field in getattr(form, 'base_fields', {}).items():
        value = data.get(name)
        if isinstance(field, _TEXTS) and value is not None and not isinstance(value, str):
            # These raise no ValidationError, but whatever comes of calling strip() on a number.
            data[name] = str(value)
        elif isinstance(field, django_forms.NullBooleanField) and isinstance(value, (list, dict)):
            data[name] = None
        elif isinstance(field, django_forms.DateTimeField) and isinstance(value, str):
            # As JSON has it. Forms themselves know it since Django 3.1.
            try:
                data[name] = parse_datetime(value) or value
            except ValueError:
                pass
    return data


def check_sent_on(handler, content):
    """Raise ``TypeError`` if the handler class ``handler`` declares what it sends, and not ``content``. For ``DEBUG`` and
    for tests. What a demultiplexer sends on a stream is of that stream.
    """
    name, payload = content.get(messages.STREAM), content.get(messages.PAYLOAD)
    if isinstance(name, str) and name in handler._streams and isinstance(payload, dict):
        handler, content = handler._streams[name], payload
    if handler.sends:
        check_sent(handler, content)


def check_sent(handler, content):
    """Raise ``TypeError`` unless ``content`` is what ``handler.sends`` declares. Our own types need no declaration."""
    type = content.get(messages.TYPE)
    if isinstance(type, str) and type in messages.SENT_BY_US and type not in handler.sends:
        return
    if not isinstance(type, str) or type not in handler.sends:
        raise TypeError(
            '{} sends the type {!r:.100}, which its sends does not declare; it has {}.'.format(
                handler.__name__, type, ', '.join(map(repr, sorted(handler.sends)))
            )
        )
    form = handler.sends[type]
    if form is None:
        return
    try:
        # As a client gets it: a date is a text.
        content = json.loads(messages.text_of(content))
    except TypeError:
        # The handler has an encoding of its own, which knows more than JSON.
        pass
    fields = messages.fields(content)
    try:
        clean(form, fields)
        # A serializer does not miss its read-only fields, which it would fill from a row.
        for name in schemas.schema_of_sent(form).get('required', ()):
            if name not in fields:
                raise FrameError(messages.INVALID_CONTENT, f'{name} is missing.')
    except FrameError as error:
        raise TypeError(
            '{} sends {!r}, which does not fit {}: {}'.format(
                handler.__name__, type, getattr(form, '__qualname__', form), error.details
            )
        )
