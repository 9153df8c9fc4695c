"""A site of a hundred servers, simulated: a storm, a message to everybody, a Redis that fails, and which part is full first.

``python benchmarks/simulate.py`` takes two minutes, needs nothing but Python, and prints the same each time (``--seed``).
It first plays what ``storm.py`` and ``fanout.py`` have measured with one server and with two, and ends with 1 if a
figure differs from the measured one by more than a fifth.

The unit costs are those of docs/explanation/scaling.md, and of a connection those from before rows were inserted together. The
queue of connects is the real one (layers/admission.py), and clients do what ``sockets.js`` does. A server, a Redis and a core of
PostgreSQL are queues, first come, first served.
"""

import argparse
import collections
import heapq
import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sockets.layers import admission  # noqa: E402

# Seconds of processor time. Of PostgreSQL, by event; of one Redis, for an entry of a fan-out and a second of a server.
DATABASE = {'second': 300e-6, 'visit': 1200e-6, 'note': 23e-6, 'user': 200e-6, 'fan-out': 90e-6, 'name': 0.42e-6}
REDIS = {'second': 800e-6, 'entry': 90e-6, 'name': 0.29e-6}
# Of a server: a handshake on its reactor, what a connect costs on its thread, a frame that is answered, a frame of a
# fan-out, and what a fan-out costs its sender besides, by message and by name.
SERVER = {'handshake': 0.5e-3, 'connect': 1.2e-3, 'echo': 0.1e-3, 'frame': 26e-6, 'fan-out': 14e-3, 'name': 4e-6}
# What a connect waits for besides its function: the interpreter lock, the database.
CONNECT_WAITS = 2e-3

# The site: connections of a server, and seconds between two frames, two visits and two fan-outs to a room of a hundred.
CONNECTIONS, FRAME_EVERY, STAYS, FAN_OUT_EVERY, ROOM = 10000, 10, 600, 1000, 100
NOTED_EVERY, NAMES_AT_ONCE = 10, 1000
DATABASE_CORES, REDIS_SERVERS = 16, 8

# Of sockets.js, and of a server: see storm.py, RetryAfter and docs/reference/settings.md.
OPEN_TIMEOUT, MIN_DELAY, MAX_DELAY, HANDSHAKE_TIMEOUT, TURNED_AWAY_AT_ONCE = 10, 1, 5, 5, 1000
CONNECT_THREADS = 2
# Of a Redis of several: a call's time-out, and seconds between two tries.
REDIS_TIMEOUT, PROBE_EVERY = 1.5, 0.25

# What was measured: of storm.py (clients, milliseconds of a connect function: seconds until all are back), and of
# fanout.py (connections: seconds until the last one has a message).
STORMS = {(1500, 0): 4.8, (1500, 10): 10.1, (1500, 30): 26.0, (1500, 100): 83.7, (5000, 10): 36.4}
FAN_OUTS = {1000: 0.044, 3000: 0.124}
TOLERANCE = 0.2


class Simulation:
    """Events by time. What is called is given ``now`` by the attribute of that name."""

    def __init__(self, seed):
        self.random = random.Random(seed).random
        self.now = 0
        self._events = []
        self._count = 0

    def at(self, moment, function, *args):
        self._count += 1
        heapq.heappush(self._events, (moment, self._count, function, args))

    def run(self, until=float('inf')):
        while self._events and self._events[0][0] <= until:
            self.now, _, function, args = heapq.heappop(self._events)
            function(*args)


class Station:
    """A queue before one core or several: ``serve`` returns when work that comes now will be done."""

    def __init__(self, cores=1):
        self._free = [0.0] * cores
        self.busy = 0.0

    def free(self, now):
        """Return when work that comes now will begin."""
        return max(now, self._free[0])

    def serve(self, now, seconds):
        self.busy += seconds
        done = self.free(now) + seconds
        heapq.heapreplace(self._free, done)
        return done


class Server:
    """A ``runsockets``: one core, threads for connects, and who may wait for them."""

    def __init__(self, sim, database, milliseconds):
        self.sim, self.database = sim, database
        self.function = milliseconds / 1000
        # They share one interpreter lock: while both are busy, each takes twice as long.
        self.reactor, self.threads = Station(), Station()
        self.admission = admission.Admission()
        self.waiting = collections.deque()
        self.idle = CONNECT_THREADS
        self.being_told = 0
        self.is_up = True

    def handshake(self, client):
        self.sim.at(self.shared(self.reactor, self.threads, SERVER['handshake']), self.ask, client)

    def shared(self, station, other, seconds):
        now = self.sim.now
        return station.serve(now, seconds * (2 if other.free(now) > now else 1))

    def ask(self, client):
        now = self.sim.now
        while self.waiting and (now - self.waiting[0][0] > HANDSHAKE_TIMEOUT or self.waiting[0][1].has_left):
            self.waiting.popleft()
        oldest = now - self.waiting[0][0] if self.waiting else 0
        slot = self.admission.ask(now, len(self.waiting), oldest)
        if slot is None:
            self.waiting.append((now, client))
            self.take()
        elif self.being_told >= TURNED_AWAY_AT_ONCE:
            client.fail()
        else:
            self.being_told += 1
            self.sim.at(now + 0.1, self.told)
            client.come_back(slot)

    def told(self):
        self.being_told -= 1

    def take(self):
        while self.idle and self.waiting:
            since, client = self.waiting.popleft()
            if client.has_left or self.sim.now - since > HANDSHAKE_TIMEOUT:
                continue
            self.admission.taken(self.sim.now, len(self.waiting))
            self.idle -= 1
            served = self.shared(self.threads, self.reactor, SERVER['connect'])
            stored = self.database.serve(served, DATABASE['visit'])
            self.sim.at(stored + CONNECT_WAITS + self.function, self.taken, client)

    def taken(self, client):
        self.idle += 1
        client.opened()
        self.take()


class Client:
    """A page with ``sockets.js`` whose server has gone: it comes back."""

    __slots__ = ('crowd', 'server', 'failures', 'attempt', 'has_left', 'is_open')

    def __init__(self, crowd, server):
        self.crowd, self.server = crowd, server
        self.failures = self.attempt = 0
        self.has_left = self.is_open = False
        self.fail()

    def connect(self):
        self.has_left = False
        self.attempt += 1
        if not self.server.is_up:
            return self.fail()
        sim = self.crowd.sim
        sim.at(sim.now + OPEN_TIMEOUT, self.too_long, self.attempt)
        self.server.handshake(self)

    def too_long(self, attempt):
        if attempt == self.attempt and not self.is_open and not self.has_left:
            self.fail()

    def fail(self):
        self.has_left = True
        sim = self.crowd.sim
        sim.at(sim.now + sim.random() * min(MAX_DELAY, MIN_DELAY * 2**self.failures), self.connect)
        self.failures += 1

    def come_back(self, seconds):
        self.has_left = True
        self.crowd.told += 1
        self.crowd.sim.at(self.crowd.sim.now + seconds + self.crowd.sim.random() / 4, self.connect)

    def opened(self):
        if not self.is_open and not self.has_left:
            self.is_open = True
            self.crowd.open += 1
            self.crowd.back = self.crowd.sim.now


class Crowd:
    """The clients of servers that are killed and come back after ``down`` seconds."""

    def __init__(self, seed, servers, clients, milliseconds, cores, down=10):
        self.sim = Simulation(seed)
        self.open = self.told = self.back = 0
        self.database = Station(cores)
        self.servers = [Server(self.sim, self.database, milliseconds) for _ in range(servers)]
        for server in self.servers:
            server.is_up = False
            self.sim.at(down, setattr, server, 'is_up', True)
        self.clients = [Client(self, server) for server in self.servers for _ in range(clients)]
        self.sim.run()
        assert self.open == len(self.clients), 'Some are not back.'
        self.back -= down


def fan_out(servers, connections, cores, redis_servers):
    """Return when the first server and the last one have sent a message to all of their ``connections``, in seconds."""
    total = servers * connections
    found = Station(cores).serve(0, DATABASE['fan-out'] + total * DATABASE['name'])
    known = found + SERVER['fan-out'] + total * SERVER['name']
    shards, ends = [Station() for _ in range(redis_servers)], []
    for number in range(servers):
        core = Station()
        for start in range(0, connections, NAMES_AT_ONCE):
            names = min(NAMES_AT_ONCE, connections - start)
            arrives = known
            if servers > 1:
                arrives = shards[number % redis_servers].serve(known, REDIS['entry'] + names * REDIS['name'])
            sent = core.serve(arrives, names * SERVER['frame'])
        ends.append(sent)
    return min(ends), max(ends)


class Failover:
    """A Redis of several stops answering for ``away`` seconds, while functions send to rooms. What do others notice?

    A thread that asks it waits for its time-out once. Then its process knows, and calls fail at once until a try that
    is made now and then succeeds.
    """

    def __init__(self, seed, servers, redis_servers, away, seconds=30):
        self.sim = Simulation(seed)
        self.servers = [{'threads': Station(2), 'known': None} for _ in range(servers)]
        self.begin = 5
        # When it answers again, and when that is noticed.
        self.end, self.noticed = 5 + away, 5 + away + (PROBE_EVERY if away else 0)
        self.shards = [Station() for _ in range(redis_servers)]
        self.waits, self.lost, self.sent = [], 0, 0
        for server in self.servers:
            self.sim.at(self.sim.random() * FRAME_EVERY / CONNECTIONS, self.frame, server)
        self.sim.run(seconds)
        self.waits.sort()

    def frame(self, server):
        sim = self.sim
        sim.at(sim.now + 2 * sim.random() * FRAME_EVERY / CONNECTIONS, self.frame, server)
        takes = SERVER['echo']
        # One frame of a hundred sends to a room, some of whose entries go to the Redis that is away.
        if sim.random() < FRAME_EVERY / FAN_OUT_EVERY:
            reached = {int(sim.random() * len(self.shards)) for _ in range(min(ROOM, len(self.servers)))}
            self.sent += 1
            if 0 in reached and self.begin <= sim.now < self.noticed:
                self.lost += 1
                begins = server['threads'].free(sim.now)
                if server['known'] is None:
                    server['known'] = begins + REDIS_TIMEOUT
                # Until it is known, each thread that asks waits.
                takes += max(0, server['known'] - begins)
            for index in reached:
                if index or not self.begin <= sim.now < self.end:
                    self.shards[index].serve(sim.now, REDIS['entry'])
        self.waits.append(server['threads'].serve(sim.now, takes) - sim.now)

    def p(self, share):
        return self.waits[int(share * (len(self.waits) - 1))]


def busy(servers, seed=0, seconds=2):
    """Return the busy cores of one second of a site: of PostgreSQL and of all Redis servers, counted event by event."""
    sim = Simulation(seed)
    database, redis, count = Station(10**4), Station(10**4), servers * CONNECTIONS

    def often(every, function):
        moment = 0.0
        while moment < seconds:
            moment += every * 2 * sim.random()
            function()

    often(1 / servers, lambda: (database.serve(0, DATABASE['second']), redis.serve(0, REDIS['second'])))
    often(STAYS / count, lambda: database.serve(0, DATABASE['visit']))
    often(NOTED_EVERY / count, lambda: database.serve(0, DATABASE['note']))
    often(2 * FRAME_EVERY / count, lambda: database.serve(0, DATABASE['user']))

    def send():
        database.serve(0, DATABASE['fan-out'] + ROOM * DATABASE['name'])
        for _ in {int(sim.random() * servers) for _ in range(ROOM)} - {0}:
            redis.serve(0, REDIS['entry'])

    often(FAN_OUT_EVERY / count, send)
    return database.busy / seconds, redis.busy / seconds


def walls(cores, redis_servers):
    """Return the parts that are full, and with how many servers, the first one first."""
    found = {}
    for servers in (*range(1, 100, 3), *range(100, 401, 20)):
        database, redis = busy(servers, seconds=0.3)
        if database > 0.8 * cores:
            found.setdefault(f'PostgreSQL with {cores} cores', servers)
        if redis > 0.8 * redis_servers:
            found.setdefault(
                '{} Redis {}'.format(redis_servers, 'server' if redis_servers == 1 else 'servers'), servers
            )
    return sorted(found.items(), key=lambda item: item[1])


def checked(seed):
    """Yield what was simulated and measured of one server and two: names, two figures, and whether they agree."""
    pairs = [
        (
            f'{clients} clients come back to a connect function of {milliseconds} ms',
            Crowd(seed, 1, clients, milliseconds, 2).back,
            measured,
        )
        for (clients, milliseconds), measured in STORMS.items()
    ]
    pairs += [(f'a message to {count}', fan_out(1, count, 2, 1)[1], measured) for count, measured in FAN_OUTS.items()]
    for name, simulated, measured in pairs:
        yield name, simulated, measured, abs(simulated - measured) <= TOLERANCE * measured


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--servers', type=int, default=100)
    args = parser.parse_args()
    is_right = True
    print('Against what was measured with one server and with two, seconds:')
    for name, simulated, measured, agrees in checked(args.seed):
        is_right = is_right and agrees
        print(f'  {name}: {simulated:.3g}, measured {measured:.3g}' + ('' if agrees else ' DIFFERS'))
    print(f'\n{args.servers} servers with {CONNECTIONS} connections each:')
    for count, what in ((1, 'one of them is'), (args.servers, 'all of them are')):
        for milliseconds in (0, 10):
            crowd = Crowd(args.seed, count, CONNECTIONS, milliseconds, DATABASE_CORES)
            print(
                f'  {what} killed and started again after 10 s, connect functions of {milliseconds} ms: '
                f'{crowd.open} are back after {crowd.back:.1f} s, told to wait {crowd.told / crowd.open:.1f} times each'
            )
    first, last = fan_out(args.servers, CONNECTIONS, DATABASE_CORES, REDIS_SERVERS)
    print(f'  a message to all: the first server is done after {first:.2f} s, the last one after {last:.2f} s')
    for away in (2, 10):
        found = Failover(args.seed, args.servers, REDIS_SERVERS, away)
        print(
            f'  one Redis of {REDIS_SERVERS} hangs for {away} s: {found.lost} of {found.sent} messages to rooms are not '
            f'delivered to all; frames wait {1000 * found.p(0.5):.1f} ms (p50), {1000 * found.p(0.99):.0f} ms (p99), '
            f'{found.p(1):.1f} s at most'
        )
    for cores, redis_servers in ((8, 1), (DATABASE_CORES, REDIS_SERVERS)):
        print(
            '  full first:',
            ', then '.join(f'{name} at {servers} servers' for name, servers in walls(cores, redis_servers)),
        )
    sys.exit(not is_right)


if __name__ == '__main__':
    main()
