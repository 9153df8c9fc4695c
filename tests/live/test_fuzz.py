"""A fuzzer over the handshake and the reader of frames, through daphne's HTTP and without it, on no network.

Whatever a client sends, however it is cut, and whatever the server says meanwhile: no exception escapes, no connection
outlives it, and what is held of it stays within bounds. It runs for ``SOCKETS_FUZZ_SECONDS``: 60 where nothing may be
skipped, else 5. ``tests/corpus`` is what it begins with, a file for each session of a client; add what it finds.
"""

import gc
import logging
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.python import log

from sockets.backlog import BACKLOG
from sockets.engines.channels1 import direct
from sockets.engines.channels1.opening import MAX_REQUEST

from ..wire import MASK, REQUEST, DirectTransport, Transport, Wire, frame

CORPUS = {path.name: path.read_bytes() for path in (Path(__file__).parent.parent / 'corpus').iterdir()}
SECONDS = int(os.environ.get('SOCKETS_FUZZ_SECONDS') or (60 if os.environ.get('SOCKETS_REQUIRE_LIVE') else 5))

LIMIT = 2000
# What one read of Twisted's may bring.
CHUNK = 65536


def run(data, cuts, said, room, through_http):
    """Send ``data`` to a server, cut at ``cuts``, while it says each of ``said``; then hang up."""
    wire = Wire(room=room, through_http=through_http, ws_protocols=['chat'])
    said, cuts = list(said), sorted({*cuts, *range(CHUNK, len(data), CHUNK)})
    for begin, end in zip([0, *cuts], [*cuts, len(data)]):
        if not wire.transport.connected:
            break
        # As the reactor does: nobody is read who must not be.
        if wire.transport.is_reading:
            wire.transport.protocol.dataReceived(data[begin:end])
            wire.turns()
        check(wire)
        name = next(
            (name for name, protocol in wire.factory.reply_protocols.items() if hasattr(protocol, 'reader')), None
        )
        if said and name:
            what = said.pop(0)
            if isinstance(what, dict):
                wire.factory.dispatch_reply(name, what)
            else:
                what(wire)
        check(wire)
    wire.transport.end()
    wire.turns(100)
    assert wire.factory.reply_protocols == {} and wire.factory.turned_away == 0
    assert wire.clock.getDelayedCalls() == []
    connects, ends = (
        [message['reply_channel'] for channel, message in wire.layer.sent if channel == 'websocket.' + what]
        for what in ('connect', 'disconnect')
    )
    assert len(connects) <= 1 and set(ends) <= set(connects) and len(ends) <= 1
    assert connects == ends or wire.is_muted
    for channel, message in wire.layer.sent:
        if channel == 'websocket.connect':
            check_connect(message)


def check(wire):
    transport = wire.transport
    assert len(transport.dataBuffer) - transport.offset + transport._tempDataLen < BACKLOG + CHUNK
    protocol = transport.protocol
    if hasattr(protocol, 'reader'):
        wire.is_muted |= getattr(protocol, 'muted', False)
        assert len(protocol.reader) < 4 * LIMIT + MAX_REQUEST + CHUNK
        assert len(protocol.reader._message or b'') <= 4 * LIMIT
        assert len(protocol.data) <= MAX_REQUEST + CHUNK


def check_connect(message):
    assert not any(character < ' ' or '\x7f' <= character <= '\x9f' for character in message['path'])
    assert message['path'].startswith('/')
    names = [name for name, _ in message['headers']]
    assert len(set(names)) == len(names)
    for name, value in message['headers']:
        assert name == name.lower() and not set(name) & set(b' \r\n\t:_')
        assert not set(value) & set(b'\r\n\0\x0b\x0c\x1c')


# What clients send.

lines = st.one_of(
    st.sampled_from(
        [
            b'Cookie: a=\xc3\x85',
            b'X-Foo: a\x85X-Forwarded-For: 6.6.6.6',
            b'Host: b',
            b'Origin: null',
            b'Origin: http://localhost',
            b'Sec-WebSocket-Protocol: chat',
            b'Sec-WebSocket-Protocol: a,\xff',
            b'Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=',
            b'Content-Length: 9',
            b'Transfer-Encoding: chunked',
            b' folded',
            b'Expect: 100-continue',
            b'Upgrade: h2c',
            b'X-Foo',
        ]
    ),
    st.builds(lambda name, value: name + b': ' + value, st.binary(max_size=5), st.binary(max_size=12)),
)
targets = st.one_of(
    st.sampled_from([b'/page/', b'/page/%0a', b'//a/b', b'/%', b'/%ff', b'/?\xc3\xa5', b'http://a/b', b'*']),
    st.binary(max_size=10).map(b'/'.__add__),
)
requests = st.builds(
    lambda target, more: REQUEST.replace(b'/page/?a=1', target) + b''.join(line + b'\r\n' for line in more) + b'\r\n',
    targets,
    st.lists(lines, max_size=3),
)
payloads = st.one_of(st.binary(max_size=10), st.sampled_from([b'x' * 125, b'x' * 126, b'x' * 9000, b'x' * 66000]))
any_frame = st.builds(
    frame,
    payloads,
    st.sampled_from([0, 1, 1, 1, 2, 3, 8, 9, 9, 10, 15]),
    st.booleans(),
    st.sampled_from([MASK, MASK, b'\0' * 4, None]),
    st.sampled_from([0] * 8 + [4]),
)
many_frames = st.builds(
    lambda one, count: one * count,
    st.builds(frame, st.binary(max_size=2), st.sampled_from([0, 1, 9, 10]), st.booleans()),
    st.integers(1, 300),
)
sessions = st.one_of(
    st.builds(
        lambda request, frames: request + b''.join(frames),
        st.one_of(st.just(REQUEST + b'\r\n'), requests),
        st.lists(st.one_of(any_frame, many_frames), max_size=5),
    ),
    st.sampled_from([CORPUS[name] for name in sorted(CORPUS)]),
    st.binary(max_size=300),
)


@st.composite
def mutations(draw):
    """A session, with some of its bytes changed, left out or repeated."""
    data = draw(sessions)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.sampled_from([0, 1, 2, 4, 10, 100]))
        data = (
            data[:at]
            + draw(st.one_of(st.just(b''), st.binary(max_size=4), st.just(data[at : at + size] * 2)))
            + data[at + size :]
        )
    return data


words = st.one_of(
    st.sampled_from(
        [
            {'accept': True},
            {'accept': True},
            {'accept': True},
            {'accept': False},
            {'close': True},
            {'close': 1012},
            {'close': 4401},
            {'text': ''},
            {'bytes': b''},
            {'text': 'x' * 70000},
            {'retry': 7.4},
        ]
    ),
    st.sampled_from(
        [
            lambda wire: wire.transport.drain(),
            lambda wire: wire.transport.drain(1000),
            lambda wire: wire.turns(3),
            lambda wire: wire.turns(40),
            lambda wire: wire.factory.check_timeouts(),
            # As a worker's thread does.
            lambda wire: [wire.factory.write_now(name, 'x' * 9000) for name in list(wire.factory.reply_protocols)],
        ]
    ),
)


@settings(
    max_examples=200,
    deadline=None,
    database=None,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
@given(mutations(), st.data(), st.lists(words, max_size=8), st.sampled_from([1 << 60, 0, 200, 70000]), st.booleans())
def fuzz(data, draw, said, room, through_http):
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=6)))
    run(data, cuts, said, room, through_http)


@pytest.fixture(autouse=True)
def errors(settings, monkeypatch):
    """A list of what went wrong and was only logged, which must stay empty."""
    settings.SOCKETS = {'MAX_MESSAGE_SIZE': LIMIT}
    monkeypatch.setitem(direct._DIRECT, Transport, DirectTransport)
    found = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: found.append(record.getMessage())

    def observe(event):
        if event.get('isError'):
            found.append(event['failure'].getTraceback())

    logging.getLogger().addHandler(handler)
    log.addObserver(observe)
    yield found
    gc.collect()  # a Deferred that failed says so when it goes
    log.removeObserver(observe)
    logging.getLogger().removeHandler(handler)
    assert found == []


@pytest.mark.parametrize('through_http', [True, False])
@pytest.mark.parametrize('name', sorted(CORPUS))
def test_what_was_found_once_is_survived(name, through_http):
    data = CORPUS[name]
    for cuts in ([], range(1, len(data), 1 + len(data) // 1000), [data.find(b'\r\n\r\n') + 4]):
        for room in (1 << 60, 0):
            for said in ([{'accept': True}], [{}, {}, {'accept': True}], [{}, {}, {'close': True}]):
                run(data, list(cuts), said, room, through_http)


def test_nothing_that_a_client_sends_escapes(capsys):
    end, rounds = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        fuzz()
        rounds += 1
    with capsys.disabled():
        print(f'\n{rounds * 200} sessions of clients in {SECONDS} s')
