"""TLS where the server itself speaks it: clients of Python and Chromium chat, and a tap on the line reads none of it."""

import http.client
import json
import ssl
import threading

import pytest
import websocket

from .. import servers as programs
from . import wire
from .conftest import Client, eventually

pytestmark = pytest.mark.timed

SERVER, PAIR = '`runsockets`', 'daphne, `runworker`'


class Tap(wire.Wire):
    """A line that keeps what goes over it."""

    def __init__(self, target):
        self.lock = threading.Lock()
        self.heard = b''
        super().__init__(target)

    def note(self, data):
        with self.lock:
            self.heard += data


class Site:
    """A server that speaks nothing but TLS, and the line to it."""

    def __init__(self, hall, shape, directory):
        hall.servers.environment['DJANGO_SETTINGS_MODULE'] = 'tests.live.threads_site'
        key, self.certificate = str(directory / 'key.pem'), str(directory / 'certificate.pem')
        programs.make_certificate(key, self.certificate, 'localhost')
        port = programs.free_port()
        endpoint = f'ssl:{port}:privateKey={key}:certKey={self.certificate}:interface=127.0.0.1'
        if shape == SERVER:
            self.server = hall.servers.start('runsockets', '-m', 'django', 'runsockets', '-e', endpoint, port=port)
        else:
            self.server = hall.servers.start(
                'daphne',
                '-c',
                'from daphne.cli import CommandLineInterface as C; C.entrypoint()',
                '-e',
                endpoint,
                'tests.live.asgi:channel_layer',
                port=port,
            )
            hall.servers.worker()
        self.tap = Tap(port)
        self.port = self.tap.port

    def connect(self, path):
        return Client(
            websocket.create_connection(
                f'wss://localhost:{self.port}{path}',
                timeout=10,
                suppress_origin=True,
                sslopt={'ca_certs': self.certificate},
            )
        )

    def page(self, path):
        connection = http.client.HTTPSConnection(
            'localhost', self.port, timeout=10, context=ssl.create_default_context(cafile=self.certificate)
        )
        connection.request('GET', path)
        return json.loads(connection.getresponse().read().decode())


@pytest.fixture(params=[SERVER, PAIR])
def site(request, hall, tmp_path):
    site = Site(hall, request.param, tmp_path)
    yield site
    site.tap.close()


def test_clients_chat_over_tls_and_a_tap_on_the_line_reads_none_of_it(site, open_browser):
    one, other = site.connect('/chat/'), site.connect('/chat/')
    browser = open_browser(arguments=['--ignore-certificate-errors'])
    browser.get(f'https://localhost:{site.port}/chat/')
    eventually(lambda: browser.title == 'ready')
    said = []
    for number, size in enumerate((10, 1000, 200000)):
        # No word of it is in what is sent anyway, in a certificate or a header.
        said.append(f'Schwertwal-{number}-' + 'x' * size)
        if size > 100:
            one.send({'type': 'SAY', 'text': said[-1]})
        else:
            browser.execute_async_script(
                'window.chat.request("SAY", {text: arguments[0]}).then(arguments[1])', said[-1]
            )
        for client in (one, other):
            frames = [client.receive()]
            if client is one and size > 100:
                frames.append(client.receive())
            assert {'type': 'SAID', 'text': said[-1]} in frames
        eventually(lambda: browser.title == said[-1])
    browser.execute_script('window.chat.close()')
    one.close(), other.close()
    assert len(site.tap.heard) > 600000
    # Of what the server sends in the clear there is the certificate; what clients send would be masked.
    for word in (b'Schwertwal', b'xxxxxxxx', b'SAID', b'websocket', b'GET /', b'Switching'):
        assert word not in site.tap.heard, word


def test_pages_and_sockets_know_that_they_came_over_tls(site):
    assert site.page('/item/1/')['secure'] is True
    client = site.connect('/look/')
    assert client.receive()['secure'] is True
    assert client.ask({'type': 'LOOK'})['secure'] is True
    client.close()


def test_a_client_that_does_not_read_is_cut_off_over_tls_too(site):
    one, other = site.connect('/chat/'), site.connect('/chat/')
    # More than what waits in us, in the line and in the client.
    text = 'x' * 250000
    for _ in range(80):
        assert {one.ask({'type': 'SAY', 'text': text})['type'], one.receive()['type']} == {'SAID', 'HEARD'}
    eventually(lambda: 'it does not read' in site.server.log)
    one.close()
    other.connection.sock.close()


def test_who_speaks_no_tls_is_told_nothing(site):
    client = http.client.HTTPConnection('localhost', site.port, timeout=10)
    client.request('GET', '/item/1/')
    with pytest.raises(http.client.HTTPException):
        client.getresponse()
