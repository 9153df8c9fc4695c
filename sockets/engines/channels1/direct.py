"""Transports of open websockets to which a worker's thread may write by itself.

To have the reactor write an answer, it must be woken, which takes two system calls and two switches between threads. What
cannot be written at once goes the way of all messages.
"""

import threading

from twisted.internet import tcp
from twisted.python.runtime import platformType

# Held by who writes to a connection, and by who is about to close it: a descriptor that was closed may be the next
# client's. One for each connection would take memory, one for all would keep threads waiting for each other. Nothing is
# logged under them, and no other lock is taken than the one of the layer's queues, under which none of them is: a handler of
# the log may send something to a connection.
_LOCKS = [threading.RLock() for _ in range(61)]

# Characters of a text that is written this way: with its head, it is no more than a transport holds before it is full.
LONGEST = 16000


def lock_of(transport):
    """Return the lock under which ``transport`` is written to."""
    return _LOCKS[id(transport) % 61]


class Direct:
    """A transport which threads write to beside the reactor. Its buffer changes under its lock only."""

    # Until a close is on its way, or the connection has ended.
    is_open_to_threads = True

    # The ``Poll`` by which threads read it, and whether it is in there.
    poll, is_polled = None, False

    def write_now(self, data):
        """Write ``data`` from any thread unless something waits to be written before it; return whether that was done."""
        with lock_of(self):
            if (
                not self.is_open_to_threads
                or self.dataBuffer
                or self._tempDataBuffer
                or self.disconnecting
                or not self.connected
            ):
                return False
            sent = self.writeSomeData(data)
            if isinstance(sent, Exception) or not sent:
                # The reactor will meet the same error, and handle it.
                return False
            if sent == len(data):
                return True
            self._tempDataBuffer.append(data[sent:])
            self._tempDataLen += len(data) - sent
        self.reactor.callFromThread(self.write_rest)
        return True

    def write_rest(self):
        """Have the reactor write what a thread could not."""
        if self.connected:
            self.startWriting()

    def close_to_threads(self):
        """Let no thread begin to write, and wait for the one that does: it never waits itself."""
        with lock_of(self):
            self.is_open_to_threads = False

    def startReading(self):
        with lock_of(self):
            if self.poll is not None and not self.is_polled:
                self.is_polled = self.poll.enter(self)
            is_polled = self.is_polled
        if not is_polled:
            super().startReading()

    def stopReading(self):
        with lock_of(self):
            if self.is_polled:
                self.is_polled = False
                return self.poll.leave(self)
        super().stopReading()

    def leave_poll(self):
        """Be read by the reactor from now on."""
        if self.connected:
            self.stopReading()
            self.poll = None
            if not self.protocol.is_paused:
                self.startReading()

    def write(self, data):
        with lock_of(self):
            super().write(data)

    def writeSequence(self, iovec):
        with lock_of(self):
            super().writeSequence(iovec)

    def doWrite(self):
        with lock_of(self):
            return super().doWrite()

    def connectionLost(self, reason):
        self.close_to_threads()
        super().connectionLost(reason)


class Server(Direct, tcp.Server):
    """A connection of TCP."""


# What a transport of exactly this class becomes. With TLS it is of another one, or says so.
_DIRECT = {tcp.Server: Server}

if platformType == 'posix':
    from twisted.internet import unix

    class UnixServer(Direct, unix.Server):
        """A connection through a unix socket."""

    _DIRECT[unix.Server] = UnixServer


def open_to_threads(transport):
    """Have threads write to ``transport`` as well, where that can be; return whether it can."""
    kind = _DIRECT.get(type(transport))
    if kind is None or getattr(transport, 'TLS', False):
        return False
    transport.__class__ = kind
    return True


def framed(text):
    """Return the frame of a server's ``text`` of at most ``LONGEST`` characters (RFC 6455, section 5.2)."""
    payload = text.encode()
    size = len(payload)
    if size < 126:
        return b'\x81%c%b' % (size, payload)
    if size < 65536:
        return b'\x81\x7e%b%b' % (size.to_bytes(2, 'big'), payload)
    return b'\x81\x7f%b%b' % (size.to_bytes(8, 'big'), payload)
