"""A websocket of the site, tried out as a page of the same host would use it."""

import base64
import json
import os
import socket
import ssl
import time
from urllib.parse import urlsplit

from .. import engine, messages
from .findings import PATIENCE, Finding, milliseconds

# What our request of a websocket is called.
_REF = 'sockets.doctor'


def examine_socket(url):
    """Open a websocket as a page of the same host would, and say HELLO."""
    parts = urlsplit(url)
    if parts.scheme not in ('ws', 'wss') or not parts.hostname:
        return [
            Finding(
                'websocket',
                False,
                f'{url!r} is not the address of a websocket.',
                'Write ws://127.0.0.1:8000/path/of/a/page/.',
            )
        ]
    began, remedies = time.perf_counter(), engine.current().remedies
    with _open(parts) as file:
        status = _shake_hands(file, parts)
        if status == 403:
            return [
                Finding(
                    'websocket',
                    False,
                    f'{url} is refused with HTTP 403.',
                    f'Migrate, add its path {remedies["route"]}, or {parts.hostname!r} to ALLOWED_HOSTS; '
                    f'{remedies["log"]} says which.',
                )
            ]
        if status != 101:
            return [
                Finding(
                    'websocket',
                    False,
                    f'{url} answers with HTTP {status}, as a page would.',
                    'Correct the path, let the proxy pass Upgrade on, or run a server of websockets '
                    '(runsockets, or runserver with the apps that "check" asks for).',
                )
            ]
        code = _say_hello(file)
    took = milliseconds(began)
    if code == messages.CLOSE_LOGIN_REQUIRED:
        return [Finding('websocket', True, f'{url} asks for a login, in {took}.')]
    if code is not None:
        return [Finding('websocket', False, f'{url} closes with {code} before it answers.', f'See {remedies["log"]}.')]
    return [Finding('websocket', True, f'{url} answers in {took}.')]


# As much of a websocket client as one HELLO takes (RFC 6455). autobahn's needs Twisted's reactor, which runs once.


def _open(parts):
    connection = socket.create_connection(
        (parts.hostname, parts.port or (443 if parts.scheme == 'wss' else 80)), PATIENCE
    )
    if parts.scheme == 'wss':
        connection = ssl.create_default_context().wrap_socket(connection, server_hostname=parts.hostname)
    # The file keeps it open.
    with connection:
        return connection.makefile('rwb')


def _shake_hands(file, parts):
    """Ask for a websocket and return the HTTP status of the answer: 101 if we have it."""
    # Not geturl(), which takes what begins with // for a host.
    path = (parts.path or '/') + ('?' + parts.query if parts.query else '')
    host = parts.netloc.rpartition('@')[2]
    file.write(
        'GET {} HTTP/1.1\r\nHost: {}\r\nOrigin: {}://{}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
        'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n'.format(
            path, host, 'https' if parts.scheme == 'wss' else 'http', host, base64.b64encode(os.urandom(16)).decode()
        ).encode()
    )
    file.flush()
    protocol, status, *_ = (file.readline() + b' ').split(b' ', 2)
    if not protocol.startswith(b'HTTP/'):
        raise ConnectionError('It does not speak HTTP.')
    while file.readline().strip():
        pass
    return int(status)


def _say_hello(file):
    """Wait for the one frame that answers ours; return ``None``, or the close code that came instead of it."""
    _write(file, 0x81, json.dumps({messages.TYPE: messages.HELLO, messages.REF: _REF}).encode())
    while True:
        opcode, payload = _read(file)
        if opcode == 0x88:
            return int.from_bytes(payload[:2], 'big')
        if opcode == 0x81 and json.loads(payload.decode()).get(messages.REF) == _REF:
            _write(file, 0x88, (1000).to_bytes(2, 'big'))
            return None


def _write(file, opcode, payload):
    # Of less than 126 bytes. A mask of zeros leaves it as it is.
    file.write(bytes([opcode, 0x80 | len(payload)]) + bytes(4) + payload)
    file.flush()


def _read(file):
    opcode, size = _take(file, 2)
    if size > 125:
        size = int.from_bytes(_take(file, 2 if size == 126 else 8), 'big')
    return opcode, _take(file, size)


def _take(file, size):
    data = file.read(size)
    if len(data) < size:
        raise ConnectionError('It has closed the connection.')
    return data
