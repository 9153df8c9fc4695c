"""Reports of the messages that layers drop because they have expired."""

import logging

logger = logging.getLogger('sockets')

# Functions that are called, in any thread, with a dict of how many messages each server or channel has lost. They must
# not block.
listeners = []


def report(counts):
    """Log and pass on how many messages have expired, by server or channel."""
    logger.error(
        '%d messages have expired: %s',
        sum(counts.values()),
        ', '.join('{} ({})'.format(*item) for item in counts.items()),
    )
    for listener in listeners:
        listener(dict(counts))
