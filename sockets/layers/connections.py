"""How a process talks to Redis: a pipe for each thread, bells for workers that wait, a reader on the reactor.

All three speak through redis-py's ``Connection``, which knows of passwords, databases, unix sockets and TLS.
"""
import collections
import os
import select
import threading
import time

import redis

from .scripts import SCRIPTS

# Redis cannot be reached: worth another try.
AWAY = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)


def connect(pool):
    """Return a connection of its own, made as those of ``pool``."""
    return pool.connection_class(**pool.connection_kwargs)


class Pipe:
    """A connection of one thread to one shard. Replies come in the order of the commands, and may be read later."""

    # Replies that may wait to be read.
    patience = 500

    def __init__(self, pool):
        self.pid = os.getpid()
        self.connection = connect(pool)
        self.waiting = collections.deque()
        # Commands that go out with the next one.
        self.held = []

    def run(self, name, args):
        """Run a script and return its reply."""
        digest, text = SCRIPTS[name]
        self._send('EVALSHA', digest, 0, *args)
        while self.waiting:
            self._read_next()
        reply = self._reply()
        if isinstance(reply, redis.exceptions.NoScriptError):
            self.connection.send_command('EVAL', text, 0, *args)
            reply = self._reply()
        if isinstance(reply, Exception):
            raise reply
        return reply

    def post(self, name, args, on_reply):
        """Have a script run. ``on_reply`` is called with its reply, or with an exception, when that is read."""
        self.waiting.append(on_reply)
        # Nobody may be there in time to hear that Redis has forgotten the script: it comes along.
        self._send('EVAL', SCRIPTS[name][1], 0, *args)

    def hold(self, name, args, on_reply):
        """Have a script run just before whatever is next; ``on_reply`` is as for ``post``."""
        self.waiting.append(on_reply)
        self.held += self.connection.pack_command('EVALSHA', SCRIPTS[name][0], 0, *args)

    def let_go(self):
        """Send what is held, if there is nothing that it could go with."""
        if self.held:
            self._send_packed([])

    def read(self):
        """Read the replies that are there to what was posted; wait for them when there are too many."""
        while self.waiting and (len(self.waiting) > self.patience or self.connection.can_read()):
            self._read_next()
        if not self.waiting and self.connection._sock is not None and self.connection.can_read():
            # Nobody has asked for anything: it is the end of the connection. The next command makes a new one.
            self.connection.disconnect()

    def _read_next(self):
        reply = self._reply()
        self.waiting.popleft()(reply)

    def fail(self, error):
        """Tell those who wait for a reply that nobody knows whether Redis has heard of it."""
        self.connection.disconnect()
        while self.waiting:
            self.waiting.popleft()(error)

    def _send(self, *command):
        self._send_packed(self.connection.pack_command(*command))

    def _send_packed(self, parts):
        # In one write.
        held, self.held = self.held, []
        self.connection.send_packed_command([b''.join(held + parts)] if held else parts)

    def _reply(self):
        try:
            return self.connection.read_response()
        except redis.exceptions.ResponseError as error:
            return error


class Bells:
    """Blocks until something can be taken on any shard. One connection per shard, whose BLPOP may outlast a wait."""

    def __init__(self, shards):
        self.bells = [[connect(pool), keys, False] for pool, keys in shards if keys]

    def wait(self, seconds):
        """Return when a bell has rung, or after ``seconds``."""
        for bell in self.bells:
            connection, keys, is_waiting = bell
            if not is_waiting:
                connection.send_command('BLPOP', *keys, 0)
                bell[2] = True
        ready, _, _ = select.select([connection._sock for connection, _, _ in self.bells], [], [], seconds)
        for bell in self.bells:
            if bell[0]._sock in ready:
                bell[0].read_response()
                bell[2] = False


class Reader:
    """Takes what comes into a list, on Twisted's reactor, which it never blocks.

    ``on_entry`` is called with each entry, ``on_trouble`` with an exception and ``on_reply`` each time that Redis
    answers, which it does every ``patience`` seconds if it is there at all.
    """

    def __init__(self, pool, key, on_entry, on_reply, on_trouble, patience=2):
        from twisted.internet import reactor
        self.reactor = reactor
        self.pool = pool
        self.command = ('BLPOP', key, patience)
        # A reply is this and the entry, or "*-1", or an error.
        self.head = b'*2\r\n$%d\r\n%s\r\n$' % (len(key.encode()), key.encode())
        self.on_entry = on_entry
        self.on_reply = on_reply
        self.on_trouble = on_trouble
        self.patience = patience
        self.tries = 0

    def start(self):
        """Connect, and read from then on."""
        # It may take long, and must not keep the process from ending.
        threading.Thread(target=self._connect, daemon=True, name='sockets-connect').start()

    def _connect(self):
        connection = connect(self.pool)
        try:
            connection.connect()
        except Exception as error:
            self.reactor.callFromThread(self._try_again, error)
        else:
            connection._sock.setblocking(False)
            self.reactor.callFromThread(self._begin, connection)

    def _begin(self, connection):
        self.connection = connection
        self.buffer = b''
        self.heard = time.monotonic()
        self.reactor.addReader(self)
        self.watch = self.reactor.callLater(3 * self.patience, self._look)
        self._ask()

    def _ask(self):
        try:
            self.connection.send_command(*self.command)
        except Exception as error:
            self._end(error)

    def _look(self):
        silence = time.monotonic() - self.heard
        if silence < 3 * self.patience:
            self.watch = self.reactor.callLater(3 * self.patience - silence, self._look)
        else:
            self._end(redis.exceptions.TimeoutError('Redis has said nothing for {:.0f} s'.format(silence)))

    def _end(self, error):
        self.reactor.removeReader(self)
        if self.watch.active():
            self.watch.cancel()
        self.connection.disconnect()
        self._try_again(error)

    def _try_again(self, error):
        self.on_trouble(error)
        self.tries += 1
        self.reactor.callLater(pause(self.tries), self.start)

    # What the reactor calls (twisted.internet.interfaces.IReadDescriptor)

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
                self._end(error)
            return
        if not data:
            return self._end(redis.exceptions.ConnectionError('Redis has closed the connection'))
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
            entry = self.buffer[end + 2:after]
        elif line[:1] == b'-':
            return self._end(redis.exceptions.ResponseError(line[1:].decode('utf-8', 'replace')))
        # One command at a time: there is nothing behind its reply.
        self.buffer = b''
        self.heard, self.tries = time.monotonic(), 0
        self._ask()
        self.on_reply()
        if entry is not None:
            self.on_entry(entry)


def pause(tries):
    """Return how many seconds to wait after so many tries in vain."""
    return min(0.05 * 2 ** min(tries, 5), 1)
