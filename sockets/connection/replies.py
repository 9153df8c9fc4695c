"""What a client is told: contents as messages, replies to frames, errors, and why it is turned away."""

import logging
import traceback

from django.conf import settings

from .. import conf, contracts, messages
from ..exceptions import RowMissing
from . import envelopes
from .attempts import attempt

logger = logging.getLogger('sockets')

# What a function may return to answer with a binary frame.
DATA = bytes, bytearray, memoryview


def message_of(handler, content):
    """Return the message that sends ``content``. With ``DEBUG``, it has to be what ``sends`` declares."""
    frame = handler.encode(content)
    if conf.of_django('DEBUG'):
        contracts.check_sent_on(type(handler), content)
    return {'bytes': frame} if isinstance(frame, bytes) else {'text': frame}


def reply_of(handler, result, ref):
    """Return the message that carries ``result`` to the client as the answer to ``ref``, or ``None`` if it gets none."""
    if type(result) is dict and ref is None:
        # As nearly all are.
        return message_of(handler, result)
    if isinstance(result, DATA):
        return {'bytes': envelopes.wrap(bytes(result), ref)}
    content = result if isinstance(result, dict) else None
    if settings.DEBUG and isinstance(result, (list, tuple, str)):
        logger.warning(
            '%s at %r has returned a %s, which no client gets. Return a dict, such as {"items": [...]}.',
            type(handler).__name__,
            handler.path,
            type(result).__name__,
        )
    if ref is not None:
        content = {messages.TYPE: messages.ACK} if content is None else content
        content = {**content, messages.REF: ref}
    return None if content is None else message_of(handler, content)


def error_content(error):
    """Return the content that tells of a ``FrameError``."""
    content = messages.error(error.code, error.details)
    if error.errors is not None:
        content['errors'] = error.errors
    if error.retry_after is not None:
        content['retry_after'] = error.retry_after
    return content


def reply_of_failure(handler, failure, ref):
    """Return the message that answers the frame of ``ref``, whose answer could not be made because of ``failure``."""
    content = server_error(handler, 'the answer to a frame', failure)
    try:
        return reply_of(handler, content, ref)
    except BaseException:
        # Nor may a ref be JSON that a project's own decode() has let in.
        return reply_of(handler, content, None)


def server_error(handler, what, error):
    """Log that ``error`` was raised in ``what``, and return the content that tells of it: with ``DEBUG``, all."""
    logger.error('%s at %r raised in %s', type(handler).__name__, handler.path, what, exc_info=error)
    content = messages.error(messages.SERVER_ERROR, 'Something went wrong on the server.')
    if settings.DEBUG:
        try:
            content['details'] = f'{type(error).__name__}: {error}'
        except BaseException:
            content['details'] = type(error).__name__
        content['traceback'] = ''.join(traceback.format_exception(type(error), error, error.__traceback__))
    return content


def turn_away(handler, error, ref=None):
    """Tell a client that its right has ended, which is what ``error`` says, and close."""
    logger.info('Turned away %s at %r: %s', handler.channel_name, handler.path, error.details)
    if not handler.closed:
        # An encoder of the project's own that fails here keeps nobody connected.
        attempt(handler, lambda: handler._connection.send(reply_of(handler, messages.reconnect(error.details), ref)))
    handler._connection.close(
        messages.CLOSE_RESTART if isinstance(error, RowMissing) else messages.CLOSE_LOGIN_REQUIRED
    )


def close_as_asked(handler, code):
    """Close with the ``code`` that a function has raised."""
    try:
        code = messages.close_code(code)
    except ValueError:
        logger.exception('%s at %r failed to close %s', type(handler).__name__, handler.path, handler.channel_name)
        code = messages.CLOSE_SERVER_ERROR
    handler._connection.close(code)
