"""How a server's reactor runs scripts in Redis: without blocking, with a callback for each reply."""

import collections
import logging
import threading
import time

import redis

from .errors import AWAY, Late, is_read_only
from .scripts import SCRIPTS

logger = logging.getLogger('sockets')

# Frames, and bytes of them, that go to Redis in one command.
FRAMES_AT_ONCE, BYTES_AT_ONCE = 64, 512 * 1024


class Poster:
    """Runs scripts on one shard, in order, from Twisted's reactor, which it never blocks.

    Each ``on_reply`` is called on the reactor with the reply, or with an exception; a reply that takes longer than the
    shard's time-out counts as lost, as do all behind it.
    """

    def __init__(self, shard):
        from twisted.internet import reactor

        self.reactor = reactor
        self.shard = shard
        # The callbacks that wait for replies and their time-outs, in the order of the commands.
        self.waiting = collections.deque()
        self.connection = None
        # Commands from before there was a connection.
        self.unsent = []
        self.is_connecting = False
        # Frames that wait for those before them, with their callbacks, and how many are on their way.
        self.frames = []
        self.in_flight = 0
        # A bytearray, which is cheap to append to and to cut: it may become long while Redis hangs.
        self.output = bytearray()
        self.buffer = b''
        self.watch = None

    def post(self, name, args, on_reply):
        """Have a script run."""
        self.waiting.append((on_reply, time.monotonic() + self.shard.timeout + 0.25))
        if self.watch is None:
            self._watch_later()
        if self.connection is not None:
            if self.shard.clock.is_due():
                self._ask_time()
            return self._send(name, args)
        self.unsent.append((name, args))
        if not self.is_connecting:
            self.is_connecting = True
            # In a thread: it may take long, and must not keep the process from ending.
            threading.Thread(target=self._connect, daemon=True, name='sockets-connect').start()

    def post_frame(self, first, args, on_reply):
        """Have a frame put. Those that come while others are on their way go together when these have arrived.

        ``first`` are the arguments of ``put_frames`` that come before those of its frames, the same each time.
        """
        self.frames.append((args, on_reply))
        if not self.in_flight:
            self._post_frames(first)

    def _post_frames(self, first):
        size, count = 0, 0
        for args, _ in self.frames[:FRAMES_AT_ONCE]:
            size += len(args[-2])
            if count and size > BYTES_AT_ONCE:
                break
            count += 1
        frames, self.frames = self.frames[:count], self.frames[count:]
        self.in_flight = count

        def on_replies(replies):
            self.in_flight = 0
            if isinstance(replies, Exception):
                replies = [replies] * len(frames)
            lost = {
                args[0]: reply for (args, _), reply in zip(frames, replies) if reply and not isinstance(reply, bytes)
            }
            behind = self._take_behind(lost, isinstance(replies[0], AWAY)) if lost else ()
            if self.frames:
                self._post_frames(first)
            for (_, on_reply), reply in zip(frames, replies):
                self._tell(on_reply, reply)
            for args, on_reply in behind:
                self._tell(on_reply, lost.get(args[0], replies[0]))

        self.post('put_frames', [*first, *(part for args, _ in frames for part in args)], on_replies)

    def _take_behind(self, lost, is_away):
        """Return the frames that wait behind one of their connection that is ``lost``, or all, and wait for them no more.

        They must not be handled, though there may be room for them by now.
        """
        behind, waiting = [], []
        for frame in self.frames:
            args, _ = frame
            is_behind = is_away or args[0] in lost and args[1] == 'websocket.receive'
            (behind if is_behind else waiting).append(frame)
        self.frames = waiting
        return behind

    def fail(self, error):
        """Call all that wait for a reply with ``error``. It is not known whether Redis has run their scripts."""
        if self.connection is not None:
            self.reactor.removeReader(self)
            self.reactor.removeWriter(self)
            self.connection.disconnect()
        self.connection, self.output, self.buffer, self.unsent = None, bytearray(), b'', []
        waiting, self.waiting = self.waiting, collections.deque()
        for on_reply, _ in waiting:
            self._tell(on_reply, error)

    def _connect(self):
        try:
            connection = self.shard.open()
        except Exception as error:
            self.reactor.callFromThread(self._give_up, error)
        else:
            self.reactor.callFromThread(self._begin, connection)

    def _begin(self, connection):
        self.is_connecting = False
        self.connection = connection
        self.reactor.addReader(self)
        unsent, self.unsent = self.unsent, []
        for name, args in unsent:
            self._send(name, args)

    def _give_up(self, error):
        self.is_connecting = False
        self.shard.failed(error)
        self.fail(error)

    def _send(self, name, args):
        if self.connection is None:
            # It was lost while the commands before this one were sent, and all callbacks were called.
            return
        # With its text: the answer that Redis does not know the script might come when nobody waits any more.
        self._write(b''.join(self.connection.pack_command('EVAL', SCRIPTS[name][1], 0, *args, self.shard.deadline())))

    def _ask_time(self):
        # Not due again until this is answered.
        self.shard.clock.measured += self.shard.timeout
        waiting = self.waiting.pop()
        self.waiting += [(self._set_clock, waiting[1]), waiting]
        self._write(b''.join(self.connection.pack_command('TIME')))

    def _set_clock(self, reply):
        if not isinstance(reply, Exception):
            self.shard.clock.set(reply)

    def _write(self, data):
        had_some = bool(self.output)
        self.output += data
        if not had_some:
            self.doWrite()

    def _watch_later(self):
        self.watch = self.reactor.callLater(self.shard.timeout / 4, self._look)

    def _look(self):
        self.watch = None
        if self.waiting and time.monotonic() > self.waiting[0][1]:
            error = redis.exceptions.TimeoutError(f'Redis has not answered for {self.shard.timeout} s')
            self.shard.failed(error)
            self.fail(error)
        if self.waiting and self.watch is None:
            self._watch_later()

    # Called by the reactor (twisted.internet.interfaces.IReadDescriptor, IWriteDescriptor)

    def fileno(self):
        return self.connection._sock.fileno() if self.connection is not None and self.connection._sock else -1

    def logPrefix(self):
        return 'sockets'

    def connectionLost(self, reason):
        """Nothing to do: the reactor is stopping."""

    def doWrite(self):
        try:
            while self.output:
                del self.output[: self.connection._sock.send(self.output)]
        except OSError as error:
            if not _must_wait(error):
                return self.fail(redis.exceptions.ConnectionError(str(error)))
            self.reactor.addWriter(self)
        else:
            self.reactor.removeWriter(self)

    def doRead(self):
        try:
            data = self.connection._sock.recv(65536)
            while getattr(self.connection._sock, 'pending', int)():
                data += self.connection._sock.recv(65536)
        except OSError as error:
            if not _must_wait(error):
                self.fail(redis.exceptions.ConnectionError(str(error)))
            return
        if not data:
            return self.fail(redis.exceptions.ConnectionError('Redis has closed the connection'))
        self.buffer += data
        start = 0
        while True:
            found = parse(self.buffer, start)
            if found is None:
                break
            reply, start = found
            if isinstance(reply, Exception) and is_read_only(reply):
                error = redis.exceptions.ConnectionError(str(reply))
                self.shard.failed(error)
                return self.fail(error)
            on_reply, _ = self.waiting.popleft()
            if isinstance(reply, Late):
                # Redis's clock was set, or Redis was stopped for a while: measured again with the next command.
                self.shard.clock.doubt()
            self._tell(on_reply, reply)
        self.buffer = self.buffer[start:]

    def _tell(self, on_reply, reply):
        try:
            on_reply(reply)
        except Exception:
            # The replies behind it must be handled.
            logger.exception('A reply of Redis could not be handled')


def _must_wait(error):
    # TLS may have a record of its own to read or write first.
    return isinstance(error, (BlockingIOError, InterruptedError)) or type(error).__name__ in (
        'SSLWantReadError',
        'SSLWantWriteError',
    )


def parse(buffer, start):
    """Return the reply (RESP 2) that begins at ``start`` and where it ends; ``None`` if it is not complete."""
    end = buffer.find(b'\r\n', start)
    if end == -1:
        return None
    kind, line, end = buffer[start : start + 1], buffer[start + 1 : end], end + 2
    if kind == b'-':
        error = Late if line.startswith(b'LATE') else redis.exceptions.ResponseError
        return error(line.decode('utf-8', 'replace')), end
    if kind == b'+':
        return line, end
    if kind == b':':
        return int(line), end
    if int(line) < 0:
        return None, end
    if kind == b'$':
        after = end + int(line)
        return (buffer[end:after], after + 2) if len(buffer) >= after + 2 else None
    entries = []
    for _ in range(int(line)):
        found = parse(buffer, end)
        if found is None:
            return None
        entry, end = found
        entries.append(entry)
    return entries, end
