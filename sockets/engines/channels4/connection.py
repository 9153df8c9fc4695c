"""A websocket of this process: what its frames share, the task that handles them one after another, and the way out."""

import asyncio
import collections
import contextvars
import io
import json
import logging
from functools import partial

from django.core.handlers.asgi import ASGIRequest

from ... import engine, messages
from ...access import credentials
from ...connection import connect, disconnect, frame, handshakes, timing
from ...execution import request_state, steps, thread_state
from .message import Message

logger = logging.getLogger('sockets')

# Frames of one connection that may wait while one of it is handled.
CAPACITY = 100

# Bytes that may wait for a client that does not read.
BACKLOG = 4 * 1024 * 1024

# Characters of the longest frame that is decoded on the loop.
_SHORT = 65536

_DONE = object()


class Ended(engine.Connection):
    """A connection whose end is handled, which may have been another process's. Nothing reaches its client any more."""

    __slots__ = ('kwargs', 'scope')

    keeps_order = True

    def __init__(self, name, path, kwargs, scope=None):
        super().__init__(name, path, accepted=True)
        self.kwargs = kwargs
        self.scope = {} if scope is None else scope

    def put(self, message, is_last=False):
        pass

    def handshake(self):
        return self._request(self.scope)

    def handshake_again(self, load_text):
        return self._request(self.scope or json.loads(load_text() or '{}'))

    def handshake_text(self, secret_cookie):
        return handshakes.text_of({**self.scope, 'path': self.path}, secret_cookie)

    def recall(self, handshake_text):
        request_state.set_root_path(json.loads(handshake_text or '{}').get('root_path'))

    def header(self, name):
        return handshakes.header(self.scope, name)

    def _request(self, content):
        scope = {
            **{key: content[key] for key in ('client', 'server', 'root_path') if content.get(key)},
            'type': 'http',
            'method': 'GET',
            # Django takes the root path off again.
            'path': (content.get('root_path') or '').rstrip('/') + self.path,
            # Django asks for "https".
            'scheme': 'https' if content.get('scheme') in ('https', 'wss') else 'http',
            'query_string': handshakes.encoded(content.get('query_string') or ''),
            'headers': [
                (handshakes.encoded(name).lower(), handshakes.encoded(value))
                for name, value in handshakes.headers(content)
            ],
        }
        request = ASGIRequest(scope, io.BytesIO())
        if content.get('dropped'):
            credentials.note_absent(request, content['dropped'])
        return request


class Connection(Ended):
    """A websocket that ``server`` holds, of the handler class ``handler``, as ASGI has called for it."""

    __slots__ = (
        'server',
        'handler',
        'receive',
        'send_event',
        'outgoing',
        'backlog',
        'is_flushing',
        'reply',
        'has_ended',
        'code',
        'task',
        'is_busy',
        'is_cancelled',
        'read_ahead',
        'reader',
        'wake_up',
        'began',
    )

    is_served_here = True

    def __init__(self, server, handler, scope, path, kwargs, receive, send):
        super().__init__(server.new_name(), path, kwargs, scope)
        self.server = server
        self.handler = handler
        self.accepted = False
        self.receive, self.send_event = receive, send
        # What waits to be sent, and how many bytes of it while the client does not read.
        self.outgoing = collections.deque()
        self.backlog = 0
        self.is_flushing = False
        # The last message of a frame, which is sent when that has been handled.
        self.reply = None
        # Whether no frame reaches a route any more.
        self.has_ended = False
        self.code = 1006
        self.task = None
        self.is_busy = self.is_cancelled = False
        # Frames that were read while one was handled, if that took long.
        self.read_ahead = self.reader = self.wake_up = None
        self.began = None

    # Its life, on the loop.

    async def serve(self):
        """Serve the connection to its end, whatever happens to the task of whoever calls.

        daphne cancels that when it stops, and waits for it.
        """
        self.task = self.server.loop.create_task(self._live())
        try:
            await asyncio.shield(self.task)
        except asyncio.CancelledError:
            # Not raised again: daphne stops waiting for the others at the first task that was cancelled.
            if not self.task.done():
                await self.stop(messages.CLOSE_RESTART)

    async def stop(self, code, patience=8):
        """Close with ``code`` when the frame that is handled has been; return when the end has been handled."""
        deadline = self.server.loop.time() + patience
        self.has_ended = True
        while self.is_busy and not self.task.done() and self.server.loop.time() < deadline:
            await asyncio.sleep(0.02)
        if not self.task.done():
            self.push({'close': code})
            self.code = code
            while self.is_flushing and self.server.loop.time() < deadline:
                await asyncio.sleep(0.01)
            self._cancel()
            await asyncio.wait([self.task], timeout=patience)

    async def _live(self):
        if (await self.receive())['type'] != 'websocket.connect':
            return
        self.server.connections[self.name] = self
        is_quick = self.handler._is_quick
        try:
            await self._handle('websocket.connect', {**self.scope}, connect.connect)
            while not self.is_cancelled:
                event = await self._next()
                if event['type'] == 'websocket.disconnect':
                    self.code = event.get('code')
                    break
                if self.has_ended or self.closed:
                    continue
                text = event.get('text')
                await self._handle(
                    'websocket.receive',
                    event,
                    partial(frame.receive, text=text, data=event.get('bytes') if text is None else None),
                    is_quick and (text is None or len(text) < _SHORT),
                )
                self._count_waiting()
        finally:
            if self.reader is not None:
                self.reader.cancel()
            self.server.connections.pop(self.name, None)
            self.has_ended = self.closed = True
            if self.accepted:
                # Whoever cancels this must not keep the row from going.
                await asyncio.shield(self.server.pool.submit(self._end))

    async def _handle(self, channel, content, event, is_quick=False):
        """Take the steps of ``event``; the first one on the loop if it ``is_quick``."""
        handler = self.handler(self, Message(channel, {**content, 'path': self.path, 'reply_channel': self.name}))
        work = event(handler)
        self.is_busy, self.began = True, self.server.loop.time()
        context = step = None
        try:
            if is_quick:
                step = _advance(work)
            while step is not _DONE:
                if step is None:
                    step = await self.server.pool.submit(self._take_step, handler, channel, work)
                    continue
                try:
                    context = context or contextvars.copy_context()
                    result = await _InContext(context, step)
                except asyncio.CancelledError:
                    if self.is_cancelled:
                        raise
                    step = _advance(work, error=RuntimeError('The coroutine was cancelled.'))
                except Exception as error:
                    step = _advance(work, error=error)
                else:
                    step = _advance(work, result)
        finally:
            self.is_busy = False
            if step is not _DONE:
                self._abandon(work)
        if self.reply is not None:
            self.outgoing.append(self.reply)
            self.reply = None
        if self.outgoing and not self.is_flushing:
            await self._flush()

    @staticmethod
    def _abandon(work):
        try:
            work.throw(steps.Abandoned())
        except (steps.Abandoned, StopIteration, ValueError):
            # Or a thread is in the middle of it.
            pass

    def _take_step(self, handler, channel, work):
        """Take the next step of ``work``, which may wait. On a thread of the pool."""
        return timing.timed(
            handler,
            channel,
            partial(thread_state.serve, partial(_advance, work), self.scope.get('root_path'), type(handler)),
        )

    def _end(self):
        handler = self.handler(
            self,
            Message('websocket.disconnect', {'path': self.path, 'reply_channel': self.name, 'code': self.code}),
        )
        timing.timed(
            handler,
            'websocket.disconnect',
            partial(
                thread_state.serve,
                partial(disconnect.disconnect, handler, self.code),
                self.scope.get('root_path'),
                type(handler),
            ),
        )

    # What comes in.

    async def _next(self):
        """Return the next event of this connection."""
        if self.reader is None:
            return await self.receive()
        while not self.read_ahead:
            self.wake_up = self.server.loop.create_future()
            await self.wake_up
        return self.read_ahead.popleft()

    def read_on(self):
        """Have frames read from now on while one is handled, which takes long: else the server reads no pongs either."""
        if self.reader is None:
            self.read_ahead = collections.deque()
            self.reader = self.server.loop.create_task(self._read_ahead())

    async def _read_ahead(self):
        while True:
            event = await self.receive()
            self.read_ahead.append(event)
            if self.wake_up is not None and not self.wake_up.done():
                self.wake_up.set_result(None)
            if event['type'] == 'websocket.disconnect':
                return
            if len(self.read_ahead) > CAPACITY:
                self._refuse_more()

    def _count_waiting(self):
        # daphne reads on all the time: its receive() is the get() of a queue without bounds.
        queue = getattr(self.receive, '__self__', None)
        if hasattr(queue, 'qsize') and queue.qsize() > CAPACITY:
            self._refuse_more()

    def _refuse_more(self):
        if not self.has_ended:
            logger.warning('Closing %s at %r with 1013: more than %d of its frames wait', self.name, self.path, CAPACITY)
            self.has_ended = True
            self.push({'close': messages.CLOSE_TRY_AGAIN_LATER})

    # What goes out.

    def put(self, message, is_last=False):
        if is_last:
            self.reply = message
        elif self.server.is_here():
            self.push(message)
        else:
            self.server.pool.call_on_loop(self.push, message)

    def push(self, message):
        """Send ``message`` when what was given before has been sent. On the loop's thread."""
        self.outgoing.append(message)
        if self.is_flushing:
            self.backlog += len(message.get('text') or message.get('bytes') or '')
            if self.backlog > BACKLOG:
                logger.warning(
                    'Cutting off %s at %r, which does not read: %d bytes wait', self.name, self.path, self.backlog
                )
                self.outgoing.clear()
                self._cancel()
        else:
            self.is_flushing = True
            self.server.start_task(self._flush())

    def _cancel(self):
        self.has_ended = self.closed = self.is_cancelled = True
        self.task.cancel()

    async def _flush(self):
        self.is_flushing = True
        try:
            while self.outgoing:
                await self._send(self.outgoing.popleft())
                self.backlog = 0 if not self.outgoing else self.backlog
        except Exception as error:
            # The client has gone, and its disconnect is on its way.
            logger.debug('Nothing reaches %s any more: %r', self.name, error)
            self.has_ended = True
            self.outgoing.clear()
        finally:
            self.is_flushing = False

    async def _send(self, message):
        send = self.send_event
        code = message.get('close')
        if message.get('accept'):
            event = {'type': 'websocket.accept'}
            if message.get('subprotocol'):
                event['subprotocol'] = message['subprotocol']
            await send(event)
        elif message.get('accept') is False:
            code = messages.CLOSE_NOT_ALLOWED
        if message.get('text') is not None:
            await send({'type': 'websocket.send', 'text': message['text']})
        elif message.get('bytes') is not None:
            await send({'type': 'websocket.send', 'bytes': message['bytes']})
        if code:
            self.has_ended = True
            await send({'type': 'websocket.close', 'code': 1000 if code is True else code})


def _advance(work, result=None, error=None):
    """Return the next step of ``work``, ``_DONE`` if there is none."""
    try:
        return work.send(result) if error is None else work.throw(error)
    except StopIteration:
        return _DONE


class _InContext:
    """Awaits ``awaitable`` in ``context``, so that what it sets is not there for the next frame."""

    __slots__ = ('context', 'awaitable')

    def __init__(self, context, awaitable):
        self.context = context
        self.awaitable = awaitable

    def __await__(self):
        run = self.context.run
        steps = run(self.awaitable.__await__)
        call = partial(run, next, steps)
        while True:
            try:
                waits_for = call()
            except StopIteration as end:
                return end.value
            try:
                yield waits_for
            except BaseException as error:
                call = partial(run, steps.throw, error)
            else:
                call = partial(run, next, steps)
