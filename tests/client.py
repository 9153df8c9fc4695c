"""The client of ``sockets.testing``, with each message of the server laid open."""

import json

from sockets import conf, engine
from sockets.multiplexing import SocketDemultiplexer
from sockets.testing import SocketClient, isolation
from sockets.testing.handshake import handshake

try:
    from channels import channel_layers
except ImportError:
    # Channels 4.
    pass

ON_CHANNELS_1 = engine.prepare() == 'sockets.engines.channels1'

# What the names of clients begin with.
SERVER = 'daphne.response.test!' if ON_CHANNELS_1 else 'sockets.test!'


def sent_to(server):
    """Take the messages that were sent to connections of ``server``, which is not that of clients, and return them."""
    if ON_CHANNELS_1:
        layer = channel_layers[conf.CHANNEL_LAYER]
        return [message for _, message in iter(lambda: layer.receive([server]), (None, None))]
    return [message for name, message in isolation.current().server.receive() if name.startswith(server)]


class Connection(SocketClient):
    """A client that only does what its test says: it goes on after a close, and may come without a connect."""

    def __init__(self, path='/', cookies=None, headers=None, address='192.0.2.1', connect=True, **options):
        if cookies:
            headers = {**(headers or {}), 'cookie': '; '.join('{}={}'.format(*item) for item in cookies.items())}
        super().__init__(path, headers=headers, address=address, raise_exceptions=False, **options)
        self._messages = []
        self._begin()
        self.name = self.channel_name
        if connect:
            self.connect()

    def connect(self):
        if ON_CHANNELS_1:
            # As a daphne of its own, behind which workers know no more of a request than what the row keeps.
            self._connection.put('websocket.connect', **self._handshake())
        else:
            self._connection.open(self._handshake())
        self._settle()

    def _handshake(self):
        return handshake(self.headers, self.browser.cookies, self._query_string, self.address)

    def send(self, content):
        """Send a frame: ``bytes``, ``str``, or what JSON can be made of; return the frames that came back."""
        if isinstance(content, bytes):
            self._put(bytes=content)
        else:
            self._put(text=content if isinstance(content, str) else json.dumps(content))
        return self.received()

    def disconnect(self, code=1000):
        self._connection.close(code)
        self._settle()

    def received(self):
        """Return the contents of the frames that came since the last call."""
        return [json.loads(message['text']) for message in self.messages() if 'text' in message]

    def messages(self):
        """Return what the server was told to do with this connection since the last call."""
        self._settle()
        messages, self._messages = self._messages, []
        return messages

    def _put(self, **frame):
        """Send a frame that is handled when the client is next asked for something."""
        self._connection.send(**frame)

    def _handle(self, message):
        self._messages.append(message)


class StreamConnection(Connection):
    """A client of a handler that serves a stream. What it sends and receives looks as if that were at the path."""

    _BEFORE = '{"stream":"it","payload":'

    def __init__(self, path='/', handler=None, **options):
        super().__init__(
            path,
            handler=type(
                handler.__name__ + 's', (SocketDemultiplexer,), {'streams': {'it': handler}, '__module__': __name__}
            ),
            **options,
        )

    def _put(self, **frame):
        if frame.get('text') is not None:
            frame['text'] = self._BEFORE + frame['text'] + '}'
        super()._put(**frame)

    def _handle(self, message):
        if message.get('text', '').startswith(self._BEFORE):
            message = {**message, 'text': message['text'][len(self._BEFORE) : -1]}
        super()._handle(message)
