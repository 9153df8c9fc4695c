"""A websocket of this process: the task that handles its events, one after another."""

import asyncio
import logging
import time
import types

from django.core.exceptions import SynchronousOnlyOperation

from ... import messages
from ...backlog import BACKLOG
from ...connection import disconnect
from ...connection.memory import memories
from . import admission, direct, frames, steps
from .ended import Ended
from .incoming import CAPACITY
from .message import Message
from .outgoing import AT_ONCE, Outgoing, size_of

logger = logging.getLogger('sockets')

IN_A_COROUTINE = (
    'A coroutine cannot accept a connection with accept(), which writes its row. Write "await self.aaccept()", or leave it '
    'out: after an async def connect, it is accepted.'
)


class Connection(Ended):
    """A websocket that ``server`` holds, of the handler class ``handler``, as ASGI has called for it."""

    __slots__ = (
        'server',
        'handler',
        'incoming',
        'outgoing',
        'has_ended',
        'code',
        'task',
        'busy_since',
        'is_cancelled',
        'is_on_thread',
        'is_ending',
        'is_over_time',
        'coroutine',
        'frames_left',
        'ticket',
    )

    is_served_here = True

    def __init__(self, server, handler, scope, path, kwargs, receive, send):
        super().__init__(server.new_name(), path, kwargs, scope)
        self.server, self.handler, self.accepted = server, handler, False
        self.incoming = direct.incoming(self, receive)
        self.outgoing = Outgoing(send, server.begin_task, self.cut_off, False, admission.can_answer(scope))
        # Whether no frame reaches a route any more.
        self.has_ended = self.is_cancelled = False
        self.is_on_thread = self.is_ending = self.is_over_time = False
        # What is awaited: the handler, the coroutine, and since when, in the loop's time.
        self.coroutine = None
        # Frames that are still handled while the server stops, None while it does not.
        self.frames_left = None
        self.code, self.task = 1006, None
        self.ticket = [admission.WAITS]
        # When the event came that is handled, in the loop's time; None while none is.
        self.busy_since = None

    async def serve(self):
        """Serve the connection to its end, whatever happens to the task of whoever calls.

        daphne cancels that when it stops, and waits for it.
        """
        self.task = self.server.loop.create_task(self._live())
        try:
            await asyncio.shield(self.task)
        except asyncio.CancelledError:
            # Not raised again: daphne stops waiting for the others at the first task that was cancelled. It cancels as well
            # what goes on for ten seconds after the client has left: that goes on.
            if not self.task.done() and not self.incoming.is_over:
                await self.stop(messages.CLOSE_RESTART, self.server.loop.time() + 8)

    async def stop(self, code, deadline):
        """Close with ``code`` when the frames that have come in have been handled, or when the loop's time is ``deadline``.

        Return when the end has been handled.
        """
        loop, task = self.server.loop, self.task
        if admission.take_ticket(self):
            return await admission.hand_back(self, deadline)
        self.frames_left = self.incoming.waiting()
        while self._is_at_work() and not task.done() and loop.time() < deadline:
            await asyncio.sleep(0.02)
        if not task.done():
            if self.busy_since is not None:
                logger.warning('Closing %s at %r whose frame has not been handled in time', self.name, self.path)
            self.push({'close': code})
            self.code = code
            while self.outgoing.is_flushing and loop.time() < deadline:
                await asyncio.sleep(0.01)
            self.cancel(at_once=True)
            await asyncio.wait([task], timeout=max(1, deadline - loop.time()))

    def _is_at_work(self):
        return self.busy_since is not None or self.outgoing.is_flushing or (self.frames_left > 0 and not self.has_ended)

    async def _live(self):
        if (await self.incoming.next())['type'] != 'websocket.connect':
            return
        self.server.connections[self.name] = self
        try:
            await self._connect()
            while not self.is_cancelled:
                event = await self.incoming.next()
                if type(event) is types.CoroutineType:
                    await event
                elif event['type'] == 'websocket.disconnect':
                    self.code = event.get('code')
                    break
                else:
                    left = frames.take(self, event)
                    if left is not None:
                        await left
                # Nothing of a frame is held until the next one.
                event = left = None
        finally:
            self.is_ending = True
            self.incoming.stop()
            self.server.connections.pop(self.name, None)
            self.has_ended = self.closed = True
            if self.accepted:
                # Whoever cancels this must not keep the row from going.
                await asyncio.shield(self.server.end(self._end))
            else:
                memories.forget(self.name)

    def _connect(self):
        handler = self.handler(self, Message('websocket.connect', self.scope, self))
        return frames.handle(self, handler, admission.opened(self, handler), self.server.connect_pool)

    def _end(self):
        handler = self.handler(self, Message('websocket.disconnect', {'code': self.code}, self))
        steps.on_thread(handler, self.scope.get('root_path'), disconnect.disconnect, handler, self.code, True)

    def waiting(self, count):
        return self.server.connects.first(count)

    def put(self, message, is_last=False):
        if is_last:
            self.outgoing.last = message
        elif self.server.is_here():
            self.push(message)
        else:
            self.server.pool.call_on_loop(self.push, message)

    def accept(self):
        if not self.accepted and self.server.is_here():
            raise SynchronousOnlyOperation(IN_A_COROUTINE)
        super().accept()

    async def asend(self, message):
        if not (self.accepted and self.server.is_here()):
            # To accept it writes its row.
            return await super().asend(message)
        self.send(message)
        # Who sends much is as slow as who reads it, and lets others be served meanwhile.
        await self.outgoing.sent()
        server = self.server
        if time.monotonic() - server.gave_way > AT_ONCE:
            await asyncio.sleep(0)
            server.gave_way = time.monotonic()

    def push(self, message):
        """Send ``message`` when what was given before has been sent. On the loop's thread."""
        if message.get('close'):
            # From here on, none of its frames reaches a route.
            self.has_ended = True
        self.outgoing.push(message)

    def refuse_more(self):
        """Close a connection whose client sends faster than its frames are handled."""
        if not self.has_ended:
            logger.warning(
                'Closing %s at %r with 1013: more than %d of its frames wait', self.name, self.path, CAPACITY
            )
            self.push({'close': messages.CLOSE_TRY_AGAIN_LATER})

    def cut_off(self):
        """End the connection of a client that does not read. A server that closes it would wait until it does."""
        self.incoming.abort()
        self.cancel()

    def check_backlog(self):
        """Cut off a client for which the server itself keeps too much, such as answers to its pings."""
        size = self.incoming.bytes_unread()  # which may have a long frame in it
        if size > BACKLOG and size - size_of(self.outgoing.sending or {}) > BACKLOG:
            logger.warning('Cutting off %s, which does not read: %d bytes wait', self.name, size)
            self.cut_off()

    def cancel(self, at_once=False):
        """End the connection now; what a thread does for it comes to its end first, unless it is to be ``at_once``."""
        self.has_ended = self.closed = self.is_cancelled = True
        if not self.is_ending and (at_once or not self.is_on_thread):
            self.task.cancel()
