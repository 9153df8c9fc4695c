"""What a project can listen to. The sender is the handler class, or ``Socket`` where no handler is running."""

import logging
from typing import Any

from django.dispatch import Signal

from .execution import coroutines

logger = logging.getLogger('sockets')

#: ``socket``: the row, just created; the connection is about to be accepted.
socket_connected = Signal()

#: ``socket``: the row, just deleted (its values are still there); ``code``: the close code, or ``None`` when it is not
#: known; ``reason``: why it ended if that was ours to decide, such as ``'Your session has expired.'``, or ``None``.
socket_disconnected = Signal()

#: ``socket``: the handler; ``route``: the pattern that matched (a ``str``), ``'(bytes)'`` for binary frames, or
#: ``None``; ``duration``: seconds; ``outcome``: ``'ok'``, the code of the ``ERROR`` that answered it, or ``'revoked'``.
message_handled = Signal()

#: ``servers``: a dict of how many messages each server (the prefix of its channels) did not take in time, or how many
#: have waited longer than the layer's ``expiry`` for a server, or in a channel that workers read.
messages_dropped = Signal()


def announce(signal: Signal, **kwargs: Any) -> None:
    """Send ``signal``; a receiver that raises is logged and keeps no connection from opening or ending."""
    try:
        results = signal.send_robust(**kwargs)
    except BaseException as error:
        # Django catches no SystemExit and the like; receivers after this one have not been called.
        logger.error('A receiver of a signal raised', exc_info=error)
        return
    for receiver, result in results:
        if not isinstance(result, Exception):
            try:
                coroutines.settle(result)
                continue
            except BaseException as error:
                result = error
        logger.error('A receiver of a signal raised: %r', receiver, exc_info=result)
