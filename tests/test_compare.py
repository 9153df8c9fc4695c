"""Holds docs/compare.md to what it says: a yes of ours is a test, a no has its reason, and Channels 4 does as is said."""

import asyncio
import re
import threading
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / 'docs'
PAGE = (DOCS / 'compare.md').read_text()
# That table is about others, and says more than yes and no.
TABLES = re.sub(r'^## What is kept for those who were away\n.*?(?=^## )', '', PAGE, flags=re.MULTILINE | re.DOTALL)
ROWS = [[cell.strip() for cell in line.strip('|').split('|')] for line in TABLES.splitlines() if line.startswith('| ')]
CELLS = [row[1] for row in ROWS if row[0]]
PROOFS = {number: (path, name) for number, path, name in re.findall(r'^\[(\d+)\]: (\S+) "(.+)"$', PAGE, re.MULTILINE)}
REASONS = {
    heading.lower().replace(' ', '-'): text
    for heading, text in re.findall(r'^### (.+)\n\n((?:.+\n)+)', PAGE, re.MULTILINE)
}


def test_every_cell_says_something():
    assert len({tuple(row[1:]) for row in ROWS if not row[0]}) == 1
    for row in ROWS:
        assert len(row) == len(ROWS[0]), row
        if row[0]:
            assert set(row[2:]) <= {'yes', 'no', 'part', 'opt in', 'by hand', 'third party', '?', '–'}, row


def test_a_cell_of_ours_is_a_yes_with_a_proof_or_a_no_with_a_reason():
    proofs = [re.match(r'\[(?:yes|on Channels [14])\]\[(\d+)\]$', cell) for cell in CELLS]
    reasons = [re.match(r'\[no\]\(#([a-z-]+)\)$', cell) for cell in CELLS]
    assert all(bool(proof) != bool(reason) for proof, reason in zip(proofs, reasons))
    assert [proof.group(1) for proof in proofs if proof] == list(PROOFS)
    assert [reason.group(1) for reason in reasons if reason] and {
        reason.group(1) for reason in reasons if reason
    } == set(REASONS)


@pytest.mark.parametrize('path, name', list(PROOFS.values()), ids=[name for _, name in PROOFS.values()])
def test_the_test_that_proves_it_is_there(path, name):
    definition = r"^\s*def {0}\(|^test\('{0}', ".format(re.escape(name))
    assert re.search(definition, (DOCS / path).read_text(), re.MULTILINE)


@pytest.mark.channels4('what the page says of Channels 4')
def test_all_sync_consumers_of_channels_4_run_on_one_thread_and_async_ones_wait_for_it(db):
    # With the database: Channels looks after its connections on that thread, of which another test may have left one.
    from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
    from channels.testing import WebsocketCommunicator

    threads, is_running, release = set(), threading.Event(), threading.Event()

    class Sync(WebsocketConsumer):
        def receive(self, text_data=None, bytes_data=None):
            threads.add(threading.get_ident())
            if text_data == 'wait':
                is_running.set()
                release.wait(10)
            self.send(text_data=text_data)

    class Async(AsyncWebsocketConsumer):
        async def receive(self, text_data=None, bytes_data=None):
            await self.send(text_data=text_data)

    async def talk():
        slow, sync, other = clients = [WebsocketCommunicator(each.as_asgi(), '/') for each in (Sync, Sync, Async)]
        for client in clients:
            await client.connect(timeout=10)
        await slow.send_to(text_data='wait')
        for _ in range(1000):
            if is_running.is_set():
                break
            await asyncio.sleep(0.01)
        await sync.send_to(text_data='x')
        await other.send_to(text_data='x')
        waited = [await client.receive_nothing(timeout=0.2) for client in (sync, other)]
        release.set()
        answers = [await client.receive_from(timeout=10) for client in clients]
        for client in clients:
            await client.disconnect(timeout=10)
        return waited, answers

    try:
        assert asyncio.run(talk()) == ([True, True], ['wait', 'x', 'x'])
    finally:
        release.set()
    assert len(threads) == 1


@pytest.mark.channels4('what the page says of Channels 4')
def test_group_send_of_channels_4_is_one_entry_for_a_process_with_the_names_of_all_its_members(redis_url):
    redis = pytest.importorskip('redis')
    core = pytest.importorskip('channels_redis.core')

    async def send():
        processes = [core.RedisChannelLayer(hosts=[redis_url], prefix='compare') for _ in range(2)]
        names = [await layer.new_channel() for layer in processes for _ in range(3)]
        for name in names:
            await processes[0].group_add('room', name)
        await processes[0].group_send('room', {'type': 'news'})
        for layer in processes:
            await layer.close_pools()
        return names

    names = asyncio.run(send())
    client = redis.Redis.from_url(redis_url)
    entries = [client.zrange(key, 0, -1) for key in client.keys('comparespecific.*')]
    assert [len(entry) for entry in entries] == [1, 1]
    for name in names:
        assert sum(name.encode() in entry[0] for entry in entries) == 1
