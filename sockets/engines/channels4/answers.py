"""What a server answers to a process that asks how it is: ``manage.py sockets`` does."""

import logging
import os
import socket

from ... import engine
from .layer import channel_layer

logger = logging.getLogger('sockets')

# The type of the message that asks.
ASK = 'sockets.ask'


async def answer(server, question):
    """Say who ``server`` is, and how it is."""
    try:
        content = {
            'type': 'sockets.answer',
            'server': server.name,
            'process': os.getpid(),
            'host': socket.gethostname(),
            'connections': len(server.connections),
            'waiting': server.pool.waiting,
            'dropped': dict(engine.current().dropped),
        }
        await channel_layer().send(question['reply_to'], content)
    except Exception as error:
        logger.warning('Could not answer who asks how this server is: %s: %s', type(error).__name__, error)
