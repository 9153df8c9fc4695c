"""What ``SOCKETS['AUTHENTICATION']`` and ``authentication`` of a handler class are made of: tokens, and REST framework."""

import copy
from datetime import datetime, timezone
from typing import Any, Callable, Optional, Union

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from .access import authentication, credentials

__all__ = ['expiry_of', 'rest_framework', 'token']


def token(
    request: Any, scheme: str = 'Bearer', parameter: Optional[str] = None, subprotocol: Optional[str] = None
) -> Optional[str]:
    """Return the token that the client has sent in the header ``Authorization: Bearer ...``, ``None`` if there is none.

    If they are named, it may also be the query parameter ``parameter``, or what the client offers after the subprotocol
    ``subprotocol``, with which the server then answers: ``new WebSocket(url, ['bearer', token])``.
    """
    _check_parameter(parameter, 'token()')
    offered = authentication.offered(request) if subprotocol is not None else []
    if subprotocol in offered:
        # Also of a token that is refused: a browser shows a page the close code only then.
        request.subprotocol = subprotocol
    sent, _, value = request.META.get('HTTP_AUTHORIZATION', '').strip().partition(' ')
    if value.strip() and sent.lower() == scheme.lower():
        return value.strip()
    if parameter is not None and request.GET.get(parameter):
        return request.GET[parameter]
    if subprotocol in offered[:-1]:
        return offered[offered.index(subprotocol) + 1]
    return None


def expiry_of(auth: Any) -> Optional[datetime]:
    """Return when ``auth`` expires, which an authentication class of REST framework returns beside the user.

    That is its claim ``exp``, as of a JSON web token, or its attribute ``expires`` or ``expiry``; ``None`` without them.
    """
    try:
        return datetime.fromtimestamp(auth['exp'], timezone.utc)
    except (TypeError, KeyError, IndexError, AttributeError):
        return getattr(auth, 'expires', None) or getattr(auth, 'expiry', None)


def rest_framework(
    authenticator: Union[str, Callable[[], Any]],
    scheme: Optional[str] = None,
    parameter: Optional[str] = None,
    subprotocol: Optional[str] = None,
    until: Callable[[Any], Optional[datetime]] = expiry_of,
) -> Callable[[Any], Any]:
    """Return an authentication that asks ``authenticator``, an authentication class of REST framework or its dotted path.

    The token may also come as ``token()`` finds it: after another ``scheme`` in the header than that of the class, in a
    query parameter or after a subprotocol. ``until(auth)`` returns when what the class returned beside the user expires.
    """

    def authenticate(request: Any) -> Any:
        from rest_framework.request import Request

        asked = (import_string(authenticator) if isinstance(authenticator, str) else authenticator)()
        # The first word of what a page would say in WWW-Authenticate.
        own = (asked.authenticate_header(Request(request)) or 'Bearer').split()[0]
        value = token(request, scheme or own, parameter, subprotocol)
        found = asked.authenticate(Request(request if value is None else _with_header(request, f'{own} {value}')))
        if found is None:
            return None
        user, auth = found
        return user, until(auth)

    def check(where: str) -> None:
        _check_parameter(parameter, where)
        if isinstance(authenticator, str):
            try:
                import_string(authenticator)
            except ImportError as error:
                raise ImproperlyConfigured(
                    f'{where} has rest_framework({authenticator!r}), which cannot be imported: {error}'
                ) from error

    if not isinstance(authenticator, str) and not callable(getattr(authenticator, 'authenticate', None)):
        raise TypeError(
            f'rest_framework() takes an authentication class of REST framework or its dotted path, not {authenticator!r}.'
        )
    authenticate.check = check  # type: ignore[attr-defined]
    if isinstance(authenticator, str):
        authenticate.__module__, _, authenticate.__qualname__ = authenticator.rpartition('.')
    else:
        authenticate.__module__ = authenticator.__module__
        authenticate.__qualname__ = getattr(authenticator, '__qualname__', type(authenticator).__qualname__)
    return authenticate


def _with_header(request: Any, value: str) -> Any:
    """Return a copy of ``request`` with the header ``Authorization``, for whoever looks for a token only there."""
    changed = copy.copy(request)
    changed.META = {**request.META, 'HTTP_AUTHORIZATION': value}
    # Made of META when it was first asked for.
    vars(changed).pop('headers', None)
    return changed


def _check_parameter(parameter: Optional[str], where: str) -> None:
    if parameter is not None and not credentials.is_credential(parameter):
        raise ImproperlyConfigured(
            f"{where}: SOCKETS['CREDENTIALS'] does not name the query parameter {parameter!r}, so that rows would keep the "
            "token. Call it 'token', or add its name there."
        )
