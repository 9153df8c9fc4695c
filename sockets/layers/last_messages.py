"""How the last message of a frame gets to Redis: together with the next command of its thread."""

import logging
import threading

import redis
from asgiref.base_layer import BaseChannelLayer

from .entries import is_control
from .errors import AWAY, Late, explained

logger = logging.getLogger('sockets')

_WORTH_ANOTHER_TRY = (*AWAY, Late, redis.exceptions.NoScriptError)


class _Answers:
    """Last messages for connections of one server that go to Redis in one entry."""

    def __init__(self, entries, server):
        self.entries = entries
        self.server = server
        # Names, messages, and what to call if they fail.
        self.messages = []
        self.is_sent = False
        # Another thread may send them.
        self.lock = threading.Lock()

    def add(self, channel, message, on_failure):
        """Add a message; return whether it is still in time."""
        with self.lock:
            if not self.is_sent:
                self.messages.append((channel, message, on_failure))
            return not self.is_sent

    def make_args(self):
        """Return the arguments of 'put'; nothing can be added any more."""
        with self.lock:
            self.is_sent = True
        return self.entries.answers(self.server, [(channel, message) for channel, message, _ in self.messages])


class LastMessages:
    """The last messages of frames. They cost no round trip: each goes with the next command of its thread.

    ``send(channel, message)`` sends at once.
    """

    def __init__(self, ring, entries, send):
        self.ring = ring
        self.entries = entries
        self.send = send
        self._thread = threading.local()

    def hold(self, server, channel, message, on_failure):
        """Send ``message`` later; ``on_failure`` is called, by ``settle``, with what ``send`` would have raised."""
        mine = self._thread.__dict__
        failures, held = mine.setdefault('failures', []), mine.setdefault('held', {})
        if not is_control(message) and server in held and held[server].add(channel, message, on_failure):
            return
        answers = _Answers(self.entries, server)
        answers.add(channel, message, on_failure)
        # What comes after one that opens a connection stays behind it.
        if is_control(message):
            held.pop(server, None)
        else:
            held[server] = answers

        def on_reply(reply):
            if reply:
                failures.extend((*one, reply) for one in answers.messages)

        self.ring.hold('put', self.ring.shard_of(server), answers.make_args, on_reply)

    def settle(self):
        """Send again what was lost with a connection; call ``on_failure`` for the rest."""
        mine = self._thread.__dict__
        if mine.get('held'):
            mine['held'].clear()
        failures = mine.get('failures')
        while failures:
            channel, message, on_failure, reply = failures.pop(0)
            try:
                if not isinstance(reply, Exception):
                    raise BaseChannelLayer.ChannelFull(channel)
                if isinstance(reply, redis.exceptions.RedisError) and not isinstance(reply, _WORTH_ANOTHER_TRY):
                    raise explained(reply)
                # One that cannot be encoded has cost those that were to go with it.
                self.send(channel, message)
            except Exception as error:
                try:
                    on_failure(error)
                except Exception:
                    # Not raised: this thread may have taken the next frame already.
                    logger.exception('The last message of a frame of %s was lost', channel)
