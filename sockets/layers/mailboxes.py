"""Who gets which message next: queues, order and capacity, without threads, sockets or a clock of its own.

Messages wait in a mailbox: one for each connection's frames, one for each other channel. A mailbox whose frames must
keep their order is *busy* from the moment that one of them is taken until that one is done; the next frame is taken
by nobody before. All times are seconds of the caller's clock.
"""
import collections
import math
import operator

from .admission import PATIENCE
from .mailbox import Letter, Lines, Mailbox, Room, Ticket, line_of

# The channels whose messages are the frames of a connection, named by their reply channel.
CONNECT = 'websocket.connect'
FRAMES = frozenset([CONNECT, 'websocket.receive', 'websocket.disconnect'])

# Seconds that a close waits for its server: as long as daphne lets a connection live.
CLOSE_EXPIRY = 86400


class Full(Exception):
    """A mailbox takes no more; nothing was put into it."""


class Mailboxes:
    """All mailboxes of a process.

    ``capacity(channel)`` is how many messages may wait for one connection or channel; ``server_capacity`` how many for
    all connections of one server together. ``expiry`` is how long a message waits, ``connect_expiry`` how long a
    connect does, ``lease`` how long a connection is held up by a frame whose handling does not end.
    """

    def __init__(self, capacity, server_capacity, expiry, lease, connect_expiry=math.inf):
        self._room = Room(capacity, server_capacity)
        self.expiry = expiry
        self.lease = lease
        self.connect_expiry = connect_expiry
        self._boxes = {}
        self._lines = Lines()
        self._tickets = collections.OrderedDict()
        self._at_work = collections.Counter()
        # When a connect was last taken.
        self._connected = 0
        # Connections that have been told to close, and until when we remember it.
        self._closed = {}
        # How many messages were thrown away because they had waited too long, by server or channel; for the caller to
        # take.
        self.expired = collections.Counter()

    def put(self, channel, message, now, reply_channel=None, is_control=False):
        """Put ``message`` into its mailbox and return the channel under which it can be taken now, or ``None``.

        ``reply_channel`` makes it a frame of that connection. ``Full`` if there is no room; a control message
        (connect, disconnect, close) always has room. The disconnect of a connection whose connect nobody has taken
        takes that away, and nothing is left of either.
        """
        is_frame = reply_channel is not None and channel in FRAMES
        key = reply_channel if is_frame else line_of(channel)
        if is_frame and key in self._closed:
            if not is_control:
                return None
            del self._closed[key]
        box = self._boxes.get((is_frame, key))
        if box is None:
            box = self._boxes[is_frame, key] = Mailbox((is_frame, key), is_frame)
        elif not is_control:
            self._expire(box, now)
            if self._room.is_full(box, channel):
                self._settle(box)
                raise Full(channel)
        if channel == 'websocket.disconnect' and is_frame and self._withdraw(box):
            return None
        # That a connection has ended is never out of date, and hardly ever that it is to end. Who wanted one has not
        # waited for ever.
        expires = now + (self.connect_expiry if channel == CONNECT and is_frame else
                         self.expiry if not is_control else math.inf if is_frame else max(self.expiry, CLOSE_EXPIRY))
        letter = Letter(channel, message, now, expires)
        box.letters.append(letter)
        self._room.count_in(box, letter)
        return self._settle(box)

    def close(self, connection, now):
        """Hear no more of ``connection`` but its end: what waits of its ``websocket.receive`` is thrown away."""
        self._closed[connection] = now + self.expiry
        box = self._boxes.get((True, connection))
        if box is not None:
            box.letters = collections.deque(
                letter for letter in box.letters if letter.channel != 'websocket.receive')
            if box.ticket is None:
                self._lines.leave(box)
            self._settle(box)

    def take(self, channels, now, owner=None):
        """Return the ``Letter`` that has waited longest in line for one of ``channels``, and its ``Ticket``.

        A connect lets the others go first, unless none was taken for ``PATIENCE`` seconds. Both are ``None`` if there
        is none; the ticket is ``None`` where no order is kept.
        """
        while True:
            heads = self._lines.heads(channels)
            if not heads:
                return None, None
            if len(heads) > 1 and CONNECT in heads and now - self._connected < PATIENCE:
                del heads[CONNECT]
            box = min(heads.values(), key=_rank)
            self._lines.leave(box)
            self._expire(box, now)
            if not box.letters or line_of(box.letters[0].channel) not in channels:
                self._settle(box)
                continue
            letter = box.letters.popleft()
            self._room.count_out(box, letter)
            if letter.channel == CONNECT:
                self._connected = now
            ticket = None
            if box.keeps_order:
                ticket = box.ticket = Ticket(box, letter.channel, owner, now + self.lease)
                self._tickets[ticket] = None
                self._at_work[letter.channel] += 1
            self._settle(box)
            return letter, ticket

    def take_all(self, server, now):
        """Return every ``Letter`` for connections of ``server``, oldest first: what ``take`` returns one by one."""
        box = self._boxes.pop((False, server), None)
        if box is None:
            return []
        self._lines.leave(box)
        for letter in box.letters:
            self._room.count_out(box, letter)
        letters = [letter for letter in box.letters if letter.expires > now]
        if len(letters) < len(box.letters):
            self.expired[server] += len(box.letters) - len(letters)
        return letters

    def done(self, ticket):
        """End the handling of a frame; return the channel of the connection's next one, if it can be taken now.

        A ticket whose lease has ended is worth nothing, and ``None`` comes back.
        """
        if self._tickets.pop(ticket, self) is self:
            return None
        self._at_work[ticket.channel] -= 1
        ticket.mailbox.ticket = None
        return self._settle(ticket.mailbox)

    def overdue(self, now):
        """Return the tickets whose lease has ended, for ``done`` or ``renew``."""
        return [ticket for ticket in self._tickets if ticket.until <= now]

    def renew(self, ticket, now):
        """Give the owner of ``ticket``, who is known to be at work, another lease."""
        if ticket in self._tickets:
            ticket.until = now + self.lease

    def sweep(self, now):
        """Throw away what has expired, also where nobody ever looks."""
        for box in list(self._boxes.values()):
            self._expire(box, now)
            self._settle(box)
        self._closed = {name: until for name, until in self._closed.items() if until > now}

    def clear(self):
        """Forget everything."""
        self.__init__(self._room.capacity, self._room.server_capacity, self.expiry, self.lease, self.connect_expiry)

    def withdraw(self, connection):
        """Forget a connection whose connect nobody has taken; return whether it is one."""
        box = self._boxes.get((True, connection))
        return box is not None and self._withdraw(box)

    def at_work(self, channels):
        """Return how many frames of ``channels`` are being handled."""
        return sum(self._at_work[channel] for channel in channels)

    def in_line(self, channel):
        """Return how many connections or channels wait to have a message of ``channel`` taken."""
        return self._lines.length(channel)

    def waited(self, channels, now):
        """Return for how many seconds the message has waited that ``take`` would return; 0 if there is none."""
        return max([now - box.letters[0].since for box in self._lines.heads(channels).values()], default=0)

    def has_frames(self, connection=None):
        """Whether a frame of ``connection``, or of any, waits or is being handled."""
        if connection is not None:
            return (True, connection) in self._boxes
        return bool(self._tickets) or any(box.keeps_order for box in self._boxes.values())

    def waiting(self):
        """Return how many messages wait, by the channel that they wait for."""
        return dict(collections.Counter(
            line_of(letter.channel) for box in self._boxes.values() for letter in box.letters))

    def __len__(self):
        return sum(len(box.letters) for box in self._boxes.values())

    def _settle(self, box):
        """Put ``box`` where it belongs now: in line, out of it, or away. Return the channel it stands in line for."""
        if box.ticket is not None:
            return None
        if not box.letters:
            self._lines.leave(box)
            self._boxes.pop(box.key, None)
            return None
        line = line_of(box.letters[0].channel)
        self._lines.enter(box, line)
        return line

    def _withdraw(self, box):
        if box.ticket is not None or not box.letters or box.letters[0].channel != CONNECT:
            return False
        box.letters.clear()
        self._settle(box)
        return True

    def _expire(self, box, now):
        while box.letters and box.letters[0].expires <= now:
            letter = box.letters.popleft()
            self._room.count_out(box, letter)
            # Who wanted a connection is told by whoever holds it.
            if letter.channel != CONNECT:
                self.expired[line_of(box.key[1])] += 1


def end_of(message):
    """Return the disconnect of a connection that daphne closes with 1013, and of which it says nothing more."""
    return {'reply_channel': message['reply_channel'], 'path': message.get('path'), 'code': 1013,
            'order': message.get('order')}


_rank = operator.attrgetter('rank')
