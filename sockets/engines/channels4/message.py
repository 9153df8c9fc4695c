"""What a function gets as its ``message``: the event of ASGI, read as a message of Channels 1 is."""


class Message:
    """An event of ``connection``. ``channel`` is 'websocket.connect', 'websocket.receive' or 'websocket.disconnect'."""

    __slots__ = ('channel', '_event', '_connection', '_content')

    def __init__(self, channel, event, connection):
        self.channel = channel
        self._event, self._connection = event, connection
        self._content = None

    @property
    def content(self):
        """A dict with the fields of the event, ``path`` and ``reply_channel``, a name."""
        if self._content is None:
            # Few functions look at it.
            connection = self._connection
            self._content = {**self._event, 'path': connection.path, 'reply_channel': connection.name}
        return self._content

    def __getitem__(self, name):
        return self.content[name]

    def __contains__(self, name):
        return name in self.content

    def __repr__(self):
        return f'<Message {self.channel}>'

    def get(self, name, default=None):
        """Return the field ``name``, ``default`` if there is none."""
        return self.content.get(name, default)

    def keys(self):
        """Return the names of the fields."""
        return self.content.keys()

    def values(self):
        """Return the fields."""
        return self.content.values()

    def items(self):
        """Return the names and fields."""
        return self.content.items()
