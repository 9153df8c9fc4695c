"""What comes in from the client of a server that lays it into a queue: handled where it comes in, without the task."""

import asyncio
from asyncio import tasks

from .frames import ON_THREAD, take
from .incoming import CAPACITY, Incoming, size_of


def incoming(connection, receive):
    """Return the ``Incoming`` or ``Direct`` of ``connection``, from ``receive``, that of ASGI."""
    server = getattr(receive, '__self__', None)
    # uvicorn's receive() takes from the queue of its protocol. daphne's is the get() of a queue.
    queue = server if type(server) is asyncio.Queue else getattr(server, 'queue', None)
    if type(queue) is not asyncio.Queue or (queue is not server and not hasattr(server, 'read_paused')):
        return Incoming(receive, connection.refuse_more)
    return Direct(connection, receive, queue, None if queue is server else server)


class Direct(Incoming):
    """The events of ``connection``, which a server lays into ``queue``. ``protocol`` is uvicorn's, which stops to read when
    it has laid something there.

    A frame that comes while nothing goes on is handled at once, by ``frames.take()``. The task of the connection, which
    else would be woken for each, has what is to be awaited: ``next()`` returns a coroutine for that.
    """

    __slots__ = ('connection', 'events', 'protocol', 'is_free', 'left', 'reads_on')

    def __init__(self, connection, receive, queue, protocol):
        super().__init__(receive, connection.refuse_more)
        self.connection, self.events, self.protocol = connection, queue, protocol
        # Whether the task waits for an event, and nothing else goes on.
        self.is_free = False
        # A coroutine that the task is to await.
        self.left = None
        # Whether uvicorn reads, however much waits.
        self.reads_on = False
        queue.put_nowait = self.arrived

    def arrived(self, event):
        """Take ``event``, which the server lays into the queue. On the loop's thread."""
        protocol = self.protocol
        if self.is_free and event['type'] == 'websocket.receive' and asyncio.current_task() is None:
            if protocol is not None:
                # Nothing waits: it need not stop to read, and to begin again is work as well.
                protocol.read_paused = True
            self.is_free = False
            return self.run(take, self.connection, event, True)
        asyncio.Queue.put_nowait(self.events, event)
        if event['type'] == 'websocket.disconnect':
            self.is_over = True
        elif self.reads_on:
            self.size += size_of(event)
            if self.is_too_much(self.events.qsize()):
                self.refuse_more()
        elif protocol is not None:
            # It stops to read.
            protocol.read_paused = False
        if self.is_free:
            self._wake()

    async def next(self):
        """Return the next event, or a coroutine that is to be awaited before it."""
        if self.left is None and not self.events.qsize():
            self.is_free, self.wake_up = True, self.connection.server.loop.create_future()
            try:
                await self.wake_up
            except asyncio.CancelledError as error:
                if self.left is None:
                    raise
                # It is meant for what is left, as by a timeout of the function.
                _cancel_again(self.connection.task, *error.args[:1])
            finally:
                self.is_free, self.wake_up = False, None
        if self.left is None:
            return self._get()
        left, self.left = self.left, None
        return left

    def run(self, function, *args):
        """Have ``function(*args)``, which returns what ``take()`` does, handle a frame; go on with those that wait behind it
        until the task or a thread has to. On the loop's thread.
        """
        connection, events = self.connection, self.events
        loop, task = connection.server.loop, connection.task
        # Functions find the task that goes on with them if they have to wait.
        tasks._enter_task(loop, task)
        try:
            left = function(*args)
            while left is None and self._is_awaited():
                if connection.is_cancelled:
                    task.cancel()
                elif not events.qsize():
                    self.is_free = True
                elif events._queue[0]['type'] != 'websocket.receive':
                    self._wake()
                else:
                    left = take(connection, self._get(), True)
                    continue
                return
        except BaseException as error:
            left = _raise(error)
        finally:
            tasks._leave_task(loop, task)
        if left is not None and left is not ON_THREAD:
            self.left = left
            self._wake()

    def read_ahead(self):
        if self.protocol is not None and not self.reads_on:
            self.reads_on = self.protocol.read_paused = True
            self.size = sum(map(size_of, self.events._queue))
            self._resume()

    def stop(self):
        self.is_free = False
        vars(self.events).pop('put_nowait', None)

    def _get(self):
        events = self.events
        if self.queue is not None and events.qsize() > CAPACITY:
            self.refuse_more()
        event = events.get_nowait()
        if self.reads_on:
            self.size -= size_of(event)
        elif self.protocol is not None and not events.qsize():
            self.protocol.read_paused = False
            self._resume()
        return event

    def _resume(self):
        transport = self.protocol.transport
        if not transport.is_closing():
            transport.resume_reading()

    def _is_awaited(self):
        return self.wake_up is not None and not self.wake_up.done()

    def _wake(self):
        self.is_free = False
        if self._is_awaited():
            self.wake_up.set_result(None)


async def _raise(error):
    """Raise ``error`` in the task that awaits this."""
    raise error


def _cancel_again(task, *args):
    """Have ``task``, which is running, be cancelled where it waits next, by a cancel that it has got already."""
    if hasattr(task, 'uncancel'):
        # It counts them since Python 3.11, and this is the same one.
        task.uncancel()
    task.cancel(*args)
