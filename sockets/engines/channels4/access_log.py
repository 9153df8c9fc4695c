"""What uvicorn logs of each websocket, without the tokens in its query."""

import logging

from ...access import credentials

# uvicorn says there, at its default level, which paths were accepted.
_LOGGER = 'uvicorn.error'


def without_credentials(record):
    """Take credentials out of the queries that ``record`` names. A filter: the record is logged."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            credentials.strip_target(value) if isinstance(value, str) and '?' in value else value
            for value in record.args
        )
    return True


def install():
    """Have the log of a uvicorn in this process say no tokens."""
    logging.getLogger(_LOGGER).addFilter(without_credentials)
