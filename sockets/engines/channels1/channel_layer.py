"""The channel layer of ``SOCKETS['CHANNEL_LAYER']``: what ours can do, and what is assumed of any other."""

from channels import channel_layers

from ... import conf
from ...engine import server_of
from .line import Line


def channel_layer():
    """Return the layer of Channels that fan-out sends through."""
    return channel_layers[conf.CHANNEL_LAYER]


def adapted(layer=None):
    """Return the ``Adapter`` of ``layer``, or of ``channel_layer()``."""
    layer = channel_layer() if layer is None else layer
    adapter = vars(layer).get('_sockets_adapter')
    if adapter is None:
        adapter = layer._sockets_adapter = Adapter(layer)
    return adapter


class Adapter:
    """What the engine asks of a layer. The methods here are for those that do not have their own."""

    def __init__(self, layer):
        self.layer = layer
        # Whether frames of one connection are handed over one after another.
        self.keeps_order = getattr(layer, 'keeps_order', False)
        # What servers call it that can hear of each other; empty if they cannot.
        self.name = getattr(layer, 'name', '')
        # Has a message sent with what its thread asks next; None if the layer cannot do that. This is each frame.
        self.send_later = getattr(layer, 'send_later', None)
        # Takes several connects at a time; None if the layer cannot do that. And those that this process opens together.
        self.connects = getattr(layer, 'connects', None)
        self.line = Line(self)

    def hand_over(self, names, message):
        """Hand ``message`` to many channels; return those that were full, as ``Engine.hand_over``."""
        return self._ask('send_many', _send_one_by_one, names, message)

    def note_dropped(self, counts):
        """Count messages that were given up."""
        self._ask('note_dropped', lambda layer, counts: None, counts)

    def dead_servers(self, servers=None):
        """Return the servers that are gone."""
        return self._ask('dead_servers', lambda layer, servers: [], servers)

    def live_servers(self, servers):
        """Return the servers that are there, ``None`` if that is not known."""
        return self._ask('live_servers', lambda layer, servers: None, servers)

    def has_forgotten(self):
        """Return whether the layer has lost its memory."""
        return self._ask('has_forgotten', lambda layer: False)

    def idle(self, names):
        """Return the connections of which no frame waits or is being handled; ``None`` if that is not known."""
        return self._ask('idle', lambda layer, names: None, names)

    def set_close_message(self, message):
        """Have ``message``, which closes, sent to the connections of a server that was taken for dead."""
        self._ask('set_close_message', lambda layer, message: None, message)

    def statistics(self):
        """Return what waits and what was dropped."""
        return self._ask('statistics', lambda layer: {})

    def take_token(self, name, per_second, burst):
        """Take a token that all processes share; return the seconds to wait, or ``None`` if they share none."""
        return self._ask('take_token', lambda layer, name, per_second, burst: None, name, per_second, burst)

    def is_served_locally(self):
        """Return whether the workers of the connections of this process are in it."""
        layer = self.layer
        return layer.local_only() or getattr(layer, 'is_served_locally', False)

    # What a server and its workers ask.

    def serve_locally(self):
        """Have the frames of the connections of this process handled in it, as far as the layer can."""
        self._ask('serve_locally', lambda layer: None)

    def wake_threads_after(self, seconds):
        """Wake another thread for a frame that has waited so long."""
        self._ask('wake_threads_after', lambda layer, seconds: None, seconds)

    def expect_handshakes_within(self, seconds):
        """Say how long a client waits for the answer to its connect."""
        self._ask('expect_handshakes_within', lambda layer, seconds: None, seconds)

    def deliver_to(self, server, deliver, write):
        """Have ``deliver`` called in the reactor's thread with what is sent to ``server``; whether the layer can do that.

        ``write`` is called with a text by the thread that sends it, and returns whether the client can have it at once.
        """
        return self._ask('deliver_to', lambda layer, *args: False, server, deliver, write) is not False

    def poll_with_threads(self, poll):
        """Have the threads that wait for frames ask ``poll`` for some; return whether the layer can do that."""
        return self._ask('poll_with_threads', lambda layer, poll: False, poll) is not False

    def release(self):
        """Say that this thread handles no more frames."""
        self._ask('release', lambda layer: None)

    def waiting_connects(self, count):
        """Return ``count`` of the connects that no worker of this process has taken yet, the next ones first."""
        return self._ask('waiting_connects', lambda layer, count: (), count)

    def withdraw(self, name):
        """Take back the connect of a connection that no worker has taken yet; return whether that was done."""
        return self._ask('withdraw', lambda layer, name: False, name)

    def drained_connections(self, server, names):
        """Return those of ``names`` of which no frame waits or is being handled: where it is not known, all."""
        return self._ask('drained_connections', lambda layer, server, names: names, server, names)

    def is_idle(self):
        """Return whether nothing waits for the workers of this process."""
        return self._ask('is_idle', lambda layer: True)

    def _ask(self, name, default, *args):
        method = getattr(self.layer, name, None)
        return default(self.layer, *args) if method is None else method(*args)


def _send_one_by_one(layer, names, message):
    """What ``send_many`` of our layers does, on any other: send, and return the names of those that were full.

    What a server cannot be reached for is raised when the others have been served, with the names as ``undelivered``.
    """
    refused = []
    full = set()
    failures, undelivered = {}, []
    for name in names:
        server = server_of(name)
        try:
            # All sockets of a server share one mailbox, and we know that it is full.
            if server in failures:
                undelivered.append(name)
                continue
            if server not in full:
                layer.send(name, message)
                continue
        except layer.ChannelFull:
            full.add(server)
        except (AssertionError, TypeError, ValueError):
            # Of the message, whoever gets it.
            raise
        except Exception as error:
            failures[server] = error
            undelivered.append(name)
            continue
        refused.append(name)
    for error in failures.values():
        error.undelivered, error.refused = undelivered, refused
        raise error
    return refused
