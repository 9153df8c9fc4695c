"""How a server stops: it takes no new connections, and closes each when its frames have been handled."""

import functools
import logging
import queue
import sys
import threading
import time

from .channel_layer import adapted

logger = logging.getLogger('sockets')

# Seconds that connections and the functions that are running have to come to an end after SIGTERM.
DRAIN_TIMEOUT = 10

# The last of these seconds: connections that still have frames are closed when it begins. A client that has not
# answered the close when half of it is over is cut off, in whatever state it is: its end has to be handled, too.
_LAST_SECOND = 1

# Seconds that a handshake may still take. daphne cuts it off after five in all.
_HANDSHAKE = 3

# Seconds after which clients come back that were not accepted before a server stopped.
_RETRY_AFTER = 1

# Seconds between two questions to the layer. A connection is drained if two answers in a row say so.
_INTERVAL = 0.03

# Seconds in which clients that have just connected send their first frame.
_FIRST_FRAMES = 0.1


class Shutdown:
    """The shutdown of one server of daphne, from the moment in which its reactor is told to stop."""

    def __init__(self, server):
        self.server = server
        self.layer = adapted(server.channel_layer)
        # Names of the connections that were closed.
        self.closed = set()
        # Connections that the last answer called drained, and how many of their frames had come in by then.
        self.drained = {}
        self.questions = queue.Queue()

    def begin(self):
        """Stop listening; return a ``Deferred`` of the end."""
        from twisted.internet import defer, reactor

        self.protocols = self.server.factory.reply_protocols
        if self.server.factory.poll is not None:
            self.server.factory.poll.end()
        self.over = defer.Deferred()
        self.began = time.monotonic()
        self.server.deadline = self.began + DRAIN_TIMEOUT
        for listener in self.server.listeners:
            port = getattr(listener, 'result', None)
            if hasattr(port, 'stopListening'):
                # In this order: the port is closed in the reactor's next round as well.
                reactor.callLater(0, _accept_all, port)
                port.stopListening()
        # A client whose connect nobody has taken yet is told to come back, and reaches the next server.
        for name, protocol in self._open().items():
            if hasattr(protocol, 'turn_away') and self.layer.withdraw(name):
                protocol.turn_away(_RETRY_AFTER)
        # Redis may hang, and must not hold up the reactor, nor the end of this process.
        threading.Thread(target=self._ask_layer, daemon=True, name='sockets-shutdown').start()
        reactor.callLater(_HANDSHAKE, self._refuse_handshakes)
        reactor.callLater(DRAIN_TIMEOUT - _LAST_SECOND, self._close_all)
        reactor.callLater(DRAIN_TIMEOUT - _LAST_SECOND / 2, self._cut_off)
        reactor.callLater(DRAIN_TIMEOUT, self._end)
        self._check()
        return self.over

    def _open(self):
        """Return the websockets that were not closed yet, by name."""
        return {
            name: protocol
            for name, protocol in self.protocols.items()
            if name not in self.closed and hasattr(protocol, 'serverClose')
        }

    def _check(self):
        self.questions.put({name: protocol.packets_received for name, protocol in self._open().items()})

    def _ask_layer(self):
        from twisted.internet import reactor

        while True:
            counts = self.questions.get()
            try:
                drained = self.layer.drained_connections(self.server.send_channel, list(counts)) if counts else ()
            except Exception as error:
                logger.error('Waiting for the frames of %d connections: %s', len(counts), error)
                time.sleep(0.5)
                drained = ()
            reactor.callFromThread(self._take_answer, {name: counts[name] for name in drained})

    def _take_answer(self, drained):
        from twisted.internet import reactor

        for name, protocol in self._open().items():
            if drained.get(name) == self.drained.get(name) == protocol.packets_received:
                self._close(name, protocol)
            else:
                # A client that goes on sending would never be drained.
                protocol.stop_reading()
        self.drained = drained
        if self._is_over():
            self._end()
        else:
            reactor.callLater(_INTERVAL, self._check)

    def _is_over(self):
        from twisted.internet import reactor

        return (
            not self.protocols
            and time.monotonic() - self.began > _FIRST_FRAMES
            and
            # The ends of connections whose workers are in this process ...
            self.layer.is_idle()
            and
            # ... and what has been written and not sent, as the rest of a page.
            not getattr(reactor, 'getWriters', list)()
        )

    def _close(self, name, protocol):
        self.closed.add(name)
        if protocol.state == protocol.STATE_OPEN:
            protocol.serverClose(1012)
        elif protocol.state == protocol.STATE_CONNECTING:
            from autobahn.twisted.websocket import ConnectionDeny

            protocol.handshake_deferred.errback(ConnectionDeny(code=503, reason='Restarting'))
            protocol.cleanup()

    def _refuse_handshakes(self):
        for name, protocol in self._open().items():
            if protocol.state == protocol.STATE_CONNECTING:
                self._close(name, protocol)

    def _close_all(self):
        waiting = self._open()
        if waiting:
            logger.warning(
                'Closing %d connections whose frames have not been handled after %d s',
                len(waiting),
                DRAIN_TIMEOUT - _LAST_SECOND,
            )
        for name, protocol in waiting.items():
            self._close(name, protocol)

    def _cut_off(self):
        for protocol in [] if self.over.called else list(self.protocols.values()):
            if hasattr(protocol, 'serverClose'):
                protocol.transport.abortConnection()

    def _end(self):
        if not self.over.called:
            self.over.callback(None)


def _accept_all(port):
    """Accept the connections that the kernel has accepted for us: it would reset them when the port is closed."""
    # It is at most as many as came last time.
    port.numberAccepts = 1000
    port.doRead()


def prepare(server):
    """Have ``server``, which is about to run, shut down this way when its reactor is told to stop."""
    from twisted.internet import reactor

    if not hasattr(server, 'shutdown'):
        server.shutdown = Shutdown(server)
        reactor.addSystemEventTrigger('before', 'shutdown', server.shutdown.begin)


def patch_server():
    """Have the server of the program ``daphne`` shut down this way."""
    # To import it would choose the reactor for every process.
    daphne = sys.modules.get('daphne.server')
    if daphne is None:
        return
    run = daphne.Server.run

    @functools.wraps(run)
    def run_and_shut_down(self):
        prepare(self)
        run(self)

    daphne.Server.run = run_and_shut_down
