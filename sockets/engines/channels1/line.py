"""Connects that wait in this process, opened together: one statement inserts the rows of all, then each goes on."""

import collections
import logging
import time

from ...connection import connect
from ...execution import steps
from ...layers.mailboxes import CONNECT
from ...models import insertion

logger = logging.getLogger('sockets')

# How many are opened together at most, and seconds that it should take.
BATCH = 64
AT_ONCE = 0.05


class Arrival:
    """One of them: the message, the claim on it, the handler, which is found when its turn comes, and the steps that are left."""

    __slots__ = ('content', 'claim', 'handler', 'work', 'insertion')

    def __init__(self, content, claim, handler):
        self.content, self.claim, self.handler = content, claim, handler
        self.work = self.insertion = None


class Line:
    """What the threads of this process have taken to open it together. Each of them takes the next one: a function that
    hangs keeps only itself.
    """

    def __init__(self, adapter):
        self.adapter, self.connects = adapter, adapter.connects
        self.taken, self.identified, self.ready = collections.deque(), collections.deque(), collections.deque()
        # The insertions of those that are identified.
        self.gathered = []
        # Seconds that one has taken lately.
        self.pace = AT_ONCE

    def __bool__(self):
        return bool(self.taken or self.identified or self.ready)

    def open(self, worker, content, find):
        """Open the connection of ``content``, which the thread of ``worker`` has just received, and those behind it.

        ``find(content)`` returns the handler for it, or ``None``.
        """
        began = time.monotonic()
        handler = find(content)
        share = min(BATCH, int(AT_ONCE / self.pace))
        others = self.connects.take(share - 1) if self.connects and share > 1 and handler is not None else ()
        if others:
            self.taken.append(Arrival(content, self.connects.hold(), handler))
            self.taken.extend([Arrival(content, claim, None) for content, claim in others])
            # Should their functions be slow.
            self.connects.nudge()
            self.work_off(worker, find)
        elif handler is None:
            worker.handle(CONNECT, content)
        else:
            worker.serve(handler, CONNECT, content, steps.run, connect.connect(handler))
        seconds, count = time.monotonic() - began, 1 + len(others)
        self.pace += (max(seconds / count, AT_ONCE / BATCH) - self.pace) * 0.75
        if others:
            self.connects.note(seconds, count)

    def work_off(self, worker, find):
        """Open, on the thread of ``worker``, what is in this line, until nothing is left."""
        while True:
            arrival = _first(self.taken)
            if arrival is not None:
                self._begin(worker, arrival, find)
            elif self.identified:
                self._insert(worker)
            else:
                arrival = _first(self.ready)
                if arrival is None:
                    return
                self._advance(worker, arrival)

    def waiting(self, count):
        """Return ``count`` of the connects that nobody has begun with, the next ones first."""
        found = [arrival.content for arrival in list(self.taken)[:count]]
        return found + list(self.adapter.waiting_connects(count - len(found)) if len(found) < count else ())

    def _begin(self, worker, arrival, find):
        try:
            arrival.handler = arrival.handler or find(arrival.content)
            if arrival.handler is None:
                worker.handle(CONNECT, arrival.content)
        finally:
            if arrival.handler is None:
                self._end(arrival)
        if arrival.handler is not None:
            arrival.handler._connection.gathered = self.gathered
            arrival.work = connect.connect(arrival.handler)
            self._advance(worker, arrival)

    def _advance(self, worker, arrival):
        """Take the steps of ``arrival`` until its row is to be inserted, or to the end."""
        args = arrival.handler, CONNECT, arrival.content, steps.advance, arrival.work, insertion.Insertion
        step = None
        if arrival.claim is not None:
            # Who has taken it may end before this function does.
            self.connects.take_over(arrival.claim)
        try:
            step = worker.serve(*args)
            while step is insertion.OTHERS:
                self._insert(worker)
                step = worker.serve(*args)
        finally:
            if step is insertion.OTHERS:
                # Those could not be inserted.
                steps.abandon(arrival.work)
                step = None
            if step is None:
                self._end(arrival)
        if step is not None:
            arrival.insertion = step
            self.gathered.append(step)
            self.identified.append(arrival)

    def _insert(self, worker):
        """Insert the rows of those that are identified, and are still there."""
        gathered, self.gathered = self.gathered, []
        arrivals = list(iter(lambda: _first(self.identified), None))
        try:
            there = set(self.connects.still_there([arrival.content['reply_channel'] for arrival in arrivals]))
        except BaseException:
            self.identified.extend(arrivals)
            self.gathered.extend(gathered)
            raise
        gone = [arrival for arrival in arrivals if arrival.content['reply_channel'] not in there]
        arrivals = [arrival for arrival in arrivals if arrival.content['reply_channel'] in there]
        try:
            if arrivals:
                first, insertions = arrivals[0], [arrival.insertion for arrival in arrivals]
                worker.serve(first.handler, CONNECT, first.content, insertion.insert, insertions)
        finally:
            self.ready.extend(arrivals)
            if len(arrivals) > 1:
                # Should their functions be slow. While they were inserted, there was nothing for others to do.
                self.connects.nudge()
            for arrival in gone:
                steps.abandon(arrival.work)
                self._end(arrival)
            # Limits count those that could not be inserted until they are.
            self.gathered.extend([other for other in gathered if not other.is_done])

    def _end(self, arrival):
        if arrival.claim is not None:
            self.connects.done(arrival.claim)


def _first(arrivals):
    try:
        return arrivals.popleft()
    except IndexError:
        return None
