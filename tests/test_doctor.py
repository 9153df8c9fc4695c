import contextlib
import socket
import threading
import time
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from sockets.models import StreamMessage
from sockets.operations import doctor


def found(findings):
    return {name: (ok, text, remedy) for name, ok, text, remedy in findings}


def test_a_part_that_does_not_answer_is_a_finding_within_seconds(monkeypatch):
    monkeypatch.setattr(doctor, 'PATIENCE', 0.05)
    monkeypatch.setattr(doctor, 'examine_database', lambda: time.sleep(1))
    monkeypatch.setattr(doctor, 'examine_layer', lambda: {}['no\nhost'])
    began = time.monotonic()
    examined = found(doctor.examine())
    assert time.monotonic() - began < 1
    assert examined['database'] == (
        False,
        'No answer within 0.05 s.',
        "Start the database, or correct DATABASES['default'].",
    )
    assert examined['layer'][:2] == (False, "KeyError: 'no\\nhost'") and 'Start Redis' in examined['layer'][2]
    assert examined['worker'][:2] == examined['server'][:2] == (None, 'Not tried.')


def test_what_the_checks_find_is_told_with_its_remedy(settings):
    settings.SOCKETS = {'MAX_MESAGE_SIZE': 5}
    settings.CHANNEL_LAYERS = {'default': settings.CHANNEL_LAYERS['default']}
    settings.DATABASES = {'default': {'ENGINE': 'django.db.backends.postgresql'}}
    examined = found(doctor.examine_settings())
    assert examined['sockets.E006'][0] is False and "'MAX_MESSAGE_SIZE'" in examined['sockets.E006'][2]
    assert examined['sockets.W004'][0] is None
    settings.SILENCED_SYSTEM_CHECKS = ['sockets.E006', *examined]
    assert doctor.examine_settings() == [doctor.Finding('checks', True, 'Nothing was found.')]


def test_tables_that_are_not_there_are_named(db):
    ((app, last),) = MigrationLoader(connection).graph.leaf_nodes('sockets')
    MigrationRecorder(connection).record_unapplied(app, last)
    ((name, ok, text, remedy),) = doctor.examine_database()
    assert ok is False and text == f'Not migrated: sockets.{last}.'
    assert remedy == 'Type: python manage.py migrate'


def test_messages_of_streams_that_wait_for_their_numbers_are_told(db):
    assert doctor.examine_streams() == []
    for seconds in (0, 300, 30):
        row = StreamMessage.objects.create(key='k', name='room:tea', text='{}')
        StreamMessage.objects.filter(pk=row.pk).update(created=timezone.now() - timedelta(seconds=seconds))
    (finding,) = doctor.examine_streams()
    assert finding.ok is False and 'start one' in finding.remedy
    assert finding.text == '2 messages wait to be numbered and sent, the oldest for 300 s.'
    assert finding in doctor.examine_database()


@contextlib.contextmanager
def answering(*replies):
    """Run a server of one connection that sends what it is told, and yield its address."""
    with contextlib.closing(socket.socket()) as listening:
        listening.bind(('127.0.0.1', 0))
        listening.listen(1)
        heard = []

        def serve():
            connection, _ = listening.accept()
            with connection:
                for reply in replies:
                    heard.append(connection.recv(65536))
                    connection.sendall(reply)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f'ws://127.0.0.1:{listening.getsockname()[1]}/page/?a=1', heard
        thread.join(5)


def text_frame(payload):
    size = len(payload)
    return b'\x81' + (bytes([size]) if size < 126 else b'\x7e' + size.to_bytes(2, 'big')) + payload


UPGRADED = b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n'
ANSWER = text_frame(b'{"type": "GOT_HELLO", "ref": "sockets.doctor"}')


@pytest.mark.parametrize(
    'replies, ok, text',
    [
        ([UPGRADED, ANSWER], True, 'answers in'),
        # A greeting, one that is long, and a ping.
        (
            [UPGRADED + text_frame(b'{}'), text_frame(b'{"a": "%s"}' % (200 * b'x')) + b'\x89\x00' + ANSWER],
            True,
            'answers in',
        ),
        ([UPGRADED, b'\x88\x02' + (4401).to_bytes(2, 'big')], True, 'asks for a login'),
        ([UPGRADED, b'\x88\x02' + (1011).to_bytes(2, 'big')], False, 'closes with 1011'),
        ([UPGRADED, b'\x81'], False, 'ConnectionError: It has closed the connection.'),
        ([b'HTTP/1.1 403 Forbidden\r\n\r\n'], False, 'is refused with HTTP 403'),
        ([b'HTTP/1.1 404 Not Found\r\n\r\n'], False, 'answers with HTTP 404, as a page would'),
        ([b'+PONG\r\n'], False, 'ConnectionError: It does not speak HTTP.'),
        ([b''], False, 'ConnectionError: It does not speak HTTP.'),
    ],
)
def test_a_websocket_is_tried(replies, ok, text):
    with answering(*replies) as (url, heard):
        (finding,) = doctor._try('websocket', lambda: doctor.examine_socket(url), 'Remedy.')
    assert finding.ok is ok and text in finding.text and bool(finding.remedy) is not ok
    host = url[len('ws://') : url.index('/page/')].encode()
    assert heard[0].startswith(b'GET /page/?a=1 HTTP/1.1\r\nHost: %s\r\nOrigin: http://%s\r\n' % (host, host))


@pytest.mark.parametrize(
    'address, target',
    [
        ('/page/#a', '/page/'),
        ('', '/'),
        ('?a=1#b', '/?a=1'),
        ('//other.example/x/', '//other.example/x/'),
        ('//other.example/x/?a=//b', '//other.example/x/?a=//b'),
    ],
)
def test_a_socket_is_asked_for_at_the_path_that_was_given(address, target):
    # Of a path that begins with two slashes, two more were made.
    with answering(UPGRADED, ANSWER) as (url, heard):
        host = url[len('ws://') : url.index('/page/')]
        doctor.examine_socket(f'ws://name:word@{host}{address}')
    head = f'GET {target} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n'
    assert heard[0].decode().startswith(head)


@pytest.mark.parametrize('url', ['http://127.0.0.1/', 'ws:///page/', '127.0.0.1:8000'])
def test_a_wrong_address_is_reported(url):
    ((name, ok, text, remedy),) = doctor.examine_socket(url)
    assert ok is False and 'is not the address' in text and 'ws://' in remedy


@pytest.mark.parametrize('oks, code', [([True, None], 0), ([True, False, True], 1)])
def test_the_command_prints_a_line_for_each_and_fails_if_one_is_bad(monkeypatch, capsys, oks, code):
    monkeypatch.setattr(
        doctor,
        'examine',
        lambda url: [doctor.Finding('part', ok, f'Text\n  of {url}.', 'Remedy' if ok is False else '') for ok in oks],
    )
    if code:
        with pytest.raises(SystemExit) as exit:
            call_command('sockets', 'doctor', '--url', 'ws://x')
        assert exit.value.code == code
    else:
        call_command('sockets', 'doctor', '--url', 'ws://x')
    lines = {
        True: 'ok   part          Text of ws://x.',
        None: '--   part          Text of ws://x.',
        False: 'BAD  part          Text of ws://x. -> Remedy',
    }
    # A line each, and nobody sees colours in a file.
    assert capsys.readouterr().out.splitlines() == [lines[ok] for ok in oks]


def test_a_part_in_which_nothing_is_wrong_keeps_no_other_from_being_tried(layer, transactional_db, monkeypatch):
    """A hint about the database left the servers untried."""
    hint = doctor.Finding('database', None, 'A hint.')
    monkeypatch.setattr(doctor, 'examine_database', lambda: [hint])
    monkeypatch.setattr(doctor, 'examine_servers', lambda: [doctor.Finding('server', True, 'Was tried.')])
    monkeypatch.setattr(doctor, 'WORKER_PATIENCE', 0.05)
    assert found(doctor.examine())['server'][1] == 'Was tried.'
