"""The request for a websocket, on bytes."""

import pytest
from twisted.internet.interfaces import ISSLTransport
from zope.interface import alsoProvides

from sockets.engines.channels1.handshake import BadRequest, Handshake

from .wire import REQUEST, Wire

HEAD = REQUEST[:-2]


def headers(*lines, head=HEAD):
    return dict(Handshake(b'\r\n'.join([head, *lines])).headers)


@pytest.mark.parametrize('separator', [b'\x85', b'\xa0', b'\xe2\x80\xa8'])
def test_a_line_ends_at_crlf_and_nowhere_else(separator):
    # autobahn split at these, and what a proxy had passed within a header was another one.
    found = headers(b'X-Foo: a' + separator + b'X-Forwarded-For: 6.6.6.6')
    assert b'x-forwarded-for' not in found
    assert found[b'x-foo'] == b'a' + separator + b'X-Forwarded-For: 6.6.6.6'


@pytest.mark.parametrize(
    'line',
    [b'X-Foo: a' + bytes([control]) + b'X-Forwarded-For: 6.6.6.6' for control in (*range(9), *range(10, 32), 127)]
    + [
        b'X-Foo',
        b': a',
        b'X Foo: a',
        b'X-Foo : a',
        b' X-Foo: a',
        b'\tfolded',
        b'X\xc3\x85: a',
        b'X-\x00: a',
        b'(x): a',
    ],
)
def test_what_is_no_header_is_refused(line):
    with pytest.raises(BadRequest) as caught:
        headers(line)
    assert caught.value.status == 400


def test_values_are_bytes_without_the_space_around_them():
    found = headers(
        b'Cookie: \t sessionid=abc; name=\xc3\x85sa\xff\t ', b'X-Empty:', b'X-Tab: a\tb', b'x-any: !#$%&"\\'
    )
    assert found[b'cookie'] == b'sessionid=abc; name=\xc3\x85sa\xff'
    assert found[b'x-empty'] == b'' and found[b'x-tab'] == b'a\tb' and found[b'x-any'] == b'!#$%&"\\'


def test_lines_of_one_name_become_one():
    assert headers(b'Cookie: a=1', b'COOKIE: b=2')[b'cookie'] == b'a=1; b=2'
    assert headers(b'X-Foo: 1', b'X-foo: 2')[b'x-foo'] == b'1, 2'


@pytest.mark.parametrize(
    'lines',
    [
        [b'Host: other'],
        [b'Origin: http://a', b'Origin: http://b'],
        [b'Origin: http://a,http://b'],
        [b'Sec-WebSocket-Version: 13'],
        [b'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=='],
    ],
)
def test_what_must_be_there_once_is_refused_twice(lines):
    with pytest.raises(BadRequest):
        headers(*lines)


@pytest.mark.parametrize('name', [b'Host', b'Origin', b'Upgrade', b'Connection', b'Sec-WebSocket-Protocol'])
def test_what_is_compared_is_ascii(name):
    lines = [line for line in HEAD.split(b'\r\n') if not line.startswith(name + b':')]
    with pytest.raises(BadRequest):
        headers(name + b': \xc3\x85', head=b'\r\n'.join(lines))


@pytest.mark.parametrize(
    'first, status',
    [
        (b'POST / HTTP/1.1', 405),
        (b'GET / HTTP/1.0', 505),
        (b'GET /', 400),
        (b'GET  / HTTP/1.1', 400),
        (b'', 400),
        (b'GET /a b HTTP/1.1', 400),
        (b'GET /#a HTTP/1.1', 400),
        (b'GET /\x00 HTTP/1.1', 400),
        (b'GET /?\x1c HTTP/1.1', 400),
        (b'GET a HTTP/1.1', 400),
        (b'GET * HTTP/1.1', 400),
        (b'GET http:/// HTTP/1.1', 400),
        (b'GET http://[ HTTP/1.1', 400),
        (b'GET ftp://a/ HTTP/1.1', 400),
    ],
)
def test_a_bad_first_line_is_refused(first, status):
    with pytest.raises(BadRequest) as caught:
        Handshake(first + b'\r\nHost: localhost')
    assert caught.value.status == status


@pytest.mark.parametrize(
    'target, path',
    [
        (b'/page/', '/page/'),
        (b'/page/?a=/b?c', '/page/'),
        (b'/r%C3%A5d/', '/råd/'),
        (b'/a%20b/', '/a b/'),
        (b'//page/', '//page/'),
        (b'/page/;x', '/page/;x'),
        (b'http://localhost/page/?a', '/page/'),
        (b'ws://localhost', '/'),
        (b'/%ff/', '/\ufffd/'),
        (b'/?\xc3\xa5', '/'),
        (b'/%2541/', '/%41/'),
    ],
)
def test_the_path_is_what_comes_before_the_query(target, path):
    # autobahn took "//page/" for a host, and ";x" for none of it.
    assert Handshake(b'GET ' + target + b' HTTP/1.1\r\nHost: localhost').path == path


@pytest.mark.parametrize('code', ['00', '07', '09', '0a', '0D', '1b', '1f', '7f', 'c2%80', 'C2%85', 'c2%9b'])
def test_a_path_with_a_control_character_is_refused(code):
    # "$" of a regular expression matches before a newline.
    with pytest.raises(BadRequest):
        Handshake(f'GET /page/%{code} HTTP/1.1\r\nHost: localhost'.encode())


# The whole way, through autobahn.


@pytest.mark.parametrize(
    'change, status',
    [
        (lambda request: request.replace(b'/page/', b'/page/%0a'), 400),
        (lambda request: request + b'X-Foo: a\x1eb\r\n', 400),
        (lambda request: request + b'X-Foo\r\n', 400),
        (lambda request: request.replace(b'GET', b'POST'), 405),
        (lambda request: request.replace(b'Version: 13', b'Version: 12'), 400),
        (lambda request: request.replace(b'Host: localhost\r\n', b''), 400),
        (lambda request: request.replace(b'Host: localhost', b'Host: localhost:port'), 400),
        (lambda request: request.replace(b'AA==', b'AA'), 400),
        (lambda request: request + b'Origin: http://[\r\n', 400),
        (lambda request: request + b'Origin:\r\n', 400),
        (lambda request: request + b'Origin: http://a:99999\r\n', 400),
        (lambda request: request + b'Sec-WebSocket-Protocol: a, a\r\n', 400),
    ],
)
def test_who_is_refused_gets_an_answer_and_leaves_nothing_behind(change, status):
    wire = Wire()
    wire.receive(change(REQUEST) + b'\r\n')
    assert wire.status == status
    wire.transport.drain()
    assert wire.is_closed and wire.layer.sent == [] and wire.factory.reply_protocols == {}
    assert wire.clock.getDelayedCalls() == []


def test_the_connect_message_is_what_daphne_sends():
    wire = Wire()
    wire.protocol._raw_query_string = b'a=1'
    wire.receive(REQUEST + b'Cookie: a=\xc3\x85\r\nX_Forwarded_For: 6.6.6.6\r\n\r\n')
    ((channel, message),) = wire.layer.sent
    assert channel == 'websocket.connect'
    assert message.pop('headers') == [
        (b'host', b'localhost'),
        (b'upgrade', b'websocket'),
        (b'connection', b'Upgrade'),
        (b'sec-websocket-key', b'AAAAAAAAAAAAAAAAAAAAAA=='),
        (b'sec-websocket-version', b'13'),
        (b'cookie', b'a=\xc3\x85'),
    ]
    assert message == {
        'reply_channel': wire.name,
        'path': '/page/',
        'query_string': b'a=1',
        'order': 0,
        'client': ['192.0.2.1', 1234],
        'server': ['127.0.0.1', 8000],
        'scheme': 'ws',
    }


def test_a_connect_that_came_over_tls_says_so():
    wire = Wire()
    alsoProvides(wire.transport, ISSLTransport)
    wire.receive(REQUEST + b'\r\n')
    assert wire.layer.sent[0][1]['scheme'] == 'wss'


@pytest.mark.parametrize('proto, scheme', [(b'https', 'wss'), (b'wss', 'wss'), (b'http', 'ws'), (b'\xff', 'ws')])
@pytest.mark.parametrize('is_tls', [False, True])
def test_a_connect_says_what_a_proxy_says_that_daphne_believes(proto, scheme, is_tls):
    # As a page's does: behind --proxy-headers, request.is_secure() was true and socket.request.is_secure() was not.
    wire = Wire(proxy_forwarded_address_header='X-Forwarded-For', proxy_forwarded_proto_header='X-Forwarded-Proto')
    if is_tls:
        alsoProvides(wire.transport, ISSLTransport)
    wire.receive(REQUEST + b'X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: ' + proto + b'\r\n\r\n')
    assert wire.layer.sent[0][1]['scheme'] == scheme


@pytest.mark.parametrize('name', [None, 'X-Forwarded-For'])
def test_nobody_believes_a_client_that_says_that_it_came_over_tls(name):
    wire = Wire(proxy_forwarded_address_header=name)
    wire.receive(REQUEST + b'X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n\r\n')
    assert wire.layer.sent[0][1]['scheme'] == 'ws'


@pytest.mark.parametrize(
    'offered, chosen',
    [
        (b'', None),
        (b'chat', b'chat'),
        (b'other, chat', b'chat'),
        (b'other', None),
        (b'ch%61t', None),
        (b'"chat', None),
    ],
)
def test_a_subprotocol_is_taken_as_it_is_written(offered, chosen):
    # daphne unquoted it, and autobahn refused in a place where nobody heard it.
    wire = Wire(ws_protocols=['chat'])
    wire.receive(REQUEST + b'Sec-WebSocket-Protocol: ' + offered + b'\r\n\r\n')
    wire.reply(accept=True)
    assert wire.status == 101
    assert (b'Sec-WebSocket-Protocol: ' + (chosen or b'') in wire.transport.sent) == bool(chosen)


@pytest.mark.parametrize('offer', [b'permessage-deflate', b'permessage-deflate; client_max_window_bits=99', b';,=;"'])
def test_a_compression_is_not_taken_up_and_a_bad_offer_is_no_reason_to_fail(offer):
    wire = Wire()
    wire.receive(REQUEST + b'Sec-WebSocket-Extensions: ' + offer + b'\r\n\r\n')
    wire.reply(accept=True)
    assert wire.status == 101 and b'Extensions' not in wire.transport.sent


def test_addresses_of_a_proxy_that_daphne_believes_are_believed():
    wire = Wire(proxy_forwarded_address_header='X-Forwarded-For', proxy_forwarded_port_header='X-Forwarded-Port')
    wire.receive(REQUEST + b'X-Forwarded-For: 203.0.113.9, 10.0.0.1\r\nX-Forwarded-Port: \xff\r\n\r\n')
    assert wire.layer.sent[0][1]['client'] == ['203.0.113.9', 0]


def test_a_request_that_is_sent_again_connects_once():
    # While a worker had the connect, more bytes made autobahn ask again.
    wire = Wire()
    wire.receive(REQUEST + b'\r\n')
    for _ in range(3):
        wire.receive(REQUEST + b'\r\n')
    assert wire.layer.channels() == ['connect'] and len(wire.factory.reply_protocols) == 1


def test_frames_that_come_too_early_wait_for_the_handshake():
    from .wire import frame

    wire = Wire()
    wire.receive(REQUEST + b'\r\n' + frame(b'1')[:4])
    wire.receive(frame(b'1')[4:] + frame(b'2'))
    assert wire.layer.channels() == ['connect']
    wire.reply(accept=True)
    wire.turns()
    assert wire.layer.messages() == ['1', '2']


@pytest.mark.parametrize('request_', [REQUEST + b'\r\n', b'GET / HTTP/1.1\r\n'])
def test_who_sends_and_sends_without_a_handshake_is_cut_off(request_):
    wire = Wire()
    wire.receive(request_)
    for _ in range(17):
        assert len(wire.protocol.reader) + len(wire.protocol.data) < 70000
        wire.receive(b'x' * 4096)
    assert wire.is_closed and wire.factory.reply_protocols == {}
    # Who was announced is said to be gone.
    assert wire.layer.channels() in ([], ['connect', 'disconnect'])
