"""What comes in from one client: read when the frame before has been handled, or ahead while that takes long."""

import asyncio
import collections

# Frames of one connection that may wait while one of it is handled.
CAPACITY = 100

# Bytes that they may have. The first one of them may have any number.
MAX_WAITING = 4 * 1024 * 1024


class Incoming:
    """The events of one connection, from ``receive``, that of ASGI. ``refuse_more()`` is called when too many wait."""

    __slots__ = ('receive', 'refuse_more', 'queue', 'ahead', 'reader', 'wake_up', 'is_over', 'size')

    def __init__(self, receive, refuse_more):
        self.receive, self.refuse_more = receive, refuse_more
        # daphne reads on all the time: its receive() is the get() of a queue without bounds.
        queue = getattr(receive, '__self__', None)
        self.queue = queue if hasattr(queue, 'qsize') else None
        if self.queue is not None:
            # So that daphne's protocol knows whose it is.
            self.queue.is_ours = True
        self.ahead = self.reader = self.wake_up = None
        # Whether the client is known to have left.
        self.is_over = False
        # Bytes of what was read ahead.
        self.size = 0

    def next(self):
        """Return what is to be awaited for the next event."""
        if self.reader is not None:
            return self._next_ahead()
        if self.queue is not None and self.queue.qsize() > CAPACITY:
            self.refuse_more()
        return self.receive()

    async def _next_ahead(self):
        while not self.ahead:
            self.wake_up = asyncio.get_running_loop().create_future()
            await self.wake_up
        event = self.ahead.popleft()
        self.size -= size_of(event)
        return event

    def waiting(self):
        """Return how many events have come in that were not taken yet, as far as the server lets us know."""
        if self.queue is not None:
            queue = self.queue
        else:
            # uvicorn's.
            queue = getattr(getattr(self.receive, '__self__', None), 'queue', None)
        return len(self.ahead or ()) + (queue.qsize() if hasattr(queue, 'qsize') else 0)

    def has_left(self):
        """Return whether the client is known to have left, although nobody has read so far. On any thread."""
        if self.is_over:
            return True
        server = getattr(self.receive, '__self__', None)
        # uvicorn's transport, and the queue of daphne.
        transport = getattr(server, 'transport', None)
        if transport is not None and hasattr(transport, 'is_closing'):
            return transport.is_closing()
        try:
            return self.queue is not None and self.queue._queue[-1]['type'] == 'websocket.disconnect'
        except (AttributeError, IndexError):
            return False

    def read_ahead(self):
        """Read on while a frame is handled, from now on: else a server reads no pongs either, and closes."""
        if self.reader is None:
            self.ahead = collections.deque()
            self.reader = asyncio.get_running_loop().create_task(self._read())

    def stop(self):
        """Read no more."""
        if self.reader is not None:
            self.reader.cancel()

    def bytes_unread(self):
        """Return how many bytes the server keeps for a client that does not read, as far as it lets us know."""
        transport = self._transport()
        return transport.get_write_buffer_size() if hasattr(transport, 'get_write_buffer_size') else 0

    def abort(self):
        """Have the server reset the connection, if it lets us."""
        transport = self._transport()
        if hasattr(transport, 'abort'):
            transport.abort()

    def _transport(self):
        # uvicorn's protocols have one.
        return getattr(getattr(self.receive, '__self__', None), 'transport', None)

    async def _read(self):
        while True:
            event = await self.receive()
            self.ahead.append(event)
            self.size += size_of(event)
            if self.wake_up is not None and not self.wake_up.done():
                self.wake_up.set_result(None)
            if event['type'] == 'websocket.disconnect':
                self.is_over = True
                return
            if self.is_too_much(len(self.ahead)):
                self.refuse_more()

    def is_too_much(self, count):
        """Return whether ``count`` events, which wait, are too many or too long."""
        return count > CAPACITY or (count > 1 and self.size > MAX_WAITING)


def size_of(event):
    """Return about how many bytes the frame in ``event`` has."""
    return len(event.get('text') or event.get('bytes') or '')
