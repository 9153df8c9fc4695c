"""Messages to connections, wherever they are: to those of this process at once, to others through the channel layer."""

import asyncio
import collections
import logging
import os
import threading
import time

from channels.exceptions import ChannelFull

from ... import conf, engine, fanout
from ...engine import server_of
from .layer import channel_layer, pack
from .server import servers

logger = logging.getLogger('sockets')

# Seconds between two tries of a layer that is away.
_RETRY_INTERVAL = 0.05


class Undelivered(Exception):
    """The layer could not be reached. ``undelivered`` and ``refused`` are as ``Engine.hand_over`` says."""

    def __init__(self, error, undelivered, refused):
        super().__init__(f'{type(error).__name__}: {error}')
        self.undelivered = undelivered
        self.refused = refused


def servers_here():
    """Return the ``Server`` objects of this process, as a list."""
    return [found for loop, found in list(servers.items()) if not loop.is_closed()]


def hand_over(names, message):
    """Hand ``message`` to the connections ``names``; return those whose server takes no more at present."""
    by_server = {}
    for name in names:
        by_server.setdefault(server_of(name), []).append(name)
    for server in servers_here():
        own = by_server.pop(server.name, None)
        if own is None:
            continue
        if server.is_here():
            server.deliver(own, message)
        else:
            server.pool.call_on_loop(server.deliver, own, message)
    if not by_server or channel_layer() is None:
        return []
    loop = sending_loop()
    if _running_loop() is loop:
        # Nobody can wait here: what does not get through is logged.
        servers[loop].start_task(_send_and_log(by_server, message))
        return []
    return asyncio.run_coroutine_threadsafe(_send_all(by_server, message), loop).result()


async def _send_all(by_server, message):
    outcomes = await asyncio.gather(*(_send(server, names, message) for server, names in by_server.items()))
    refused = [name for outcome in outcomes for name in outcome[0]]
    undelivered = [name for outcome in outcomes for name in outcome[1]]
    error = next((outcome[2] for outcome in outcomes if outcome[2] is not None), None)
    if error is not None:
        raise Undelivered(error, undelivered, refused) from error
    return refused


async def _send(server, names, message):
    """Send to one server; return the names that it refused, those that were not delivered, and why."""
    layer, deadline = channel_layer(), time.monotonic() + conf.SEND_TIMEOUT
    parts = pack(names, message)
    for number, (_, content) in enumerate(parts):
        while True:
            try:
                await layer.send(server[:-1], content)
                break
            except ChannelFull:
                return _names_of(parts[number:]), [], None
            except (TypeError, ValueError):
                # Of the message, whoever gets it.
                raise
            except Exception as error:
                # The first one after Redis is back fails on a dead connection of channels_redis's pool.
                if time.monotonic() >= deadline:
                    return [], _names_of(parts[number:]), error
                await asyncio.sleep(_RETRY_INTERVAL)
    return [], [], None


async def _send_and_log(by_server, message):
    loop = asyncio.get_running_loop()
    names = [name for names in by_server.values() for name in names]
    try:
        deadline = time.monotonic() + conf.SEND_TIMEOUT
        while names and time.monotonic() < deadline:
            parts = {}
            for name in names:
                parts.setdefault(server_of(name), []).append(name)
            names = await _send_all(parts, message)
            if names:
                await asyncio.sleep(_RETRY_INTERVAL)
        if names:
            # Who listens to that may wait.
            dropped = collections.Counter(map(server_of, names))
            await servers[loop].pool.submit(fanout.give_up, engine.current(), dropped)
    except Exception:
        logger.exception('A message to %d connections of other processes was lost', len(names))


def _names_of(parts):
    return [name for names, _ in parts for name in names]


def sending_loop():
    """Return the event loop on which this process uses the layer. There is one: its connections belong to a loop."""
    found = servers_here()
    return found[0].loop if found else _Sender.of_this_process().loop


def _running_loop():
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class _Sender(threading.Thread):
    """The event loop of a process that has none: a shell, a task, a server of pages only."""

    _present = None
    _lock = threading.Lock()

    def __init__(self):
        super().__init__(name='sockets-sender', daemon=True)
        self.loop = asyncio.new_event_loop()
        self.process = os.getpid()

    @classmethod
    def of_this_process(cls):
        """Return the one that runs; a process that was forked has none yet."""
        with cls._lock:
            if cls._present is None or cls._present.process != os.getpid():
                cls._present = cls()
                cls._present.start()
            return cls._present

    def run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
