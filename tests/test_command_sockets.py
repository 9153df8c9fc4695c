import json
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from django.utils import timezone

from sockets import RoutedSocketHandler, presence
from sockets.models import Socket, StreamHead
from sockets.operations import doctor
from sockets.streams import Stream
from sockets.testing import SocketClient

from .client import SERVER

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(capsys):
    def run(*args):
        call_command('sockets', *args)
        return capsys.readouterr().out

    return run


@pytest.fixture
def hall(connect, login, alice):
    """Two connections of alice, one of nobody, at two paths."""
    connections = [
        connect(RoutedSocketHandler, '/a/', cookies=login(alice)),
        connect(RoutedSocketHandler, '/b/', cookies=login(alice)),
        connect(RoutedSocketHandler, '/b/'),
    ]
    for connection in connections:
        connection.messages()
    return connections


def test_it_lists_connections_and_their_totals(run, hall):
    printed = run()
    assert printed.startswith('3 connections, 1 users, 1 servers')
    lines = [line.split() for line in printed.splitlines()]
    assert ['/b/', '2'] in lines and ['/a/', '1'] in lines and ['alice', '2'] in lines
    assert [SERVER, '3'] in lines
    assert sum('192.0.2.1' in line for line in lines) == 3


def test_it_lists_everything_as_json_for_scripts(run, hall, alice):
    printed = json.loads(run('--json'))
    assert [row['path'] for row in printed['connections']] == ['/a/', '/b/', '/b/']
    assert printed['connections'][0]['user'] == alice.pk and printed['connections'][2]['user'] is None
    assert printed['totals']['path'] == [{'path': '/b/', 'connections': 2}, {'path': '/a/', 'connections': 1}]
    assert set(printed['layer']) <= {'waiting', 'dropped'}


def test_what_it_lists_costs_a_number_of_queries_that_does_not_grow(run, db, django_assert_max_num_queries):
    for n in range(50):
        Socket.objects.create(
            channel_name=f'server{n}!a', path=f'/{n}/', user=get_user_model().objects.create_user(f'user{n}')
        )
    with django_assert_max_num_queries(6):
        printed = run()
    assert 'user49' in printed


def test_nobody_is_connected(run, db):
    assert run() == '0 connections, 0 users, 0 servers\n'


@pytest.mark.parametrize(
    'filters, told',
    [
        (['--path', '/b/'], [1, 2]),
        (['--user', 'alice'], [0, 1]),
        (['--all'], [0, 1, 2]),
        (['--path', '/nowhere/'], []),
        (['--user', 'alice', '--path', '/b/'], [1]),
        (['--server', SERVER[:-4]], [0, 1, 2]),
        (['--server', 'daphne.response.other!'], []),
        (['--address', '192.0.2.1'], [0, 1, 2]),
        (['--inactive'], []),
    ],
)
def test_it_sends_to_those_who_are_meant_and_closes_them(run, hall, filters, told):
    assert run('send', '{"type": "NEWS"}', *filters) == f'Handed to {len(told)} connections.\n'
    assert [bool(connection.received()) for connection in hall] == [n in told for n in range(3)]
    assert run('close', '--code', '4000', *filters) == f'Closed {len(told)} connections.\n'
    assert [connection.messages() for connection in hall] == [[{'close': 4000}] * (n in told) for n in range(3)]


@pytest.mark.parametrize(
    'args, said',
    [
        (['send', '{"type": "NEWS"}'], 'Say whom'),
        (['close'], 'or --all'),
        (['send', '--all'], 'This is not JSON'),
        (['send', 'NEWS', '--all'], '{"type": "BACK_SOON"}'),
        (['send', '[]', '--all'], 'A message is a dict'),
        (['close', '--all', '--code', '1006'], '1006 is not a close code'),
        (['list', 'x'], "list takes no 'x'"),
        (['--user', 'nobody'], "There is no user 'nobody'"),
        (['purge', '--every', '0'], '--every takes'),
        (['destroy'], 'destroy'),
    ],
)
def test_misuse_is_one_sentence(run, db, layer, args, said):
    with pytest.raises(CommandError, match='(?s)' + said.replace('{', r'\{').replace('[', r'\[')):
        run(*args)


def test_a_project_with_errors_is_spoken_to_by_the_doctor_only(run, db, settings, monkeypatch):
    settings.SOCKETS = {'MAX_MESAGE_SIZE': 5}
    monkeypatch.setattr(doctor, 'examine_database', list)
    with pytest.raises(SystemCheckError, match='sockets.E006'):
        call_command('sockets', skip_checks=False)
    with pytest.raises(SystemExit):
        call_command('sockets', 'doctor', skip_checks=False)


def test_it_purges_once(run, hall):
    Socket.objects.filter(path='/a/').update(active=False, last_ping=timezone.now() - timedelta(minutes=6))
    assert run('purge') == 'Removed 1 rows.\n'
    assert run('purge') == 'Removed 0 rows.\n'


def test_it_purges_again_and_again_and_survives_trouble(run, db, monkeypatch, capsys):
    from sockets.management.commands import sockets as command

    results = [2, KeyError('away'), 0, 1, KeyboardInterrupt()]

    def purge():
        result = results.pop(0)
        if isinstance(result, BaseException):
            raise result
        return result

    monkeypatch.setattr(presence, 'purge', purge)
    waits = []
    monkeypatch.setattr(command, 'time', SimpleNamespace(sleep=waits.append))
    monkeypatch.setattr(command, 'connections', {'default': type('Connection', (), {'close': lambda self: None})()})
    with pytest.raises(KeyboardInterrupt):
        call_command('sockets', 'purge', '--every', '30')
    printed = capsys.readouterr()
    assert printed.out == 'Removed 2 rows.\nRemoved 1 rows.\n' and "KeyError: 'away'; trying again" in printed.err
    assert waits == [30] * 4


def test_what_clients_chose_commands_no_terminal_and_forges_no_line(run, db):
    nasty = '/\x1b[2J\x9b31m\r\n  /forged/  7\u2028\u202e\x7fé/'
    user = get_user_model().objects.create_user('mallory\x1b]0;title\x07\nroot')
    for n in range(2):
        Socket.objects.create(channel_name=f'a\x1bb!{n}', path=nasty, user=user)
    printed = run()
    assert all(char.isprintable() for line in printed.split('\n') for char in line)
    assert r'/\x1b[2J\x9b31m\r\n  /forged/  7\u2028\u202e\x7fé/' in printed
    assert r'mallory\x1b]0;title\x07\nroot' in printed and r'a\x1bb!' in printed
    assert not any(line.split()[:2] == ['/forged/', '7'] for line in printed.split('\n'))
    assert json.loads(run('--json'))['connections'][0]['path'] == nasty
    assert '\x1b' not in run('--json')
    from sockets.management.commands.sockets import printable

    assert printable('\0\ud800') == r'\x00\ud800' and printable('Łódź 東京 😀 \\') == 'Łódź 東京 😀 \\'


def test_what_the_doctor_finds_commands_no_terminal(run, monkeypatch):
    monkeypatch.setattr(doctor, 'examine', lambda url: [doctor.Finding('server', True, 'a\x1b[2J\nb', '\x9bc')])
    assert run('doctor') == 'ok   server        a\\x1b[2J b -> \\x9bc\n'


def test_after_a_restored_backup_who_has_had_more_of_a_stream_is_told_so(run):
    # When as many messages had been written again, nobody noticed, and other messages had the same numbers.
    class Room(RoutedSocketHandler):
        def connect(self, message, **kwargs):
            super().connect(message, **kwargs)
            self.follow('tea')

    with SocketClient('/room/', handler=Room) as client:
        Stream('milk').send_action('SAID')
        Stream('tea').send_action('SAID', n=1)
        assert client.received()[-1]['n'] == 1
        with client.away():
            assert run('restored') == (
                'Began an epoch for 2 streams: clients that come back are told that messages are lost.\n'
            )
            Stream('tea').send_action('SAID', n=2)
        assert client.lost == ['tea']
        assert not [content for content in client.received() if 'kept' in content]
        Stream('tea').send_action('SAID', n=3)
        # Who is connected goes on, and the numbers do.
        (got,) = [content for content in client.received() if 'kept' in content]
        assert got['n'] == 3 and got['kept']['offset'] == 3
    assert [content['n'] for content in Stream('tea').history()] == [1, 2, 3]
    assert {content['kept']['epoch'] for content in Stream('tea').history()} == {got['kept']['epoch']}


def test_who_is_connected_is_told_that_a_backup_was_restored(run):
    class Room(RoutedSocketHandler):
        def connect(self, message, **kwargs):
            super().connect(message, **kwargs)
            self.follow('tea')

    with SocketClient('/room/', handler=Room) as client:
        Stream('tea').send_action('SAID')
        client.received()
        run('restored')
        StreamHead.objects.update(remind_at=timezone.now() - timedelta(seconds=2))
        presence.Housekeeper().look()
        client.resume()
        assert client.lost == ['tea']
