"""The client of ``sockets.testing``, with each message to daphne laid open."""

import json

from sockets.engines.channels1.sandbox import SERVER
from sockets.multiplexing import SocketDemultiplexer
from sockets.testing import SocketClient
from sockets.testing.handshake import handshake


class Connection(SocketClient):
    """A client that only does what its test says: it goes on after a close, and may come without a connect."""

    server = SERVER

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
        self._put('websocket.connect', **self._handshake())
        self._settle()

    def _handshake(self):
        return handshake(self.headers, self.browser.cookies, self._query_string, self.address)

    def send(self, content):
        """Send a frame: ``bytes``, ``str``, or what JSON can be made of; return the frames that came back."""
        if isinstance(content, bytes):
            self._put('websocket.receive', bytes=content)
        else:
            self._put('websocket.receive', text=content if isinstance(content, str) else json.dumps(content))
        return self.received()

    def disconnect(self, code=1000):
        self._put('websocket.disconnect', code=code)
        self._settle()

    def received(self):
        """Return the contents of the frames that came since the last call."""
        return [json.loads(message['text']) for message in self.messages() if 'text' in message]

    def messages(self):
        """Return what daphne was told to do with this connection since the last call."""
        self._settle()
        messages, self._messages = self._messages, []
        return messages

    def _put(self, channel, **content):
        self._connection.put(channel, **content)

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

    def _put(self, channel, **content):
        if content.get('text') is not None:
            content['text'] = self._BEFORE + content['text'] + '}'
        super()._put(channel, **content)

    def _handle(self, message):
        if message.get('text', '').startswith(self._BEFORE):
            message = {**message, 'text': message['text'][len(self._BEFORE) : -1]}
        super()._handle(message)
