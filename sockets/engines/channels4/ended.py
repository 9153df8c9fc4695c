"""A connection whose end is handled, by whichever process, and what is known of how it was opened."""

import io
import json

from django.core.handlers.asgi import ASGIRequest

from ... import engine
from ...access import credentials
from ...connection import handshakes
from ...execution import request_state, thread_state


class Ended(engine.Connection):
    """A connection whose end is handled, which may have been another process's. Nothing reaches its client any more."""

    __slots__ = ('kwargs', 'scope')

    keeps_order = True

    def __init__(self, name, path, kwargs, scope=None):
        super().__init__(name, path, accepted=True)
        self.kwargs = kwargs
        self.scope = {} if scope is None else scope

    def put(self, message, is_last=False):
        pass

    def handshake(self):
        return self._request(self.scope)

    def handshake_again(self, load_text):
        return self._request(self.scope or json.loads(load_text() or '{}'))

    def handshake_text(self, secret_cookie):
        content = {**self.scope, 'path': self.path, 'subprotocol': self.subprotocol}
        return handshakes.text_of(content, secret_cookie)

    def recall(self, handshake_text):
        request_state.set_root_path(json.loads(handshake_text or '{}').get('root_path'))

    def user_of_middleware(self):
        return self.scope.get('user')

    def header(self, name):
        return handshakes.header(self.scope, name)

    def _request(self, content):
        root_path = (thread_state.script_name_of(content) or '').rstrip('/')
        scope = {
            **{key: content[key] for key in ('client', 'server') if content.get(key)},
            'root_path': root_path,
            'type': 'http',
            'method': 'GET',
            # Django takes the root path off again.
            'path': root_path + self.path,
            # Django asks for "https".
            'scheme': 'https' if content.get('scheme') in ('https', 'wss') else 'http',
            'query_string': handshakes.encoded(content.get('query_string') or ''),
            'headers': [
                (handshakes.encoded(name).lower(), handshakes.encoded(value))
                for name, value in handshakes.headers(content)
            ],
        }
        offered = content.get('subprotocols')
        if offered and handshakes.header(content, 'sec-websocket-protocol') is None:
            # uvicorn --ws wsproto tells them here only.
            scope['headers'].append((b'sec-websocket-protocol', handshakes.encoded(', '.join(offered))))
        request = ASGIRequest(scope, io.BytesIO())
        if content.get('dropped'):
            credentials.note_absent(request, content['dropped'])
        return request
