"""What a route asks of a frame before its function is called: who may send it, and what must be in it."""
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError

from . import messages
from .exceptions import FrameError


def check(route, socket, content):
    """Return what the function of ``route`` gets for ``content``; ``FrameError`` if it gets nothing."""
    if route.login_required and not socket.user.is_authenticated:
        raise FrameError(messages.NOT_ALLOWED, 'Log in to do this.')
    if route.permissions and not socket.user.has_perms(route.permissions):
        raise FrameError(messages.NOT_ALLOWED, 'You may not do this.')
    if route.form is None:
        return content
    return clean(route.form, content if isinstance(content, bytes) else messages.fields(content))


def clean(form, data):
    """Return what ``form`` makes of the ``dict`` ``data``; ``FrameError`` with errors per field if it refuses.

    ``form`` is a class of Django's forms or of Django REST framework's serializers (the result is ``cleaned_data`` or
    ``validated_data``), a pydantic model (an instance of it), or a function that returns the result and refuses with
    ``ValueError`` or Django's ``ValidationError``.
    """
    if hasattr(form, 'is_valid'):
        bound = form(data=data)
        if not bound.is_valid():
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
