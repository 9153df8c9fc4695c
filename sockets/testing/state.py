"""How far a connection has come."""


class State:
    """What a client knows of its connection: ``new``, ``connecting``, ``open``, and then ``closed`` or ``refused``.

    ``close_code`` is ``None`` until it ends.
    """

    def __init__(self):
        self.name = 'new'
        self.close_code = None

    def begin(self):
        """Start to connect, for the first time or again."""
        self.name, self.close_code = 'connecting', None

    def open(self):
        """The server has accepted."""
        self.name = 'open'

    def end(self, code):
        """Either side has ended the connection; return the code that this has."""
        # Before the accept there is no websocket that could have a code.
        self.name, self.close_code = ('closed', code) if self.name == 'open' else ('refused', 1006)
        return self.close_code

    def has_ended(self):
        """Return whether there is no connection, or none any more."""
        return self.name not in ('connecting', 'open')

    def reason(self):
        """Return why a client cannot send."""
        return {
            'new': 'call its connect() first',
            'connecting': 'nobody has accepted its connection',
            'refused': 'its connection was refused, and the log says why',
            'closed': 'its connection was closed with {}'.format(self.close_code),
        }[self.name]
