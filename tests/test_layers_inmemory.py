import threading
import time

import pytest
from asgiref import conformance

from sockets.layers import InMemoryChannelLayer, dropped, local_queues


class Conformance(conformance.ConformanceTestCase):
    channel_layer = InMemoryChannelLayer(expiry=1, group_expiry=2, capacity=5, server_capacity=5)
    expiry_delay = 1.1
    capacity_limit = 5


@pytest.fixture
def layer():
    return InMemoryChannelLayer(lease=0.2)


def frame(n, connection='server!a'):
    return {'n': n, 'reply_channel': connection, 'path': '/', 'order': n}


class Receiver(threading.Thread):
    """A worker that notes what it receives until it has received ``count`` messages."""

    def __init__(self, layer, channels, count=1, handle=lambda message: None):
        super().__init__(daemon=True)
        self.layer, self.channels, self.count, self.handle = layer, channels, count, handle
        self.received = []
        self.start()

    def run(self):
        while len(self.received) < self.count:
            channel, message = self.layer.receive(self.channels, block=True)
            if channel is not None:
                self.received.append((time.monotonic(), channel, message))
                self.handle(message)


def test_a_receiver_is_woken_by_the_message_and_does_not_poll(layer):
    receiver = Receiver(layer, ['wake'], 20)
    delays = []
    for n in range(20):
        time.sleep(0.005)
        sent = time.monotonic()
        layer.send('wake', {'n': n})
        while len(receiver.received) <= n:
            time.sleep(0.0001)
        delays.append(receiver.received[n][0] - sent)
    assert sorted(delays)[10] < 0.02


def test_a_message_goes_to_a_receiver_of_its_channel(layer):
    other, mine = Receiver(layer, ['other']), Receiver(layer, ['mine', 'third'])
    time.sleep(0.05)
    layer.send('third', {})
    mine.join(2)
    assert [channel for _, channel, _ in mine.received] == ['third'] and other.received == []


def test_frames_of_a_connection_are_handled_in_order_by_any_number_of_threads(layer):
    layer.capacity = 1000
    handled, at_work = {}, set()
    lock = threading.Lock()

    def handle(message):
        with lock:
            assert message['reply_channel'] not in at_work, 'two at once'
            at_work.add(message['reply_channel'])
        time.sleep(0.0002)
        with lock:
            at_work.discard(message['reply_channel'])
            handled.setdefault(message['reply_channel'], []).append(message['n'])

    stop = threading.Event()

    def work():
        while not stop.is_set():
            channel, message = layer.receive(['websocket.receive'], block=False)
            if channel is None:
                time.sleep(0.0005)
            else:
                handle(message)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for n in range(100):
        for connection in 'abcde':
            layer.send('websocket.receive', frame(n, 'server!' + connection))
    deadline = time.monotonic() + 20
    while sum(map(len, handled.values())) < 500 and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert handled == {'server!' + connection: list(range(100)) for connection in 'abcde'}


def test_different_connections_are_handled_at_the_same_time(layer):
    both = threading.Barrier(2, timeout=5)
    receivers = [Receiver(layer, ['websocket.receive'], handle=lambda message: both.wait()) for _ in range(2)]
    layer.send('websocket.receive', frame(1, 'server!a'))
    layer.send('websocket.receive', frame(1, 'server!b'))
    for receiver in receivers:
        receiver.join(5)
        assert len(receiver.received) == 1


def test_a_thread_that_dies_holds_its_connection_up_for_its_lease(layer):
    layer.send('websocket.receive', frame(1))
    layer.send('websocket.receive', frame(2))
    dying = Receiver(layer, ['websocket.receive'])
    dying.join()
    assert layer.receive(['websocket.receive']) == (None, None)
    time.sleep(0.25)
    assert layer.receive(['websocket.receive'])[1]['n'] == 2


def test_a_thread_that_takes_its_time_keeps_its_connection(layer):
    layer.send('websocket.receive', frame(1))
    layer.send('websocket.receive', frame(2))
    slow = Receiver(layer, ['websocket.receive'], 2, handle=lambda message: time.sleep(0.5))
    time.sleep(0.3)
    assert layer.receive(['websocket.receive']) == (None, None)
    slow.join(5)
    assert [message['n'] for _, _, message in slow.received] == [1, 2]


def test_a_flooding_client_is_refused_and_its_end_still_arrives(layer):
    layer.capacity = 3
    for n in range(3):
        layer.send('websocket.receive', frame(n))
    with pytest.raises(layer.ChannelFull):
        layer.send('websocket.receive', frame(3))
    layer.send('websocket.receive', frame(0, 'server!b'))
    received = []
    while True:
        channel, message = layer.receive(['websocket.receive', 'websocket.disconnect'])
        if channel is None:
            break
        received.append((channel, message.get('code')))
    # daphne closes with 1013 and says nothing more of this connection.
    assert received.count(('websocket.receive', None)) == 4
    assert received[-1] == ('websocket.disconnect', 1013)


def test_a_slow_reader_fills_its_own_mailbox_and_can_still_be_closed(layer):
    layer.capacity = 2
    assert layer.send_many(['server!slow'] * 3 + ['server!fast'], {'text': '{}'}) == ['server!slow']
    layer.send('server!slow', {'close': 1008})
    assert [layer.receive(['server!']) for _ in range(4)] == [
        ('server!slow', {'text': '{}'}),
        ('server!slow', {'text': '{}'}),
        ('server!fast', {'text': '{}'}),
        ('server!slow', {'close': 1008}),
    ]


def test_a_deferred_fires_when_a_message_comes(layer, monkeypatch):
    from twisted.internet import reactor

    monkeypatch.setattr(reactor, 'callFromThread', lambda function, *args: function(*args))
    results = []
    layer.send('server!a', {'n': 1})
    layer.receive_twisted(['server!']).addCallback(results.append)
    assert results == [('server!a', {'n': 1})]
    layer.receive_twisted(['server!']).addCallback(results.append)
    assert len(results) == 1
    layer.send('server!b', {'n': 2})
    assert results[1:] == [('server!b', {'n': 2})]


def test_runworker_is_refused_a_layer_that_it_cannot_share():
    from channels.asgi import ChannelLayerWrapper

    assert ChannelLayerWrapper(InMemoryChannelLayer(), 'default', []).local_only()


def test_a_receiver_that_stops_waiting_leaves_nothing_behind(layer, monkeypatch):
    monkeypatch.setattr('sockets.layers.local_queues._PATIENCE', 0.05)
    assert layer.receive(['nothing'], block=True) == (None, None)
    assert layer._queues.waiters == []
    layer.send('nothing', {'n': 1})
    assert layer.receive(['nothing'])[1] == {'n': 1}


def in_server(layer, prefix):
    """Have what comes for ``prefix`` delivered, and return the list that it goes to."""
    delivered = []

    def deliver(channel, message):
        if 'raises' in message:
            raise KeyError('as told')
        delivered.append((channel, message))

    layer.deliver_to(prefix, deliver)
    return delivered


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    return condition()


def test_messages_are_brought_to_a_server_in_order_though_one_cannot_be_delivered(layer, reactor):
    layer.send('brought!a', {'n': 0})
    delivered = in_server(layer, 'brought!')
    layer.send('brought!a', {'raises': True})
    layer.send_many(['brought!a', 'brought!b'], {'n': 1})
    layer.send('other!a', {'n': 2})
    assert wait_for(lambda: len(delivered) == 3)
    assert delivered == [('brought!a', {'n': 0}), ('brought!a', {'n': 1}), ('brought!b', {'n': 1})]
    assert layer.receive(['other!']) == ('other!a', {'n': 2})


@pytest.mark.parametrize('channel', ['websocket.receive', 'websocket.connect'])
def test_a_thread_that_others_can_do_without_leaves_them_what_has_just_come(layer, reactor, monkeypatch, channel):
    # Two that do nothing but compute are slower than one: with four threads there were 0.85 of the echoes.
    monkeypatch.setattr(local_queues, '_PATIENCE', 0.05)
    layer.wake_threads_after(0.4)
    release, taken = threading.Event(), threading.Event()

    def work():
        layer.receive([channel], block=True)
        taken.set()
        release.wait(10)
        layer.receive([channel])

    worker = threading.Thread(target=work, daemon=True)
    layer.send(channel, frame(0, 'server!a'))
    worker.start()
    assert taken.wait(5)
    for n in range(1, 4):
        layer.send(channel, frame(n, f'server!{n}'))
    assert layer.receive([channel], block=True) == (None, None)
    # These only, and not for long.
    layer.send('plain', {})
    assert layer.receive(['plain'], block=True) == ('plain', {})
    time.sleep(0.25)
    assert layer.receive([channel], block=True)[1]['n'] == 1
    release.set()
    worker.join(5)


@pytest.mark.parametrize('channel', ['websocket.receive', 'websocket.connect'])
def test_another_thread_is_woken_when_those_at_work_let_something_wait(layer, reactor, channel):
    layer.wake_threads_after(0.05)
    handled = []

    def work():
        while len(handled) < 4:
            found, message = layer.receive([channel], block=True)
            if found is not None:
                handled.append((message['n'], threading.get_ident()))
                time.sleep(message.get('seconds', 0))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    started = time.monotonic()
    layer.send(channel, dict(frame(0, 'server!slow'), seconds=0.6))
    layer.send(channel, frame(1, 'server!a'))
    layer.send(channel, frame(2, 'server!b'))
    assert wait_for(lambda: len(handled) == 3)
    assert 0.04 < time.monotonic() - started < 0.5
    assert [n for n, _ in handled] == [0, 1, 2]
    (_, slow), (_, first), (_, second) = handled
    assert slow != first == second
    layer.send(channel, frame(3, 'server!d'))
    for thread in threads:
        thread.join(10)


def test_the_reactor_is_never_woken_while_other_threads_would_wait_for_the_lock(layer, reactor, monkeypatch):
    # To wake it lets other threads run. Of a hundred messages, seven met the lock.
    held, delivered, call = [], [], reactor.callFromThread
    ours = threading.get_ident()

    def look(*args):
        if threading.get_ident() == ours:
            held.append(layer._queues.lock.locked())
        call(*args)

    monkeypatch.setattr(reactor, 'callFromThread', look)
    layer.wake_threads_after(0.01)
    layer.send('server!a', {'text': 'first'})
    layer.deliver_to('server!', lambda channel, message: delivered.append(message['text']))
    assert wait_for(lambda: delivered == ['first'])
    layer.send('server!a', {'text': 'second'})
    assert wait_for(lambda: delivered == ['first', 'second'])
    # A thread that is at work, and a frame that another one may have to take.
    layer.send('websocket.receive', frame(0))
    layer.receive(['websocket.receive'], block=True)
    layer.send('websocket.receive', frame(1, 'server!b'))
    assert held == [False] * 3


def crowd(layer, count, server='server!'):
    """Send a connect of each of so many clients; return those that were told to come back, and when."""
    told = {}
    for n in range(count):
        name = f'{server}{n}'
        try:
            layer.send('websocket.connect', frame(n, name))
        except layer.ChannelFull as error:
            told[name] = error.retry_after
    return told


def test_more_connects_than_can_be_taken_in_time_are_told_when_to_come_back(layer):
    told = crowd(layer, 300)
    assert 190 <= len(told) < 200 and min(told.values()) >= 1
    # Frames and ends are taken all the same, and a connect that is taken makes room.
    layer.send('websocket.receive', frame(0, 'server!open'))
    for _ in range(20):
        layer.receive(['websocket.connect'])
    assert crowd(layer, 1, 'server!late') == {}


def test_connects_are_taken_by_others_than_those_at_work_on_frames(layer, reactor):
    # A frame waits for a thread that is at work on frames. One on connects does not help it.
    layer.wake_threads_after(0.3)
    layer.send('websocket.connect', frame(0))
    assert layer.receive(['websocket.connect'], block=True)[1]['n'] == 0
    started = time.monotonic()
    receiver = Receiver(layer, ['websocket.receive', 'websocket.disconnect'])
    layer.send('websocket.receive', frame(1, 'server!b'))
    receiver.join(5)
    assert receiver.received[0][0] - started < 0.2


def test_what_may_be_connected_is_withdrawn_and_forgotten_in_time(layer):
    layer.send('websocket.connect', frame(0))
    assert layer.withdraw('server!a') and layer.is_idle()
    layer.expect_handshakes_within(-0.9)
    layer.send('websocket.connect', frame(1))
    time.sleep(0.15)
    assert layer.receive(['websocket.connect']) == (None, None)


def test_connects_that_are_taken_together_are_done_one_by_one(layer):
    for name in 'abcd':
        layer.send('websocket.connect', frame(0, 'server!' + name))
        layer.send('websocket.receive', frame(1, 'server!' + name))
    layer.receive(['websocket.connect'])
    connects = layer.connects
    claims = {'server!a': connects.hold()}
    claims.update((message['reply_channel'], claim) for message, claim in connects.take(2))
    assert list(claims) == ['server!a', 'server!b', 'server!c']
    assert [message['reply_channel'] for message in layer.waiting_connects(9)] == ['server!d']
    # None of them is done when this thread asks for more.
    assert layer.receive(['websocket.receive']) == (None, None)
    connects.done(claims['server!b'])
    assert layer.receive(['websocket.receive'])[1]['reply_channel'] == 'server!b'
    assert layer.receive(['websocket.receive']) == (None, None)


def test_who_has_left_is_not_there_any_more(layer):
    for name in 'ab':
        layer.send('websocket.connect', frame(0, 'server!' + name))
    layer.receive(['websocket.connect'])
    claims = [layer.connects.hold(), *(claim for _, claim in layer.connects.take(9))]
    layer.send('websocket.receive', frame(1, 'server!b'))
    layer.send('websocket.disconnect', frame(2, 'server!b'))
    assert layer.connects.still_there(['server!a', 'server!b']) == ['server!a']
    # It is handled after what was taken before.
    assert layer.receive(['websocket.disconnect']) == (None, None)
    for claim in claims:
        layer.connects.done(claim)
    assert layer.receive(['websocket.receive', 'websocket.disconnect'])[0] == 'websocket.receive'


def test_a_thread_that_is_nudged_gets_nothing_and_asks_again(layer):
    receiver = Receiver(layer, ['websocket.connect'])
    while not layer._queues.waiters:
        time.sleep(0.01)
    waiter = layer._queues.waiters[0]
    layer.connects.nudge()
    while waiter in layer._queues.waiters or not layer._queues.waiters:
        time.sleep(0.01)
    layer.send('websocket.connect', frame(0))
    receiver.join(5)
    assert receiver.received[0][2]['n'] == 0
    # Nobody waits.
    layer.connects.nudge()


def test_a_listener_that_is_told_what_has_expired_may_use_the_layer(monkeypatch):
    layer, told = InMemoryChannelLayer(expiry=0.5), threading.Event()

    def listen(servers):
        layer.send('log', {'expired': servers})
        told.set()

    monkeypatch.setattr(dropped, 'listeners', {listen})
    layer.send('background', {})
    time.sleep(0.6)
    threading.Thread(target=layer.receive, args=(['background'],), daemon=True).start()
    assert told.wait(5)
    assert layer.receive(['log']) == ('log', {'expired': {'background': 1}})


# Texts that the thread which sends them writes.


class Server:
    """A server whose texts may be written at once. Its reactor stands still, and counts how often it is woken."""

    def __init__(self, layer, monkeypatch, takes=True):
        from twisted.internet import reactor

        self.calls, self.written, self.delivered = [], [], []
        monkeypatch.setattr(reactor, 'callFromThread', lambda *call: self.calls.append(call))

        def write(channel, text):
            if takes:
                self.written.append(text)
            return takes

        layer.deliver_to('server!', lambda channel, message: self.delivered.append(message), write)
        self.turn()

    def turn(self):
        calls, self.calls = self.calls, []
        for function, *args in calls:
            function(*args)
        return len(calls)


def test_a_text_is_written_by_its_thread_while_nothing_waits_and_nobody_is_woken(layer, monkeypatch):
    server = Server(layer, monkeypatch)
    for n in range(3):
        layer.send('server!a', {'text': str(n)})
    assert server.written == ['0', '1', '2'] and server.calls == []
    assert layer.statistics()['waiting'] == {}


@pytest.mark.parametrize(
    'message', [{'text': 'a', 'close': True}, {'bytes': b'a'}, {'text': None}, {'accept': True, 'text': 'a'}, {}]
)
def test_what_is_no_text_alone_is_delivered_and_a_text_behind_it_as_well(layer, monkeypatch, message):
    server = Server(layer, monkeypatch)
    layer.send('server!a', message)
    layer.send('server!a', {'text': 'behind'})
    assert server.written == [] and server.turn() == 1
    assert server.delivered == [message, {'text': 'behind'}]
    layer.send('server!a', {'text': 'after'})
    assert server.written == ['after']


def test_a_text_that_is_sent_during_a_delivery_waits_for_its_end(layer, monkeypatch):
    server = Server(layer, monkeypatch)
    layer.deliver_to('server!', lambda channel, message: layer.send(channel, {'text': 'b'}), server.written.append)
    server.turn()
    layer.send_many(['server!a'], {'text': 'a'})
    assert server.turn() == 1 and server.written == []


def test_a_text_that_cannot_be_written_is_delivered(layer, monkeypatch):
    server = Server(layer, monkeypatch, takes=False)
    layer.send('server!a', {'text': 'a'})
    layer.send('server!b', {'text': 'b'})
    assert server.written == [] and server.turn() == 1
    assert server.delivered == [{'text': 'a'}, {'text': 'b'}]


def test_answers_to_many_frames_are_written_by_their_thread_too(layer, monkeypatch):
    server = Server(layer, monkeypatch)
    for n in range(5):
        layer.send('websocket.receive', frame(n, f'server!{n}'))
    for _ in range(5):
        channel, message = layer.receive(['websocket.receive'])
        layer.send(message['reply_channel'], {'text': str(message['n'])})
    assert server.written == list('01234') and server.calls == []


def test_nothing_overtakes_what_came_before_a_server_could_be_delivered_to(layer, monkeypatch):
    from twisted.internet import reactor

    written, calls = [], []
    monkeypatch.setattr(reactor, 'callFromThread', lambda *call: calls.append(call))
    layer.send('server!a', {'text': 'before'})
    layer.deliver_to('server!', lambda channel, message: written.append(message['text']), lambda *args: 1 / 0)
    layer.send('server!a', {'text': 'behind'})
    for function, *args in calls:
        function(*args)
    assert written == ['before', 'behind']
