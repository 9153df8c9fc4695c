"""uvicorn: how it stops, whoever started it, and the server of ``runsockets``."""

import asyncio
import functools
import logging
import os
import signal
import sys
import threading
import time

from ... import conf, messages
from ...execution import garbage
from .server import DRAIN_TIMEOUT, EXIT_TIMEOUT, server, servers

logger = logging.getLogger('sockets')

# Seconds that clients have to answer the close, before they are cut off.
_ANSWERS = 1

# Seconds that a client has for its first request, if the settings do not say.
_HANDSHAKE = 5


def patch_server():
    """Have uvicorn, if this process has imported it, close our connections in their order before it stops.

    It would close all of them at once, and lose the replies that are under way.
    """
    uvicorn = sys.modules.get('uvicorn.server')
    if uvicorn is None or hasattr(uvicorn.Server.shutdown, '__wrapped__'):
        return
    shutdown = uvicorn.Server.shutdown

    @functools.wraps(shutdown)
    async def drain_and_shut_down(self, sockets=None):
        try:
            await drain(self, sockets or ())
        except Exception:
            logger.exception('Could not close the connections in their order')
        await shutdown(self, sockets)

    uvicorn.Server.shutdown = drain_and_shut_down


async def drain(uvicorn, sockets):
    """Close what ``uvicorn``, a server, holds of ours: functions finish, replies go out, clients are told to come back."""
    found = servers.get(asyncio.get_running_loop())
    if found is None or found.is_stopping:
        return
    for listener in (*uvicorn.servers, *sockets):
        listener.close()
    # Pages: who waits for none is disconnected, the others when they have got it. New requests would be for us, too.
    websocket, held = uvicorn.config.ws_protocol_class, uvicorn.server_state.connections
    for connection in list(held):
        if websocket is None or not isinstance(connection, websocket):
            connection.shutdown()
    ours = [getattr(connection.incoming.receive, '__self__', None) for connection in found.connections.values()]
    stopping = asyncio.ensure_future(found.stop(messages.CLOSE_RESTART))
    while not stopping.done() and not uvicorn.force_exit:
        await asyncio.wait([stopping], timeout=0.1)
    deadline = time.monotonic() + _ANSWERS
    while not held.isdisjoint(ours) and not uvicorn.force_exit and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    for connection in held.intersection(ours):
        # It would be waited for without end, as it does not read.
        connection.transport.abort()


def make_server(config, stdout, threads, connect_threads, parent):
    """Return the server of ``runsockets``, which ``config`` describes; it ends with the process ``parent``, if any."""
    from uvicorn import Server

    patch_server()

    class SocketServer(Server):
        # Connections whose first request is not complete, and since when.
        begun = {}

        async def startup(self, sockets=None):
            server(threads, connect_threads)
            await super().startup(sockets)
            garbage.leave_out_what_is_there()
            if self.started and stdout is not None:
                stdout.write(f'{self.banner} Stop with Ctrl-C.')

        async def on_tick(self, counter):
            # It ticks ten times a second.
            if counter % 10 == 0:
                self.drop_silent()
            return (parent is not None and os.getppid() != parent) or await super().on_tick(counter)

        def drop_silent(self):
            """Disconnect clients whose first request is not complete in time, for which uvicorn waits without end."""
            now, begun = time.monotonic(), self.begun
            self.begun = {
                connection: begun.get(connection, now)
                for connection in self.server_state.connections
                if getattr(connection, 'cycle', connection) is None
            }
            for connection, since in self.begun.items():
                if now - since > (conf.HANDSHAKE_TIMEOUT or _HANDSHAKE):
                    connection.transport.abort()

        def handle_exit(self, number, frame):
            # A process manager may send SIGTERM to us and to our parent, which sends another one.
            if self.should_exit and number == signal.SIGINT:
                self.force_exit = True
            self.should_exit = True

        async def shutdown(self, sockets=None):
            deadline = time.monotonic() + DRAIN_TIMEOUT
            await drain(self, sockets or ())
            self.config.timeout_graceful_shutdown = max(1, round(deadline - time.monotonic()))
            await super().shutdown(sockets)
            # A page that hangs would be waited for when the interpreter ends.
            threading.Thread(target=_exit, daemon=True, name='sockets-exit').start()

    return SocketServer(config)


def _exit():
    time.sleep(EXIT_TIMEOUT)
    logger.error('This process has not ended by itself after %d s, and is ended', EXIT_TIMEOUT)
    os._exit(0)
