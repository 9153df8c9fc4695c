"""What a server asks of a layer before it stops, and what a worker thread tells it."""

import time

import pytest

from sockets.layers import InMemoryChannelLayer

from .test_layers_redis import Server, frame, in_thread, make_layer, shards  # noqa: F401, fixtures

WORKER = ['websocket.connect', 'websocket.receive', 'websocket.disconnect']


@pytest.mark.parametrize('hosts', [1, 3])
def test_a_connection_is_drained_when_its_frames_are_done_and_answered(make_layer, reactor, hosts):  # noqa: F811
    layer, worker = make_layer(hosts), make_layer(hosts)
    # Nothing stops the reader of a layer.
    prefix = f'draining{hosts}!'
    server = Server(reactor, layer, prefix)
    names = [f'{prefix}{n}' for n in range(20)]

    def drained():
        return set(in_thread(lambda: layer.drained_connections(prefix, names)))

    assert drained() == set(names)
    # It waits ...
    server.send('websocket.receive', frame(0, names[0]))
    deadline = time.monotonic() + 5
    while names[0] in drained():
        assert time.monotonic() < deadline
    assert drained() == set(names[1:])

    def work():
        # ... is being handled ...
        while worker.receive(['websocket.receive'])[0] is None:
            time.sleep(0.001)
        assert drained() == set(names[1:])
        # ... and is done, with a reply that is on its way until the next thing that this thread asks of Redis.
        for n in range(100):
            worker.send(names[0], {'text': str(n)})
        worker.send_later(names[0], {'text': 'last'}, lambda error: None)
        worker.release()
        return drained(), len(server.received)

    assert in_thread(work) == (set(names), 101)
    assert server.received[-1] == (names[0], {'text': 'last'})


def test_a_frame_that_has_expired_is_not_waited_for(make_layer, reactor):  # noqa: F811
    layer = make_layer(expiry=1)
    server = Server(reactor, layer, 'old!')
    server.send('websocket.receive', frame(0, 'old!a'))
    time.sleep(1.1)
    assert in_thread(lambda: layer.drained_connections('old!', ['old!a'])) == ['old!a']


@pytest.mark.parametrize('hosts', [1, 3])
def test_a_thread_that_ends_gives_its_connection_away_at_once(make_layer, hosts):  # noqa: F811
    layer, other = make_layer(hosts), make_layer(hosts)
    for n in range(2):
        layer.send('websocket.receive', frame(n))

    def take(layer):
        for _ in range(10 * hosts):
            channel, message = layer.receive(WORKER)
            if channel is not None:
                return message['n']

    def one():
        n = take(layer)
        assert take(other) is None
        layer.release()
        return n

    assert in_thread(one) == 0
    assert in_thread(lambda: take(other)) == 1


def test_releasing_nothing_does_no_harm(make_layer):  # noqa: F811
    make_layer().release()


def test_in_memory_a_connection_is_drained_when_its_frames_are_done():
    layer = InMemoryChannelLayer()
    layer.send('websocket.receive', frame(0, 'server!a'))
    names = ['server!a', 'server!b']
    assert layer.drained_connections('server!', names) == ['server!b']
    layer.receive(WORKER)
    assert layer.drained_connections('server!', names) == ['server!b']
    layer.receive(WORKER)
    assert layer.drained_connections('server!', names) == names
