"""What a server reads from a websocket (RFC 6455, section 5): bytes in, frames out. No socket, no clock, no reactor."""

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
OPCODES = frozenset([CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG])

PROTOCOL_ERROR, INVALID_PAYLOAD, TOO_BIG = 1002, 1007, 1009

# Close codes below 3000 that may be sent: section 7.4.1, and 1012 and 1013, which an answer to ours repeats.
_CODES = frozenset([1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013])


class Violation(Exception):
    """The client broke the protocol; ``code`` and ``reason`` are for the close that answers it."""

    def __init__(self, code, reason):
        super().__init__(reason)
        self.code = code
        self.reason = reason


class FrameReader:
    """Takes frames out of what a client sends, one at a time.

    It holds what waits to be read and the fragments of one message, of no more than ``limit`` bytes, or
    ``binary_limit`` if it is binary.
    """

    __slots__ = ('limit', 'binary_limit', 'is_closing', '_buffer', '_at', '_opcode', '_message', '_skip')

    def __init__(self, limit, binary_limit=None):
        self.limit = limit
        self.binary_limit = limit if binary_limit is None else binary_limit
        # Frames but a close are dropped.
        self.is_closing = False
        self._buffer = bytearray()
        # Where the next frame begins: removing each frame from the buffer would copy the rest each time.
        self._at = 0
        self._opcode = self._message = None
        # Bytes of a payload that are still to be dropped.
        self._skip = 0

    def __len__(self):
        """How many bytes wait to be read."""
        return len(self._buffer) - self._at

    def feed(self, data):
        """Add what has arrived."""
        if self._at:
            del self._buffer[: self._at]
            self._at = 0
        self._buffer += data

    def close(self):
        """Drop what is in the buffer and what comes, up to the close."""
        self.is_closing = True
        self._opcode = self._message = None

    def read(self):
        """Take one frame and return it as ``(opcode, payload)``, or ``None`` if none is complete.

        The payload is a ``str`` for a text, ``bytes`` for a binary, a ping and a pong, a pair of code and reason for a
        close, which are ``None`` if it has none, and ``None`` for a fragment with which no message is complete.
        ``Violation`` if the protocol is broken; after that, and after ``close()``, frames but a close have no payload.
        """
        if self.is_closing:
            return self._read_over()
        buffer, at = self._buffer, self._at
        available = len(buffer) - at
        if available < 2:
            return None
        first, second = buffer[at], buffer[at + 1]
        # Nearly every frame: short, masked and complete.
        if first == 0x81 and 0x80 <= second < 0xFE and self._message is None and second - 0x80 <= self.limit:
            end = at + second - 0x7A
            if len(buffer) < end:
                return None
            self._at = end
            return TEXT, self._text(_unmask(buffer, at + 2, end))
        self._check(first, second)
        opcode, length, begin = first & 0x0F, second & 0x7F, at + 6
        if length > 125:
            begin += 2 if length == 126 else 8
            if len(buffer) < begin:
                return None
            length, least = int.from_bytes(buffer[at + 2 : begin - 4], 'big'), 126 if length == 126 else 65536
            if length < least or length >> 63:
                raise self._violation(PROTOCOL_ERROR, 'invalid length of a frame')
        elif len(buffer) < begin:
            return None
        if opcode < CLOSE:
            limit = self.binary_limit if (opcode or self._opcode) == BINARY else self.limit
            if length + len(self._message or b'') > limit:
                raise self._violation(TOO_BIG, f'message of more than {limit} bytes')
        end = begin + length
        if len(buffer) < end:
            return None
        payload = _unmask(buffer, begin - 4, end)
        if opcode == CLOSE:
            # A bad one stays in the buffer, for _read_over().
            payload = self._close(payload)
        self._at = end
        if opcode >= CLOSE:
            return opcode, payload
        if opcode != CONTINUATION:
            self._opcode = opcode
        if not first & 0x80:
            if self._message is None:
                self._message = bytearray()
            self._message += payload
            return CONTINUATION, None
        if self._message is not None:
            self._message += payload
            payload = bytes(self._message)
        opcode, self._opcode, self._message = self._opcode, None, None
        return opcode, self._text(payload) if opcode == TEXT else payload

    def _check(self, first, second):
        """Raise ``Violation`` if the first two bytes of a frame are not valid."""
        opcode = first & 0x0F
        if first & 0x70:
            reason = 'reserved bits without an extension'
        elif not second & 0x80:
            reason = 'unmasked frame'
        elif opcode not in OPCODES:
            reason = f'reserved opcode {opcode}'
        elif opcode >= CLOSE:
            if not first & 0x80:
                reason = 'fragmented control frame'
            elif second & 0x7F > 125:
                reason = 'control frame of more than 125 bytes'
            else:
                return
        elif opcode == CONTINUATION and self._message is None:
            reason = 'continuation of nothing'
        elif opcode != CONTINUATION and self._message is not None:
            reason = 'new message within a fragmented one'
        else:
            return
        raise self._violation(PROTOCOL_ERROR, reason)

    def _violation(self, code, reason):
        self.close()
        return Violation(code, reason)

    def _text(self, payload):
        try:
            return payload.decode('utf-8')
        except UnicodeDecodeError:
            raise self._violation(INVALID_PAYLOAD, 'text that is not UTF-8')

    def _close(self, payload):
        if not payload:
            return None, None
        code = int.from_bytes(payload[:2], 'big')
        if len(payload) == 1 or not is_close_code(code):
            raise self._violation(PROTOCOL_ERROR, 'invalid close code')
        return code, self._text(payload[2:]) or None

    def _read_over(self):
        """Take one frame, of which nothing is kept unless it is a close."""
        buffer = self._buffer
        available = len(buffer) - self._at
        step = min(self._skip, available)
        self._skip -= step
        self._at += step
        available -= step
        if available < 2:
            return None
        first, second = buffer[self._at], buffer[self._at + 1]
        opcode, length = first & 0x0F, second & 0x7F
        begin = 2 + (0 if length < 126 else 2 if length == 126 else 8)
        mask = 4 if second & 0x80 else 0
        if available < begin + mask:
            return None
        begin += self._at
        if length > 125:
            length = int.from_bytes(buffer[self._at + 2 : begin], 'big')
        if opcode != CLOSE or length > 125:
            self._at, self._skip = begin + mask, length
            return opcode, None
        end = begin + mask + length
        if len(buffer) < end:
            return None
        payload = _unmask(buffer, begin, end) if mask else bytes(buffer[begin:end])
        self._at = end
        code = int.from_bytes(payload[:2], 'big') if len(payload) > 1 else None
        if code is not None and not is_close_code(code):
            code = PROTOCOL_ERROR
        return CLOSE, (code, payload[2:].decode('utf-8', 'replace') or None)


def is_close_code(code):
    """Whether ``code`` may stand in a close frame that a client sends."""
    return code in _CODES or 3000 <= code < 5000


def _unmask(buffer, at, end):
    """Return the payload that ends at ``end``, behind the four bytes of its mask at ``at``."""
    mask, payload = bytes(buffer[at : at + 4]), buffer[at + 4 : end]
    size = len(payload)
    if not size or mask == b'\0\0\0\0':
        return bytes(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, 'little') ^ int.from_bytes(key, 'little')).to_bytes(size, 'little')
