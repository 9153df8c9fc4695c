"""A connection is asked for: who it is and whether it may, its row, its accept, and the view's functions."""

import functools
import logging
import re
import time

from django.conf import settings

from .. import callbacks, conf, engine, messages, signals
from ..access import auth, authentication, demands, limits, origins, outages
from ..contracts import refusals
from ..declaration import authentication as authentications
from ..exceptions import ConnectionRevoked, FrameError, MailboxFull, PermissionMissing, TooManyConnections
from ..execution import steps
from . import replies, visits
from .attempts import attempt
from .calls import is_plain, pass_on
from .disconnect import remove_row
from .identity import Identity
from .identity_cache import cache
from .memory import memories

logger = logging.getLogger('sockets')

# What a path may not have in it: a regex that ends with $ matches before a newline, and terminals obey the others.
_CONTROLS = re.compile('[\0-\x1f\x7f-\x9f]')


def connect(handler):
    """Yield the steps in which the connection of ``handler`` is opened, or turned away. The first one may wait.

    Where rows are ``gathered``, one of them is the ``Insertion`` of its row: it goes on when that is done.
    """
    from ..models.insertion import Insertion

    connection, insertion = handler._connection, None
    try:
        user_ip, found = yield from _identify(handler, connection)
        connection.identified(handler)
        make_row = functools.partial(_new_row, handler, connection, user_ip, found)
        if connection.gathered is not None and may_gather(type(handler)):
            insertion = Insertion(make_row())
            yield insertion
        connection.opening = functools.partial(_write_row, handler, make_row, insertion)
        yield from pass_on(handler, 'connect', None)
        yield None
        if not (connection.accepted or connection.closed):
            # A middleware that does not pass it on.
            raise engine.Denied()
        yield from visits.arrive(handler)
        yield None
        handler._identity.save()
        # Not before: what functions have written is to be seen by the first frame.
        if handler._identity.memory.is_kept and conf.IDENTITY_MAX_AGE and not connection.closed:
            cache.expect(handler._identity.memory, connection.name)
    except BaseException as error:
        if isinstance(error, (steps.Abandoned, engine.current().escaping)):
            raise
        # A coroutine may have raised it, on the loop.
        yield None
        attempt(handler, visits.turn_away, handler)
        attempt(handler, _refuse, handler, error)
    finally:
        # It knows the handler, which knows the connection.
        connection.opening = None
        if insertion is not None and (handler._identity is None or handler._identity.row is None):
            attempt(handler, insertion.withdraw)
    callbacks.purge_if_due()


def may_gather(cls):
    """Return whether nothing of the project's runs before the handler class ``cls`` accepts a connection and has a row."""
    from ..models import insertion

    return (
        cls.connect is cls._default_connect
        and is_plain(cls)
        and not (cls._guards or authentications.of_class(cls) or engine.current().has_groups(cls))
        and insertion.is_plain()
    )


def _identify(handler, connection):
    """Yield the steps to the identity of the client; return its address, and what has found its user.

    That is ``None`` for a session, or nothing. Raise if it may not connect.
    """
    from ..models import insertion

    request = handler._request = connection.handshake()
    _check_path(connection.path)
    is_own = _check_origin(handler, connection, request)
    found = yield from _authenticate(handler, connection, request, is_own)
    identity = handler._identity
    auth.introduce(request, identity.session, identity.user)
    user_ip = origins.client_ip(connection.peer(request), connection.header(origins.address_header()))
    demands.check(handler, demands.of_connection(type(handler)))
    if connection.gathered and limits.count([other.row for other in connection.gathered], identity.user, user_ip):
        yield insertion.OTHERS
    # One of which could not be inserted, so that each has its turn.
    left = [other.row for other in connection.gathered or () if not other.is_done]
    limits.check_connections(identity.user, user_ip, left)
    return user_ip, found


def _check_origin(handler, connection, request):
    """Return whether the cookies of the page that asks count; raise if it may not connect at all."""
    origin, host, is_secure = request.META.get('HTTP_ORIGIN'), request.META.get('HTTP_HOST'), request.is_secure()
    is_own = origins.origin_allowed(origin, host, is_secure)
    if not is_own and not (authentications.of_class(type(handler)) and origins.may_send_token(origin, host, is_secure)):
        logger.warning(
            'Refused a websocket to %.100r at %.100r from the foreign origin %.100r. %s',
            connection.path,
            host,
            origin,
            origins.remedy(origin),
        )
        raise engine.Denied()
    return is_own


def _authenticate(handler, connection, request, is_own):
    """Yield the steps to the identity of ``handler``: of the first that knows its user, or of the session. Return that."""
    memory, session_key = memories.get(connection.name), request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    if not is_own:
        # Or a page of others could act as whoever opens it.
        request.COOKIES = {}
        request.META.pop('HTTP_COOKIE', None)
    try:
        found = yield from authentication.authenticate(type(handler), request)
        if found is None and not is_own:
            raise ConnectionRevoked('Send a token to use this socket from the page of another site.')
    except BaseException:
        handler._identity = Identity.of_user(connection, memory, auth.anonymous())
        raise
    finally:
        connection.subprotocol = authentication.subprotocol_of(request, handler.subprotocols)
    if found is None:
        handler._identity = Identity.of_cookie(connection, memory, session_key)
        found = authentication.of_middleware(connection.user_of_middleware(), handler._identity.user)
    if found is not None:
        handler._identity = Identity.of_user(connection, memory, found.user)
    return found


def _check_path(path):
    from ..models import Socket

    if len(path) > Socket._meta.get_field('path').max_length:
        logger.warning('Refused a websocket to %.100r: a row cannot hold this path.', path)
    elif _CONTROLS.search(path):
        logger.warning('Refused a websocket to %.100r: there are control characters in this path.', path)
    else:
        return
    raise engine.Denied()


def _new_row(handler, connection, user_ip, found):
    from ..models import Socket

    identity = handler._identity
    return Socket(
        channel_name=connection.name,
        path=connection.path,
        user_ip=user_ip,
        session_id=auth.row_session_key(identity.session),
        user=identity.user if identity.user.is_authenticated else None,
        authentication=None if found is None else found.name[:100],
        authenticated_until=None if found is None else found.until,
        # Whoever reads the database, or a copy of it, is not to be anybody's session.
        handshake=connection.handshake_text(secret_cookie=settings.SESSION_COOKIE_NAME),
    )


def _write_row(handler, make_row, insertion):
    # The row comes before the accept: the client's first frame may reach another worker right after it.
    from django.db import DataError, IntegrityError

    try:
        if insertion is None:
            row = make_row()
            row.save(force_insert=True)
        else:
            row = insertion.finish()
    except (DataError, IntegrityError) as error:
        # The session or the user went between our look and our insert, or the connect came twice.
        logger.warning('Refused a websocket to %.100r: %s', handler._connection.path, error)
        raise engine.current().denied() from error
    identity = handler._identity
    identity.row, identity.memory.row = row, row.pk
    identity.memory.until = row.authenticated_until and row.authenticated_until.timestamp()
    identity.memory.is_due(time.monotonic(), conf.LAST_PING_RESOLUTION)
    signals.announce(signals.socket_connected, sender=type(handler), socket=row)


def _refuse(handler, error):
    """End a connection whose connect raised ``error``."""
    connection = handler._connection
    error = engine.current().meaning_of(refusals.frame_error(error))
    if isinstance(error, MailboxFull):
        logger.error('Could not answer the connect to %.100r: %s', connection.path, error)
    elif isinstance(error, (ConnectionRevoked, TooManyConnections, PermissionMissing)):
        # A browser is not told of what it gets before the accept.
        if not connection.accepted:
            connection.accept_without_opening()
        if isinstance(error, ConnectionRevoked):
            return replies.turn_away(handler, error)
        is_limit = isinstance(error, TooManyConnections)
        attempt(
            handler,
            handler.send_json,
            messages.error(messages.RATE_LIMITED if is_limit else messages.NOT_ALLOWED, error.details),
        )
        connection.close(messages.CLOSE_RATE_LIMITED if is_limit else messages.CLOSE_NOT_ALLOWED)
    elif isinstance(error, engine.Denied):
        # The view changed its mind before anyone heard of this connection: there is nothing to disconnect.
        row = handler._identity.row if handler._identity is not None else None
        if row is not None:
            remove_row(handler, row, messages.CLOSE_NOT_ALLOWED)
            row.forget()
        connection.close(messages.CLOSE_NOT_ALLOWED)
    elif isinstance(error, engine.Closing):
        replies.close_as_asked(handler, error.code)
    elif isinstance(error, engine.Special):
        error.run(handler.message)
    else:
        refuse_with_error(handler, error)


def refuse_with_error(handler, error):
    """Close a connection of which a function raised ``error`` as it was opened: a ``FrameError`` or a fault."""
    content, code = None, messages.CLOSE_NOT_ALLOWED
    if isinstance(error, FrameError):
        try:
            content = replies.error_content(error)
            handler.encode(content)
            logger.info('Refused %s at %r: %s %s', handler.channel_name, handler.path, error.code, error.details)
        except BaseException as failure:
            content, error = None, failure
    if content is None:
        content, code = replies.server_error(handler, 'connect', error), messages.CLOSE_SERVER_ERROR
        if not handler.accepted and outages.is_outage(error):
            code = messages.CLOSE_TRY_AGAIN_LATER
    if handler.accepted and not handler.closed:
        attempt(handler, handler.send_json, content)
    handler._connection.close(code)
