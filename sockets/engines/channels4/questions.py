"""What a process asks servers over the channel layer, and how it waits for their answers."""

import asyncio
import os
import random
import time

from channels.exceptions import ChannelFull

from . import delivery
from .answers import ASK
from .layer import channel_layer

# Seconds after which a question is asked again: pub/sub loses what comes before its reader has subscribed.
_AGAIN_AFTER = 0.3


def ask(servers, patience):
    """Return what ``servers`` answer within ``patience`` seconds, by their names, with the ``seconds`` that each took."""
    return _on_loop(_ask({name: name[:-1] for name in servers}, patience))


def round_trip(patience):
    """Send a message through the layer to ourselves; return the seconds it took, ``None`` if it has not come back."""
    name = _new_name()
    found = _on_loop(_ask({name: name}, patience, name))
    return found[name]['seconds'] if found else None


def of_redis():
    """Return what each Redis that keeps messages says of itself (``INFO``), as a list."""
    layer = channel_layer()
    # That over pub/sub keeps none, and asks its event loop for what it has not.
    if not hasattr(type(layer), 'connection'):
        return []

    async def ask():
        return [await layer.connection(index).info() for index in range(layer.ring_size)]

    return _on_loop(ask())


def _on_loop(coroutine):
    return asyncio.run_coroutine_threadsafe(coroutine, delivery.sending_loop()).result()


def _new_name():
    return f'sockets.doctor.{os.getpid()}.{random.getrandbits(40):010x}'


async def _ask(channels, patience, own=None):
    """Ask those who read ``channels``, a dict of names and channels; return their answers by their names.

    They answer on the channel ``own``, or on a new one.
    """
    layer, own = channel_layer(), own or _new_name()
    deadline, asked, answers = time.monotonic() + patience, {}, {}
    receiving = asyncio.ensure_future(layer.receive(own))
    try:
        # The first time, it connects.
        await asyncio.wait([receiving], timeout=0.05)
        while len(answers) < len(channels) and time.monotonic() < deadline:
            for name in channels.keys() - answers.keys():
                asked[name] = time.monotonic()
                try:
                    await layer.send(channels[name], {'type': ASK, 'reply_to': own, 'server': name})
                except ChannelFull:
                    pass
            until = min(deadline, time.monotonic() + _AGAIN_AFTER)
            while len(answers) < len(channels) and time.monotonic() < until:
                await asyncio.wait([receiving], timeout=max(0, until - time.monotonic()))
                if receiving.done():
                    found = receiving.result()
                    answers.setdefault(found['server'], {**found, 'seconds': time.monotonic() - asked[found['server']]})
                    receiving = asyncio.ensure_future(layer.receive(own))
    finally:
        receiving.cancel()
        await asyncio.wait([receiving], timeout=1)
    return answers
