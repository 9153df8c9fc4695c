"""What a route asks of a frame before its function is called: who may send it, and what must be in it."""
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError

from . import coroutines, forms, messages, refusals
from .exceptions import FrameError


def check(route, socket, content):
    """Return what the function of ``route`` gets for ``content``; ``FrameError`` if it gets nothing."""
    if route.login_required and not socket.user.is_authenticated:
        raise FrameError(messages.NOT_ALLOWED, 'Log in to do this.')
    if route.permissions and not coroutines.settle(socket.user.has_perms(route.permissions)):
        raise FrameError(messages.NOT_ALLOWED, 'You may not do this.')
    if route.form is None:
        return content
    data = content if isinstance(content, bytes) else messages.fields(content)
    return clean(route.form, data, socket, route.asks)


def clean(form, data, socket=None, asks=None):
    """Return what ``form`` makes of the ``dict`` ``data``; ``FrameError`` with errors per field if it refuses.

    ``form`` is a class of Django's forms or of Django REST framework's serializers (the result is ``cleaned_data`` or
    ``validated_data``), a pydantic model (an instance of it), or a function that returns the result, or a form to be
    asked for it, and refuses with ``ValueError`` or Django's ``ValidationError``. Of the connection ``socket`` it gets
    what it ``asks`` for (``sockets.forms.asks_for``).
    """
    given = forms.arguments(forms.asks_for(form) if asks is None else asks, socket)
    if hasattr(form, 'is_valid'):
        result = form(data=data, **given)
    else:
        try:
            result = coroutines.settle(forms.model_validator(form)(data, **given))
        except (ValidationError, ValueError) as error:
            refusal = refusals.frame_error(error)
            raise refusals.invalid({NON_FIELD_ERRORS: [str(error)]}) if refusal is error else refusal
    if hasattr(result, 'is_valid'):
        if not coroutines.settle(result.is_valid()):
            raise refusals.invalid(result.errors)
        result = result.cleaned_data if hasattr(result, 'cleaned_data') else result.validated_data
    name = forms.has_not_run(result)
    if name is not None:
        raise TypeError('{!r} made a coroutine of {!r}, which nobody has run: what validates is a def.'.format(
            form, name))
    return result
