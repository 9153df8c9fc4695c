"""Which clients may connect now, and how the others are told when to come back."""

import asyncio
import threading
import time

from ... import messages
from ...connection import connect
from ...layers.admission import Admission
from .outgoing import refusal

# Seconds that clients have to answer a close which tells them to come back later, and how many of them there may be at
# a time.
TURN_AWAY_TIMEOUT = 2
MAX_TURNED_AWAY = 1000

# Seconds after which a client comes back that still waited when the server stopped.
AFTER_RESTART = 1

# The ticket of a connection that waits for a thread. Whoever takes it decides what becomes of it: the thread that has time
# for it, or a server that stops.
WAITS = object()


class Connects:
    """The connects that wait for a thread of ``pool``."""

    def __init__(self, pool):
        self.pool = pool
        # How many clients are being told to come back.
        self.turned_away = 0
        self._admission = Admission()
        self._lock = threading.Lock()
        # The connections that wait, by name, in the order in which they came. Some of them have left.
        self.line = {}

    def ask(self):
        """Return ``None`` if a client may wait for a thread, or the seconds after which it is to come back."""
        now = time.monotonic()
        with self._lock:
            return self._admission.ask(now, self.pool.waiting, self.pool.waited(now))

    def taken(self):
        """Note that a thread has taken a connect."""
        with self._lock:
            self._admission.taken(time.monotonic(), self.pool.waiting)

    def taken_with(self):
        """Note that a thread has taken another one together with that."""
        with self._lock:
            self._admission.taken_with(1, self.pool.waiting)

    def first(self, count):
        """Return the names and scopes of the first ``count`` that wait. On any thread."""
        found = []
        for connection in list(self.line.values()):
            if connection.is_ending:
                self.line.pop(connection.name, None)
            else:
                found.append((connection.name, connection.scope))
                if len(found) == count:
                    break
        return found

    async def put_off(self, seconds, subprotocol, scope, receive, send):
        """Tell a client to come back after ``seconds``: with 1013, which a page is told of, or with 503 if it is one of many."""
        if self.turned_away >= MAX_TURNED_AWAY:
            return await refuse(scope, receive, send, messages.CLOSE_TRY_AGAIN_LATER)
        self.turned_away += 1
        try:
            await asyncio.wait_for(_say_when(seconds, subprotocol, receive, send), TURN_AWAY_TIMEOUT)
        except Exception:
            # It has gone, or does not answer.
            pass
        finally:
            self.turned_away -= 1


def take_ticket(connection):
    """Return whether nobody has decided yet what becomes of ``connection``. On any thread."""
    try:
        connection.ticket.pop()
    except IndexError:
        return False
    return True


def opened(connection, handler):
    """Return the steps in which ``connection`` is opened; the first one is on the thread that has time for it."""
    connection.server.connects.line[connection.name] = connection
    return _opened(connection, handler)


def _opened(connection, handler):
    connects = connection.server.connects
    if connection.gathered is None:
        connects.taken()
    connects.line.pop(connection.name, None)
    if take_ticket(connection) and not (connection.has_ended or connection.incoming.has_left()):
        yield from connect.connect(handler)


async def hand_back(connection, deadline):
    """Tell the client of ``connection``, whose ticket was taken, to come back: the server stops."""
    loop = connection.server.loop
    reason = messages.retry_after(AFTER_RESTART)
    connection.push({'accept': True, 'close': messages.CLOSE_TRY_AGAIN_LATER, 'reason': reason})
    deadline = min(deadline, loop.time() + TURN_AWAY_TIMEOUT)
    while connection.outgoing.is_flushing and loop.time() < deadline:
        await asyncio.sleep(0.01)
    connection.cancel(at_once=True)


async def _say_when(seconds, subprotocol, receive, send):
    await receive()
    await send({'type': 'websocket.accept', 'subprotocol': subprotocol})
    await send(
        {'type': 'websocket.close', 'code': messages.CLOSE_TRY_AGAIN_LATER, 'reason': messages.retry_after(seconds)}
    )
    while (await receive())['type'] != 'websocket.disconnect':
        pass


async def refuse(scope, receive, send, code=messages.CLOSE_NOT_ALLOWED):
    """Refuse a connection with ``code`` before it is accepted."""
    await receive()
    for event in refusal(code, can_answer(scope)):
        await send(event)


def can_answer(scope):
    """Return whether the server lets us choose with which HTTP status a connection is refused."""
    return 'websocket.http.response' in (scope.get('extensions') or {})
