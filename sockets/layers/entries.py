"""How messages are written in Redis: the arguments of the scripts that put them there, and how they are read back."""

from .mailboxes import CONNECT, end_of


class Entries:
    """Makes entries of messages under a layer's options, which have its names.

    ``encode`` and ``decode`` make a payload of a message and a message of a payload, ``capacity_of(channel)`` says how
    many may wait.
    """

    def __init__(self, encode, decode, capacity_of, server_capacity, expiry, group_expiry):
        self.encode = encode
        self.decode = decode
        self.capacity_of = capacity_of
        self.server_capacity = server_capacity
        self.expiry = expiry
        self.group_expiry = group_expiry

    def frame(self, channel, message, connect_expiry, has_end):
        """Return the arguments of a frame in 'put_frames'. A refusal puts the connection's end in its place if ``has_end``."""
        is_control = channel != 'websocket.receive'
        return [
            message['reply_channel'],
            channel,
            0 if is_control else self.capacity_of(channel),
            int(1000 * (connect_expiry if channel == CONNECT else 0 if is_control else self.expiry)),
            self.encode(message),
            self.encode(end_of(message)) if has_end else b'',
        ]

    def for_connections(self, server, names, message):
        """Return the arguments of 'put' that bring ``message`` to the connections ``names`` of ``server``."""
        # A close never expires.
        return [
            server,
            0 if is_control(message) else self.server_capacity,
            0 if message.get('close') else int(self.expiry * 1000),
            self.encode({'to': names, 'message': message}),
            0,
            int(self.group_expiry * 1000),
        ]

    def answers(self, server, messages):
        """Return the arguments of 'put' that bring ``messages``, names and messages, to connections of ``server``.

        None of several may be a control message.
        """
        if len(messages) == 1:
            ((name, message),) = messages
            return self.for_connections(server, [name], message)
        several = self.encode({'several': messages})
        return [server, self.server_capacity, int(self.expiry * 1000), several, 0, int(self.group_expiry * 1000)]

    def mark(self, server, mark):
        """Return the arguments of 'put' for a mark in the queue of ``server``: what came before it has been read."""
        return [server, 0, int(self.expiry * 1000), self.encode({'mark': mark}), 0, int(self.group_expiry * 1000)]

    def plain(self, channel, message):
        """Return the arguments of 'put' for a message that is of no connection."""
        return [
            channel,
            self.capacity_of(channel),
            int(self.expiry * 1000),
            self.encode(message),
            1,
            int(self.group_expiry * 1000),
        ]

    def read(self, entry):
        """Return the channel, the expiry (ms of Redis's clock, 0 for never) and the content of an entry."""
        channel, expires, payload = entry.split(b'|', 2)
        return channel.decode(), int(expires), self.decode(payload)


def is_control(message):
    """Whether ``message`` opens or closes its connection: there is always room for it."""
    return bool(message.get('close') or message.get('accept'))


def addressed(content):
    """Return the messages in the content of an entry for a server: the connections of each, and the message."""
    if 'several' in content:
        return [([name], message) for name, message in content['several']]
    return [(content['to'], content['message'])]
