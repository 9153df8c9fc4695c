"""Exceptions with which Django, REST framework and pydantic refuse a client, as the ``FrameError`` they stand for."""

from django.core.exceptions import NON_FIELD_ERRORS, PermissionDenied, ValidationError
from django.http import Http404
from django.utils.functional import Promise

from .. import messages
from ..exceptions import FrameError

# Of exceptions of REST framework, which is not imported: a project may have none.
_CODES = {
    400: messages.INVALID_CONTENT,
    401: messages.NOT_ALLOWED,
    403: messages.NOT_ALLOWED,
    404: messages.NOT_FOUND,
    422: messages.INVALID_CONTENT,
    429: messages.RATE_LIMITED,
}


def frame_error(error):
    """Return the ``FrameError`` that the exception ``error`` stands for, or ``error`` itself if it stands for none."""
    try:
        return _frame_error(error)
    except BaseException:
        # Its texts may raise, too. No other exception may take the place of the one that is handled.
        return error


def _frame_error(error):
    if isinstance(error, Http404):
        return FrameError(messages.NOT_FOUND, _text(error) or 'There is no such thing.')
    if isinstance(error, PermissionDenied):
        return FrameError(messages.NOT_ALLOWED, _text(error) or 'You may not do this.')
    if isinstance(error, ValidationError):
        return invalid(error.message_dict if hasattr(error, 'error_dict') else {NON_FIELD_ERRORS: error.messages})
    # rest_framework.exceptions.APIException
    if hasattr(error, 'detail') and hasattr(error, 'get_full_details') and hasattr(error, 'status_code'):
        code = _CODES.get(error.status_code)
        if code == messages.INVALID_CONTENT:
            detail = error.detail if isinstance(error.detail, (dict, list)) else [error.detail]
            return invalid(detail if isinstance(detail, dict) else {'non_field_errors': detail})
        if code is None:
            return error
        # Throttled has a wait, or None.
        return FrameError(code, _first(error.detail), retry_after=getattr(error, 'wait', None))
    # pydantic.ValidationError
    if isinstance(error, ValueError) and callable(getattr(error, 'errors', None)):
        found = {}
        for entry in error.errors():
            found.setdefault('.'.join(map(str, entry['loc'])) or NON_FIELD_ERRORS, []).append(entry['msg'])
        return invalid(found)
    return error


def invalid(errors):
    """Return the ``FrameError`` for content with ``errors``: a ``dict`` of fields, nested as serializers nest them."""
    errors = _plain(errors)
    field = next((field for field, texts in errors.items() if _first(texts)), NON_FIELD_ERRORS)
    details = _first(errors.get(field, ()))
    if field not in (NON_FIELD_ERRORS, 'non_field_errors'):
        details = f'{field}: {details}'
    return FrameError(messages.INVALID_CONTENT, details, errors)


def _text(error):
    # Others than texts are not for clients: that of Resolver404 is a list of the site's URLs.
    return str(error.args[0]) if error.args and isinstance(error.args[0], (str, Promise)) else ''


def _plain(errors):
    """Return ``errors`` as what JSON can be made of."""
    if isinstance(errors, dict):
        return {str(field): _plain(texts) for field, texts in errors.items()}
    return [_plain(text) for text in errors] if isinstance(errors, (list, tuple)) else str(errors)


def _first(texts):
    """Return the first text in ``texts``, however nested, or ``''``."""
    if isinstance(texts, dict):
        texts = list(texts.values())
    if not isinstance(texts, (list, tuple)):
        return str(texts)
    return next(filter(None, map(_first, texts)), '')
