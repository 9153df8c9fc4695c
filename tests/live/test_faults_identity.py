"""Rights that end while a client floods its server with frames: which frame is the last one that a route sees."""

import asyncio
import json
import statistics
import subprocess
import sys

import pytest

from .. import servers as programs
from . import fleet
from .hall import IN_MEMORY, ONE_RUNSOCKETS

pytestmark = pytest.mark.timed

SHELL = IN_MEMORY + ', and a shell'
REDIS = ONE_RUNSOCKETS + ' and another process'

# Clients at a time, and frames of each that are under way.
CROWD, WINDOW = 5, 4

# What the clocks of two processes and a thread that has to wait for its turn may add.
NOISE = 0.1

# Another process, which is told what to end and answers when that was committed. All processes have one clock.
HELPER = """
import json, sys, time
import django
django.setup()
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.db import connection, transaction
from django.test import Client
from sockets.models import Socket

def log_in(name):
    user, _ = get_user_model().objects.get_or_create(username=name)
    user.is_active = True
    user.save()
    browser = Client()
    browser.force_login(user)
    return browser.session.session_key

def end(how, name):
    # The first thing that is done when it is committed; others are told after that.
    committed = []
    with transaction.atomic():
        transaction.on_commit(lambda: committed.append(time.monotonic()))
        end_now(how, name)
    return committed[0]

def end_now(how, name):
    rows = Socket.objects.filter(user__username=name)
    assert rows.count() == 1
    if how == 'row deleted':
        rows.delete()
    elif how == 'session flushed':
        Session.objects.get(pk=rows.get().session_id).delete()
    elif how == 'user deactivated':
        user = get_user_model().objects.get(username=name)
        user.is_active = False
        user.save()
    elif how == 'revoke()':
        rows.revoke()
    else:
        with connection.cursor() as cursor:
            cursor.execute('delete from sockets_socket where id = %s', [rows.get().pk])

for line in sys.stdin:
    words = json.loads(line)
    print(json.dumps({'log in': log_in, 'end': end}[words[0]](*words[1:])), flush=True)
"""
WAYS = ['row deleted', 'session flushed', 'user deactivated', 'revoke()']


class Helper:
    """The other process."""

    def __init__(self, servers, **environment):
        self.log = servers.directory / 'helper.log'
        self.process = subprocess.Popen(
            [sys.executable, '-c', HELPER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open('w'),
            cwd=str(programs.ROOT),
            env=programs.environment(**dict(servers.environment, **environment)),
        )
        self.lock = asyncio.Lock()

    async def ask(self, *words):
        """Return what the helper answers."""
        async with self.lock:
            return await asyncio.get_event_loop().run_in_executor(None, self._ask, words)

    def _ask(self, words):
        self.process.stdin.write(json.dumps(words).encode() + b'\n')
        self.process.stdin.flush()
        line = self.process.stdout.readline().decode()
        assert line, self.log.read_text()
        return json.loads(line)

    def stop(self):
        self.process.stdin.close()
        self.process.wait(10)


async def flood(server, path, name, cookie, is_open):
    """Send one frame after another until the connection is closed; return the codes of the close and of errors."""
    connection = await fleet.Connection.open(server.port, path, cookie='sessionid=' + cookie)
    sent = {'type': 'SEE', 'connection': name, 'ref': 1}
    for _ in range(WINDOW):
        connection.send(sent)
    answers = 0
    while True:
        answer = await connection.receive(30)
        if isinstance(answer, int):
            return answer
        answers += 1
        if answers == 20:
            is_open.set()
        if answer['type'] == 'ACK':
            connection.send(sent)


async def end_under_fire(hall, helper, server, path, how, name):
    """Return the seconds from the commit to the last frame that a route saw, and the code of the close."""
    cookie = await helper.ask('log in', name)
    is_open = asyncio.Event()
    flooding = asyncio.ensure_future(flood(server, path, name, cookie, is_open))
    await asyncio.wait_for(is_open.wait(), 30)
    # At any moment of what is kept.
    await asyncio.sleep(hash(name) % 100 / 100)
    committed = await helper.ask('end', how, name)
    code = await flooding
    return name, committed, code


async def last_frames(hall, helper, server, path, ways, count):
    """End ``count`` connections, ``CROWD`` at a time, in each of ``ways`` in turn; return a list of seconds, and the codes."""
    done = []
    for start in range(0, count, CROWD):
        done += await asyncio.gather(
            *(
                end_under_fire(hall, helper, server, path, ways[number % len(ways)], f'user{number}')
                for number in range(start, min(start + CROWD, count))
            )
        )
    # What was under way when the close was sent.
    await asyncio.sleep(0.5)
    last = {words[1]: words[-1] for words in hall.servers.notes() if words[0] == 'saw'}
    return [max(0, last[name] - committed) for name, committed, _ in done], {code for _, _, code in done}


def told(seconds):
    return f'last frame in a route after {statistics.median(seconds) * 1000:.0f} ms (median), at most {max(seconds) * 1000:.0f} ms'


@pytest.mark.parametrize('count', [20, pytest.param(200, marks=pytest.mark.long)])
@pytest.mark.parametrize('layer', [SHELL, REDIS])
def test_no_route_sees_a_frame_a_second_after_a_right_ended(hall, redis, layer, count):
    """The shell cannot tell an in-memory layer, which finds out by itself."""

    async def scenario():
        redis.client().flushall()
        environment = {'REDIS_URL': ''} if layer == SHELL else {}
        server = hall.servers.runsockets(environment=environment)
        helper = Helper(hall.servers, **environment)
        seconds, codes = await last_frames(hall, helper, server, '/asking/', WAYS, count)
        helper.stop()
        assert max(seconds) < 1 + NOISE and codes <= {4401, 1012}
        if layer == REDIS:
            assert 4401 in codes and statistics.median(seconds) < 0.1
        await hall.came_true(
            f'the right of a client that floods it ends, {count} times: row, session, user, `revoke()`',
            layer,
            [],
            told(seconds),
            0,
        )

    asyncio.run(scenario())


@pytest.mark.parametrize(
    'fault, how, path',
    [
        ('the same while Redis is away; the route asks for the user', 'revoke()', '/asking/'),
        ('the same while Redis is away; the route asks for nothing', 'revoke()', '/quiet/'),
        ('the same, rows deleted by SQL; the route asks for the user', 'SQL', '/asking/'),
        ('the same, rows deleted by SQL; the route asks for nothing', 'SQL', '/quiet/'),
    ],
)
def test_a_right_whose_end_nobody_is_told_of_ends_when_it_is_looked_at(hall, redis, fault, how, path):
    async def scenario():
        redis.client().flushall()
        server = hall.servers.runsockets()
        helper = Helper(hall.servers)
        if how == 'revoke()':
            await hall.open(1, server)
            redis.stop()
        try:
            seconds, codes = await last_frames(hall, helper, server, path, [how], CROWD)
        finally:
            if how == 'revoke()':
                redis.start()
            helper.stop()
        # Who asks finds out when what is kept is a second old; who does not, when rows and connections are compared.
        assert max(seconds) < (1 if path == '/asking/' else 10) + NOISE
        assert codes <= {1012, 4401}
        await hall.came_true(fault, REDIS, [], told(seconds), 0)

    asyncio.run(scenario())
