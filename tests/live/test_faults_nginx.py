"""What clients notice of servers that restart or die behind nginx, which runs as docs/how-to/deploy.md has it."""

import asyncio
import contextlib
import random
import signal
import socket
import ssl
import time
import urllib.error
import urllib.request

import pytest

from .. import servers as programs
from . import fleet
from .documents import Document
from .hall import RUNSOCKETS

pytestmark = pytest.mark.timed

DEPLOY = Document('docs/how-to/deploy.md')
SECOND = '# server 10.0.0.2:8000'
COUNT = 200


class Site:
    """Two servers behind nginx."""

    def __init__(self, hall, run, directory, second_port=None):
        self.hall = hall
        self.servers = [hall.servers.runsockets()]
        if second_port is None:
            self.servers.append(hall.servers.runsockets())
        programs.make_certificate(directory / 'key', directory / 'certificate', 'example.com')
        self.port, self.text = programs.free_port(), DEPLOY.file('/etc/nginx/conf.d/mysite.conf')
        second_port = second_port or self.servers[1].port
        for old, new in (
            ('listen 443 ssl', f'listen 127.0.0.1:{self.port} ssl'),
            ('server 127.0.0.1:8000', f'server 127.0.0.1:{self.servers[0].port}'),
            (SECOND, f'server 127.0.0.1:{second_port}'),
            ('/etc/ssl/certs/example.com.pem', str(directory / 'certificate')),
            ('/etc/ssl/private/example.com.key', str(directory / 'key')),
        ):
            assert old in self.text
            self.text = self.text.replace(old, new)
        (directory / 'nginx.conf').write_text(
            'user root; daemon off; pid pid; error_log stderr; worker_processes 2; '
            f'events {{ worker_connections 4096; }} http {{ access_log off; {self.text} }}'
        )
        self.nginx = run([programs.find_program('nginx', '/usr/sbin'), '-p', directory, '-c', 'nginx.conf'], self.port)
        self.context = ssl.create_default_context(cafile=str(directory / 'certificate'))
        self.context.check_hostname = False

    async def connect(self):
        return await fleet.Connection.open(self.port, '/hall/', ssl=self.context)

    def page(self):
        """Return the status of a page."""
        request = urllib.request.Request(f'https://127.0.0.1:{self.port}/page/')
        try:
            with urllib.request.urlopen(request, context=self.context, timeout=10) as response:
                return response.status
        except urllib.error.HTTPError as error:
            return error.code

    async def start_again(self, index):
        """Start the server that was here on its port."""
        port = self.servers[index].port
        self.servers[index] = await asyncio.get_event_loop().run_in_executor(
            None,
            lambda: self.hall.servers.start('runsockets', '-m', 'django', 'runsockets', f'127.0.0.1:{port}', port=port),
        )

    def rows_by_server(self):
        return sorted(
            count
            for (count,) in self.hall.sql("select count(*) from sockets_socket where path = '/hall/' group by server")
        )


class Client:
    """A client that comes back as sockets.js does: after anything up to a second, then two, and so on up to 30."""

    def __init__(self, site):
        self.site = site
        self.is_open = False
        self.failures = self.tries = 0

    async def run(self):
        # Of a burst, a server that is busy turns some away with 503, and nginx hands these to the other one.
        await asyncio.sleep(random.random())
        while True:
            self.tries += 1
            try:
                self.connection = await self.site.connect()
                await self.connection.ask({'type': 'HELLO'})
            except (fleet.Refused, OSError, asyncio.TimeoutError, TypeError):
                pass
            else:
                self.is_open, self.failures = True, 0
                while not isinstance(await self.connection.receive(3600), int):
                    pass
                self.is_open = False
            await asyncio.sleep(random.random() * min(30, 2**self.failures))
            self.failures += 1


async def all_open(clients, since, seconds=30):
    while not all(client.is_open for client in clients):
        assert time.monotonic() - since < seconds, (
            f'{sum(client.is_open for client in clients)} of {len(clients)} are open'
        )
        await asyncio.sleep(0.05)
    return time.monotonic() - since


async def all_gone_and_back(clients, site, index, number):
    """End a server; return how long it took until all were open again, on the other one."""
    since = site.hall.kill(site.servers[index], number)
    await fleet.eventually(lambda: not site.servers[index].is_running, 15)
    return await all_open(clients, since)


@pytest.mark.parametrize('number', [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.long)])
def test_two_servers_behind_nginx_end_and_start_one_after_the_other(hall, run, tmp_path, number):
    async def scenario():
        site = Site(hall, run, tmp_path)
        clients = [Client(site) for _ in range(COUNT)]
        tasks = [asyncio.ensure_future(client.run()) for client in clients]
        await all_open(clients, time.monotonic())
        assert min(site.rows_by_server()) > COUNT / 3, site.rows_by_server()
        statuses, took = [], []
        loop = asyncio.get_event_loop()

        async def ask_for_pages():
            while True:
                statuses.append(await loop.run_in_executor(None, site.page))
                await asyncio.sleep(0.1)

        asking = asyncio.ensure_future(ask_for_pages())
        for index in (0, 1):
            took.append(await all_gone_and_back(clients, site, index, number))
            await site.start_again(index)
        # Those that come now find either server.
        asking.cancel()
        newcomers = [await site.connect() for _ in range(COUNT)]
        await hall.rows_are(2 * COUNT, 10)
        counts = site.rows_by_server()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        # One of them has all that came back, and half of the newcomers.
        assert len(counts) == 2 and min(counts) > COUNT / 3, f'one server gets no connections: {counts}'
        assert set(statuses) == {200} or number == signal.SIGKILL and statuses.count(502) <= 2, statuses
        assert max(took) < 5
        tries = sum(client.tries for client in clients)
        assert tries < 3.5 * COUNT
        everybody = newcomers + [client.connection for client in clients]
        await fleet.close_many(everybody)
        hall.report.append(
            (
                f'{signal.Signals(number).name} to one of two servers behind nginx, then to the other, each started again',
                RUNSOCKETS + ', nginx',
                str(COUNT),
                ('nothing' if number == signal.SIGTERM else 'what was under way in it') + '; by then all are back',
                f'{max(took):.1f} s',
            )
        )

    asyncio.run(scenario())


def test_a_machine_that_says_nothing_costs_a_second(hall, run, tmp_path):
    async def scenario():
        with contextlib.ExitStack() as stack:
            # Where nobody accepts and the queue is full, Linux drops what asks to connect: as if there were no machine.
            silent = stack.enter_context(contextlib.closing(socket.socket()))
            silent.bind(('127.0.0.1', 0))
            silent.listen(0)
            for _ in range(4):
                client = stack.enter_context(contextlib.closing(socket.socket()))
                client.setblocking(False)
                client.connect_ex(silent.getsockname())
            site = Site(hall, run, tmp_path, silent.getsockname()[1])
            took, connections = [], []
            for _ in range(10):
                began = time.monotonic()
                connections.append(await site.connect())
                took.append(time.monotonic() - began)
            assert 0.9 < max(took) < 2 and min(took) < 0.5, took
            await fleet.close_many(connections)

    asyncio.run(scenario())
