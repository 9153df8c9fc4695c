"""Who gets the messages of a process: threads that wait for one, and servers that have them delivered."""

import threading


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
    """A server whose messages are delivered on the reactor, and whose texts by ``write`` while none of them waits.

    ``is_due``: the reactor has been woken for it; ``is_under_way``: it hands over what it has taken.
    """

    def __init__(self, server, function, write):
        self.server = server
        self.function = function
        self.write = write
        # From the start: something may be waiting.
        self.is_due, self.is_under_way = False, True
