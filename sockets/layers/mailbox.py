"""The messages of one connection or channel, and who is handling one of them; the lines that mailboxes stand in."""
import collections
import itertools

# Characters or bytes of a connection's frames that wait, beyond which no more is taken: a hundred frames may be long.
FRAME_BYTES = 16 * 1024 * 1024

Letter = collections.namedtuple('Letter', 'channel message since expires')
Letter.__doc__ = """A message on its way: the channel it was sent to, its content, since when, and until when."""


class Ticket:
    """A frame that somebody is handling. Its mailbox is busy until ``Mailboxes.done`` or the end of the lease."""

    __slots__ = ('mailbox', 'channel', 'owner', 'until')

    def __init__(self, mailbox, channel, owner, until):
        self.mailbox = mailbox
        self.channel = channel
        self.owner = owner
        self.until = until


class Mailbox:
    """The messages of one connection or channel, first in, first out."""

    __slots__ = ('key', 'keeps_order', 'letters', 'ticket', 'line', 'rank')

    def __init__(self, key, keeps_order):
        self.key = key
        self.keeps_order = keeps_order
        self.letters = collections.deque()
        # Who is handling the frame before the first letter.
        self.ticket = None
        # The line that it stands in and its place there; None while it stands in none.
        self.line = self.rank = None


class Room:
    """How many messages may wait: ``capacity(channel)`` for one connection or channel, and ``server_capacity`` in all
    for the connections of one server.
    """

    def __init__(self, capacity, server_capacity):
        self.capacity = capacity
        self.server_capacity = server_capacity
        # How many messages wait for each connection of a server.
        self.waiting = collections.Counter()

    def is_full(self, box, channel):
        """Whether ``box`` takes no more messages for ``channel``."""
        if _is_shared(box, channel):
            return self.waiting[channel] >= self.capacity(channel) or len(box.letters) >= self.server_capacity
        return len(box.letters) >= self.capacity(channel) or box.keeps_order and _size(box) > FRAME_BYTES

    def count_in(self, box, letter):
        """Note that ``letter`` was put into ``box``."""
        if _is_shared(box, letter.channel):
            self.waiting[letter.channel] += 1

    def count_out(self, box, letter):
        """Note that ``letter`` was taken out of ``box``."""
        if _is_shared(box, letter.channel):
            self.waiting[letter.channel] -= 1
            if not self.waiting[letter.channel]:
                del self.waiting[letter.channel]


class Lines:
    """Mailboxes that wait for somebody: for each channel those whose first letter is of it, in order of arrival."""

    def __init__(self):
        # Per channel: rank -> mailbox.
        self._lines = collections.defaultdict(collections.OrderedDict)
        self._ranks = itertools.count()

    def enter(self, box, line):
        """Have ``box`` stand in ``line``: where it stands already, or at its end."""
        if box.line != line:
            self.leave(box)
            box.line, box.rank = line, next(self._ranks)
            self._lines[line][box.rank] = box

    def leave(self, box):
        """Have ``box`` stand in no line."""
        if box.line is not None:
            line = self._lines[box.line]
            del line[box.rank]
            if not line:
                del self._lines[box.line]
            box.line = box.rank = None

    def heads(self, channels):
        """Return a dict of the first mailbox in the line of each of ``channels`` that has one."""
        lines = self._lines
        return {channel: next(iter(lines[channel].values())) for channel in channels if channel in lines}

    def length(self, channel):
        """Return how many mailboxes stand in the line of ``channel``."""
        return len(self._lines.get(channel, ()))

    def __len__(self):
        return len(self._lines)


def line_of(channel):
    """Return the name under which ``channel`` is received: a server's channels are received together."""
    head, mark, _ = channel.partition('!')
    return head + mark


def _is_shared(box, channel):
    """Whether ``box`` is that of all connections of a server."""
    return not box.keeps_order and box.key[1] != channel


def _size(box):
    return sum(len(letter.message.get('text') or letter.message.get('bytes') or '') for letter in box.letters)
