import gc
import os
import resource
import threading
import time

import asgi_redis
import pytest
import redis
from asgiref import conformance
from django.core.exceptions import ImproperlyConfigured
from twisted.internet import threads

from sockets.layers import RedisChannelLayer, liveness, redis_leases, upkeep
from sockets.layers.mailboxes import FRAMES
from sockets.layers.redis import OutOfMemory
from sockets.layers.scripts import DEAD, FINE, GONE, UNKNOWN, VERSION

from . import servers


@pytest.fixture(scope='module')
def shards(tmp_path_factory, redis_url):
    """The URLs of three real Redis servers."""
    with servers.redis_server(tmp_path_factory.mktemp('redis-2')) as second:
        with servers.redis_server(tmp_path_factory.mktemp('redis-3')) as third:
            yield [redis_url, second, third]


class Conformance:
    expiry_delay = 1.1
    capacity_limit = 5
    receive_tries = 1
    options = {}
    hosts = slice(1)

    @pytest.fixture(autouse=True)
    def make_layer(self, shards):
        type(self).channel_layer = RedisChannelLayer(
            hosts=shards[self.hosts], expiry=1, group_expiry=2, capacity=5, server_capacity=5, **self.options
        )
        self.channel_layer.flush()


class OneHost(Conformance, conformance.ConformanceTestCase):
    pass


class OneHostEncrypted(Conformance, conformance.ConformanceTestCase):
    options = {'symmetric_encryption_keys': ['secret']}


class ThreeShards(Conformance, conformance.ConformanceTestCase):
    # Three shards hold three times as much of a channel that has no owner.
    hosts = slice(3)
    capacity_limit = None


class ThreeShardsEncrypted(ThreeShards):
    options = {'symmetric_encryption_keys': ['new', 'old']}


@pytest.fixture
def make_layer(shards):
    """A function that makes a layer as another process would have it."""

    def make(hosts=1, **options):
        return RedisChannelLayer(hosts=shards[:hosts], prefix='test:', **options)

    make().flush(), make(3).flush()
    return make


@pytest.fixture
def layer(make_layer):
    return make_layer()


@pytest.fixture
def commands(redis_url):
    """A function that returns how many commands clients have sent since it was last called."""
    client = redis.Redis.from_url(redis_url)

    def count():
        total = client.info()['total_commands_processed'] - 1 - count.before
        count.before += total + 1
        return total

    count.before = 0
    count()
    return count


def frame(n, connection='server!a', **fields):
    return dict(fields, n=n, reply_channel=connection, path='/', order=n)


def in_thread(function):
    """Return what ``function`` returns in a thread of its own, which a worker is to the layer."""
    result = []
    thread = threading.Thread(target=lambda: result.append(function()))
    thread.start()
    thread.join(20)
    return result[0]


@pytest.mark.parametrize('hosts', [1, 3])
def test_frames_of_a_connection_are_handled_in_order_by_any_number_of_workers(make_layer, hosts):
    sender, handled, at_work = make_layer(hosts), {}, set()
    lock, stop = threading.Lock(), threading.Event()

    def work(layer):
        while not stop.is_set():
            _, message = layer.receive(['websocket.receive', 'websocket.disconnect'])
            if message is None:
                time.sleep(0.001)
                continue
            connection = message['reply_channel']
            with lock:
                assert connection not in at_work, 'two at once'
                at_work.add(connection)
            time.sleep(0.0005)
            with lock:
                at_work.discard(connection)
                handled.setdefault(connection, []).append(message['n'])

    # Two processes with two threads each.
    threads = [
        threading.Thread(target=work, args=(layer,))
        for layer in (make_layer(hosts), make_layer(hosts))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for n in range(40):
        for connection in 'abcdef':
            sender.send('websocket.receive', frame(n, 'server!' + connection))
    for connection in 'abcdef':
        sender.send('websocket.disconnect', frame(40, 'server!' + connection))
    deadline = time.monotonic() + 30
    while sum(map(len, handled.values())) < 6 * 41 and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert handled == {'server!' + connection: list(range(41)) for connection in 'abcdef'}


def test_a_worker_is_woken_by_a_message_on_any_shard(make_layer):
    sender, worker = make_layer(3), make_layer(3)
    delays = []

    def work():
        while len(delays) < 12:
            channel, message = worker.receive(['plain', 'websocket.receive'], block=True)
            if channel:
                delays.append(time.monotonic() - message['sent'])

    thread = threading.Thread(target=work)
    thread.start()
    for n in range(12):
        time.sleep(0.02)
        if n % 2:
            sender.send('plain', {'sent': time.monotonic()})
        else:
            sender.send('websocket.receive', frame(n, f'server!{n}', sent=time.monotonic()))
    thread.join(20)
    assert sorted(delays)[6] < 0.02


def test_a_process_of_thousands_of_connections_waits_for_messages(make_layer):
    most, at_most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < 2000 and not 0 < at_most < 2000:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2000, at_most))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        layer, other = make_layer(), make_layer()
        threading.Timer(0.2, other.send, ['background', {'n': 1}]).start()
        began = time.monotonic()
        assert layer.receive(['background'], block=True) == ('background', {'n': 1})
        assert 0.1 < time.monotonic() - began < 1.5
    finally:
        for file in files:
            os.close(file)


def test_a_worker_that_dies_holds_its_connection_up_for_its_lease(make_layer):
    dying, living = make_layer(lease=0.5), make_layer(lease=0.5)
    # A killed process renews nothing.
    dying._upkeep.start = lambda: None
    for n in range(2):
        dying.send('websocket.receive', frame(n))
    assert dying.receive(['websocket.receive'])[1]['n'] == 0
    assert living.receive(['websocket.receive']) == (None, None)
    time.sleep(0.6)
    assert living.receive(['websocket.receive'])[1]['n'] == 1
    # Should it live after all, the end of its frame ends nobody else's.
    living.send('websocket.receive', frame(2))
    assert dying.receive(['websocket.receive']) == (None, None)


def test_a_worker_that_takes_its_time_keeps_its_connection(make_layer):
    slow, other = make_layer(lease=0.3), make_layer(lease=0.3)
    for n in range(2):
        slow.send('websocket.receive', frame(n))
    assert slow.receive(['websocket.receive'])[1]['n'] == 0
    time.sleep(1)
    assert other.receive(['websocket.receive']) == (None, None)
    assert slow.receive(['websocket.receive'])[1]['n'] == 1


def test_a_fan_out_is_one_command_per_server_and_not_per_socket(make_layer, layer, commands):
    readers = [make_layer(), make_layer()]
    names = [f'one!{n}' for n in range(900)] + [f'two!{n}' for n in range(900)]
    layer.send('warm', {})
    commands()
    assert layer.send_many(names, {'text': 'x' * 1000}) == []
    # What the scripts call counts as well; it does not grow with the sockets.
    assert commands() < 60
    received = []
    for reader, prefix in zip(readers, ('one!', 'two!')):
        for _ in range(900):
            channel, message = reader.receive([prefix])
            assert message == {'text': 'x' * 1000}
            received.append(channel)
    assert received == names


@pytest.mark.parametrize('options', [{}, {'symmetric_encryption_keys': ['secret']}])
def test_a_fan_out_reaches_sockets_on_every_shard(make_layer, options):
    sender, reader = make_layer(3, **options), make_layer(3, **options)
    names = [f'server{server}!{n}' for server in range(6) for n in range(3)]
    assert sender.send_many(names + ['plain'], {'text': 'hi'}) == []
    for server in range(6):
        for n in range(3):
            assert reader.receive([f'server{server}!']) == (f'server{server}!{n}', {'text': 'hi'})
    assert any(reader.receive(['plain'])[0] == 'plain' for _ in range(3))


def test_a_server_that_is_full_refuses_and_can_still_be_told_to_close(make_layer):
    layer = make_layer(server_capacity=2)
    assert layer.send_many(['full!a', 'other!a'], {'text': '1'}) == []
    layer.send('full!b', {'text': '2'})
    assert layer.send_many(['full!a', 'full!b', 'other!a'], {'text': '3'}) == ['full!a', 'full!b']
    with pytest.raises(layer.ChannelFull):
        layer.send('full!a', {'text': '3'})
    layer.send('full!a', {'close': 1000})


@pytest.fixture
def writes(monkeypatch):
    """What layers have written to their Redis in this thread: a list, an entry for each time."""

    def send_packed_command(connection, command):
        # Servers of other tests go on.
        if threading.current_thread() is threading.main_thread():
            written.append(command)
        write(connection, command)

    written, write = [], redis.connection.Connection.send_packed_command
    monkeypatch.setattr(redis.connection.Connection, 'send_packed_command', send_packed_command)
    return written


@pytest.mark.parametrize('hosts', [1, 3])
def test_the_last_message_of_a_frame_is_sent_when_its_thread_asks_for_more(make_layer, hosts):
    worker, server, failures = make_layer(hosts), make_layer(hosts), []
    for n in range(10):
        # Of servers on each of the shards.
        name = f'server{n}!a'
        worker.send('websocket.receive', frame(n, name))
        while worker.receive(['websocket.receive'])[0] is None:
            pass
        worker.send_later(name, {'text': str(n)}, failures.append)
        assert server.receive([f'server{n}!']) == (None, None)
        worker.receive(['websocket.receive'])
        assert server.receive([f'server{n}!']) == (name, {'text': str(n)})
    assert failures == []


def test_the_last_message_of_a_frame_costs_no_round_trip(layer, writes):
    for n in range(2):
        layer.send('websocket.receive', frame(n))
    layer.receive(['websocket.receive'])
    del writes[:]
    layer.send_later('server!a', {'text': 'last'}, None)
    assert layer.receive(['websocket.receive'])[1]['n'] == 1
    assert len(writes) == 1


def test_the_last_message_of_a_frame_comes_before_what_is_sent_after_it(make_layer, layer):
    layer.send('websocket.receive', frame(0))
    layer.receive(['websocket.receive'])
    layer.send_later('server!a', {'text': 'last'}, None)
    layer.send('server!a', {'text': 'after all'})
    assert [layer.receive(['server!'])[1]['text'] for _ in range(2)] == ['last', 'after all']


def test_a_close_and_what_no_frame_asked_for_go_at_once(make_layer, layer):
    server = make_layer()
    layer.send_later('server!a', {'text': 'nobody asked'}, None)
    assert server.receive(['server!'])[1] == {'text': 'nobody asked'}
    layer.send('websocket.receive', frame(0))
    layer.receive(['websocket.receive'])
    layer.send_later('server!a', {'close': 1000}, None)
    assert server.receive(['server!'])[1] == {'close': 1000}


def test_a_last_message_that_is_refused_comes_back_with_the_reason(make_layer, redis_url):
    layer, errors = make_layer(server_capacity=1), []
    layer.send('server!b', {'text': 'the only one'})
    for n in range(2):
        layer.send('websocket.receive', frame(n))
    layer.receive(['websocket.receive'])
    layer.send_later('server!a', {'text': 'too many'}, errors.append)
    # The next frame comes all the same.
    assert layer.receive(['websocket.receive'])[1]['n'] == 1
    assert [type(error) for error in errors] == [layer.ChannelFull]
    assert make_layer().receive(['server!'])[1] == {'text': 'the only one'}
    layer.send_later('server!a', {'text': 'no room at all'}, errors.append)
    client = redis.Redis.from_url(redis_url)
    client.config_set('maxmemory', 1)
    try:
        layer.receive(['websocket.receive'])
    finally:
        client.config_set('maxmemory', 0)
    assert [type(error) for error in errors[1:]] == [OutOfMemory]


@pytest.mark.parametrize('trouble', ['the scripts are lost', 'the connection is lost'])
def test_a_last_message_that_fails_is_sent_again(make_layer, layer, redis_url, trouble):
    client, server, errors = redis.Redis.from_url(redis_url), make_layer(), []
    layer.send('websocket.receive', frame(0))
    layer.receive(['websocket.receive'])
    layer.send_later('server!a', {'text': 'last'}, errors.append)
    if trouble == 'the scripts are lost':
        client.script_flush()
    else:
        client.execute_command('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
    layer.receive(['websocket.receive'])
    assert errors == []
    assert server.receive(['server!']) == ('server!a', {'text': 'last'})
    assert server.receive(['server!']) == (None, None)


def test_a_flood_fills_its_own_mailbox_and_its_end_still_arrives(make_layer):
    layer = make_layer(capacity=3)
    layer.send('websocket.connect', frame(0))
    for n in range(1, 3):
        layer.send('websocket.receive', frame(n))
    with pytest.raises(layer.ChannelFull):
        layer.send('websocket.receive', frame(3))
    layer.send('websocket.receive', frame('other', 'server!b'))
    received = []
    for _ in range(5):
        channel, message = layer.receive(['websocket.connect', 'websocket.receive', 'websocket.disconnect'])
        received.append((message['reply_channel'], channel, message.get('code')))
    assert [entry[1:] for entry in received if entry[0] == 'server!a'] == [
        ('websocket.connect', None),
        ('websocket.receive', None),
        ('websocket.receive', None),
        ('websocket.disconnect', 1013),
    ]


class Server:
    """What daphne is to a layer: it reads the messages for its connections and sends their frames, on the reactor."""

    def __init__(self, reactor, layer, prefix):
        self.reactor, self.layer, self.prefix = reactor, layer, prefix
        self.received = []
        reactor.callFromThread(self.read)

    def read(self, received=None):
        if received is not None:
            self.received.append(received)
        self.layer.receive_twisted([self.prefix]).addCallback(self.read)

    def send(self, channel, message):
        threads.blockingCallFromThread(self.reactor, self.layer.send, channel, message)

    def has(self, count):
        """Wait until so many messages have come, and return them."""
        deadline = time.monotonic() + 20
        while len(self.received) < count and time.monotonic() < deadline:
            time.sleep(0.005)
        return self.received


def test_a_server_gets_what_other_processes_send_to_its_connections(make_layer, reactor):
    server = Server(reactor, make_layer(), 'serving!')
    other = make_layer()
    large = 'x' * 3000000
    other.send('serving!a', {'text': 'before it asked'})
    other.send_many(['serving!a', 'serving!b'], {'text': large})
    other.send('serving!b', {'text': 'after'})
    assert server.has(4) == [
        ('serving!a', {'text': 'before it asked'}),
        ('serving!a', {'text': large}),
        ('serving!b', {'text': large}),
        ('serving!b', {'text': 'after'}),
    ]


def test_the_server_that_holds_a_flooding_client_closes_it(make_layer, reactor):
    server = Server(reactor, make_layer(capacity=2), 'held!')
    # A server does not wait for Redis's answers: it hears of the refusal a little later.
    for n in range(4):
        server.send('websocket.receive', frame(n, 'held!a'))
    assert server.has(1) == [('held!a', {'close': 1013})]
    server.send('websocket.disconnect', frame(5, 'held!a'))
    worker = make_layer()
    received = []
    while received[-1:] != [5]:
        # What the server posts may still be on its way.
        channel, message = worker.receive(['websocket.receive', 'websocket.disconnect'], block=True)
        assert channel is not None
        received.append(message['n'])
    assert received == [0, 1, 5]


def test_a_server_outlives_its_redis_and_tells_it_of_the_ends_that_it_missed(tmp_path, reactor, caplog):
    with servers.redis_server(tmp_path) as url:
        server = Server(reactor, RedisChannelLayer(hosts=[url]), 'outlives!')
        server.send('websocket.connect', frame(0, 'outlives!a'))
        RedisChannelLayer(hosts=[url]).send('outlives!a', {'text': 'hello'})
        assert server.has(1) == [('outlives!a', {'text': 'hello'})]
    # The client is told to come back, rather than that a frame is lost without a word.
    server.send('websocket.receive', frame(1, 'outlives!a'))
    assert server.has(2)[1] == ('outlives!a', {'close': 1013})
    server.send('websocket.disconnect', frame(2, 'outlives!a'))
    with servers.redis_server(tmp_path, int(url.split(':')[2].split('/')[0])):
        layer = RedisChannelLayer(hosts=[url])
        deadline = time.monotonic() + 20
        message = None
        while message is None and time.monotonic() < deadline:
            _, message = layer.receive(['websocket.disconnect'], block=True)
        assert message == frame(2, 'outlives!a')
        layer.send('outlives!a', {'text': 'again'})
        assert server.has(3)[2] == ('outlives!a', {'text': 'again'})
        assert caplog.text.count('Redis is away') == caplog.text.count('Redis is back') == 1


def test_a_server_whose_redis_is_full_closes_its_connections_and_keeps_their_ends(tmp_path, reactor):
    with servers.redis_server(tmp_path) as url:
        server = Server(reactor, RedisChannelLayer(hosts=[url]), 'oom!')
        server.send('websocket.connect', frame(0, 'oom!a'))
        worker = RedisChannelLayer(hosts=[url])
        assert worker.receive(['websocket.connect'], block=True)[1]['n'] == 0
        redis.Redis.from_url(url).config_set('maxmemory', 1)
        server.send('websocket.receive', frame(1, 'oom!a'))
        assert server.has(1) == [('oom!a', {'close': 1013})]
        server.send('websocket.disconnect', frame(2, 'oom!a'))
        time.sleep(0.1)
        redis.Redis.from_url(url).config_set('maxmemory', 0)
        received = [worker.receive(['websocket.disconnect'], block=True)[1] for _ in range(3)]
        assert [message['n'] for message in received if message] == [2]


def test_scripts_that_redis_forgets_are_brought_again(layer, redis_url):
    layer.send('websocket.receive', frame(0))
    assert layer.receive(['websocket.receive'])[1]['n'] == 0
    for n in range(1, 4):
        redis.Redis.from_url(redis_url).script_flush()
        layer.send('websocket.receive', frame(n))
        layer.send('server!a', {'text': str(n)})
        redis.Redis.from_url(redis_url).script_flush()
        assert layer.receive(['websocket.receive'])[1]['n'] == n
    assert [layer.receive(['server!'])[1]['text'] for _ in range(3)] == ['1', '2', '3']


def test_a_sentinel_is_refused_with_the_layer_that_knows_it():
    with pytest.raises(ImproperlyConfigured, match='RedisSentinelChannelLayer'):
        RedisChannelLayer(hosts=[('localhost', 26379)], services=['master'])


def test_the_sender_is_told_that_redis_is_out_of_memory(tmp_path):
    with servers.redis_server(tmp_path) as url:
        redis.Redis.from_url(url).config_set('maxmemory', 1)
        layer = RedisChannelLayer(hosts=[url])
        with pytest.raises(OutOfMemory, match='maxmemory'):
            layer.send('plain', {'text': 'x'})
        with pytest.raises(OutOfMemory, match='maxmemory'):
            layer.send_many(['server!a'], {'text': 'x'})


def test_a_redis_that_is_away_is_waited_for_and_logged_once(tmp_path, caplog):
    with servers.redis_server(tmp_path) as url:
        layer = RedisChannelLayer(hosts=[url])
        layer.send('plain', {'n': 1})
    for _ in range(3):
        assert layer.receive(['plain']) == (None, None)
    # daphne understands this, and closes with 1013.
    with pytest.raises(layer.ChannelFull):
        layer.send('websocket.receive', frame(1))
    with pytest.raises(redis.exceptions.ConnectionError):
        layer.send('plain', {})
    port = int(url.split(':')[2].split('/')[0])
    # Servers of other tests miss theirs.
    assert len([line for line in caplog.messages if 'Redis is away' in line and str(port) in line]) == 1
    with servers.redis_server(tmp_path, port):
        assert layer.receive(['plain']) == (None, None)
        layer.send('plain', {'n': 2})
        assert layer.receive(['plain']) == ('plain', {'n': 2})
    assert caplog.text.count('Redis is back') == 1


def test_a_process_that_serves_locally_keeps_its_frames_to_itself(make_layer, reactor, commands, monkeypatch):
    # That a server lives, which it says twice a second, is not what is counted.
    monkeypatch.setattr(upkeep, 'HEARTBEAT_EVERY', 60)
    layer = make_layer()
    layer.serve_locally()
    server = Server(reactor, layer, 'local!')
    time.sleep(0.7)
    commands()
    for n in range(50):
        layer.send('websocket.receive', frame(n, 'local!a'))
        assert layer.receive(['websocket.receive'])[1]['n'] == n
        layer.send('local!a', {'text': str(n)})
    assert [message['text'] for _, message in server.has(50)] == [str(n) for n in range(50)]
    # It asks every two seconds whether anything came from elsewhere, as any other server in these tests does.
    assert commands() <= 5


@pytest.mark.parametrize('key', ['busy', 'leases', 'frames:server!a', 'ready:websocket.receive'])
def test_nothing_of_a_connection_stays_behind(layer, redis_url, key):
    for n in range(3):
        layer.send('websocket.receive', frame(n))
    for _ in range(4):
        layer.receive(['websocket.receive'])
    assert not redis.Redis.from_url(redis_url).exists(f'test:{VERSION}:' + key)


def test_a_process_with_the_stock_layer_or_another_version_does_not_mix_with_ours(redis_url, monkeypatch):
    ours, stock = RedisChannelLayer(hosts=[redis_url]), asgi_redis.RedisChannelLayer(hosts=[redis_url])
    monkeypatch.setattr('sockets.layers.redis.VERSION', VERSION + 1)
    newer = RedisChannelLayer(hosts=[redis_url])
    everyone = [ours, stock, newer]
    for n, layer in enumerate(everyone):
        layer.flush()
        layer.send('plain', {'n': n})
        layer.group_add('group', 'plain')
    for n, layer in enumerate(everyone):
        assert layer.receive(['plain']) == ('plain', {'n': n})
        assert layer.receive(['plain']) == (None, None)
    ours.flush()
    assert newer.group_channels('group') == ['plain']


def test_an_expired_frame_is_skipped_and_the_end_of_its_connection_is_not(make_layer):
    layer = make_layer(expiry=1)
    layer.send('websocket.receive', frame('old'))
    layer.send('websocket.disconnect', frame('end'))
    time.sleep(1.1)
    assert layer.receive(['websocket.receive', 'websocket.disconnect'], block=True)[1]['n'] == 'end'


@pytest.mark.parametrize('hosts', [1, 3])
def test_of_a_connection_that_is_told_to_close_only_the_disconnect_is_received(make_layer, hosts):
    layer, other = make_layer(hosts), make_layer(hosts)
    for connection in ('server!a', 'server!b'):
        layer.send('websocket.receive', frame(0, connection))
        layer.send('websocket.receive', frame(1, connection))
    assert other.send_many(['server!a'], {'close': 4401}) == []
    layer.send('websocket.receive', frame(2))
    layer.send('websocket.disconnect', frame(3))

    def take_all():
        taken = []
        while True:
            channel, message = layer.receive(['websocket.receive', 'websocket.disconnect'])
            if channel is None:
                return taken
            taken.append((message['reply_channel'], message['n']))

    assert sorted(in_thread(take_all)) == [('server!a', 3), ('server!b', 0), ('server!b', 1)]
    # Its name is free again, and nothing of it is left.
    assert not [key for index in range(hosts) for key in layer.connection(index).keys('*server!a')]


@pytest.fixture
def quick(monkeypatch):
    """Leases that are short enough to wait for."""
    monkeypatch.setattr(upkeep, 'HEARTBEAT_EVERY', 0.05)
    monkeypatch.setattr(redis_leases, '_LEASE', 0.2)
    monkeypatch.setattr(redis_leases, '_SUSPICION', 0.15)
    monkeypatch.setattr(redis_leases, '_GRACE', 0.3)


@pytest.mark.parametrize('hosts', [1, 3])
def test_a_server_that_sends_no_more_heartbeats_is_dead_after_a_while(make_layer, quick, hosts):
    server, other = make_layer(hosts), make_layer(hosts)
    server._leases.renew('server!')
    # Those of other tests live, too.
    assert 'server!' not in other.dead_servers() and 'server!' in other.live_servers()
    time.sleep(0.25)
    assert 'server!' not in other.live_servers()
    # It may be that Redis has slept, and everybody is late: it gets another chance to speak.
    assert 'server!' not in other.dead_servers()
    server._leases.renew('server!')
    time.sleep(0.16)
    assert 'server!' not in other.dead_servers()
    time.sleep(0.1)
    assert 'server!' not in other.dead_servers()
    time.sleep(0.2)
    assert 'server!' in other.dead_servers() and 'server!' in server.dead_servers()
    other.forget_server('server!')
    assert 'server!' not in server.dead_servers()


def test_a_server_that_redis_does_not_know_has_some_time_for_its_first_heartbeat(make_layer, quick):
    layer = make_layer()
    deadline = time.monotonic() + 5
    looks = 0
    while 'gone!' not in layer.dead_servers(['gone!', 'late!']):
        assert time.monotonic() < deadline
        looks += 1
        if looks > 2:
            layer._leases.renew('late!')
        time.sleep(0.05)
    assert looks >= 6


def test_a_server_that_reads_sends_heartbeats_and_a_restarted_redis_learns_of_it_again(make_layer, quick, reactor):
    server, other = make_layer(), make_layer()
    threads.blockingCallFromThread(reactor, server.deliver_to, 'reads!', print)
    for _ in range(10):
        assert 'reads!' not in other.dead_servers(['reads!'])
        time.sleep(0.05)
    other.connection(0).delete(other.prefix + 'servers')
    for _ in range(20):
        assert 'reads!' not in other.dead_servers(['reads!'])
        time.sleep(0.05)


def found_dead(make_layer, hosts=1, server='server!'):
    """Return a layer that has found ``server`` dead."""
    layer = make_layer(hosts)
    layer._leases.renew(server)
    deadline = time.monotonic() + 5
    # Those of other tests, which have as little time, may be dead, too.
    while server not in layer.dead_servers():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return layer


@pytest.mark.parametrize('hosts', [1, 3])
def test_a_sign_of_life_is_answered_with_what_was_made_of_the_silence(make_layer, quick, hosts):
    server = make_layer(hosts)
    renew = server._leases.renew
    assert [renew('server!'), renew('server!')] == [UNKNOWN, FINE]
    other = found_dead(make_layer, hosts)
    assert [renew('server!'), renew('server!')] == [DEAD, DEAD]
    # It speaks again, and its rows go all the same.
    assert other.dead_servers() == ['server!'] and 'server!' not in other.live_servers()
    other.send_many(['server!a'], {'close': 4401})
    queues = [index for index in range(hosts) if other.connection(index).exists(other.prefix + 'queue:server!')]
    other.forget_server('server!')
    # Nobody may ever come for it.
    assert [0 < other.connection(index).ttl(other.prefix + 'queue:server!') <= 60 for index in queues] == [True]
    assert other.dead_servers() == [] and renew('server!') == GONE
    server._leases.unmark_dead('server!')
    assert [renew('server!'), renew('server!')] == [UNKNOWN, FINE]
    # Somebody who was slow to remove rows that were gone already.
    other.forget_server('server!')
    assert renew('server!') == FINE and 'server!' in other.live_servers()
    assert not [key for index in range(hosts) for key in other.connection(index).keys('*found_dead:*')]


@pytest.mark.parametrize('hosts', [1, 3])
def test_no_frame_of_a_dead_server_is_put_or_taken_on_any_shard_but_the_ends_of_its_connections_are(
    make_layer, quick, hosts
):
    server, connections = make_layer(hosts), [f'server!{n}' for n in range(12)]
    for connection in connections:
        server.send('websocket.receive', frame(0, connection))
        server.send('websocket.receive', frame(0, connection.replace('server', 'other')))
    found_dead(make_layer, hosts)
    for connection in connections:
        for channel in ('websocket.receive', 'websocket.connect'):
            with pytest.raises(server.ChannelFull):
                server.send(channel, frame(1, connection))
        server.send('websocket.disconnect', frame(2, connection))

    def take_all():
        taken, nothing = [], 0
        while nothing < 3:
            _, message = server.receive(list(FRAMES))
            nothing += message is None
            taken += [] if message is None else [(message['reply_channel'], message['n'])]
        return taken

    assert sorted(in_thread(take_all)) == sorted(
        [(connection, 2) for connection in connections]
        + [(connection.replace('server', 'other'), 0) for connection in connections]
    )


def eventually(until):
    deadline = time.monotonic() + 5
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize('locally', [True, False])
def test_a_server_that_was_found_dead_closes_its_connections_and_serves_again_when_its_rows_are_gone(
    make_layer, reactor, quick, monkeypatch, locally
):
    layer = make_layer()
    if locally:
        layer.serve_locally()
    layer.set_close_message({'text': 'come back', 'close': 1012})
    # The servers of other tests go on.
    name = f'silent{locally}!'
    a, b, c = name + 'a', name + 'b', name + 'c'
    server = Server(reactor, layer, name)
    worker = layer if locally else make_layer()
    for connection in (a, b):
        server.send('websocket.connect', frame(0, connection))
        assert worker.receive(['websocket.connect'], block=True)[1]['reply_channel'] == connection
        worker.receive(['websocket.connect'])
        server.send('websocket.receive', frame(1, connection))
    judge = make_layer()
    eventually(lambda: name in judge.live_servers())
    renew = layer._leases.renew
    monkeypatch.setattr(layer._leases, 'renew', lambda server: FINE)
    eventually(lambda: name in judge.dead_servers())
    monkeypatch.setattr(layer._leases, 'renew', renew)
    assert sorted(server.has(2)) == [(connection, {'text': 'come back', 'close': 1012}) for connection in (a, b)]
    with pytest.raises(layer.ChannelFull):
        server.send('websocket.connect', frame(0, c))
    # What waited and what comes is not handled, and the ends are.
    server.send('websocket.receive', frame(2, a))
    for connection in (a, b):
        server.send('websocket.disconnect', frame(3, connection))

    def take_all():
        return sorted(
            (message['reply_channel'], message['n'])
            for message in (worker.receive(list(FRAMES))[1] for _ in range(8))
            if message and message['n']
        )

    assert in_thread(take_all) == [(a, 3), (b, 3)]
    # Their rows may still be there.
    time.sleep(0.2)
    with pytest.raises(layer.ChannelFull):
        server.send('websocket.connect', frame(0, c))
    judge.forget_server(name)
    eventually(lambda: layer._servers.liveness.may_serve())
    server.send('websocket.connect', frame(0, c))
    assert in_thread(lambda: worker.receive(list(FRAMES)))[1]['reply_channel'] == c


def test_a_process_that_was_stopped_hands_no_frame_to_a_route_before_a_heartbeat_is_answered(
    make_layer, reactor, monkeypatch
):
    layer = make_layer()
    layer.serve_locally()
    server = Server(reactor, layer, 'stopped!')
    eventually(lambda: layer._servers.liveness.at_work < float('inf'))
    for name in ('stopped!a', 'stopped!b'):
        server.send('websocket.connect', frame(0, name))
        assert layer.receive(['websocket.connect'])[1]['reply_channel'] == name
        layer.receive(['websocket.connect'])
    server.send('websocket.receive', frame(1, 'stopped!a'))
    clock, renewed = liveness.uptime, []
    monkeypatch.setattr(liveness, 'uptime', lambda: clock() + 75)
    monkeypatch.setattr(layer._upkeep, 'jobs', [])
    worker = threading.Thread(target=lambda: renewed.append(layer.receive(['websocket.receive'])))
    worker.start()
    worker.join(1)
    assert renewed == [] and layer._servers.liveness.interruptions == 1
    layer._servers.liveness.take_answer(FINE, 1)
    worker.join(5)
    assert renewed[0][1]['n'] == 1
    # While this one waited, its connection was ended with all the others, and the server lived again.
    server.send('websocket.receive', frame(2, 'stopped!b'))
    monkeypatch.setattr(liveness, 'uptime', lambda: clock() + 150)
    threading.Timer(0.7, lambda: server.send('websocket.disconnect', frame(3, 'stopped!b'))).start()
    threading.Timer(0.9, lambda: layer._servers.liveness.take_answer(FINE, 2)).start()
    assert in_thread(lambda: layer.receive(['websocket.receive'])) == (None, None)


def test_a_shard_that_is_away_keeps_no_server_on_another_one_alive(shards, quick, tmp_path):
    with servers.redis_server(tmp_path) as url:
        layer = RedisChannelLayer(hosts=[shards[0], url], prefix='two:')
        layer.flush()
        here, there = (
            next(name for name in (f'server{n}!' for n in range(50)) if layer.consistent_hash(name) == index)
            for index in (0, 1)
        )
        layer._leases.renew(here), layer._leases.renew(there)
    found = set()
    eventually(lambda: found.update(layer.dead_servers()) or here in found)
    assert found == {here}
    layer.forget_server(here)
    assert layer.dead_servers() == []


def test_a_redis_that_is_new_says_so_until_it_has_been_told_of_all_servers(make_layer, quick):
    layer = make_layer()
    assert not layer.has_forgotten()
    layer.dead_servers()
    assert layer.has_forgotten()
    layer.dead_servers([])
    assert not layer.has_forgotten()
    layer.dead_servers()
    assert not layer.has_forgotten()


@pytest.mark.parametrize('hosts', [1, 3])
def test_a_close_waits_for_its_server_as_long_as_it_takes(make_layer, reactor, hosts):
    # The servers of other tests go on.
    a, b = (f'waits{hosts}!{name}' for name in 'ab')
    sender = make_layer(hosts, expiry=1)
    sender.send_many([a, b], {'text': 'expires'})
    sender.send_many([a, b], {'text': 'RECONNECT', 'close': 4401})
    # What comes after it shortens nothing.
    sender.send_many([a], {'text': 'expires'})
    sender.send('websocket.receive', frame(0, a))
    time.sleep(2.5)
    server = Server(reactor, make_layer(hosts, expiry=1), f'waits{hosts}!')
    assert server.has(2) == [(name, {'text': 'RECONNECT', 'close': 4401}) for name in (a, b)]
    sender.send('websocket.receive', frame(1, a))
    assert in_thread(lambda: [sender.receive(['websocket.receive'])[1] for _ in range(4)]) == [None] * 4


@pytest.mark.parametrize('hosts', [1, 3])
def test_connections_of_which_a_frame_waits_or_is_handled_anywhere_are_not_idle(make_layer, hosts):
    layer, worker = make_layer(hosts), make_layer(hosts)
    names = [f'server!{n}' for n in range(9)]
    for name in names[:6]:
        layer.send('websocket.receive', frame(0, name))
    taken = in_thread(lambda: worker.receive(['websocket.receive']))[1]['reply_channel']
    assert taken in names[:6]
    assert sorted(layer.idle(names)) == names[6:] == sorted(worker.idle(names))


def test_no_server_is_found_dead_because_redis_is_away(tmp_path):
    layer = RedisChannelLayer(hosts=[f'redis://127.0.0.1:{servers.free_port()}/0'])
    assert layer.dead_servers(['server!']) == []


@pytest.mark.parametrize('hosts', [1, 3])
def test_what_waits_and_what_was_dropped_is_counted(make_layer, hosts):
    layer = make_layer(hosts)
    assert layer.statistics() == {'waiting': {}, 'dropped': {}}
    layer.send('background', {})
    layer.send_many(['server!a', 'server!b'], {'text': ''})
    layer.send('websocket.receive', frame(0))
    layer.note_dropped({'server!': 3}), layer.note_dropped({'server!': 1, 'other!': 1})
    assert layer.statistics() == {
        'waiting': {'background': 1, 'server!': 1, 'frames of connections': 1},
        'dropped': {'server!': 4, 'other!': 1},
    }


@pytest.mark.parametrize('hosts', [1, 3])
def test_messages_for_a_dead_server_do_not_count_as_waiting(make_layer, quick, hosts):
    layer, other = make_layer(hosts), make_layer(hosts)
    for server in ('server!', 'living!'):
        layer._leases.renew(server)
        layer.send_many([server + 'a'], {'text': ''})
    layer.send_many(['unheard!a'], {'text': ''})
    assert set(other.statistics()['waiting']) == {'server!', 'living!', 'unheard!'}
    deadline = time.monotonic() + 5
    # Nobody keeps house, so nobody finds it dead.
    while 'server!' in other.statistics()['waiting']:
        layer._leases.renew('living!')
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert set(other.statistics()['waiting']) == {'living!', 'unheard!'}
    # Somebody does, and its rows go.
    while other.dead_servers() != ['server!']:
        layer._leases.renew('living!')
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert set(other.statistics()['waiting']) == {'living!', 'unheard!'}
    other.forget_server('server!')
    assert set(other.statistics()['waiting']) == {'living!', 'unheard!'}


def test_a_process_that_ends_in_good_order_lets_its_connections_go(make_layer):
    layer, other = make_layer(), make_layer()
    for n in range(2):
        layer.send('websocket.receive', frame(n))
    assert in_thread(lambda: layer.receive(['websocket.receive']))[1]['n'] == 0
    assert in_thread(lambda: other.receive(['websocket.receive'])) == (None, None)
    layer._claims.end_all()
    assert in_thread(lambda: other.receive(['websocket.receive']))[1]['n'] == 1


@pytest.mark.parametrize('hosts', [1, 3])
def test_a_process_that_ends_cleanly_sends_its_last_messages(make_layer, hosts):
    for n in range(6):
        layer, server = make_layer(hosts), make_layer(hosts)
        name = f'server{n}!a'
        layer.send('websocket.receive', frame(0, name))
        while layer.receive(['websocket.receive'])[0] is None:
            pass
        layer.send_later(name, {'text': 'last'}, None)
        layer._claims.end_all()
        # Nobody waits for what Redis says.
        until = time.monotonic() + 5
        while server.receive([f'server{n}!']) != (name, {'text': 'last'}):
            assert time.monotonic() < until


def test_the_last_message_of_a_process_arrives_where_redis_does_not_know_its_script(make_layer):
    # Its digest was sent, and nobody read that Redis had restarted meanwhile.
    layer, server = make_layer(), make_layer()
    layer.send('websocket.receive', frame(0))
    assert layer.receive(['websocket.receive'])[0] is not None
    layer.send_later('server!a', {'text': 'last'}, None)
    layer.connection(0).script_flush()
    layer._claims.end_all()
    until = time.monotonic() + 5
    while server.receive(['server!']) != ('server!a', {'text': 'last'}):
        assert time.monotonic() < until


def test_a_layer_that_is_not_used_any_more_leaves_no_thread_behind(make_layer, quick):
    def threads_of_layers():
        return {thread for thread in threading.enumerate() if thread.name == 'sockets-leases'}

    before = threads_of_layers()
    layers = [make_layer()]
    layers[0].send('websocket.receive', frame(0))
    assert in_thread(lambda: layers[0].receive(['websocket.receive']))[1]['n'] == 0
    (thread,) = threads_of_layers() - before
    layers.clear()
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()


def test_frames_of_a_connection_are_refused_before_it_is_told_to_close(make_layer, monkeypatch):
    # A client that was quick to answer RECONNECT got one more frame through to a route.
    layer, steps = make_layer(), []
    run = layer._ring.run
    monkeypatch.setattr(layer._ring, 'run', lambda name, index, args: (steps.append(name), run(name, index, args))[1])
    layer.send_many(['server!a', 'server!b'], {'text': '{"type":"RECONNECT"}', 'close': 4401})
    assert steps == ['close', 'put']


def told(layer, count, server):
    """Send a connect of each of so many clients; return after how many seconds those come back that are told to."""
    found = []
    for n in range(count):
        try:
            layer.send('websocket.connect', frame(n, f'{server}{n}'))
        except layer.ChannelFull as error:
            found.append(error.retry_after)
    return found


def test_more_connects_than_workers_take_in_time_are_told_when_to_come_back_whichever_server_has_them(make_layer):
    assert told(make_layer(), 50, 'first!') == []
    assert 190 < len(told(make_layer(), 250, 'second!')) < 200
    # By then a worker has been seen to be faster.
    worker = make_layer()
    for _ in range(101):
        assert worker.receive(['websocket.connect'])[0]
        time.sleep(0.002)
    slots = told(make_layer(), 1200, 'third!')
    assert 50 < len(slots) < 1100 and min(slots) >= 0.1 and max(slots) < 20
    assert slots[-1] > slots[0]


def test_a_client_that_left_before_a_worker_took_its_connect_leaves_nothing_in_redis(make_layer, redis_url):
    server, worker = make_layer(), make_layer()
    server.send('websocket.connect', frame(0, 'gone!a'))
    server.send('websocket.connect', frame(1, 'gone!b'))
    server.send('websocket.disconnect', frame(2, 'gone!a'))
    assert worker.receive(sorted(FRAMES))[1]['n'] == 1
    assert worker.receive(sorted(FRAMES)) == (None, None)
    # Its end is handled where it has begun.
    server.send('websocket.disconnect', frame(3, 'gone!b'))
    assert worker.receive(sorted(FRAMES))[1]['n'] == 3
    assert worker.receive(sorted(FRAMES)) == (None, None)
    keys = [key.decode() for key in redis.Redis.from_url(redis_url).keys('test:*')]
    assert [key for key in keys if 'frames:' in key or 'ready:' in key] == []


def test_a_connect_that_no_worker_took_in_time_is_dropped(make_layer):
    server, worker = make_layer(), make_layer()
    server.expect_handshakes_within(-0.8)
    server.send('websocket.connect', frame(0, 'late!a'))
    assert worker.receive(['websocket.connect'])[1]['n'] == 0
    server.send('websocket.connect', frame(1, 'late!b'))
    time.sleep(0.25)
    server.send('websocket.connect', frame(2, 'late!c'))
    assert worker.receive(['websocket.connect'])[1]['n'] == 2


def test_a_worker_takes_frames_before_connects_but_not_for_ever(make_layer, monkeypatch):
    server, worker = make_layer(), make_layer()
    for n in range(3):
        server.send('websocket.connect', frame(n, f'new!{n}'))
    taken = []
    for n in range(6):
        server.send('websocket.receive', frame(n, f'old!{n}'))
        taken.append(worker.receive(sorted(FRAMES))[0])
        if n == 3:
            time.sleep(0.5)
    connect, receive = 'websocket.connect', 'websocket.receive'
    assert taken == [connect, receive, receive, receive, connect, receive]


def test_a_server_turns_a_client_away_for_which_there_is_no_room(make_layer, reactor):
    layer = make_layer()
    server = Server(reactor, layer, 'full!')
    for n in range(110):
        try:
            server.send('websocket.connect', frame(n, f'full!{n}'))
        except layer.ChannelFull as error:
            server.received.append((f'full!{n}', {'retry': error.retry_after}))
    # At once, or when the server hears of it.
    found = server.has(9)
    assert 8 <= len(found) < 10 and all(message['retry'] >= 1 for _, message in found)
    assert 'full!109' in dict(found)
    # Nobody says that those have ended: they are not remembered.
    assert layer._servers.connections == {f'full!{n}' for n in range(110)} - set(dict(found))


@pytest.mark.parametrize('hosts', [1, 3])
def test_tokens_are_shared_by_all_processes_and_come_back_with_time(make_layer, hosts):
    one, other = make_layer(hosts), make_layer(hosts)
    assert [layer.take_token('alice', 2, 3) for layer in (one, other, one)] == [0, 0, 0]
    seconds = other.take_token('alice', 2, 3)
    assert 0 < seconds <= 0.5 and one.take_token('bob', 10, 3) == 0
    time.sleep(seconds + 0.001)
    assert one.take_token('alice', 2, 3) == 0 < other.take_token('alice', 2, 3)


def test_a_caller_that_is_refused_a_token_has_taken_none(layer):
    assert layer.take_token('alice', 20, 1) == 0
    until = time.monotonic() + 0.1
    refused = 0
    while layer.take_token('alice', 20, 1):
        refused += 1
        assert time.monotonic() < until
        time.sleep(0.002)
    assert refused > 3


def test_tokens_of_a_silent_client_are_forgotten(layer, redis_url):
    layer.take_token('\ud800 alice', 1 / 60, 10), layer.take_token('bob', 100, 1), layer.take_token('eve', 1e-300, 1)
    assert layer.take_token('eve', 1e-300, 1) > 1e12
    client = redis.Redis.from_url(redis_url)
    time.sleep(0.03)
    keys = client.keys('test:*tokens:*')
    assert len(keys) == 2 and sum(client.ttl(key) <= 60 for key in keys) == 1
