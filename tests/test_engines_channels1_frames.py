"""Our reader of frames, beside autobahn's: the same of any bytes, however they are cut."""

import subprocess
import sys
from pathlib import Path

import pytest
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from hypothesis import given, settings
from hypothesis import strategies as st

from sockets.engines.channels1.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, FrameReader, Violation

from .wire import frame

LIMIT = 1000


def read_all(data, cuts=(), limit=LIMIT):
    """Return what a reader makes of ``data``: what is complete, up to the code of a violation or a close."""
    reader, found = FrameReader(limit), []
    for begin, end in zip([0, *cuts], [*cuts, len(data)]):
        reader.feed(data[begin:end])
        while True:
            try:
                taken = reader.read()
            except Violation as violation:
                return found + [violation.code]
            if taken is None:
                break
            if taken != (CONTINUATION, None):
                found.append(taken)
            if taken[0] == CLOSE:
                return found
    return found


class Autobahn(WebSocketServerProtocol):
    """What autobahn reads, as ``read_all`` returns it."""

    def __init__(self, limit):
        super().__init__()
        self.factory = WebSocketServerFactory()
        self._connectionMade()
        self.state, self.inside_message, self.current_frame = self.STATE_OPEN, False, None
        self.websocket_version, self.maxMessagePayloadSize, self.failByDrop = 13, limit, True
        # It would refuse a text in the middle, we do at its end.
        self.utf8validateIncoming = False
        self.found, self.is_over = [], False
        if self.openHandshakeTimeoutCall is not None:
            self.openHandshakeTimeoutCall.cancel()

    def read_all(self, data):
        self._dataReceived(data)
        return self.found

    def note(self, *taken):
        if not self.is_over:
            self.found.append(taken)

    def onMessage(self, payload, isBinary):
        try:
            self.note(BINARY if isBinary else TEXT, payload if isBinary else payload.decode())
        except UnicodeDecodeError:
            self._fail_connection(1007)

    def onPing(self, payload):
        self.note(PING, payload)

    def onPong(self, payload):
        self.note(PONG, payload)

    def _fail_connection(self, code=None, reason=None):
        if not self.is_over:
            self.found.append(code)
        self.end()

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        self.note(CLOSE, (self.remoteCloseCode, self.remoteCloseReason))
        self.end()

    def dropConnection(self, abort=False):
        self.end()

    def end(self):
        self.is_over = True
        self.state = self.STATE_CLOSED


payloads = st.one_of(
    st.binary(max_size=8),
    st.text(max_size=8).map(lambda text: text.encode('utf-8', 'surrogatepass')),
    st.binary(min_size=120, max_size=130),
    st.sampled_from([b'x' * 70000, b'x' * LIMIT, 'ü€'.encode()[1:]]),
)
masks = st.sampled_from([b'\0\0\0\0', b'\x12\x34\x56\x78', b'\xff\x00\xff\x00'])
good = st.builds(
    frame,
    payloads.filter(lambda payload: len(payload) < 126),
    st.sampled_from([TEXT, TEXT, BINARY, PING, PONG]),
    st.just(True),
    masks,
)
closes = st.builds(
    lambda code, reason, mask: frame(code.to_bytes(2, 'big') + reason, CLOSE, True, mask),
    st.one_of(
        st.sampled_from([1000, 1001, 1004, 1005, 1006, 1011, 1012, 1014, 1015, 2999, 3000, 4999, 5000]),
        st.integers(0, 65535),
    ),
    st.one_of(st.just(b''), st.binary(max_size=5), st.just('ü'.encode())),
    masks,
)
fragmented = st.builds(
    lambda parts, opcode, mask: b''.join(
        frame(part, CONTINUATION if index else opcode, index == len(parts) - 1, mask)
        for index, part in enumerate(parts)
    ),
    st.lists(payloads.filter(lambda payload: len(payload) < 300), min_size=2, max_size=4),
    st.sampled_from([TEXT, BINARY]),
    masks,
)
any_frame = st.builds(
    frame,
    payloads,
    st.integers(0, 15),
    st.booleans(),
    st.one_of(masks, masks, st.none()),
    st.sampled_from([0, 0, 0, 0, 1, 4]),
)
# The length in more bytes than it needs, or more of it than there is.
long_way = st.builds(
    lambda first, size: bytes([first, 0xFE]) + size.to_bytes(2, 'big') + bytes(4 + size),
    st.sampled_from([0x81, 0x82, 0x89]),
    st.sampled_from([0, 125, 126]),
)
longest_way = st.builds(
    lambda first, size: bytes([first, 0xFF]) + size.to_bytes(8, 'big') + bytes(4),
    st.sampled_from([0x81, 0x82, 0x88]),
    st.sampled_from([0, 65535, 65536, 2**63 - 1, 2**63]),
)
streams = st.lists(
    st.one_of(good, good, fragmented, closes, any_frame, long_way, longest_way, st.binary(max_size=20)), max_size=6
).map(b''.join)


@settings(max_examples=500, deadline=None)
@given(streams)
def test_it_reads_what_autobahn_reads_and_refuses_what_it_refuses(data):
    assert read_all(data) == Autobahn(LIMIT).read_all(data)


@settings(max_examples=300, deadline=None)
@given(streams, st.data())
def test_it_reads_the_same_however_the_bytes_are_cut(data, draw):
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=12)))
    assert read_all(data, cuts) == read_all(data) == read_all(data, range(1, len(data) and min(len(data), 300)))


@settings(max_examples=300, deadline=None)
@given(streams, st.lists(good, max_size=3).map(b''.join))
def test_after_a_violation_and_after_our_close_there_is_nothing_but_a_close(bad, more):
    reader = FrameReader(LIMIT)
    reader.feed(bad)
    reader.close()
    reader.feed(more + frame(b'\x03\xe8bye', CLOSE))
    while True:
        taken = reader.read()
        if taken is None or taken[0] == CLOSE:
            break
        assert taken[1] is None


def test_a_close_is_found_behind_what_was_not_wanted():
    reader = FrameReader(LIMIT)
    reader.feed(frame(b'x' * 2000))
    with pytest.raises(Violation) as caught:
        reader.read()
    assert caught.value.code == 1009
    reader.feed(frame(b'y' * 70000) + frame(b'', PING) + frame(b'z', CONTINUATION, fin=False) + frame(b'', CLOSE))
    found = []
    while not found or found[-1][0] != CLOSE:
        found.append(reader.read())
    assert found == [(TEXT, None), (TEXT, None), (PING, None), (CONTINUATION, None), (CLOSE, (None, None))]


FRAGMENTS = """
import tracemalloc
from sockets.engines.channels1.frames import FrameReader
from tests.test_engines_channels1_frames import CONTINUATION, TEXT, frame

size = 200000
data = frame(b'ab', TEXT, fin=False) + frame(b'ab', CONTINUATION, fin=False) * (size // 2 - 1)
reader = FrameReader(4 * size)
tracemalloc.start()
for begin in range(0, len(data), 65536):
    reader.feed(data[begin : begin + 65536])
    while reader.read():
        pass
assert tracemalloc.get_traced_memory()[1] < 2 * size, tracemalloc.get_traced_memory()
reader.feed(frame(b'', CONTINUATION))
assert reader.read() == (TEXT, 'ab' * (size // 2))
"""


def test_fragments_take_no_more_room_than_what_they_hold_and_tiny_frames_are_not_copied():
    # In a process of its own: the memory of threads that other tests have started counted, too.
    subprocess.check_call([sys.executable, '-c', FRAGMENTS], cwd=str(Path(__file__).resolve().parent.parent))


def test_fragments_count_together():
    reader = FrameReader(10)
    reader.feed(frame(b'123456', TEXT, fin=False) + frame(b'1234', CONTINUATION, fin=False))
    assert reader.read() == reader.read() == (CONTINUATION, None)
    reader.feed(frame(b'1', CONTINUATION))
    with pytest.raises(Violation) as caught:
        reader.read()
    assert caught.value.code == 1009


def test_what_is_too_long_is_refused_before_it_is_there():
    reader = FrameReader(LIMIT)
    reader.feed(bytes([0x81, 0xFF]) + (5000).to_bytes(2, 'big').rjust(8, b'\0') + bytes(4))
    with pytest.raises(Violation):
        reader.read()
