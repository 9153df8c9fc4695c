"""What a function gets as its ``message``: the event of ASGI, read as a message of Channels 1 is."""


class Message:
    """An event of a connection. ``content`` is a dict with its fields, ``path`` and ``reply_channel``, a name."""

    __slots__ = ('content', 'channel')

    def __init__(self, channel, content):
        # 'websocket.connect', 'websocket.receive' or 'websocket.disconnect'.
        self.channel = channel
        self.content = content

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
