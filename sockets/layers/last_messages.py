"""How the last message of a frame gets to Redis: together with the next command of its thread."""

import logging
import threading

import redis
from asgiref.base_layer import BaseChannelLayer

from .errors import AWAY, Late, explained

logger = logging.getLogger('sockets')


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
        failures = self._thread.__dict__.setdefault('failures', [])

        def on_reply(reply):
            if reply:
                failures.append((channel, message, reply, on_failure))

        self.ring.hold(
            'put', self.ring.shard_of(server), self.entries.for_connections(server, [channel], message), on_reply
        )

    def settle(self):
        """Send again what was lost with a connection; call ``on_failure`` for the rest."""
        failures = self._thread.__dict__.get('failures')
        while failures:
            channel, message, reply, on_failure = failures.pop(0)
            try:
                if not isinstance(reply, Exception):
                    raise BaseChannelLayer.ChannelFull(channel)
                if not isinstance(reply, (*AWAY, Late, redis.exceptions.NoScriptError)):
                    raise explained(reply)
                self.send(channel, message)
            except Exception as error:
                try:
                    on_failure(error)
                except Exception:
                    # Not raised: this thread may have taken the next frame already.
                    logger.exception('The last message of a frame of %s was lost', channel)
