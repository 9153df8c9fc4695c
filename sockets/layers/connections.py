"""The connections of a process to Redis: a pipe for each thread, and a reader on the reactor.

Both use redis-py's ``Connection``, which handles passwords, databases, unix sockets and TLS.
"""

import collections
import os
import threading
import time

import redis

from .errors import AWAY, Late, is_read_only
from .scripts import SCRIPTS


def connect(pool):
    """Return a connection of its own, made as those of ``pool``."""
    return pool.connection_class(**pool.connection_kwargs)


class Pipe:
    """A connection of one thread to one shard. Replies come in the order of the commands, and may be read later."""

    def __init__(self, shard):
        self.pid = os.getpid()
        self.shard = shard
        self.connection = shard.connect()
        self.waiting = collections.deque()
        # Scripts that go out with the next command: names, functions that make their arguments, deadlines, and callbacks;
        # and since when the first of them waits.
        self.held = []
        self.held_since = 0
        # Another thread may send what is held.
        self.lock = threading.Lock()

    def run(self, name, args):
        """Run a script and return its reply. After a time-out, Redis has not run it and will not."""
        clock = self.shard.clock
        with self.lock:
            if clock.is_due():
                clock.set(self._ask('TIME'))
            reply = self._run(name, args)
            if isinstance(reply, Late):
                # Redis's clock was set, or this process was stopped for a while.
                clock.set(self._ask('TIME'))
                reply = self._run(name, args)
        if isinstance(reply, Late):
            raise redis.exceptions.TimeoutError(str(reply))
        if isinstance(reply, Exception):
            raise reply
        return reply

    def hold(self, name, make_args, on_reply):
        """Run a script together with the next command; ``on_reply`` gets its reply, or an exception. ``make_args()`` is
        called when it is sent; if it raises, the script is not run.
        """
        with self.lock:
            if not self.shard.clock.is_known():
                self.shard.clock.set(self._ask('TIME'))
            if not self.held:
                self.held_since = time.monotonic()
            self.held.append((name, make_args, self.shard.deadline(), on_reply))

    def let_go(self):
        """Send what is held without another command."""
        with self.lock:
            self._let_go()

    def send_held(self, since):
        """Send, for its thread, what it has held since then or longer, unless it is using this connection."""
        if self.held and self.held_since < since and self.lock.acquire(blocking=False):
            try:
                self._let_go()
            except AWAY as error:
                self._fail(error)
            finally:
                self.lock.release()

    def settle(self):
        """Send what is held, and read the replies."""
        with self.lock:
            if self.held or self.waiting:
                self._ask('PING')

    def fail(self, error):
        """Call all that wait for a reply with ``error``. It is not known whether Redis has run their scripts."""
        with self.lock:
            self._fail(error)

    def _let_go(self):
        if self.held:
            # With their texts: nobody reads the answer that Redis does not know the script.
            held = self._take_held('EVAL', 1)
            if held:
                self.connection.send_packed_command([b''.join(held)])

    def _fail(self, error):
        self.connection.disconnect()
        held, self.held = self.held, []
        self.waiting.extend(on_reply for *_, on_reply in held)
        while self.waiting:
            self.waiting.popleft()(error)

    def _run(self, name, args):
        digest, text = SCRIPTS[name]
        deadline = self.shard.deadline()
        reply = self._ask('EVALSHA', digest, 0, *args, deadline)
        if isinstance(reply, redis.exceptions.NoScriptError):
            reply = self._ask('EVAL', text, 0, *args, deadline)
        return reply

    def _ask(self, *command):
        self._send_packed(self.connection.pack_command(*command))
        while self.waiting:
            reply = self._reply()
            self.waiting.popleft()(reply)
        return self._reply()

    def _send_packed(self, parts):
        # In one write.
        held = self._take_held('EVALSHA', 0)
        self.connection.send_packed_command([b''.join(held + parts)] if held else parts)

    def _take_held(self, command, part):
        """Return what is held, packed, and hold it no more; ``part`` of a script is its digest (0) or its text (1)."""
        held, self.held = self.held, []
        packed = []
        for name, make_args, deadline, on_reply in held:
            try:
                packed += self.connection.pack_command(command, SCRIPTS[name][part], 0, *make_args(), deadline)
            except Exception as error:
                # It is that of a message which cannot be encoded, and none of whoever sends something behind it.
                on_reply(error)
            else:
                self.waiting.append(on_reply)
        return packed

    def _reply(self):
        try:
            return self.connection.read_response()
        except redis.exceptions.ResponseError as error:
            if is_read_only(error):
                raise redis.exceptions.ConnectionError(str(error))
            return Late(str(error)) if 'LATE' in str(error) else error


class Reader:
    """Reads the entries of a list, on Twisted's reactor, which it never blocks.

    ``on_entry`` is called with each entry, and ``on_reply`` each time that Redis answers, which it does every
    ``patience`` seconds if it is there at all. The shard is told of errors.
    """

    def __init__(self, shard, key, on_entry, on_reply, patience=2):
        from twisted.internet import reactor

        self.reactor = reactor
        self.shard = shard
        self.command = ('BLPOP', key, patience)
        # A reply is this and the entry, or "*-1", or an error.
        self.head = b'*2\r\n$%d\r\n%s\r\n$' % (len(key.encode()), key.encode())
        self.on_entry = on_entry
        self.on_reply = on_reply
        # Redis answers after ``patience`` at the latest, if it is there.
        self.silence = patience + shard.timeout
        self.tries = 0

    def start(self):
        """Connect, and read from then on."""
        # In a thread: it may take long, and must not keep the process from ending.
        threading.Thread(target=self._connect, daemon=True, name='sockets-connect').start()

    def _connect(self):
        try:
            connection = self.shard.open()
        except Exception as error:
            self.shard.failed(error)
            self.reactor.callFromThread(self._try_again)
        else:
            self.reactor.callFromThread(self._begin, connection)

    def _begin(self, connection):
        self.connection = connection
        self.buffer = b''
        self.heard = time.monotonic()
        self.reactor.addReader(self)
        self.watch = self.reactor.callLater(self.silence, self._look)
        self._ask()

    def _ask(self):
        try:
            self.connection.send_command(*self.command)
        except Exception:
            self._end()

    def _look(self):
        silence = time.monotonic() - self.heard
        if silence < self.silence:
            self.watch = self.reactor.callLater(self.silence - silence, self._look)
        else:
            self.shard.failed(redis.exceptions.TimeoutError(f'Redis has not answered for {silence:.0f} s'))
            self._end()

    def _end(self):
        self.reactor.removeReader(self)
        if self.watch.active():
            self.watch.cancel()
        self.connection.disconnect()
        self._try_again()

    def _try_again(self):
        self.tries += 1
        self.reactor.callLater(pause(self.tries), self.start)

    # Called by the reactor (twisted.internet.interfaces.IReadDescriptor)

    def fileno(self):
        return self.connection._sock.fileno() if self.connection._sock else -1

    def logPrefix(self):
        return 'sockets'

    def doRead(self):
        try:
            data = self.connection._sock.recv(65536)
            while getattr(self.connection._sock, 'pending', int)():
                data += self.connection._sock.recv(65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            # TLS has read a record of its own.
            if type(error).__name__ not in ('SSLWantReadError', 'SSLWantWriteError'):
                self._end()
            return
        if not data:
            return self._end()
        self.buffer += data
        self._parse()

    def connectionLost(self, reason):
        """Nothing to do: the reactor is stopping."""

    def _parse(self):
        start = len(self.head) if self.buffer.startswith(self.head) else 0
        if not start and self.head.startswith(self.buffer):
            return
        end = self.buffer.find(b'\r\n', start)
        if end == -1:
            return
        line, entry = self.buffer[start:end], None
        if start:
            after = end + 2 + int(line)
            if len(self.buffer) < after + 2:
                return
            entry = self.buffer[end + 2 : after]
        elif line[:1] == b'-':
            self.shard.refused(line[1:].decode('utf-8', 'replace'))
            return self._end()
        # One command at a time: there is nothing behind its reply.
        self.buffer = b''
        self.heard, self.tries = time.monotonic(), 0
        self._ask()
        self.on_reply()
        if entry is not None:
            self.on_entry(entry)


def pause(tries):
    """Return how many seconds to wait after so many failed tries."""
    return min(0.05 * 2 ** min(tries, 5), 1)
