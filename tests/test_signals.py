import pytest

from sockets import RoutedSocketHandler, signals


@pytest.fixture
def heard():
    heard = []

    def listen(signal, sender, socket, **kwargs):
        heard.append((signal, sender, socket.path, kwargs.get('code')))

    for signal in (signals.socket_connected, signals.socket_disconnected):
        signal.connect(listen)
    yield heard
    for signal in (signals.socket_connected, signals.socket_disconnected):
        signal.disconnect(listen)


def test_a_connection_is_announced_when_it_opens_and_when_it_ends(connect, heard):
    connection = connect(RoutedSocketHandler)
    assert heard == [(signals.socket_connected, RoutedSocketHandler, '/page/', None)]
    connection.disconnect(1001)
    assert heard[1:] == [(signals.socket_disconnected, RoutedSocketHandler, '/page/', 1001)]
    connection.disconnect(1001)
    assert len(heard) == 2


def test_a_refused_connection_is_not_announced(connect, heard):
    connect(RoutedSocketHandler, headers={'origin': 'https://evil.example'}).disconnect()
    assert heard == []


def test_a_receiver_that_raises_is_logged_and_connections_open_all_the_same(connect, caplog):
    def broken(**kwargs):
        raise KeyError('a broken receiver')

    signals.socket_connected.connect(broken)
    assert connect(RoutedSocketHandler).messages() == [{'accept': True}]
    signals.socket_connected.disconnect(broken)
    assert 'a broken receiver' in caplog.text
