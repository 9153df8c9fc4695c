"""How a server goes: it takes no new connections, closes each as its frames have been handled, and lets pages end."""
import functools
import logging
import queue
import sys
import threading
import time

logger = logging.getLogger('sockets')

# Seconds that connections and the functions that are running have to come to an end after SIGTERM.
DRAIN_TIMEOUT = 10

# Of these, what is left for clients to answer the close that could wait no longer. Whoever has not when half of it is over
# is cut off, in whatever state it is: its end has to be handled, too.
_LAST_SECOND = 1

# Seconds that a handshake may still take. daphne cuts it off after five in all.
_HANDSHAKE = 3

# Seconds after which clients come back that were not let in before a server stopped.
_RETRY_AFTER = 1

# Seconds between two looks. A connection has to be found at rest in two of them.
_INTERVAL = 0.03

# Seconds in which those who had just connected have asked for what they want.
_PATIENCE = 0.1


class Farewell:
    """The end of one server of daphne, from the moment in which its reactor is told to stop."""

    def __init__(self, server):
        self.server = server
        self.layer = server.channel_layer
        self.told = set()
        # Connections that were at rest when we last asked, and how many frames of theirs had come in by then.
        self.at_rest = {}
        self.questions = queue.Queue()

    def begin(self):
        """Stop listening; return a ``Deferred`` of the end."""
        from twisted.internet import defer, reactor
        self.protocols = self.server.factory.reply_protocols
        self.over = defer.Deferred()
        self.began = time.monotonic()
        self.server.deadline = self.began + DRAIN_TIMEOUT
        for listener in self.server.listeners:
            port = getattr(listener, 'result', None)
            if hasattr(port, 'stopListening'):
                # In this order: the port is closed in the reactor's next round as well.
                reactor.callLater(0, _accept_all, port)
                port.stopListening()
        # Whom nobody has let in yet is told to come back, to the next server.
        withdraw = getattr(self.layer, 'withdraw', lambda connection: False)
        for name, protocol in self._websockets().items():
            if hasattr(protocol, 'turn_away') and withdraw(name):
                protocol.turn_away(_RETRY_AFTER)
        # Redis may hang, and must not hold up the reactor, nor the end of this process.
        threading.Thread(target=self._ask, daemon=True, name='sockets-farewell').start()
        reactor.callLater(_HANDSHAKE, self._refuse_handshakes)
        reactor.callLater(DRAIN_TIMEOUT - _LAST_SECOND, self._tell_all)
        reactor.callLater(DRAIN_TIMEOUT - _LAST_SECOND / 2, self._cut_off)
        reactor.callLater(DRAIN_TIMEOUT, self._end)
        self._look()
        return self.over

    def _websockets(self):
        """Return the connections that have not been told."""
        return {name: protocol for name, protocol in self.protocols.items()
                if name not in self.told and hasattr(protocol, 'serverClose')}

    def _look(self):
        self.questions.put({name: protocol.packets_received for name, protocol in self._websockets().items()})

    def _ask(self):
        from twisted.internet import reactor
        # A stock layer does not know.
        ask = getattr(self.layer, 'connections_at_rest', lambda server, names: names)
        while True:
            counts = self.questions.get()
            try:
                at_rest = ask(self.server.send_channel, list(counts)) if counts else ()
            except Exception as error:
                logger.error('Waiting for the frames of %d connections: %s', len(counts), error)
                time.sleep(0.5)
                at_rest = ()
            reactor.callFromThread(self._hear, {name: counts[name] for name in at_rest})

    def _hear(self, at_rest):
        from twisted.internet import reactor
        for name, protocol in self._websockets().items():
            if at_rest.get(name) == self.at_rest.get(name) == protocol.packets_received:
                self._tell(name, protocol)
            else:
                # Or one that goes on sending would never be at rest.
                protocol.stop_reading()
        self.at_rest = at_rest
        if self._is_over():
            self._end()
        else:
            reactor.callLater(_INTERVAL, self._look)

    def _is_over(self):
        from twisted.internet import reactor
        return (not self.protocols and time.monotonic() - self.began > _PATIENCE and
                # The ends of connections whose workers are in this process ...
                getattr(self.layer, 'is_idle', lambda: True)() and
                # ... and what has been written and not sent, as the rest of a page.
                not getattr(reactor, 'getWriters', list)())

    def _tell(self, name, protocol):
        self.told.add(name)
        if protocol.state == protocol.STATE_OPEN:
            protocol.serverClose(1012)
        elif protocol.state == protocol.STATE_CONNECTING:
            from autobahn.twisted.websocket import ConnectionDeny
            protocol.handshake_deferred.errback(ConnectionDeny(code=503, reason='Restarting'))
            protocol.cleanup()

    def _refuse_handshakes(self):
        for name, protocol in self._websockets().items():
            if protocol.state == protocol.STATE_CONNECTING:
                self._tell(name, protocol)

    def _tell_all(self):
        waiting = self._websockets()
        if waiting:
            logger.warning('Closing %d connections whose frames have not been handled after %d s', len(waiting),
                           DRAIN_TIMEOUT - _LAST_SECOND)
        for name, protocol in waiting.items():
            self._tell(name, protocol)

    def _cut_off(self):
        for protocol in [] if self.over.called else list(self.protocols.values()):
            if hasattr(protocol, 'serverClose'):
                protocol.transport.abortConnection()

    def _end(self):
        if not self.over.called:
            self.over.callback(None)


def _accept_all(port):
    """Accept those whom the kernel has let in for us: when the port is closed it would cut them off."""
    # It is at most as many as came last time.
    port.numberAccepts = 1000
    port.doRead()


def prepare(server):
    """Have ``server``, which is about to run, go this way when its reactor is told to stop."""
    from twisted.internet import reactor
    if not hasattr(server, 'farewell'):
        server.farewell = Farewell(server)
        reactor.addSystemEventTrigger('before', 'shutdown', server.farewell.begin)


def install():
    """Have the server of the program ``daphne`` go this way."""
    # To import it would choose the reactor for every process.
    daphne = sys.modules.get('daphne.server')
    if daphne is None:
        return
    run = daphne.Server.run

    @functools.wraps(run)
    def run_to_its_end(self):
        prepare(self)
        run(self)
    daphne.Server.run = run_to_its_end
