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


def test_daphne_uses_it():
    from daphne.http_protocol import HTTPFactory
    assert HTTPFactory(None, send_channel='test!').ws_factory.protocol is SocketProtocol
