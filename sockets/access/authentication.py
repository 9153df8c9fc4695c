"""Who a client is by what its request says, other than by a session: ``SOCKETS['AUTHENTICATION']`` and its like."""

import inspect
import logging
import traceback
from collections import namedtuple
from datetime import datetime

from django.conf import settings
from django.contrib.auth import get_user_model
from django.utils import timezone
from django.utils.functional import LazyObject, empty

from .. import databases, engine, messages
from ..contracts import refusals
from ..declaration import authentication
from ..exceptions import ConnectionRevoked, FrameError, PermissionMissing, TooManyConnections
from ..execution import coroutines, steps
from . import auth, credentials

logger = logging.getLogger('sockets')

# The user of a connection, until when that holds (``None``: as long as the user does), and who has said so.
Authenticated = namedtuple('Authenticated', 'user until name')

# Who has said so where a middleware of the engine has.
MIDDLEWARE = 'middleware'

# What an authentication may raise that is said to the client as it is.
_PLAIN = (ConnectionRevoked, PermissionMissing, TooManyConnections, engine.Denied, engine.Closing, engine.Special)


def authenticate(cls, request):
    """Yield the steps to who has sent ``request`` to the handler class ``cls``, as ``Authenticated``; return that, or
    ``None`` where nobody says so. The first step, and what follows the last one, may wait.

    ``ConnectionRevoked`` where somebody refuses it, ``engine.Denied`` after a fault, which is logged.
    """
    for name, function in authentication.of_class(cls):
        try:
            # A replica may not know a recent token.
            with databases.on_primary():
                result = function(request)
            if inspect.isawaitable(result):
                result = yield from _awaited(result)
            found = _authenticated(coroutines.settle(result), name)
        except BaseException as error:
            if isinstance(error, (steps.Abandoned, engine.current().escaping)):
                raise
            _refuse(error, name, cls, request)
        if found is not None:
            return found
    return None


def of_middleware(user, session_user):
    """Return the ``user`` whom a middleware of the engine has found as ``Authenticated``; ``None`` if that is nobody, or
    the ``session_user``: a logout ends what is of a session.
    """
    found = None if user is None else _authenticated(user, MIDDLEWARE)
    if found is None or session_user.is_authenticated and found.user.pk == session_user.pk:
        return None
    return found


def subprotocol_of(request, spoken):
    """Return the subprotocol to answer ``request`` with: the first one offered that is ``spoken``, or the one that an
    authentication has set; ``None`` if neither is offered.
    """
    names = offered(request)
    by_authentication = getattr(request, 'subprotocol', None)
    return next((name for name in names if name in spoken), by_authentication if by_authentication in names else None)


def offered(request):
    """Return the subprotocols that a client offers, as a list."""
    return [name.strip() for name in request.META.get('HTTP_SEC_WEBSOCKET_PROTOCOL', '').split(',') if name.strip()]


def _awaited(awaitable):
    """Yield the steps to what ``awaitable`` returns or raises. What follows may wait, either way."""
    try:
        result = yield from steps.settle(awaitable)
    except steps.Abandoned:
        raise
    except BaseException:
        yield None
        raise
    yield None
    return result


def _authenticated(found, name):
    """Return what ``name`` has ``found`` as ``Authenticated``, ``None`` for nobody; ``TypeError`` for what is no user."""
    user, until = found, None
    if isinstance(found, tuple):
        if len(found) != 2:
            raise TypeError(f'It returned a tuple of {len(found)}: return a user, (user, until) or None.')
        user, until = found
    if isinstance(user, LazyObject):
        # As middleware sets them.
        if user._wrapped is empty:
            user._setup()
        user = user._wrapped
    if user is None or not getattr(user, 'is_authenticated', True):
        return None
    if not isinstance(user, get_user_model()) or user.pk is None:
        raise TypeError(
            f'It returned a {type(user).__name__}, which is no saved instance of {settings.AUTH_USER_MODEL}: return a user of that '
            'model, (user, until) or None.'
        )
    if not auth.is_active(user):
        raise ConnectionRevoked('Your account is not active.')
    return Authenticated(user, _moment(until), name)


def _moment(until):
    """Return ``until`` as the database takes it."""
    if until is None:
        return None
    if not isinstance(until, datetime) or settings.USE_TZ and timezone.is_naive(until):
        raise TypeError(
            f'It returned a {type(until).__name__} for when the authentication ends, and not an aware datetime, such as '
            'datetime.fromtimestamp(seconds, timezone.utc). (An authentication class of REST framework goes into '
            'sockets.authentication.rest_framework().)'
        )
    if not settings.USE_TZ and timezone.is_aware(until):
        until = timezone.make_naive(until)
    if until <= timezone.now():
        raise ConnectionRevoked(auth.EXPIRED)
    return until


def _refuse(error, name, cls, request):
    """Raise what becomes of a connection whose authentication ``name`` has raised ``error``."""
    meant = engine.current().meaning_of(refusals.frame_error(error))
    if isinstance(meant, _PLAIN):
        raise error
    if isinstance(meant, FrameError):
        kind = TooManyConnections if meant.code == messages.RATE_LIMITED else ConnectionRevoked
        raise kind(credentials.redact(str(meant.details), request) or 'You could not be authenticated.') from error
    # Not exc_info: the exception may say the token.
    lines = ''.join(traceback.format_exception(type(error), error, error.__traceback__))
    logger.error('%s: the authentication %s raised\n%s', cls.__name__, name, credentials.redact(lines, request))
    raise engine.Denied() from error
