"""How a worker waits for Redis: it blocks on the wake-up lists of the channels that it asks for, on every shard.

Their keys are ``bell:<channel>`` (see scripts.py).
"""

import select

import redis

from .errors import AWAY


class _Listener:
    """A connection to one shard, whose BLPOP on wake-up lists may outlast a wait."""

    def __init__(self, shard, keys):
        self.shard = shard
        self.keys = keys
        self.connection = shard.connect()
        self.is_waiting = False

    def listen(self):
        """Wait for a wake-up of this shard; return whether it can be waited for."""
        if self.shard.is_down:
            self.disconnect()
        elif not self.is_waiting:
            try:
                self.connection.send_command('BLPOP', *self.keys, 0)
                self.is_waiting = True
            except AWAY as error:
                self.disconnect()
                self.shard.failed(error)
        return self.is_waiting

    def read(self):
        """Read the wake-up that has arrived, or find that the connection was lost."""
        self.is_waiting = False
        try:
            self.connection.read_response()
        except redis.exceptions.RedisError:
            # The next command finds out whether only this connection was lost, or Redis has become a replica.
            self.disconnect()

    def disconnect(self):
        """Close the connection; the next wait opens it again."""
        self.is_waiting = False
        self.connection.disconnect()


class WakeUps:
    """Blocks until something can be taken on any of several shards: pairs of a shard and its wake-up lists."""

    def __init__(self, shards):
        self.listeners = [_Listener(shard, keys) for shard, keys in shards if keys]

    def wait(self, seconds):
        """Return after a wake-up, or after ``seconds``; sooner while a shard cannot be listened to."""
        heard = [listener for listener in self.listeners if listener.listen()]
        if len(heard) < len(self.listeners):
            seconds = min(seconds, 0.25)
        ready = _readable([listener.connection._sock for listener in heard], seconds)
        for listener in heard:
            if listener.connection._sock in ready:
                listener.read()


def _readable(socks, seconds):
    """Return those of ``socks`` that can be read, as soon as there is one, or none after ``seconds``."""
    if not hasattr(select, 'poll'):
        return select.select(socks, [], [], seconds)[0]
    # select() takes no file numbers beyond 1023, and a server has thousands.
    poll, by_number = select.poll(), {sock.fileno(): sock for sock in socks}
    for number in by_number:
        poll.register(number, select.POLLIN)
    return [by_number[number] for number, _ in poll.poll(1000 * seconds)]
