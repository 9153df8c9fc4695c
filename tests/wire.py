"""A ``SocketProtocol`` on a transport without a network, with a clock that stands still: for tests of the protocol."""

from daphne import http_protocol
from twisted.internet import error
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from sockets.engines.channels1 import direct

REQUEST = (
    b'GET /page/?a=1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
    b'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n'
)
MASK = b'\x12\x34\x56\x78'


def frame(payload=b'', opcode=1, fin=True, mask=MASK, rsv=0):
    """Return one frame as a client sends it."""
    size = len(payload)
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if mask else 0
    head += (
        bytes([bit | size])
        if size < 126
        else bytes([bit | 126]) + size.to_bytes(2, 'big')
        if size < 65536
        else bytes([bit | 127]) + size.to_bytes(8, 'big')
    )
    if not mask:
        return head + payload
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def frames(data):
    """Return the frames of a server as pairs of opcode and payload."""
    found = []
    while data:
        size, begin = data[1], 2
        if size > 125:
            begin = 4 if size == 126 else 10
            size = int.from_bytes(data[2:begin], 'big')
        found.append((data[0] & 0x0F, data[begin : begin + size]))
        data = data[begin + size :]
    return found


class Reactor:
    """Where a transport says what it waits for."""

    def __init__(self):
        self.reading, self.writing = set(), set()
        self.addReader, self.removeReader = self.reading.add, self.reading.discard
        self.addWriter, self.removeWriter = self.writing.add, self.writing.discard

    def callFromThread(self, function, *args):
        function(*args)


class Transport(FileDescriptor):
    """Twisted's own buffers and producers before a network that takes ``room`` bytes more."""

    def __init__(self, room=1 << 60):
        super().__init__(Reactor())
        self.connected = 1
        self.room = room
        self.sent = b''
        self.protocol = None

    def writeSomeData(self, data):
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        self.sent += taken
        return len(taken)

    def drain(self, room=1 << 60):
        """Let the network take ``room`` bytes, as the reactor does."""
        self.room = room
        while self.room and self in self.reactor.writing:
            if self.doWrite() is not None:
                return self.end(error.ConnectionDone())

    def abortConnection(self):
        self.end(error.ConnectionAborted())

    def end(self, reason=None):
        """Be closed, by whoever it is."""
        if self.connected:
            super().connectionLost(reason)
            self.protocol.connectionLost(Failure(reason or error.ConnectionLost()))

    @property
    def is_reading(self):
        return self in self.reactor.reading

    def getPeer(self):
        return IPv4Address('TCP', '192.0.2.1', 1234)

    def getHost(self):
        return IPv4Address('TCP', '127.0.0.1', 8000)


class DirectTransport(direct.Direct, Transport):
    """What an open ``Transport`` becomes where ``direct._DIRECT`` says so, as one of TCP does: threads write to it."""


class Layer:
    """What a protocol asks of a channel layer. ``refusal`` is raised for ``refused`` channels."""

    class ChannelFull(Exception):
        pass

    def __init__(self):
        self.sent = []
        self.refused, self.refusal = (), self.ChannelFull()

    def send(self, channel, message):
        if channel in self.refused:
            raise self.refusal
        self.sent.append((channel, message))

    def channels(self):
        return [channel.rpartition('.')[2] for channel, _ in self.sent]

    def messages(self):
        return [
            message.get('text', message.get('bytes'))
            for channel, message in self.sent
            if channel == 'websocket.receive'
        ]


class Timers:
    """autobahn's timers, on a clock of ours."""

    def __init__(self, clock):
        self.call_later = clock.callLater


class Wire:
    """One connection to a server: ``receive()`` is what its client sends, ``sent`` what it gets."""

    def __init__(self, room=1 << 60, factory=None, clock=None, through_http=False, **options):
        self.clock = clock or Clock()
        self.factory = factory or http_protocol.HTTPFactory(
            Layer(), send_channel='daphne.response.test!', **dict({'ping_interval': 20, 'ping_timeout': 30}, **options)
        )
        self.layer = self.factory.channel_layer
        self.is_muted = False
        sockets = self.factory.ws_factory
        self.factory.reactor = sockets.reactor = self.clock
        sockets._batched_timer = Timers(self.clock)
        self.transport = Transport(room)
        if through_http:
            self.protocol = self.transport.protocol = self.factory.buildProtocol(self.transport.getPeer())
        else:
            self.protocol = self.transport.protocol = sockets.buildProtocol(None)
            self.protocol.set_main_factory(self.factory)
            # As the HTTP channel, whose producer it replaces.
            self.transport.registerProducer(self.protocol, True)
        self.protocol.makeConnection(self.transport)
        self.transport.startReading()

    @classmethod
    def open(cls, *args, **kwargs):
        """Return an open connection."""
        self = cls(*args, **kwargs)
        self.receive(REQUEST + b'\r\n')
        self.reply(accept=True)
        self.transport.sent = b''
        self.layer.sent.clear()
        return self

    @property
    def name(self):
        return self.protocol.reply_channel

    @property
    def is_closed(self):
        return not self.transport.connected

    @property
    def status(self):
        return int(self.transport.sent.split(b' ', 2)[1])

    def receive(self, data, turns=True):
        self.protocol.dataReceived(data)
        if turns:
            self.turns()

    def turns(self, seconds=0):
        """Let so much time pass, and all turns that are due."""
        self.clock.advance(seconds)

    def reply(self, **message):
        self.factory.dispatch_reply(self.name, message)

    def frames(self):
        return frames(self.transport.sent)
