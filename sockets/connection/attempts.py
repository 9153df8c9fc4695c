"""Calls of which nothing may escape to the engine: its worker could end with it."""

import logging

from .. import engine

logger = logging.getLogger('sockets')


def attempt(handler, function, *args):
    """Call ``function``; what it raises is logged, but for what the engine wants to see."""
    try:
        function(*args)
    except BaseException as error:
        if isinstance(error, engine.current().escaping):
            raise
        logger.exception('%s at %r failed', type(handler).__name__, handler.path)
