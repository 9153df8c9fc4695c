"""Which event each thread is handling, and since when."""

import threading
import time

from .. import conf


class Handling:
    """A frame that a thread is handling, and since when."""

    __slots__ = ('handler', 'what', 'began', 'is_told')

    def __init__(self, handler, what):
        self.handler = handler
        self.what = what
        self.began = time.monotonic()
        self.is_told = False


# What is being handled, by thread, if there is a time for it.
handled = {}


def timed(handler, what, function, *args):
    """Call ``function(*args)``, which handles an event of ``handler`` that the log calls ``what``; return what it
    returns.
    """
    if conf.MAX_HANDLING_TIME is None:
        return function(*args)
    thread = threading.get_ident()
    # A function that ends other connections runs their disconnect functions. It is its own time that counts.
    if thread in handled:
        return function(*args)
    handled[thread] = Handling(handler, what)
    try:
        return function(*args)
    finally:
        del handled[thread]
