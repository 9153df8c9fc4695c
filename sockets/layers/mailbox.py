"""Mailboxes: the messages that wait for a connection or channel, the claim on the one in work, and the limits."""

import collections
import itertools

# Characters or bytes of the frames of one connection that may wait: a hundred frames may be long.
FRAME_BYTES = 16 * 1024 * 1024

QueuedMessage = collections.namedtuple('QueuedMessage', 'channel message since expires')
QueuedMessage.__doc__ = """A message that waits: its channel, its content, since when, and when it expires."""


class Claim:
    """A frame that somebody is handling. Its mailbox is busy until ``Mailboxes.done`` or the end of the lease."""

    __slots__ = ('mailbox', 'channel', 'owner', 'until')

    def __init__(self, mailbox, channel, owner, until):
        self.mailbox = mailbox
        self.channel = channel
        self.owner = owner
        self.until = until


class Mailbox:
    """The messages of one connection or channel, first in, first out."""

    __slots__ = ('key', 'keeps_order', 'is_shared', 'messages', 'claim', 'queue', 'position')

    def __init__(self, key, keeps_order):
        self.key = key
        self.keeps_order = keeps_order
        # Whether it is the one of all connections of a server.
        self.is_shared = not keeps_order and key[1].endswith('!')
        self.messages = collections.deque()
        # The claim on the frame that is being handled. It came before all messages that wait.
        self.claim = None
        # The ready queue that it is in and its position there; None while it is in none.
        self.queue = self.position = None

    def queue_of_first(self):
        """Return the name under which its first message is received."""
        return self.messages[0].channel if self.keeps_order else self.key[1]


class Limits:
    """How many messages may wait: ``capacity(channel)`` for one connection or channel, and ``server_capacity`` in all
    for the connections of one server.
    """

    def __init__(self, capacity, server_capacity):
        self.capacity = capacity
        self.server_capacity = server_capacity
        # How many messages wait for each connection of a server.
        self.waiting = collections.Counter()

    def is_full(self, box, channel):
        """Whether no more messages for ``channel`` fit into ``box``."""
        if box.is_shared:
            return self.waiting[channel] >= self.capacity(channel) or len(box.messages) >= self.server_capacity
        return len(box.messages) >= self.capacity(channel) or box.keeps_order and _size(box) > FRAME_BYTES

    def count_in(self, queued):
        """Note that ``queued`` was put into the mailbox of its server."""
        self.waiting[queued.channel] += 1

    def count_out(self, queued):
        """Note that ``queued`` was taken out of the mailbox of its server."""
        left = self.waiting[queued.channel] - 1
        if left:
            self.waiting[queued.channel] = left
        else:
            del self.waiting[queued.channel]


class ReadyQueues:
    """Mailboxes with a message that can be taken: for each channel those whose first message is of it, oldest first."""

    def __init__(self):
        # Per channel: position -> mailbox.
        self._queues = collections.defaultdict(collections.OrderedDict)
        self._positions = itertools.count()

    def enter(self, box, queue):
        """Put ``box`` into ``queue``, at the end; it stays where it is if it is in there."""
        if box.queue != queue:
            self.leave(box)
            box.queue, box.position = queue, next(self._positions)
            self._queues[queue][box.position] = box

    def leave(self, box):
        """Take ``box`` out of its queue."""
        if box.queue is not None:
            queue = self._queues[box.queue]
            del queue[box.position]
            if not queue:
                del self._queues[box.queue]
            box.queue = box.position = None

    def heads(self, channels):
        """Return a dict of the first mailbox in the queue of each of ``channels`` that has one."""
        queues = self._queues
        return {channel: next(iter(queues[channel].values())) for channel in channels if channel in queues}

    def next_of(self, channels, last=None):
        """Return the mailbox that has been longest in the queue of one of ``channels``, of ``last`` only if there is no
        other; ``None`` if there is none.
        """
        found, queues = None, self._queues
        for channel in channels:
            if channel in queues:
                box = next(iter(queues[channel].values()))
                if found is None or found.queue == last or channel != last and box.position < found.position:
                    found = box
        return found

    def first(self, channel, count):
        """Return ``count`` of the mailboxes in the queue of ``channel``, as a list."""
        return list(itertools.islice(self._queues.get(channel, {}).values(), count))

    def length(self, channel):
        """Return how many mailboxes are in the queue of ``channel``."""
        return len(self._queues.get(channel, ()))

    def __len__(self):
        return len(self._queues)


def queue_of(channel):
    """Return the name under which ``channel`` is received: a server's channels are received together."""
    head, mark, _ = channel.partition('!')
    return head + mark


def _size(box):
    return sum(len(queued.message.get('text') or queued.message.get('bytes') or '') for queued in box.messages)
