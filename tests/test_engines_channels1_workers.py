import os
import signal
import threading
import time

import pytest
from channels import Channel, channel_layers, route
from channels.signals import worker_process_ready
from channels.worker import Worker, WorkerGroup

from sockets import presence
from sockets.connection import overtime
from sockets.engines.channels1 import workers
from sockets.layers import InMemoryChannelLayer
from sockets.testing import sandbox


@pytest.fixture
def ran():
    return []


@pytest.fixture
def layer(ran):
    """A layer with a consumer that notes what it got, hangs, or has its worker die, as its message says."""

    def consume(message):
        if message.get('overflow'):
            for _ in range(2):
                Channel('narrow').send({})
        gate = message.get('gate')
        if gate is not None:
            gates[gate].wait(10)
        ran.append(message['n'])

    gates = [threading.Event(), threading.Event()]
    with sandbox(InMemoryChannelLayer(channel_capacity={'narrow': 1})):
        layer = channel_layers['default']
        layer.router.add_route(route('jobs', consume))
        layer.gates = gates
        yield layer
        for gate in gates:
            gate.set()
        for thread in threading.enumerate():
            if isinstance(thread, workers.WorkerThread):
                thread.stop()
                layer.send('jobs', {'n': 'bye'})
                thread.join(6)


def eventually(condition, seconds=5):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_thread_that_dies_is_logged_and_goes_on(layer, ran, caplog, monkeypatch):
    monkeypatch.setattr('channels.message.PendingMessageStore.retry_time', 0.01)
    layer.send('narrow', {})
    workers.WorkerThread(layer, ['jobs']).start()
    layer.send('jobs', {'n': 1, 'overflow': True})
    layer.send('jobs', {'n': 2})
    eventually(lambda: ran == [1, 2])
    assert 'The worker of sockets-jobs died' in caplog.text and 'Failed to send queued message' in caplog.text


def test_a_thread_that_is_told_to_stop_finishes_its_function_and_lets_the_layer_know(layer, ran):
    released = []
    layer.channel_layer.release = lambda: released.append(threading.current_thread())
    thread = workers.WorkerThread(layer, ['jobs'])
    thread.start()
    layer.send('jobs', {'n': 1, 'gate': 0})
    layer.send('jobs', {'n': 2})
    eventually(lambda: workers.at_work() == [thread])
    thread.stop()
    layer.gates[0].set()
    thread.join(5)
    assert not thread.is_alive() and ran == [1] and released == [thread]


def test_a_thread_that_hangs_is_replaced_and_ends_when_it_returns(layer, ran):
    thread = workers.WorkerThread(layer, ['jobs'])
    thread.start()
    layer.send('jobs', {'n': 1, 'gate': 0})
    eventually(lambda: workers.at_work() == [thread])
    thread.replace()
    layer.send('jobs', {'n': 2})
    eventually(lambda: ran == [2])
    layer.gates[0].set()
    thread.join(5)
    assert not thread.is_alive() and ran == [2, 1]


def test_only_so_many_threads_that_hang_are_replaced(layer, ran, caplog, monkeypatch):
    monkeypatch.setattr(workers, 'MOST_HUNG', 1)
    workers.WorkerThread(layer, ['jobs']).start()
    for gate in (0, 1):
        layer.send('jobs', {'n': gate, 'gate': gate})
        eventually(lambda: len(workers.at_work()) == gate + 1)
        for thread in workers.at_work():
            if not thread.is_replaced:
                thread.replace()
    assert [record.levelname for record in caplog.records] == ['CRITICAL']
    assert 'The functions of 2 threads hang' in caplog.text
    # It keeps its place and goes on when it can.
    layer.gates[1].set()
    layer.send('jobs', {'n': 2})
    eventually(lambda: ran == [1, 2])


def test_the_stack_of_a_thread_that_does_not_end_is_reported(layer, caplog):
    thread = workers.WorkerThread(layer, ['jobs'])
    thread.start()
    layer.send('jobs', {'n': 1, 'gate': 0})
    eventually(lambda: workers.at_work() == [thread])
    began = time.monotonic()
    workers.finish([*workers.at_work(), threading.current_thread()], began + 0.2)
    assert 0.1 < time.monotonic() - began < 1
    assert 'sockets-jobs has not ended in time' in caplog.text and 'gates[gate].wait(10)' in caplog.text


@pytest.mark.parametrize('worker, count', [(Worker, 1), (WorkerGroup, 3)])
def test_runworker_runs_with_our_threads_and_stops_in_good_order(layer, ran, monkeypatch, worker, count):
    ended, begun = [], []
    monkeypatch.setattr(presence, 'start_housekeeper', lambda: begun.append('house'))
    monkeypatch.setattr(overtime, 'keep_watch', lambda: begun.append('watch'))
    monkeypatch.setattr(workers, '_exit', lambda: ended.append(os.getpid()))
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    sender = worker(layer, only_channels=['jobs'], **({'n_threads': count} if worker is WorkerGroup else {}))
    worker_process_ready.send(sender=sender)
    sender.ready()

    def tell():
        layer.send('jobs', {'n': 1, 'gate': 0})
        eventually(lambda: workers.at_work())
        names.extend(thread.name for thread in threading.enumerate() if isinstance(thread, workers.WorkerThread))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        layer.gates[0].set()
        # They look up when there is something.
        for _ in range(count):
            layer.send('jobs', {'n': 2})

    names = []
    telling = threading.Thread(target=tell)
    telling.start()
    try:
        sender.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    telling.join()
    assert names == ['sockets-jobs'] * count
    assert 1 in ran
    assert set(begun) == {'house', 'watch'} and ended == [os.getpid()]
    assert not [thread for thread in threading.enumerate() if isinstance(thread, workers.WorkerThread)]


def test_any_process_with_a_worker_has_housekeeper(layer, monkeypatch):
    # runserver did not, and what its process before had left stayed until somebody came.
    begun = []
    monkeypatch.setattr(presence, 'start_housekeeper', lambda: begun.append('house'))
    Worker(layer, signal_handlers=False).ready()
    assert begun == ['house']
