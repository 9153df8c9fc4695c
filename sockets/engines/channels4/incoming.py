"""What comes in from one client: read when the frame before has been handled, or ahead while that takes long."""

import asyncio
import collections

# Frames of one connection that may wait while one of it is handled.
CAPACITY = 100


class Incoming:
    """The events of one connection, from ``receive``, that of ASGI. ``refuse_more()`` is called when too many wait."""

    __slots__ = ('receive', 'refuse_more', 'queue', 'ahead', 'reader', 'wake_up')

    def __init__(self, receive, refuse_more):
        self.receive, self.refuse_more = receive, refuse_more
        # daphne reads on all the time: its receive() is the get() of a queue without bounds.
        queue = getattr(receive, '__self__', None)
        self.queue = queue if hasattr(queue, 'qsize') else None
        self.ahead = self.reader = self.wake_up = None

    async def next(self):
        """Return the next event."""
        if self.reader is None:
            if self.queue is not None and self.queue.qsize() > CAPACITY:
                self.refuse_more()
            return await self.receive()
        while not self.ahead:
            self.wake_up = asyncio.get_running_loop().create_future()
            await self.wake_up
        return self.ahead.popleft()

    def read_ahead(self):
        """Read on while a frame is handled, from now on: else a server reads no pongs either, and closes."""
        if self.reader is None:
            self.ahead = collections.deque()
            self.reader = asyncio.get_running_loop().create_task(self._read())

    def stop(self):
        """Read no more."""
        if self.reader is not None:
            self.reader.cancel()

    async def _read(self):
        while True:
            event = await self.receive()
            self.ahead.append(event)
            if self.wake_up is not None and not self.wake_up.done():
                self.wake_up.set_result(None)
            if event['type'] == 'websocket.disconnect':
                return
            if len(self.ahead) > CAPACITY:
                self.refuse_more()
