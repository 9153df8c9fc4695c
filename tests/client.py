"""A client that behaves as daphne does, and a real Channels worker that works until nothing is left to do."""
import json
import random
import string

from channels import channel_layers
from channels.signals import consumer_finished
from channels.worker import Worker
from django.db import close_old_connections


class _UntilEmpty:
    """A channel layer whose worker stops when it has read everything."""

    def __init__(self, layer):
        self.layer = layer
        self.worker = None

    def __getattr__(self, name):
        return getattr(self.layer, name)

    def receive_many(self, channels, block=False):
        channel, content = self.layer.receive(channels)
        self.worker.termed = channel is None
        return channel, content


def work():
    """Run a worker on the default layer until it has nothing to do. What it lets escape fails the test."""
    layer = _UntilEmpty(channel_layers['default'])
    layer.worker = Worker(layer, signal_handlers=False)
    layer.worker.ready()
    # It would end the test's transaction; Channels' own test client does the same.
    consumer_finished.disconnect(close_old_connections)
    try:
        layer.worker.run()
    finally:
        consumer_finished.connect(close_old_connections)


class Connection:
    """One websocket connection: what daphne 1.x sends to the layer for it, and what it reads."""

    server = 'daphne.response.test!'

    def __init__(self, path='/', headers=(), cookies=None, client=('192.0.2.1', 50000), connect=True):
        self.path = path
        self.name = self.server + ''.join(random.choice(string.ascii_letters) for _ in range(10))
        self.order = 0
        self.inbox = []
        headers = [[name.encode(), value.encode('latin1')] for name, value in dict(headers).items()]
        if cookies:
            headers.append([b'cookie', '; '.join('{}={}'.format(*item) for item in cookies.items()).encode('latin1')])
        self.handshake = {'headers': headers, 'query_string': b'', 'client': list(client) if client else None,
                          'server': ['127.0.0.1', 80] if client else None}
        if connect:
            self.connect()

    def connect(self):
        self._put('websocket.connect', **self.handshake)

    def send(self, content):
        """Send a frame: ``bytes``, ``str``, or what JSON can be made of; return the frames that came back."""
        if isinstance(content, bytes):
            self._put('websocket.receive', bytes=content)
        else:
            self._put('websocket.receive', text=content if isinstance(content, str) else json.dumps(content))
        return self.received()

    def disconnect(self, code=1000):
        self._put('websocket.disconnect', code=code)

    def received(self):
        """Return the contents of the frames that came since the last call."""
        return [json.loads(message['text']) for message in self.messages() if 'text' in message]

    def messages(self):
        """Return what daphne was told to do with this connection since the last call."""
        while True:
            channel, message = channel_layers['default'].receive([self.server])
            if channel is None:
                break
            _inboxes.setdefault(channel, []).append(message)
        return _inboxes.pop(self.name, [])

    def _put(self, channel, **content):
        channel_layers['default'].send(channel, dict(
            content, reply_channel=self.name, path=self.path, order=self.order))
        self.order += 1
        work()


# All connections of a server share one mailbox.
_inboxes = {}
