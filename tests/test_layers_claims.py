"""What a worker has taken of Redis: several frames at once, if they are quick, and what becomes of those that must wait."""

import gc
import os
import threading
import time

import pytest
import redis

from sockets.layers import RedisChannelLayer, claims, relief, upkeep
from sockets.layers.scripts import VERSION

CHANNELS = ['websocket.receive', 'websocket.disconnect']


@pytest.fixture
def make_layer(redis_url):
    """A function that makes a layer as another process would have it."""

    def make(**options):
        return RedisChannelLayer(hosts=[redis_url], prefix='claims:', **options)

    make().flush()
    return make


@pytest.fixture
def quick(make_layer):
    """The layer of a worker whose frames have been quick so far."""
    layer = make_layer()
    # However slow the machine is.
    layer._claims.most = lambda: claims.MOST
    return layer


@pytest.fixture
def worker(quick):
    """Such a worker whose frames nobody gives back when the test is slow."""
    quick._receiver.relief.watch = lambda hand: None
    return quick


def frame(n, connection):
    return {'n': n, 'reply_channel': connection, 'path': '/', 'order': n}


def put(layer, count, n=0, first=0):
    """Put a frame of each of ``count`` connections; return their names."""
    names = [f'server!{number:02}' for number in range(first, first + count)]
    for name in names:
        layer.send('websocket.receive', frame(n, name))
    return names


def take(layer, count):
    """Take ``count`` frames, one after another, and return their connections."""
    return [layer.receive(CHANNELS)[1]['reply_channel'] for _ in range(count)]


def begun_elsewhere(layer, count, seconds=5):
    """Return the connections of the next ``count`` frames that another worker finds, sorted; fewer if it takes too long."""
    found, deadline = [], time.monotonic() + seconds
    while len(found) < count and time.monotonic() < deadline:
        _, message = layer.receive(CHANNELS)
        if message is not None:
            found.append(message['reply_channel'])
        time.sleep(0.002)
    return sorted(found)


def test_quick_frames_are_taken_together_and_a_third_is_left_to_others(make_layer, worker):
    names = put(make_layer(), 6)
    assert take(worker, 1) == names[:1]
    # It has four of them, of which it handles the first.
    other = make_layer()
    assert take(other, 1) == names[4:5]
    assert take(worker, 4) == [*names[1:4], names[5]]


def test_no_more_than_eight_are_taken_together(make_layer, worker):
    names = put(make_layer(), 30)
    take(worker, 1)
    assert take(make_layer(), 1) == [names[claims.MOST]]


def test_a_thread_that_is_new_or_slow_takes_one_at_a_time(make_layer):
    sender, worker = make_layer(), make_layer()
    put(sender, 6)
    for _ in range(3):
        take(worker, 1)
        assert not worker._claims.hand.taken
    worker._claims.hand.mean = 0.0001
    take(worker, 1)
    worker._claims.give_back(worker._claims.hand)
    time.sleep(0.05)
    # The mean of it all is beyond 4 ms now.
    take(worker, 1)
    assert worker._claims.most() == 1 and not worker._claims.hand.taken


def test_the_next_frame_of_a_connection_waits_until_redis_knows_that_the_one_before_is_done(make_layer, worker):
    sender, other = make_layer(), make_layer()
    names = put(sender, 2)
    assert take(worker, 1) == names[:1]
    put(sender, 2, n=1)
    assert other.receive(CHANNELS) == (None, None)
    # It is done with the first one, but has not said so.
    assert worker.receive(CHANNELS)[1] == frame(0, names[1])
    assert other.receive(CHANNELS) == (None, None)
    assert worker.receive(CHANNELS)[1] == frame(1, names[0])
    assert other.receive(CHANNELS) == (None, None)
    assert worker.receive(CHANNELS)[1] == frame(1, names[1])


def test_frames_behind_a_slow_one_are_given_back_and_answers_before_it_are_sent(make_layer, quick):
    # A client waited for functions of others that its frame had been taken with.
    names, server = put(make_layer(), 6), make_layer()
    take(quick, 1)
    quick.send_later(names[0], {'text': 'answer'}, None)
    assert quick._claims.begin()
    began = time.monotonic()
    other = make_layer()
    other._claims.hand.mean = 1
    assert begun_elsewhere(other, 4) == names[2:]
    assert time.monotonic() - began < 2
    assert server.receive(['server!']) == (names[0], {'text': 'answer'})
    # What was given back is not begun twice.
    assert quick.receive(CHANNELS) == (None, None)
    assert quick.idle(names[1:2]) == names[1:2]


def test_nobody_looks_after_a_slow_frame_for_which_nothing_waits(make_layer, quick):
    # A helper woke up two hundred times a second for as long as a function took.
    looks, helper = [], quick._receiver.relief
    relieve = helper.relieve
    helper.relieve = lambda: (looks.append(1), relieve())
    put(make_layer(), 6)
    take(quick, 1)
    deadline = time.monotonic() + 5
    while quick._claims.hand.has_several and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not quick._claims.hand.taken and not quick._claims.hand.has_several
    looks.clear()
    time.sleep(0.5)
    assert len(looks) <= 3
    # It does for the next ones.
    assert len(take(quick, 1)) == 1
    assert quick._claims.hand.taken and quick._claims.hand.has_several
    assert len(begun_elsewhere(make_layer(), 4)) == 4


def test_a_worker_that_ends_gives_back_what_it_has_not_begun(make_layer, worker):
    names = put(make_layer(), 6)
    take(worker, 1)
    worker.release()
    assert take(make_layer(), 5) == names[1:]


def test_a_thread_that_dies_has_its_other_frames_given_back(make_layer):
    layer, other = make_layer(lease=0.6), make_layer()
    names = put(make_layer(), 6)

    def work():
        layer._claims.hand.mean = 0.0001
        take(layer, 1)

    # The helper would do it first.
    layer._receiver.relief.watch = lambda hand: None
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert begun_elsewhere(other, 5) == names[1:]


def test_a_process_that_is_killed_costs_what_it_had_taken_and_delays_its_connections_for_a_lease(make_layer):
    killed, other = make_layer(lease=0.5), make_layer()
    killed._upkeep.start = lambda: None
    killed._receiver.relief.watch = lambda hand: None
    killed._claims.hand.mean = 0.0001
    sender = make_layer()
    names = put(sender, 6)
    take(killed, 1)
    put(sender, 6, n=1)
    assert begun_elsewhere(other, 5, 0.2) == [names[4], names[4], names[5], names[5]]
    time.sleep(0.5)
    assert begun_elsewhere(other, 4) == names[:4]


def test_a_frame_of_a_connection_that_is_closed_meanwhile_does_not_begin(make_layer, worker):
    # Who was thrown out by one frame was heard once more.
    names = put(make_layer(), 6)
    take(worker, 1)
    worker.send(names[1], {'close': True})
    assert take(worker, 1) == [names[2]]
    take(worker, 3)
    worker.receive(CHANNELS)
    assert names[1] in worker.idle(names)


def test_what_was_taken_too_long_ago_is_not_begun(make_layer, caplog):
    still, other = make_layer(lease=0.3), make_layer()
    still._upkeep.start = lambda: None
    still._receiver.relief.watch = lambda hand: None
    still._claims.hand.mean = 0.0001
    names = put(make_layer(), 3)
    take(still, 1)
    time.sleep(0.4)
    # Others have them by now, as far as there is more of them.
    put(make_layer(), 3, n=1)
    assert begun_elsewhere(other, 4) == [*names, names[2]]
    assert still.receive(CHANNELS) == (None, None)
    assert 'stood still for too long' in caplog.text


def test_what_redis_cannot_take_back_now_is_given_back_later(make_layer, worker, monkeypatch, caplog):
    # All of it was lost when Redis hung behind a slow frame.
    names, working = put(make_layer(), 6), worker._ring.run
    take(worker, 1)

    def fail(*args):
        raise redis.exceptions.TimeoutError('It hangs')

    monkeypatch.setattr(worker._ring, 'run', fail)
    worker._claims.give_back(worker._claims.hand)
    worker._claims.clean_up()
    assert [record.getMessage() for record in caplog.records] == ['3 frames wait to be given back to Redis: It hangs']
    monkeypatch.setattr(worker._ring, 'run', working)
    assert not worker._claims.hand.taken
    worker._claims.clean_up()
    assert sorted(take(make_layer(), 5)) == names[1:]
    worker._claims.clean_up()
    assert worker.receive(CHANNELS) == (None, None) and not worker._claims.held
    assert len(caplog.records) == 1


def test_a_child_that_ends_leaves_what_its_parent_has_taken(make_layer, worker):
    # It gave it back, and others handled it as well.
    names = put(make_layer(), 6)
    take(worker, 1)
    child = os.fork()
    if not child:
        worker._claims.end_all()
        # Nor does it when it has asked for frames of its own.
        worker._claims.hand
        worker._claims.end_all()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert take(make_layer(), 2) == names[4:]
    assert worker.receive(CHANNELS)[1]['reply_channel'] == names[1]


def test_a_child_of_a_worker_does_not_handle_what_its_parent_has_taken(make_layer, worker):
    put(make_layer(), 6)
    take(worker, 1)
    child = os.fork()
    if not child:
        os._exit(len(worker._claims.hand.taken) or worker._claims.has_one())
    assert os.waitpid(child, 0)[1] == 0
    assert len(worker._claims.hand.taken) == 3


def test_answers_of_frames_that_were_taken_together_go_together_in_order(make_layer, worker, redis_url):
    client, server, failures = redis.Redis.from_url(redis_url), make_layer(), []
    names = put(make_layer(), 6)
    for n in range(4):
        (name,) = take(worker, 1)
        worker.send_later(name, {'text': f'{name} {n}'}, failures.append)
    assert client.llen(f'claims:{VERSION}:queue:server!') == 0
    take(worker, 1)
    assert client.llen(f'claims:{VERSION}:queue:server!') == 1
    assert [server.receive(['server!']) for _ in range(4)] == [
        (name, {'text': f'{name} {n}'}) for n, name in enumerate(names[:4])
    ]
    assert failures == []


def test_an_answer_that_opens_its_connection_stays_before_what_comes_after_it(make_layer, worker):
    server = make_layer()
    put(make_layer(), 6)
    (name,) = take(worker, 1)
    for message in [{'text': '0'}, {'accept': True}, {'text': '1'}, {'text': '2'}]:
        worker.send_later(name, message, None)
    take(worker, 4)
    assert [server.receive(['server!'])[1] for _ in range(4)] == [
        {'text': '0'},
        {'accept': True},
        {'text': '1'},
        {'text': '2'},
    ]


def test_answers_that_are_refused_together_come_back_each_with_the_reason(make_layer):
    worker, errors = make_layer(server_capacity=1), []
    worker._claims.hand.mean = 0.0001
    worker.send('server!b', {'text': 'the only one'})
    put(make_layer(), 6)
    for n in range(4):
        worker.send_later(take(worker, 1)[0], {'text': str(n)}, errors.append)
    take(worker, 1)
    assert [type(error) for error in errors] == [worker.ChannelFull] * 4


def test_an_answer_that_cannot_be_encoded_costs_no_other_one(make_layer, worker):
    # The worker died of it, the answers beside it were lost, and its next frame with the answer of Redis to another command.
    errors, server = [], make_layer()
    names = put(make_layer(), 6)
    for text in 'one', '\ud800', 'three':
        worker.send_later(take(worker, 1)[0], {'text': text}, errors.append)
    assert take(worker, 3) == names[3:]
    assert [type(error) for error in errors] == [UnicodeEncodeError]
    assert [server.receive(['server!']) for _ in range(2)] == [
        (names[0], {'text': 'one'}),
        (names[2], {'text': 'three'}),
    ]
    put(make_layer(), 6, n=1)
    worker.send_later(names[-1], {'text': object()}, errors.append)
    assert len(take(worker, 6)) == 6
    # Also where another thread sends it.
    worker.send_later(names[-1], {'text': object()}, errors.append)
    worker._ring.send_held(time.monotonic() + 1)
    assert worker.receive(CHANNELS) == (None, None)
    assert [type(error) for error in errors[1:]] == [TypeError] * 2


def test_an_echo_costs_at_most_twelve_commands_when_many_clients_speak(make_layer, worker, redis_url):
    # 31 and more.
    client, server, server_layer = redis.Redis.from_url(redis_url), make_layer(), make_layer()
    names = [f'server!{number:02}' for number in range(32)]
    entries, ring = server_layer._outbox.frames.entries, server_layer._ring
    ring.run('idle', 0, [])
    worker.receive(CHANNELS)
    before = client.info()['total_commands_processed']
    for start in range(0, 32, 8):
        frames = [entries.frame('websocket.receive', frame(0, name), 5, False) for name in names[start : start + 8]]
        ring.run('put_frames', 0, [86400, *(part for args in frames for part in args)])
    for _ in range(32):
        worker.send_later(take(worker, 1)[0], {'text': 'echo'}, None)
    worker.receive(CHANNELS)
    waiting = client.llen(f'claims:{VERSION}:queue:server!')
    commands = client.info()['total_commands_processed'] - before - 2
    assert waiting <= 8
    # The server reads each entry with one command more.
    assert commands + waiting <= 12 * 32, commands
    assert {server.receive(['server!'])[0] for _ in range(32)} == set(names)


def test_what_looks_after_waiting_frames_ends_with_its_layer(make_layer):
    layer = make_layer()
    layer._claims.hand.mean = 0.0001
    put(make_layer(), 3)
    take(layer, 1)
    runner = layer._receiver.relief._runner
    assert runner.is_alive()
    time.sleep(10 * relief.PATIENCE)
    layer.release()
    del layer
    gc.collect()
    runner.join(5)
    assert not runner.is_alive()


def test_a_redis_that_is_full_ends_no_claim_on_the_others(redis_url, monkeypatch):
    # Its error was raised, and nothing behind it was done: others were handed the next frame while a function still ran.
    layer, asked = RedisChannelLayer(hosts=[redis_url] * 3, prefix='claims:'), []

    def run(name, index, args):
        asked.append((name, index))
        if index == 0:
            raise redis.exceptions.ResponseError("OOM command not allowed when used memory > 'maxmemory'")

    monkeypatch.setattr(layer._ring, 'run', run)
    layer._claims.held.update(claims.Claim(index, b'server!a', f'token{index}', None) for index in range(3))
    layer._claims.renew()
    assert asked == [('renew', 0), ('renew', 1), ('renew', 2)]


def test_what_fails_regularly_keeps_nothing_else_from_being_done(caplog):
    done = threading.Event()

    def fail():
        raise ValueError('as told')

    regularly = upkeep.Upkeep(0.03, [fail, done.set], at_exit=lambda: None)
    regularly.start()
    assert done.wait(5)
    assert 'Could not renew the leases' in caplog.text
