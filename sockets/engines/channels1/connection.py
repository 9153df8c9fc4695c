"""A connection as a message of Channels brings it, and how messages go back to it."""

import json

from channels.handler import AsgiRequest
from channels.message import Message

from ... import engine
from ...access import credentials
from ...connection import handshakes
from ...execution import request_state, thread_state
from .channel_layer import adapted
from .delivery import send, send_last


class Connection(engine.Connection):
    """The connection of the message of one event."""

    # Not the message, nor its consumer: they know this, and a circle of references would keep each frame for a while.
    __slots__ = ('layer', 'content', 'channel')

    def __init__(self, layer, content, channel):
        super().__init__(content['reply_channel'], content.get('path'), channel != 'websocket.connect')
        self.layer = layer
        self.content = content
        self.channel = channel

    @property
    def keeps_order(self):
        return adapted(self.layer).keeps_order

    @property
    def is_served_here(self):
        return adapted(self.layer).is_served_locally()

    def put(self, message, is_last=False):
        (send_last if is_last else send)(self.layer, self.name, message)

    def identified(self, handler):
        handler._join_groups()

    def left(self, handler):
        handler._leave_groups()

    def handshake(self):
        return self._request(self.content)

    def handshake_again(self, load_text):
        # A row may be older than this column.
        return self._request(credentials.held(self.name) or json.loads(load_text() or '{}'))

    def handshake_text(self, secret_cookie):
        return handshakes.text_of({**self.content, 'subprotocol': self.subprotocol}, secret_cookie)

    def recall(self, handshake_text):
        request_state.set_root_path(json.loads(handshake_text or '{}').get('root_path'))

    def waiting(self, count):
        return [(content['reply_channel'], content) for content in adapted(self.layer).line.waiting(count)]

    def header(self, name):
        return handshakes.header(self.content, name)

    def _request(self, content):
        content = dict(content, method='GET')
        dropped = content.pop('dropped', None)
        content['path'] = self.path
        content['query_string'] = handshakes.decoded(content.get('query_string') or '')
        content['headers'] = [
            [handshakes.encoded(name), handshakes.encoded(value)] for name, value in handshakes.headers(content)
        ]
        # Django asks for "https".
        content['scheme'] = 'https' if content.get('scheme') in ('https', 'wss') else 'http'
        content['reply_channel'] = self.name
        content['root_path'] = thread_state.script_name_of(content)
        content = {key: value for key, value in content.items() if value is not None}
        request = AsgiRequest(Message(content, self.channel, self.layer))
        if dropped:
            credentials.note_absent(request, dropped)
        return request
