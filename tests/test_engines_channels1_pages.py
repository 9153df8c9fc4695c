import threading

import pytest
import twisted
from daphne.http_protocol import HTTPFactory
from twisted.internet import task
from twisted.test.proto_helpers import StringTransport

from sockets.engines.channels1 import pages
from sockets.engines.channels1.connection import Connection
from sockets.engines.channels1.pages import CHUNKS_AHEAD, PAGE_BACKLOG, PIECE, ClientLeft, PageRequest


class Transport(StringTransport):
    """A client that reads nothing while ``is_full``."""

    is_full = False
    is_cut = False
    is_reading = True

    def write(self, data):
        super().write(data)
        if self.is_full and self.producer is not None:
            self.producer.pauseProducing()

    def writeSequence(self, data):
        self.write(b''.join(data))

    def read_all(self):
        self.is_full = False
        self.producer.resumeProducing()

    def pauseProducing(self):
        self.is_reading = False

    def resumeProducing(self):
        self.is_reading = True

    def abortConnection(self):
        self.is_cut = True


class Layer:
    class ChannelFull(Exception):
        pass

    def __init__(self):
        self.sent = []

    def send(self, channel, message):
        self.sent.append((channel, message))


class Server:
    """daphne's factory and one connection."""

    def __init__(self):
        self.layer = Layer()
        self.factory = HTTPFactory(self.layer, send_channel='daphne.response.test!', timeout=10)
        self.factory.log = lambda request: None
        self.factory.reactor = task.Clock()
        self.transport = Transport()
        self.connection = self.factory.buildProtocol(None)
        self.connection.makeConnection(self.transport)

    def ask(self, head=b'GET / HTTP/1.1', *headers, body=b''):
        """Send a request and return its message, or ``None`` if there came none."""
        del self.layer.sent[:]
        self.connection.dataReceived(b'\r\n'.join((head, b'Host: localhost', *headers)) + b'\r\n\r\n' + body)
        return next((message for channel, message in self.layer.sent if channel == 'http.request'), None)

    def reply(self, message, **content):
        self.factory.dispatch_reply(message['reply_channel'], content)

    def request(self, message):
        return self.factory.reply_protocols[message['reply_channel']]

    @property
    def written(self):
        return self.transport.value()


@pytest.fixture
def server():
    return Server()


def test_daphne_uses_it(server):
    assert type(server.request(server.ask())) is PageRequest


def test_a_page_is_written_as_before(server):
    message = server.ask()
    server.reply(message, status=200, headers=[(b'Content-Length', b'5')], content=b'he', more_content=True, order=0)
    server.reply(message, content=b'llo', more_content=False, order=1)
    assert server.written.startswith(b'HTTP/1.1 200 OK\r\n') and server.written.endswith(b'\r\n\r\nhello')
    assert server.factory.reply_protocols == {}
    # The next one over the same connection.
    server.transport.clear()
    server.reply(server.ask(), status=200, headers=[], content=b'again')
    assert b'again' in server.written


def test_no_more_is_written_than_the_client_reads(server):
    # All of it went to Twisted's buffer.
    message = server.ask()
    server.transport.is_full = True
    server.reply(message, status=200, headers=[], content=b'x' * (5 * PIECE), more_content=True)
    server.reply(message, content=b'y', more_content=False)
    assert server.written.count(b'x') == PIECE
    server.transport.read_all()
    assert (server.written.count(b'x'), server.written.count(b'y')) == (5 * PIECE, 1)
    assert server.written.endswith(b'0\r\n\r\n')


def test_headers_that_cannot_be_sent_are_a_500(server, caplog):
    # daphne took the page for begun, and its client waited for ever.
    message = server.ask()
    server.reply(message, status=200, headers=[(b'A', b'x'), (b'B', None)], content=b'he', more_content=True, order=0)
    server.reply(message, content=b'llo', order=1)
    assert server.written.startswith(b'HTTP/1.1 500 Internal Server Error\r\n') and b'A: x' not in server.written
    assert server.factory.reply_protocols == {} and 'cannot be sent' in caplog.text


def test_a_page_that_begins_twice_is_cut_off(server):
    message = server.ask()
    server.reply(message, status=200, headers=[], content=b'x', more_content=True)
    server.reply(message, status=200, headers=[], content=b'y')
    assert server.transport.is_cut


def test_a_client_that_does_not_read_is_not_read_either(server):
    # Twisted kept what it sent ahead, without a limit.
    message = server.ask()
    server.transport.is_full = True
    server.reply(message, status=200, headers=[], content=b'x', more_content=True)
    assert not server.transport.is_reading
    server.transport.read_all()
    assert server.transport.is_reading


def test_more_than_the_backlog_is_cut_off(server, caplog):
    message = server.ask()
    server.transport.is_full = True
    for order in range(PAGE_BACKLOG // (512 * 1024) + 2):
        content = {'status': 200, 'headers': []} if order == 0 else {}
        server.reply(message, content=bytes(512 * 1024), more_content=True, order=order, **content)
    assert server.transport.is_cut
    assert server.request(message)._chunks == type(server.request(message)._chunks)()
    assert 'whose client does not read' in caplog.text


def test_a_thread_waits_for_its_client_and_learns_that_it_has_left(server):
    message = server.ask()
    request = server.request(message)
    server.transport.is_full = True
    for _ in range(CHUNKS_AHEAD):
        request.wait_for_room()
    found = []

    def wait():
        try:
            request.wait_for_room()
            found.append('room')
            request.wait_for_room()
        except ClientLeft:
            found.append('left')

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    thread.join(0.1)
    assert found == []
    server.reply(message, status=200, headers=[], content=b'x', more_content=True)
    thread.join(0.1)
    assert found == ['room']
    server.connection.connectionLost(None)
    thread.join(5)
    assert found == ['room', 'left']


def at(monkeypatch, seconds):
    now = pages.time.monotonic()
    monkeypatch.setattr(pages.time, 'monotonic', lambda: now + seconds)


def test_a_long_page_lasts_while_its_client_reads_and_a_look_at_it_raises_nothing(server, monkeypatch):
    # "Got multiple Response messages" ended the looks at all connections, for good.
    message = server.ask()
    server.request(message).request_start -= 1000
    server.reply(message, status=200, headers=[], content=b'x', more_content=True)
    server.factory.check_timeouts()
    assert not server.transport.is_cut
    server.transport.is_full = True
    server.reply(message, content=b'yyy', more_content=True)
    server.reply(message, content=b'zzz', more_content=True)
    at(monkeypatch, 5)
    server.factory.check_timeouts()
    assert not server.transport.is_cut
    at(monkeypatch, 30)
    server.factory.check_timeouts()
    assert server.transport.is_cut


@pytest.mark.parametrize('is_local', [True, False])
def test_a_view_of_this_process_may_be_silent_and_a_worker_that_is_may_be_dead(server, monkeypatch, is_local):
    message = server.ask()
    if is_local:
        server.request(message).wait_for_room()
    server.reply(message, status=200, headers=[], content=b'x', more_content=True)
    at(monkeypatch, 30)
    server.factory.check_timeouts()
    assert server.transport.is_cut is not is_local


def test_a_page_that_does_not_begin_is_a_503_and_what_its_view_says_later_is_dropped(server):
    message = server.ask()
    server.request(message).request_start -= 11
    server.factory.check_timeouts()
    assert server.written.startswith(b'HTTP/1.1 503 ')
    before = server.written
    server.reply(message, status=200, headers=[], content=b'late')
    assert server.written == before


def test_an_exception_of_one_connection_ends_no_look_at_another(server, caplog):
    class Bad:
        def duration(self):
            raise KeyError('bad')

    message = server.ask()
    server.request(message).request_start -= 11
    server.factory.reply_protocols = {'a': Bad(), **server.factory.reply_protocols}
    server.factory.check_timeouts()
    assert server.written.startswith(b'HTTP/1.1 503 ')
    assert 'Could not check the time-outs of a' in caplog.text


@pytest.mark.parametrize(
    'content',
    [
        {'order': 2, 'content': b'x', 'more_content': False},
        {'order': 1, 'broken': True},
    ],
)
def test_a_page_of_which_a_part_is_missing_is_cut_off_and_never_looks_whole(server, content):
    message = server.ask()
    server.reply(message, status=200, headers=[], content=b'x', more_content=True, order=0)
    server.reply(message, **content)
    assert server.transport.is_cut and b'0\r\n\r\n' not in server.written


@pytest.mark.parametrize('content, body', [(b'abc', b'abc'), (b'abcdefgh', b'abcde')])
def test_a_page_of_another_length_than_it_says_is_the_last_of_its_connection(server, content, body):
    # What came after it was taken for the rest of it, or the rest of it for the next response.
    message = server.ask()
    server.reply(message, status=200, headers=[(b'Content-Length', b'5')], content=content)
    assert server.written.endswith(b'\r\n\r\n' + body)
    assert server.transport.disconnecting


@pytest.mark.parametrize(
    'head, status',
    [
        (b'HEAD / HTTP/1.1', 200),
        (b'GET / HTTP/1.1', 204),
        (b'GET / HTTP/1.1', 304),
    ],
)
def test_nothing_follows_the_headers_of_a_response_without_a_body(server, head, status):
    # The first chunk was left out, the others were not.
    message = server.ask(head)
    server.reply(message, status=status, headers=[], content=b'first', more_content=True)
    server.reply(message, content=b'second', more_content=False)
    assert server.written.endswith(b'\r\n\r\n') and server.factory.reply_protocols == {}
    assert b'first' not in server.written and b'second' not in server.written


# Its last version for Python 3.7 begins with the second request before the first is answered (CVE-2023-46137).
@pytest.mark.skipif((twisted.version.major, twisted.version.minor) < (23, 10), reason='Twisted is too old')
def test_pipelined_requests_are_answered_one_after_the_other(server):
    first = server.ask(body=b'GET /two HTTP/1.1\r\nHost: localhost\r\n\r\n')
    assert [message['path'] for channel, message in server.layer.sent] == ['/']
    server.reply(first, status=200, headers=[], content=b'one')
    second = server.layer.sent[-1][1]
    assert second['path'] == '/two'
    server.reply(second, status=200, headers=[], content=b'two')
    assert server.written.index(b'one') < server.written.index(b'two')


def test_a_client_that_does_not_read_the_end_is_not_waited_for_for_ever(server):
    message = server.ask(b'GET / HTTP/1.0')
    server.reply(message, status=200, headers=[], content=b'x')
    assert server.connection._channel._TimeoutMixin__timeoutCall is not None


# Requests.


@pytest.mark.parametrize(
    'headers, body',
    [
        ([b'Content-Length: 11'], b''),
        ([b'Content-Length: 11', b'Expect: 100-continue'], b''),
        ([b'Transfer-Encoding: chunked'], b'b\r\n01234567890\r\n0\r\n\r\n'),
    ],
)
def test_a_body_over_the_limit_is_refused_before_it_is_read(server, settings, headers, body):
    settings.SOCKETS = {'MAX_BODY_SIZE': 10}
    assert server.ask(b'POST / HTTP/1.1', *headers, body=body) is None
    assert server.written.startswith(b'HTTP/1.1 413 ') and server.transport.disconnecting


@pytest.mark.parametrize('limit', [10, None])
def test_a_body_within_the_limit_is_a_body(server, settings, limit):
    settings.SOCKETS = {'MAX_BODY_SIZE': limit}
    message = server.ask(b'POST /form?a=1 HTTP/1.1', b'Content-Length: 10', body=b'0123456789')
    assert (message['body'], message['path'], message['query_string']) == (b'0123456789', '/form', b'a=1')


@pytest.mark.parametrize(
    'header',
    [
        b'Daphne-Root-Path: /x',
        b'dAPHNE-root-PATH: /x',
        b'Daphne_Root_Path: /x',
        b'Daphne-Root-Path: /x\r\nDaphne-Root-Path: /y',
    ],
)
@pytest.mark.parametrize('name', [None, 'X-Script-Name'])
def test_nobody_believes_a_clients_root_path(server, settings, header, name):
    settings.SOCKETS = {'ROOT_PATH_HEADER': name}
    message = server.ask(b'GET /x/admin/ HTTP/1.1', header)
    assert (message['root_path'], message['path']) == ('', '/x/admin/')


@pytest.mark.parametrize('name', ['X-Script-Name', 'Daphne-Root-Path'])
@pytest.mark.parametrize(
    'value, root_path',
    [
        (b'/x', '/x'),
        (b'/x/', '/x'),
        (b'/', ''),
        (b'/a/b-c', '/a/b-c'),
        (b'/caf%C3%A9', '/café'),
    ],
)
def test_the_header_that_a_setting_names_is_believed(server, settings, name, value, root_path):
    settings.SOCKETS = {'ROOT_PATH_HEADER': name}
    assert server.ask(b'GET / HTTP/1.1', name.encode() + b': ' + value)['root_path'] == root_path


@pytest.mark.parametrize(
    'value',
    [
        b'x',
        b'',
        b'//evil.example',
        b'/x//y',
        b'/x y',
        b'/x%0ay',
        b'/%7f',
        b'/\xe9',
        b'/x\\y',
        b'/x?y',
        b'/%2fevil.example',
        b'/%c2%85',
        b'/x\r\nX-Script-Name: /y',
    ],
)
def test_what_is_no_path_is_refused(server, settings, value):
    settings.SOCKETS = {'ROOT_PATH_HEADER': 'X-Script-Name'}
    assert server.ask(b'GET / HTTP/1.1', b'X-Script-Name: ' + value) is None
    assert server.written.startswith(b'HTTP/1.1 400 ')


@pytest.mark.parametrize('name, script_name', [(None, ''), ('X-Script-Name', '/a')])
def test_a_websocket_gets_the_same_root_path(server, settings, name, script_name):
    settings.SOCKETS = {'ROOT_PATH_HEADER': name}
    server.ask(
        b'GET /a/ws/ HTTP/1.1',
        b'Upgrade: websocket',
        b'Connection: Upgrade',
        b'Sec-WebSocket-Version: 13',
        b'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
        b'Daphne-Root-Path: /x',
        b'X-Script-Name: /a',
    )
    ((channel, content),) = server.layer.sent
    assert channel == 'websocket.connect'
    connection = Connection(server.layer, content, channel)
    again = connection.handshake_again(lambda: connection.handshake_text('sessionid'))
    for request in (connection.handshake(), again):
        assert request.META['SCRIPT_NAME'] == script_name
