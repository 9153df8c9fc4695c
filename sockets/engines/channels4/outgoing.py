"""What goes out to one client: message after message, each when the server has taken the one before."""

import asyncio
import collections
import logging
import time
import types

from ... import messages
from ...backlog import Backlog
from .begun import Begun

logger = logging.getLogger('sockets')

# Seconds for which messages are sent before others are served: a server that can take them all makes nobody wait.
AT_ONCE = 0.005


class Outgoing:
    """The way out of one connection, by ``send``, that of ASGI. All on the loop's thread.

    ``cut_off()`` is called when the client does not read what it is sent. Unless it ``is_open``, what comes before the
    message that accepts the connection waits for that. One that is refused instead gets an HTTP answer if the server
    ``can_answer``, which else says 403.
    """

    __slots__ = (
        'send',
        'start_task',
        'cut_off',
        'waiting',
        'last',
        'backlog',
        'behind',
        'sending',
        'is_open',
        'can_answer',
        'is_flushing',
        'is_over',
        'watchers',
    )

    def __init__(self, send, start_task, cut_off, is_open=True, can_answer=False):
        self.send, self.start_task, self.cut_off = send, start_task, cut_off
        self.can_answer = can_answer
        self.waiting = collections.deque()
        # The last message of a frame, which is sent when that has been handled.
        self.last = None
        # A ``Backlog`` of what came while the one before was not taken, and how many bytes of it wait.
        self.backlog, self.behind = None, 0
        # The message that the server is taking.
        self.sending = None
        self.is_open = is_open
        self.is_flushing = False
        # Whether the connection was closed, or its client has gone.
        self.is_over = False
        # Futures of those who wait until all has been sent.
        self.watchers = None

    def push(self, message):
        """Send ``message`` when what was given before has been sent."""
        if self.is_over:
            return
        if self.is_open:
            self.waiting.append(message)
        elif 'accept' in message or message.get('close'):
            # A row is found as soon as it is written, before its connection is accepted.
            self.is_open = True
            if not message.get('accept'):
                message = {'refuse': message.get('close') or messages.CLOSE_NOT_ALLOWED}
            self.waiting.appendleft(message)
        else:
            self.waiting.append(message)
            return self._count(message)
        if self.is_flushing:
            return self._count(message)
        self.is_flushing = True
        self.start_task(self.flush())

    def _count(self, message):
        """Count ``message`` among those that wait; cut off the client if that is too much."""
        size = size_of(message)
        if not self.behind:
            self.backlog = Backlog()
        self.behind += size
        if self.backlog.add(size, self.behind):
            logger.warning('Cutting off a client that does not read: %d bytes wait', self.behind)
            self.waiting.clear()
            self.is_over = True
            self.cut_off()

    def conclude(self):
        """Send what waits, and the last message of a frame that has been handled; return what is to be awaited for that,
        ``None`` if the server has taken it.
        """
        message, self.last = self.last, None
        if message is None:
            return self.flush() if self.waiting and not self.is_flushing else None
        if self.is_flushing or self.waiting or self.is_over or not self.is_open or 'close' in message:
            self.waiting.append(message)
            return None if self.is_flushing else self.flush()
        self.sending = message
        sending = self.send(_event_of(message))
        if type(sending) is not types.CoroutineType:
            return self._finish(sending)
        # As far as it goes without waiting, which is nearly always to its end.
        self.is_flushing = True
        try:
            waits_for = sending.send(None)
        except StopIteration:
            self.is_flushing, self.sending = False, None
        except Exception as error:
            self._give_up(error)
        except BaseException:
            self.is_flushing, self.sending = False, None
            raise
        else:
            return self._finish(Begun(sending, sending.__await__(), waits_for, _call))

    async def _finish(self, sending):
        """Await ``sending``, and send what has come meanwhile."""
        self.is_flushing = True
        try:
            await sending
        except Exception as error:
            self._give_up(error)
        except BaseException:
            # The connection is cancelled.
            self._end_flush()
            raise
        await self.flush()

    def _give_up(self, error):
        # The client has gone, and its disconnect is on its way.
        logger.debug('Nothing reaches a client any more: %r', error)
        self.is_over = True
        self.is_flushing, self.sending = False, None
        self.waiting.clear()

    async def flush(self):
        """Send what waits; return when it has been sent."""
        if not self.is_open:
            return
        self.is_flushing = True
        began = time.monotonic()
        try:
            while self.waiting and not self.is_over:
                message = self.waiting.popleft()
                self.sending = message
                if self.behind:
                    # The first one was not counted.
                    self.behind = max(0, self.behind - size_of(message))
                if message.get('close') or 'refuse' in message:
                    self.is_over = True
                for event in _events_of(message, self.can_answer):
                    await self.send(event)
                if self.waiting and time.monotonic() - began > AT_ONCE:
                    await asyncio.sleep(0)
                    began = time.monotonic()
            self.waiting.clear()
            self.backlog, self.behind = None, 0
        except Exception as error:
            self._give_up(error)
        finally:
            self._end_flush()

    def _end_flush(self):
        self.is_flushing, self.sending = False, None
        watchers, self.watchers = self.watchers, None
        for watcher in watchers or ():
            if not watcher.done():
                watcher.set_result(None)

    async def sent(self):
        """Return when what was given so far has been sent, or nothing is any more."""
        if self.is_flushing:
            watcher = asyncio.get_running_loop().create_future()
            self.watchers = [*(self.watchers or ()), watcher]
            await watcher


def size_of(message):
    """Return the bytes of the frame of ``message``."""
    content = message.get('text') or message.get('bytes') or b''
    return len(content) if isinstance(content, bytes) or content.isascii() else len(content.encode(errors='replace'))


def _event_of(message):
    """Return the event of ASGI for the frame in ``message``."""
    text = message.get('text')
    if text is None:
        return {'type': 'websocket.send', 'bytes': message['bytes']}
    return {'type': 'websocket.send', 'text': text}


def _call(function, *args):
    return function(*args)


def _events_of(message, can_answer):
    """Return the events of ASGI that ``message`` is sent as."""
    if 'refuse' in message:
        return refusal(message['refuse'], can_answer)
    events, code = [], message.get('close')
    if message.get('accept'):
        event = {'type': 'websocket.accept'}
        if message.get('subprotocol'):
            event['subprotocol'] = message['subprotocol']
        events.append(event)
    if message.get('text') is not None or message.get('bytes') is not None:
        events.append(_event_of(message))
    if code:
        event = {'type': 'websocket.close', 'code': 1000 if code is True else code}
        if code == messages.CLOSE_RESTART:
            event['reason'] = 'restart'
        elif 'reason' in message:
            event['reason'] = message['reason']
        events.append(event)
    return events


def refusal(code, can_answer):
    """Return the events of ASGI that refuse a connection with ``code``. Most servers answer a close with 403."""
    status, reason, headers = messages.refusal(code)
    if status == 403 or not can_answer:
        return [{'type': 'websocket.close', 'code': 1000 if code is True else code}]
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers]
    return [
        {'type': 'websocket.http.response.start', 'status': status, 'headers': pairs},
        {'type': 'websocket.http.response.body', 'body': reason.encode()},
    ]
