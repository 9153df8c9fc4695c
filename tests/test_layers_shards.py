"""What a Redis that is away or hangs costs, with one and with three of them."""

import gc
import logging
import os
import signal
import socket
import threading
import time
from contextlib import ExitStack

import pytest
import redis
from twisted.internet import threads

from sockets.layers import RedisChannelLayer, counts, dropped, posting, upkeep
from sockets.layers.connections import Pipe
from sockets.layers.errors import Late

from . import servers
from .test_layers_redis import Server, frame, in_thread

EVERYTHING = ['websocket.connect', 'websocket.receive', 'websocket.disconnect']


class Three:
    """Three Redis servers that can be stopped one by one."""

    def __init__(self, directory):
        self.directory = directory
        self.ports = [servers.free_port() for _ in range(3)]
        self.urls = [f'redis://127.0.0.1:{port}/0' for port in self.ports]
        self.stacks = [ExitStack() for _ in self.ports]
        for index in range(3):
            self.start(index)

    def start(self, index):
        directory = self.directory / str(index)
        directory.mkdir(exist_ok=True)
        self.stacks[index].enter_context(servers.redis_server(directory, self.ports[index]))

    def kill(self, index):
        self.stacks[index].close()

    def tell(self, index, number):
        os.kill(redis.Redis.from_url(self.urls[index]).info()['process_id'], number)


@pytest.fixture
def three(tmp_path):
    three = Three(tmp_path)
    yield three
    for index in range(3):
        three.kill(index)


@pytest.fixture
def hung(redis_url):
    """A function that has the Redis of the tests hang while a ``with`` block runs."""

    class Hung:
        def __init__(self):
            self.pid = redis.Redis.from_url(redis_url).info()['process_id']

        def __enter__(self):
            os.kill(self.pid, signal.SIGSTOP)

        def __exit__(self, *raised):
            os.kill(self.pid, signal.SIGCONT)

    return Hung


@pytest.fixture
def told():
    """What layers tell of messages that have expired."""
    told = []
    dropped.listeners.append(told.append)
    yield told
    dropped.listeners.remove(told.append)


def on_shard(layer, index, prefix='server!'):
    """Return the name of a connection whose frames are on a shard."""
    return next(name for name in (prefix + str(n) for n in range(1000)) if layer.consistent_hash(name) == index)


def wait_for(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_call_to_a_redis_that_hangs_ends_with_the_time_out_and_the_next_fails_at_once(redis_url, hung, caplog):
    layer = RedisChannelLayer(hosts=[redis_url], prefix='hangs:', timeout=0.3)
    layer.send('plain', {})
    with hung():
        for longest in (0.7, 0.05, 0.05):
            began = time.monotonic()
            with pytest.raises((redis.exceptions.TimeoutError, redis.exceptions.ConnectionError)):
                layer.send('plain', {})
            assert time.monotonic() - began < longest
        with pytest.raises(redis.exceptions.TimeoutError):
            layer.group_channels('group')
    wait_for(lambda: not layer._ring.shards[0].is_down)
    layer.send('plain', {})
    # Layers of other tests miss theirs.
    assert caplog.text.count('Redis is away, trying again: Timeout') == caplog.text.count('Redis is back after') == 1


@pytest.mark.parametrize(
    'hosts, options, timeout',
    [
        (1, {}, 10),
        (3, {}, 1.5),
        (1, {'timeout': 3}, 3),
        (3, {'timeout': 3}, 3),
        (1, {'timeout': 3, 'connection_kwargs': {'socket_timeout': 2}}, 2),
        (1, {'connection_kwargs': {'socket_keepalive': True}}, 10),
    ],
)
def test_every_connection_to_redis_has_the_time_out(hosts, options, timeout):
    layer = RedisChannelLayer(hosts=['redis://localhost:1/0'] * hosts, **options)
    for index in range(hosts):
        assert layer.connection(index).connection_pool.connection_kwargs['socket_timeout'] == timeout
        assert layer._ring.shards[index].timeout == timeout


def test_a_unix_socket_has_the_time_out_too():
    layer = RedisChannelLayer(hosts=['unix:///nowhere/redis.sock'], timeout=2)
    assert layer._ring.shards[0].connect().socket_timeout == 2.25
    with pytest.raises(redis.exceptions.ConnectionError):
        layer.send('plain', {})


def test_what_ran_into_the_time_out_is_not_done_when_redis_wakes(redis_url, hung):
    # A take would have thrown a frame away that nobody handles.
    layer, other = (RedisChannelLayer(hosts=[redis_url], prefix='wakes:', timeout=0.3) for _ in range(2))
    layer.flush()
    layer.send('websocket.receive', frame(1))
    other.send('background', {'n': 1})
    other.receive(['background'])
    with hung():
        # It connects anew for each, so all of them wait in Redis's buffers.
        for _ in range(3):
            assert other.receive(['websocket.receive']) == (None, None)
            other._ring.shards[0].is_down = False
        with pytest.raises(redis.exceptions.TimeoutError):
            other.send('background', {'n': 2})
    wait_for(lambda: not layer._ring.shards[0].is_down and not other._ring.shards[0].is_down)
    assert in_thread(lambda: layer.receive(['websocket.receive']))[1]['n'] == 1
    assert layer.receive(['background']) == (None, None)


def test_a_redis_whose_clock_is_set_is_asked_for_its_time_and_does_what_it_is_told(redis_url):
    layer = RedisChannelLayer(hosts=[redis_url], prefix='clock:', timeout=1)
    layer.flush()
    layer.send('plain', {'n': 1})
    layer._ring.shards[0].clock.offset -= 3600
    layer.send('plain', {'n': 2})
    assert [layer.receive(['plain'])[1]['n'] for _ in range(2)] == [1, 2]
    assert abs(layer._ring.shards[0].clock.now() - time.time()) < 1


def test_a_server_asks_a_redis_whose_clock_was_set_for_its_time_and_loses_no_page(redis_url, reactor):
    layer = RedisChannelLayer(hosts=[redis_url], prefix='clock-set:')
    layer.flush()
    server = Server(reactor, layer, 'clock-set!')
    wait_for(lambda: 'clock-set!' in layer._servers.names)
    server.send('http.request', {'reply_channel': 'clock-set!page', 'n': 0})
    wait_for(layer.is_idle)
    layer._ring.shards[0].clock.offset -= 1000
    server.send('http.request', {'reply_channel': 'clock-set!page', 'n': 1})
    wait_for(lambda: layer.statistics()['waiting'] == {'http.request': 2})
    assert server.received == []


def test_a_script_that_is_late_does_nothing_and_says_so(redis_url):
    layer = RedisChannelLayer(hosts=[redis_url], prefix='late:', timeout=1)
    layer.flush()
    pipe = Pipe(layer._ring.shards[0])
    pipe.shard.probe()
    pipe.shard.clock.offset -= 3600
    assert isinstance(pipe._run('put', ['late:1:', 'plain', 0, 1000, b'x', 1]), Late)
    assert layer.statistics()['waiting'] == {}


@pytest.mark.parametrize('fault', ['is killed', 'hangs'])
def test_a_shard_that_is_away_affects_only_its_own_part(three, fault, caplog):
    sender, worker = RedisChannelLayer(hosts=three.urls), RedisChannelLayer(hosts=three.urls)
    names = [on_shard(sender, index) for index in range(3)]
    for n in range(9):
        # Each thread has met every shard.
        sender.send('websocket.receive', frame(n, names[n % 3]))
        worker.receive(EVERYTHING)
    pid = redis.Redis.from_url(three.urls[1]).info()['process_id']
    three.kill(1) if fault == 'is killed' else os.kill(pid, signal.SIGSTOP)
    took = []
    for n in range(60):
        for index in (0, 2):
            began = time.monotonic()
            sender.send('websocket.receive', frame(n, names[index]))
            found = None
            while found is None:
                _, found = worker.receive(EVERYTHING, block=True)
            assert (found['n'], found['reply_channel']) == (n, names[index])
            sender.send('plain', {'n': n})
            while worker.receive(['plain'], block=True) == (None, None):
                pass
            took.append(time.monotonic() - began)
    # Once for each channel layer, that is process, at most.
    assert sorted(took)[-3] < 0.1 and max(took) < 4
    began = time.monotonic()
    with pytest.raises(sender.ChannelFull):
        sender.send('websocket.receive', frame(0, names[1]))
    assert time.monotonic() - began < 0.1
    three.start(1) if fault == 'is killed' else os.kill(pid, signal.SIGCONT)
    wait_for(lambda: not any(shard.is_down for layer in (sender, worker) for shard in layer._ring.shards))
    sender.send('websocket.receive', frame('back', names[1]))
    found = None
    while found is None or found['n'] != 'back':
        _, found = worker.receive(EVERYTHING, block=True)
    # Layers of other tests miss theirs.
    away = [text for text in caplog.messages if 'Redis is away' in text and any(str(n) in text for n in three.ports)]
    assert len(away) == 2 and all(f'(shard 2 of 3, 127.0.0.1:{three.ports[1]})' in text for text in away)


def test_a_frame_that_is_done_while_its_shard_is_away_is_ended_when_that_is_back(three, monkeypatch):
    # It waited for the end of its lease.
    monkeypatch.setattr(upkeep, 'HEARTBEAT_EVERY', 0.05)
    worker, other = (RedisChannelLayer(hosts=three.urls, lease=60) for _ in range(2))
    name, elsewhere = on_shard(worker, 1), on_shard(worker, 0)
    pid = redis.Redis.from_url(three.urls[1]).info()['process_id']
    for n in range(2):
        worker.send('websocket.receive', frame(n, name))
    found = None
    while found is None:
        _, found = worker.receive(EVERYTHING)
    os.kill(pid, signal.SIGSTOP)
    try:
        worker.send('websocket.receive', frame(2, elsewhere))
        # What it takes next from another shard is not thrown away because the end of this one fails.
        found = None
        while found is None:
            _, found = worker.receive(EVERYTHING)
        assert found['n'] == 2
    finally:
        os.kill(pid, signal.SIGCONT)

    def take():
        found = None
        deadline = time.monotonic() + 10
        while found is None and time.monotonic() < deadline:
            _, found = other.receive(EVERYTHING, block=True)
        return found['n']

    assert in_thread(take) == 1


def test_the_last_message_of_a_frame_for_a_shard_that_went_away_comes_back_with_the_reason(three):
    worker, errors = RedisChannelLayer(hosts=three.urls), []
    home = next(name for name in (f'far{n}!' for n in range(99)) if worker.consistent_hash(name) == 1)
    worker.send('websocket.receive', frame(1, on_shard(worker, 0)))
    while worker.receive(EVERYTHING)[0] is None:
        pass
    worker.send_later(home + 'a', {'text': 'last'}, errors.append)
    # Another thread finds out.
    three.kill(1)
    worker._ring.shards[1].failed(redis.exceptions.ConnectionError('gone'))
    worker.receive(EVERYTHING)
    assert [type(error).__name__ for error in errors] == ['Down']
    with pytest.raises(redis.exceptions.ConnectionError):
        worker.send(home + 'a', {'text': 'at once'})


def test_a_redis_without_memory_loses_no_frame_that_was_about_to_be_taken(redis_url, monkeypatch):
    # It was out of its list, and then there was no room to note who has it.
    monkeypatch.setattr(upkeep, 'HEARTBEAT_EVERY', 0.05)
    layer, client = RedisChannelLayer(hosts=[redis_url], prefix='room:'), redis.Redis.from_url(redis_url)
    layer.flush()
    for n in range(4):
        layer.send('websocket.receive', frame(n))
    assert layer.receive(EVERYTHING)[1]['n'] == 0
    client.config_set('maxmemory', 1)
    try:
        for _ in range(2):
            assert layer.receive(EVERYTHING) == (None, None)
    finally:
        client.config_set('maxmemory', 0)
    taken = []
    while len(taken) < 3:
        _, message = layer.receive(EVERYTHING, block=True)
        taken += [message['n']] if message else []
    assert taken == [1, 2, 3]


def test_the_claim_of_a_thread_that_died_is_dropped(redis_url, monkeypatch, caplog):
    # It was renewed for as long as the process lived.
    monkeypatch.setattr(upkeep, 'HEARTBEAT_EVERY', 0.05)
    layer, other = (RedisChannelLayer(hosts=[redis_url], prefix='died:', lease=60) for _ in range(2))
    layer.flush()
    for n in range(2):
        layer.send('websocket.receive', frame(n))
    assert in_thread(lambda: layer.receive(['websocket.receive']))[1]['n'] == 0
    began = time.monotonic()
    while other.receive(['websocket.receive'], block=True)[1] is None:
        assert time.monotonic() - began < 5
    assert 'ended while it handled a frame of server!a' in caplog.text and not layer._claims.held


def test_servers_on_healthy_shards_are_judged_while_another_is_away(three, monkeypatch):
    # While one of three was away, nobody was found dead.
    layer = RedisChannelLayer(hosts=three.urls)
    dead = on_shard(layer, 0, 'dead')
    layer._leases.renew(dead)
    three.kill(1)
    deadline = time.monotonic() + 10
    while dead not in layer.dead_servers():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert layer.live_servers() == []


def test_a_fan_out_serves_its_own_connections_and_other_shards_before_it_fails(three, reactor):
    layer, reader = RedisChannelLayer(hosts=three.urls), RedisChannelLayer(hosts=three.urls)
    layer.serve_locally()
    own = Server(reactor, layer, on_shard(layer, 0, 'own') + '!')
    wait_for(lambda: own.prefix in layer._servers.names)
    prefixes = [
        next(name for name in (f'far{n}!' for n in range(99)) if layer.consistent_hash(name) == index)
        for index in range(3)
    ]
    three.kill(1)
    names = [prefixes[1] + 'x', prefixes[1] + 'y', prefixes[0] + 'x', own.prefix + 'x', prefixes[2] + 'x']
    with pytest.raises(redis.exceptions.ConnectionError) as raised:
        layer.send_many(names, {'text': 'hi'})
    assert raised.value.undelivered == names[:2] and raised.value.refused == []
    assert own.has(1) == [(own.prefix + 'x', {'text': 'hi'})]
    for prefix in (prefixes[0], prefixes[2]):
        assert reader.receive([prefix]) == (prefix + 'x', {'text': 'hi'})


def test_connections_are_closed_and_found_idle_whatever_other_shard_is_away(three, reactor):
    # One of them on the shard that is away kept all of a server from being closed, and from being looked after.
    layer, server_layer = RedisChannelLayer(hosts=three.urls), RedisChannelLayer(hosts=three.urls)
    prefix = next(name for name in (f'closing{n}!' for n in range(99)) if layer.consistent_hash(name) == 0)
    server = Server(reactor, server_layer, prefix)
    wait_for(lambda: prefix in server_layer._servers.names)
    names = [on_shard(layer, index, prefix) for index in range(3)]
    three.kill(1)
    assert layer.send_many(names, {'close': 4401}) == []
    assert server.has(3) == [(name, {'close': 4401}) for name in names]
    assert sorted(layer.idle(names)) == sorted([names[0], names[2]])
    assert sorted(in_thread(lambda: server_layer.drained_connections(prefix, names))) == sorted([names[0], names[2]])
    # The server's own close.
    assert in_thread(lambda: server_layer.send_many(names, {'close': 1012})) == []
    assert server.has(6)[3:] == [(name, {'close': 1012}) for name in names]
    layer.send('websocket.receive', frame(1, names[0]))
    assert in_thread(lambda: layer.receive(['websocket.receive'])) == (None, None)


class Clocked(Server):
    """A server that measures how long its reactor was not there for anybody."""

    def __init__(self, *args):
        super().__init__(*args)
        self.longest = 0
        self.reactor.callFromThread(self.tick, time.monotonic())

    def tick(self, before):
        now = time.monotonic()
        self.longest = max(self.longest, now - before)
        self.reactor.callLater(0.01, self.tick, now)


def test_the_reactor_of_a_server_never_waits_for_a_redis_that_hangs(redis_url, hung, reactor, caplog):
    layer = RedisChannelLayer(hosts=[redis_url], prefix='reactor:', timeout=0.5)
    layer.flush()
    server = Clocked(reactor, layer, 'reactor!')
    wait_for(lambda: 'reactor!' in layer._servers.names)
    server.send('websocket.connect', frame(0, 'reactor!a'))
    wait_for(lambda: layer.statistics()['waiting'])
    server.longest = 0
    big = 'x' * 1000000
    with hung():
        server.send('websocket.connect', frame(0, 'reactor!b'))
        server.send('websocket.receive', frame(1, 'reactor!a', text='1'))
        server.send('http.request', {'reply_channel': 'reactor!page', 'path': '/'})
        # To a worker that asked how far its page has come.
        server.send('page?a', {'is_there': True})
        for n in range(20):
            # More than a socket holds.
            server.send('websocket.receive', frame(2 + n, f'reactor!c{n}', text=big))
        answers = dict(server.has(23))
        wait_for(lambda: layer._ring.shards[0].is_down)
        # And at once, from here on.
        with pytest.raises(layer.ChannelFull):
            server.send('websocket.connect', frame(0, 'reactor!d'))
        with pytest.raises(layer.ChannelFull):
            server.send('http.request', {'reply_channel': 'reactor!page2', 'path': '/'})
    # To who is not accepted yet, it is a 503, and was a 403, which is final.
    assert answers['reactor!b'] == {'close': 1013} and answers['reactor!a'] == {'close': 1013}
    assert answers['reactor!page']['status'] == 503
    assert server.longest < 0.3
    wait_for(lambda: not layer._ring.shards[0].is_down)
    # Nothing of what it gave up is done after all.
    worker = RedisChannelLayer(hosts=[redis_url], prefix='reactor:')
    server.send('websocket.receive', frame(99, 'reactor!z'))
    wait_for(lambda: worker.statistics()['waiting'].get('frames of connections') == 2)
    assert {worker.receive(EVERYTHING)[1]['n'] for _ in range(2)} == {0, 99}
    assert worker.receive(EVERYTHING) == (None, None)


def test_a_client_that_goes_before_redis_has_refused_its_frame_is_not_remembered(redis_url, hung, reactor):
    layer = RedisChannelLayer(hosts=[redis_url], prefix='goes:', capacity=1)
    layer.flush()
    server = Server(reactor, layer, 'goes!')
    wait_for(lambda: 'goes!' in layer._servers.names)
    server.send('websocket.receive', frame(0, 'goes!a'))
    wait_for(layer.is_idle)
    with hung():
        server.send('websocket.receive', frame(1, 'goes!a'))
        server.send('websocket.disconnect', frame(2, 'goes!a'))
    # Its close, which finds nobody.
    assert server.has(1) == [('goes!a', {'close': 1013})]
    wait_for(layer.is_idle)
    assert layer._outbox.frames.stopped == set()


def test_frames_that_wait_for_a_redis_that_hangs_are_as_few_as_may_wait_in_it(redis_url, hung, reactor):
    layer = RedisChannelLayer(hosts=[redis_url], prefix='few:', timeout=5, capacity=3)
    layer.flush()
    server = Server(reactor, layer, 'few!')
    wait_for(lambda: 'few!' in layer._servers.names)
    with hung():
        for n in range(6):
            server.send('websocket.receive', frame(n, 'few!a'))
        # At once, and not when Redis has not answered.
        assert server.has(1) == [('few!a', {'close': 1013})]
        poster = layer._ring.posters[0]
        assert [len(poster.waiting), len(poster.frames)] == [1, 2]
    wait_for(layer.is_idle)
    assert not layer._outbox.frames.in_flight
    wait_for(lambda: layer.statistics()['waiting'] == {'frames of connections': 3})


def test_what_waits_for_a_redis_that_hangs_is_not_copied_with_each_frame(redis_url, hung, reactor):
    # A server was busy with nothing else: 20000 frames are 100 MB with their scripts.
    layer = RedisChannelLayer(hosts=[redis_url], prefix='copied:', timeout=20)
    poster, answers = posting.Poster(layer._ring.shards[0]), []
    threads.blockingCallFromThread(reactor, poster.post, 'idle', ['copied:'], answers.append)
    wait_for(lambda: answers)

    def post():
        began = time.process_time()
        for _ in range(20000):
            poster.post_frame(['copied:', 1], ['a', 'websocket.receive', 1, 1, b'', b''], answers.append)
        return time.process_time() - began

    with hung():
        assert threads.blockingCallFromThread(reactor, post) < 8
    wait_for(lambda: len(answers) == 20001)


@pytest.mark.parametrize('reply', [1, 2, Late('LATE'), redis.exceptions.ResponseError('OOM')])
def test_a_frame_that_waits_behind_one_that_redis_has_not_taken_is_not_put(reactor, reply):
    # It was handled, and the one before it was not.
    poster, posted, told = posting.Poster(None), [], []
    poster.post = lambda name, args, on_reply: posted.append((args, on_reply))

    def post(connection, channel='websocket.receive'):
        n = len(told)
        told.append(None)
        poster.post_frame(
            ['behind:', 1], [connection, channel, 1, 1, b'', b''], lambda reply: told.__setitem__(n, reply)
        )

    for connection in 'aabab':
        post(connection)
    post('a', 'websocket.disconnect')
    posted[0][1](reply if isinstance(reply, Exception) else [reply])
    assert told == [reply, reply, None, reply, None, None]
    args, on_replies = posted[1]
    assert [args[start : start + 2] for start in range(2, len(args), 6)] == [
        ['b', 'websocket.receive'],
        ['b', 'websocket.receive'],
        ['a', 'websocket.disconnect'],
    ]
    on_replies([0, 0, 0])
    assert told == [reply, reply, 0, reply, 0, 0] and not poster.frames and not poster.in_flight


def test_all_that_wait_for_a_redis_that_is_away_are_told(reactor):
    poster, posted, told = posting.Poster(None), [], []
    poster.post = lambda name, args, on_reply: posted.append(on_reply)
    for connection in 'abc':
        poster.post_frame(['behind:', 1], [connection, 'websocket.receive', 1, 1, b'', b''], told.append)
    error = redis.exceptions.ConnectionError()
    posted[0](error)
    assert told == [error] * 3 and len(posted) == 1


def test_a_redis_that_becomes_a_replica_is_away_and_its_name_is_looked_up_anew(redis_url, reactor, caplog):
    # Whoever was connected to the old one after a fail-over was refused by it until he was started again.
    layer, worker = (RedisChannelLayer(hosts=[redis_url], prefix='replica:') for _ in range(2))
    layer.flush()
    server, client = Server(reactor, layer, 'replica!'), redis.Redis.from_url(redis_url)
    wait_for(lambda: 'replica!' in layer._servers.names)
    server.send('websocket.receive', frame(0, 'replica!a'))
    wait_for(lambda: worker.receive(EVERYTHING)[1])
    client.slaveof('127.0.0.1', 1)
    try:
        assert worker.receive(EVERYTHING, block=True) == (None, None)
        with pytest.raises(redis.exceptions.ConnectionError):
            worker.send('replica!a', {'text': 'x'})
        server.send('websocket.receive', frame(1, 'replica!a'))
        assert server.has(1) == [('replica!a', {'close': 1013})]
        time.sleep(0.6)
        assert layer._ring.shards[0].is_down and worker._ring.shards[0].is_down
    finally:
        client.slaveof()
    wait_for(lambda: not (layer._ring.shards[0].is_down or worker._ring.shards[0].is_down))
    server.send('websocket.receive', frame(2, 'replica!b'))
    wait_for(lambda: worker.receive(EVERYTHING, block=True)[1] == frame(2, 'replica!b'))
    worker.send('replica!b', {'text': 'x'})
    assert server.has(2)[1:] == [('replica!b', {'text': 'x'})]
    assert 'read only' in caplog.text and 'Redis is back' in caplog.text


@pytest.mark.parametrize('is_clock_due', [False, True])
def test_a_connection_to_redis_that_is_lost_while_a_server_writes_costs_one_frame(redis_url, reactor, is_clock_due):
    layer = RedisChannelLayer(hosts=[redis_url], prefix='writes:')
    layer.flush()
    server = Server(reactor, layer, 'writes!')
    wait_for(lambda: 'writes!' in layer._servers.names)
    server.send('websocket.receive', frame(0, 'writes!a'))
    wait_for(layer.is_idle)
    poster = layer._ring.posters[0]

    def lose(channel, message):
        poster.connection._sock.shutdown(socket.SHUT_WR)
        if is_clock_due:
            poster.shard.clock.measured -= 100
        layer.send(channel, message)

    # On the reactor, to which nothing must be raised.
    threads.blockingCallFromThread(reactor, lose, 'websocket.receive', frame(1, 'writes!b'))
    assert server.has(1) == [('writes!b', {'close': 1013})]
    server.send('websocket.receive', frame(2, 'writes!c'))
    wait_for(lambda: layer.statistics()['waiting'].get('frames of connections') == 2)


def test_all_callbacks_that_wait_for_a_lost_redis_are_called_though_one_of_them_fails(redis_url, hung, reactor):
    layer = RedisChannelLayer(hosts=[redis_url], prefix='all-told:', timeout=0.3)
    told = []
    poster = posting.Poster(layer._ring.shards[0])
    with hung():
        for on_reply in (told.append, lambda reply: told.no_such_thing, told.append):
            reactor.callFromThread(poster.post, 'idle', ['all-told:'], on_reply)
        wait_for(lambda: len(told) == 2)
    wait_for(lambda: not layer._ring.shards[0].is_down)


def test_a_page_that_a_shard_did_not_take_in_time_is_taken_by_another(three, reactor):
    layer = RedisChannelLayer(hosts=three.urls, timeout=0.5)
    prefix = next(name for name in (f'page{n}!' for n in range(99)) if layer.consistent_hash(name) == 0)
    server = Server(reactor, layer, prefix)
    wait_for(lambda: prefix in layer._servers.names)
    for n in range(3):
        server.send('http.request', {'reply_channel': prefix + 'x', 'n': n})
    wait_for(lambda: layer.statistics()['waiting'] == {'http.request': 3})
    pid = redis.Redis.from_url(three.urls[1]).info()['process_id']
    os.kill(pid, signal.SIGSTOP)
    try:
        for n in range(3, 9):
            server.send('http.request', {'reply_channel': prefix + 'x', 'n': n})
        wait_for(lambda: layer._ring.shards[1].is_down)
        time.sleep(0.2)
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: not layer._ring.shards[1].is_down)
    worker, taken = RedisChannelLayer(hosts=three.urls), []
    while len(taken) < 9:
        _, message = worker.receive(['http.request'], block=True)
        taken += [message['n']] if message else []
    assert sorted(taken) == list(range(9)) and worker.receive(['http.request']) == (None, None)
    assert server.received == []


def test_a_server_whose_own_shard_is_away_accepts_no_clients_and_closes_those_that_send(three, reactor):
    layer = RedisChannelLayer(hosts=three.urls)
    prefix = next(name for name in (f'home{n}!' for n in range(99)) if layer.consistent_hash(name) == 1)
    server = Server(reactor, layer, prefix)
    wait_for(lambda: prefix in layer._servers.names)
    name = on_shard(layer, 0, prefix)
    server.send('websocket.connect', frame(0, name))
    worker = RedisChannelLayer(hosts=three.urls)
    assert worker.receive(EVERYTHING, block=True)[1]['n'] == 0
    three.kill(1)
    wait_for(lambda: layer._ring.shards[1].is_down)
    with pytest.raises(layer.ChannelFull):
        server.send('websocket.connect', frame(0, on_shard(layer, 2, prefix)))
    # Of that one, nobody says that it has ended.
    assert layer._servers.connections == {name}
    server.send('websocket.receive', frame(1, name))
    assert server.has(1) == [(name, {'close': 1013})]
    # That it ends is told to those who can hear it.
    server.send('websocket.disconnect', frame(2, name))
    deadline, message = time.monotonic() + 20, None
    while message is None:
        assert time.monotonic() < deadline
        _, message = worker.receive(EVERYTHING, block=True)
    assert message['n'] == 2


def test_messages_live_by_the_clock_of_redis(redis_url, reactor, told, monkeypatch):
    # A machine whose clock is 70 s ahead threw all away; one that is behind would keep what is too old.
    server = Server(reactor, RedisChannelLayer(hosts=[redis_url], prefix='ahead:'), 'ahead!')
    wait_for(lambda: 'ahead!' in server.layer._servers.names)
    now = time.time
    for seconds in (70, -70):
        monkeypatch.setattr(time, 'time', lambda: now() + seconds)
        RedisChannelLayer(hosts=[redis_url], prefix='ahead:').send('ahead!a', {'text': str(seconds)})
    assert [message['text'] for _, message in server.has(2)] == ['70', '-70']
    assert told == []


def test_what_expires_on_its_way_to_a_server_is_counted_and_told(redis_url, reactor, told, monkeypatch):
    monkeypatch.setattr(upkeep, 'HEARTBEAT_EVERY', 0.05)
    monkeypatch.setattr(counts, '_REPORT_EVERY', 0)
    layer = RedisChannelLayer(hosts=[redis_url], prefix='told:', expiry=1)
    layer.flush()
    layer.send_many(['told!a', 'told!b'], {'text': 'too late'})
    layer.send('told!a', {'close': 4401})
    time.sleep(1.1)
    layer.send('told!a', {'text': 'in time'})
    server = Server(reactor, RedisChannelLayer(hosts=[redis_url], prefix='told:'), 'told!')
    wait_for(lambda: told)
    assert server.has(1)[-1] == ('told!a', {'text': 'in time'})
    assert sum(counts['told!'] for counts in told) in (2, 3)
    assert layer.statistics()['dropped']['told!'] in (2, 3)


def test_what_expires_on_its_way_to_a_worker_is_counted_and_told_once(redis_url, told, monkeypatch):
    layer = RedisChannelLayer(hosts=[redis_url], prefix='worker:', expiry=1)
    layer.flush()
    layer.send('background', {'n': 1})
    layer.send('websocket.receive', frame(1, 'some!a'))
    layer.send('websocket.receive', frame(2, 'some!a'))
    time.sleep(1.1)
    assert layer.receive(['background', 'websocket.receive']) == (None, None)
    for _ in range(2):
        layer._counts._told = -100
        layer._counts.report_expired()
    assert told == [{'background': 1, 'some!': 2}]
    assert layer.statistics() == {'waiting': {}, 'dropped': {'background': 1, 'some!': 2}}


@pytest.mark.parametrize(
    'reply',
    [b':1\r\n', b'$-1\r\n', b'$3\r\na\r\n\r\n', b'+OK\r\n', b'*0\r\n', b'*-1\r\n', b'*2\r\n$1\r\n1\r\n*1\r\n:2\r\n'],
)
def test_a_reply_is_read_when_all_of_it_is_there(reply):
    values = {
        b':1\r\n': 1,
        b'$-1\r\n': None,
        b'$3\r\na\r\n\r\n': b'a\r\n',
        b'+OK\r\n': b'OK',
        b'*0\r\n': [],
        b'*-1\r\n': None,
        b'*2\r\n$1\r\n1\r\n*1\r\n:2\r\n': [b'1', [2]],
    }
    for end in range(len(reply)):
        assert posting.parse(b'xx' + reply[:end], 2) is None
    assert posting.parse(b'xx' + reply + b':2\r\n', 2) == (values[reply], 2 + len(reply))


def test_an_error_is_a_reply():
    error, end = posting.parse(b'-OOM no more\r\n', 0)
    assert isinstance(error, redis.exceptions.ResponseError) and str(error) == 'OOM no more' and end == 14


def test_a_shard_that_is_not_used_any_more_is_not_probed_for_ever(caplog):
    # What is logged holds the exception, and that the layer.
    caplog.set_level(logging.CRITICAL, 'sockets')
    before = set(threading.enumerate())
    layer = RedisChannelLayer(hosts=[f'redis://127.0.0.1:{servers.free_port()}/0'])
    with pytest.raises(redis.exceptions.ConnectionError):
        layer.send('plain', {})
    (watcher,) = [thread for thread in set(threading.enumerate()) - before if thread.name == 'sockets-shard']
    del layer
    gc.collect()
    watcher.join(5)
    assert not watcher.is_alive()
