"""The request for a websocket, parsed as RFC 7230 says: as bytes, with lines that end at CRLF and nowhere else.

autobahn parses it as text, with lines that end at every character that Unicode calls a line end. A proxy that checks
headers does not, so a client could hide one header within another from it.
"""

import re
from urllib.parse import quote, unquote, urlsplit

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
# Tab is the only control character that a value may contain.
_NO_VALUE = re.compile(rb'[\x00-\x08\x0a-\x1f\x7f]')
_NO_TARGET = re.compile(rb'[\x00-\x20\x7f#]')
# Those of Unicode are C0, DEL and C1.
_CONTROL = re.compile('[\x00-\x1f\x7f-\x9f]')

# Headers that must not be there twice. daphne joins two of them into one, with a comma.
_SINGLE = (b'host', b'origin', b'sec-websocket-origin', b'sec-websocket-key', b'sec-websocket-version')
# The headers that autobahn reads.
_NEEDED = (*_SINGLE, b'upgrade', b'connection', b'sec-websocket-protocol')


class BadRequest(Exception):
    """This is not a valid request for a websocket; ``status`` is HTTP's."""

    def __init__(self, reason, status=400):
        super().__init__(reason)
        self.reason = reason
        self.status = status


class Handshake:
    """A request for a websocket: ``target`` as it was sent, its ``path``, and ``headers``.

    ``headers`` are pairs of bytes in order of arrival, names in lower case and each name once. ``BadRequest`` if it
    is not valid.
    """

    def __init__(self, head):
        first, *lines = head.split(b'\r\n')
        self.target = _target(first)
        self.raw_path = _raw_path(self.target)
        self.path = unquote(self.raw_path)
        if _CONTROL.search(self.path):
            raise BadRequest('control character in the path')
        found = {}
        for line in filter(None, lines):
            name, value = _header(line)
            if name not in found:
                found[name] = value
            elif name in _SINGLE:
                raise BadRequest(f'{name.decode()} twice')
            else:
                found[name] += (b'; ' if name == b'cookie' else b', ') + value
        for name in _SINGLE:
            if b',' in found.get(name, b''):
                raise BadRequest(f'{name.decode()} twice')
        for name in _NEEDED:
            if not _is_ascii(found.get(name, b'')):
                raise BadRequest(f'{name.decode()} is not ASCII')
        self.headers = list(found.items())

    def for_autobahn(self):
        """Return a request with the headers that autobahn reads, which it cannot parse differently."""
        return b'\r\n'.join(
            [b'GET / HTTP/1.1', *(name + b': ' + value for name, value in self.headers if name in _NEEDED), b'', b'']
        )


def _target(line):
    parts = line.split(b' ')
    if len(parts) != 3 or not parts[1] or _NO_TARGET.search(parts[1]):
        raise BadRequest('no request line')
    if parts[0] != b'GET':
        raise BadRequest('method not allowed', 405)
    if parts[2] != b'HTTP/1.1':
        raise BadRequest('HTTP version not supported', 505)
    return parts[1]


def _raw_path(target):
    """Return the path as it was sent, without the query; a part that is not ASCII is quoted."""
    path = quote(target.partition(b'?')[0], safe='%!$&\'()*+,;=:@/[]\\^`{|}~"<>-._')
    if not path.startswith('/'):
        # The absolute form, which a server must accept.
        try:
            parts = urlsplit(path)
        except ValueError:
            raise BadRequest('no target')
        if parts.scheme not in ('http', 'https', 'ws', 'wss') or not parts.netloc:
            raise BadRequest('no target')
        path = parts.path or '/'
    return path


def _header(line):
    name, colon, value = line.partition(b':')
    value = value.strip(b' \t')
    if not colon or not _NAME.match(name) or _NO_VALUE.search(value):
        raise BadRequest('no header')
    return name.lower(), value


def _is_ascii(value):
    return all(byte < 128 for byte in value)


def join_cookies(request):
    """Join the cookie headers of ``request``, one of Twisted's: HTTP/2 allows several, RFC 6265 one."""
    lines = request.requestHeaders.getRawHeaders(b'cookie') or ()
    if len(lines) > 1:
        request.requestHeaders.setRawHeaders(b'cookie', [b'; '.join(lines)])
