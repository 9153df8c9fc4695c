"""Who gets the messages of a process: threads that wait for one, and servers that have them delivered."""

import logging
import threading

logger = logging.getLogger('sockets')


class Waiter:
    """A receiver that waits for a message of some channels. ``found`` is what a sender has handed over."""

    def __init__(self, channels, owner):
        self.channels = channels
        self.owner = owner
        self.found = None
        self.arrived = threading.Lock()
        self.arrived.acquire()

    def hand_over(self, queued, claim):
        self.found = queued, claim
        self.arrived.release()


class Delivery:
    """A server whose messages are delivered on the reactor: ``function(channel, message)`` is called with each.

    While none of them waits, ``write(channel, text)`` is called with a text by the thread that sends it, and returns whether
    its connection has got it. ``is_due``: the reactor has been woken for it.
    """

    def __init__(self, server, function, write):
        self.server = server
        self.function = function
        self.write = write
        # It is under way from the start: something may be waiting.
        self.is_due, self.is_under_way = False, True

    def send_now(self, channel, text):
        """Have ``text`` written by this thread, unless it would overtake what was sent before; return whether it has been."""
        # In this order: a delivery is due until it is under way.
        return not (self.write is None or self.is_due or self.is_under_way) and self.write(channel, text)

    def begin(self):
        """Note that the messages which wait are taken, under the lock under which others would come in."""
        self.is_under_way = True
        self.is_due = False

    def deliver(self, messages):
        """Deliver ``messages``, which have been taken."""
        for queued in messages:
            try:
                self.function(queued.channel, queued.message)
            except Exception:
                logger.exception('A message for %s could not be delivered', queued.channel)
        self.is_under_way = False
