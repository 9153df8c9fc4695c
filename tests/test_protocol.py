import os

import pytest
from autobahn.websocket.xormasker import create_xor_masker

from sockets.protocol import SocketProtocol, Unmasker


@pytest.mark.parametrize('sizes', [[0], [1], [5], [74], [3, 4, 1, 200], [1] * 9, [1000001]])
def test_an_unmasker_does_what_autobahns_does_however_the_frame_is_cut(sizes):
    mask, total = os.urandom(4), sum(sizes)
    data = os.urandom(total)
    ours, theirs, done = Unmasker(mask), create_xor_masker(mask, total), 0
    for size in sizes:
        part = data[done:done + size]
        assert ours.process(part) == theirs.process(part)
        done += size
        assert ours.pointer() == theirs.pointer() == done


@pytest.mark.parametrize('code, called', [
    (True, ('sendClose', 1000)), (1000, ('sendClose', 1000)), (4401, ('sendClose', 4401)),
    (1011, ('sendCloseFrame', 1011)), (1012, ('sendCloseFrame', 1012)),
])
def test_daphne_can_close_with_codes_that_autobahn_keeps_to_itself(code, called):
    class Protocol(SocketProtocol):
        def sendClose(self, code):
            calls.append(('sendClose', code))

        def sendCloseFrame(self, code, reasonUtf8, isReply):
            assert reasonUtf8 == (b'restart' if code == 1012 else None)
            calls.append(('sendCloseFrame', code))

    calls = []
    Protocol().serverClose(code)
    assert calls == [called]


class Transport:
    """What SocketProtocol needs of a TCP transport of Twisted's; it takes ``room`` bytes at once."""

    def __init__(self, room, dataBuffer=b'', waiting=()):
        self.room, self.dataBuffer, self._tempDataBuffer = room, dataBuffer, list(waiting)
        self.at_once, self.later = [], []

    def writeSomeData(self, data):
        if isinstance(self.room, Exception):
            return self.room
        self.at_once.append(data[:self.room])
        return len(data[:self.room])

    def write(self, data):
        self.later.append(data)


@pytest.mark.parametrize('transport, at_once, later', [
    (Transport(100), [b'frame'], []),
    (Transport(2), [b'fr'], [b'ame']),
    (Transport(0), [b''], [b'frame']),
    (Transport(ConnectionError()), [], [b'frame']),
    (Transport(100, dataBuffer=b'before'), [], [b'frame']),
    (Transport(100, waiting=[b'before']), [], [b'frame']),
])
def test_a_frame_is_written_at_once_unless_something_waits_before_it(transport, at_once, later):
    protocol = SocketProtocol()
    protocol.transport, protocol.send_queue = transport, []
    protocol.sendData(b'frame')
    assert (transport.at_once, transport.later) == (at_once, later)


def test_a_transport_that_hides_its_buffers_is_left_to_write_as_it_likes():
    class Tls:
        def write(self, data):
            written.append(data)

    written, protocol = [], SocketProtocol()
    protocol.transport, protocol.send_queue = Tls(), []
    protocol.sendData(b'frame')
    assert written == [b'frame']


def test_daphne_uses_it():
    from daphne.http_protocol import HTTPFactory
    assert HTTPFactory(None, send_channel='test!').ws_factory.protocol is SocketProtocol
