"""What layers drop because it has waited too long, told to whoever listens."""
import logging

logger = logging.getLogger('sockets')

# Functions that are called, in any thread, with a dict of how many messages each server or channel has lost. They must
# not wait.
listeners = []


def tell(counts):
    """Log and pass on how many messages have expired, by server or channel."""
    logger.error('%d messages have expired: %s', sum(counts.values()),
                 ', '.join('{} ({})'.format(*item) for item in counts.items()))
    for listener in listeners:
        listener(dict(counts))
