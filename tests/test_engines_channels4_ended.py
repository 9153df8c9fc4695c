"""The opening request of a connection on Channels 4, as a server tells of it."""

import pytest

from sockets.access.authentication import offered
from sockets.engines.channels4.ended import Ended


@pytest.mark.parametrize(
    'scope',
    [
        {'headers': [(b'sec-websocket-protocol', b'a, b')]},
        {'headers': [(b'Sec-WebSocket-Protocol', b'a, b')], 'subprotocols': ['a', 'b']},
        # That of uvicorn with wsproto.
        {'headers': [], 'subprotocols': ['a', 'b']},
    ],
)
def test_subprotocols_are_found_wherever_a_server_tells_them(scope):
    request = Ended('x!y', '/page/', {}, scope).handshake()
    assert offered(request) == ['a', 'b']


def test_without_any_there_is_no_header():
    request = Ended('x!y', '/page/', {}, {'headers': [], 'subprotocols': []}).handshake()
    assert 'HTTP_SEC_WEBSOCKET_PROTOCOL' not in request.META


def test_what_a_client_offers_is_in_no_row():
    text = Ended('x!y', '/page/', {}, {'headers': [], 'subprotocols': ['bearer', 'secret']}).handshake_text('sessionid')
    assert 'secret' not in text
