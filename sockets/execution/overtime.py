"""Functions that run for longer than ``SOCKETS['MAX_HANDLING_TIME']``: their connections end without them."""
import functools
import logging
import sys
import threading
import time
import traceback

from .. import conf, messages

logger = logging.getLogger('sockets')


class _Handling:
    """A frame that a thread is handling, and since when."""

    __slots__ = ('consumer', 'began', 'is_told')

    def __init__(self, consumer):
        self.consumer = consumer
        self.began = time.monotonic()
        self.is_told = False


# By thread.
_handled = {}


def timed(consumer, function):
    """Call ``function``, which handles the frame of ``consumer``, and return what it returns."""
    thread = threading.get_ident()
    if thread in _handled:
        # A function that ends other connections runs their disconnect functions. It is its own time that counts.
        return function()
    _handled[thread] = _Handling(consumer)
    try:
        return function()
    finally:
        del _handled[thread]


def keep_watch():
    """Have this process, a server or a worker, end from now on what takes too long, if the settings say so."""
    if conf.MAX_HANDLING_TIME is not None:
        _in_a_thread(_watch)


def _in_a_thread(function, *args):
    threading.Thread(target=function, args=args, daemon=True, name='sockets-overtime').start()


def _watch():
    while True:
        time.sleep(min(1, conf.MAX_HANDLING_TIME / 4))
        try:
            look()
        except Exception:
            logger.exception('Could not look for functions that hang')


def look():
    """End the connections whose functions have run for too long, each in a thread of its own: it may hang as well."""
    now = time.monotonic()
    for ident, handling in list(_handled.items()):
        consumer = handling.consumer
        if handling.is_told or now - handling.began < conf.MAX_HANDLING_TIME:
            continue
        frame = sys._current_frames().get(ident)
        if _handled.get(ident) is not handling or frame is None:
            # It has just returned.
            continue
        handling.is_told = True
        # What it says from now on is said to nobody.
        is_accepted, consumer.closed = consumer.accepted, True
        logger.error("%s at %r has been at a %s of %s for %.1f s, longer than SOCKETS['MAX_HANDLING_TIME']; closing "
                     'the connection with 1011. It is here:\n%s', type(consumer).__name__, consumer.path,
                     consumer.message.channel.name, consumer.channel_name, now - handling.began,
                     ''.join(traceback.format_stack(frame)))
        for thread in threading.enumerate():
            if thread.ident == ident and hasattr(thread, 'replace'):
                thread.replace()
        _in_a_thread(_end, consumer, is_accepted)


def _end(consumer, is_accepted):
    from django.db import connections
    from ..engines.channels1 import transport
    channel_name, path = consumer.channel_name, consumer.path
    last_words = {}
    try:
        if is_accepted:
            last_words = consumer.last_words()
    except Exception:
        # Of an encoder of the project's own. It keeps nobody connected, and those after this one are looked at.
        logger.exception('Could not tell %s why it is closed', channel_name)
    try:
        transport.send_many([channel_name], dict(last_words, close=messages.CLOSE_SERVER_ERROR))
    except Exception:
        logger.exception('Could not close %s', channel_name)
    try:
        _remove(channel_name, path)
    finally:
        connections.close_all()


def _remove(channel_name, path):
    from django.db import Error

    from .. import presence
    from ..engines.channels1 import transport
    from ..models import Socket
    try:
        rows = Socket.objects.on_primary().filter(channel_name=channel_name).remove()
    except Error as error:
        logger.error('The database could not be told that %s has ended, and will be told again: %s', channel_name,
                     error)
        return presence.try_again(functools.partial(_remove, channel_name, path))
    for row in rows:
        transport.disconnect(channel_name, path, messages.CLOSE_SERVER_ERROR, row, 'A function took too long.')
