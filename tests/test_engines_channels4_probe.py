"""What ``manage.py sockets`` finds out on Channels 4 about the layer and the servers on it."""

import asyncio
import threading
import time

import pytest
from channels.layers import InMemoryChannelLayer

from sockets import engine
from sockets.engines.channels4 import delivery, layer, probe, questions, server
from sockets.models import Server
from sockets.operations import doctor

pytestmark = pytest.mark.django_db


@pytest.fixture
def running(settings, monkeypatch):
    """A server on a layer that others could be on as well, whose event loop runs in a thread."""
    settings.CHANNEL_LAYERS = {'default': {'BACKEND': 'channels.layers.InMemoryChannelLayer'}}
    monkeypatch.setattr(layer, 'is_local', lambda: False)
    loop, found = asyncio.new_event_loop(), []
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def begin():
        found.append(server.server())

    asyncio.run_coroutine_threadsafe(begin(), loop).result(5)
    Server.objects.create(name=found[0].name)
    yield found[0]

    async def end():
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    asyncio.run_coroutine_threadsafe(end(), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()
    server.servers.clear()


def test_a_layer_that_gives_back_what_it_takes_works(running):
    ((name, ok, text, remedy),) = engine.current().examine_layer(2)
    assert (name, ok, remedy) == ('layer', True, '') and text.startswith('InMemoryChannelLayer answers in ')


def test_a_layer_that_gives_nothing_back_is_bad(running, monkeypatch):
    async def send(self, channel, message):
        pass

    monkeypatch.setattr(InMemoryChannelLayer, 'send', send)
    ((_, ok, text, remedy),) = engine.current().examine_layer(0.2)
    assert ok is False and 'gives none back' in text and 'Start Redis' in remedy


def test_a_project_without_a_layer_is_told_how_to_get_one(settings):
    settings.SOCKETS = {'CHANNEL_LAYER': 'none'}
    ((_, ok, text, remedy),) = engine.current().examine_layer(1)
    assert ok is None and text.startswith('There is none') and 'channels_redis' in remedy


def test_servers_answer_and_those_that_do_not_are_named(running):
    Server.objects.create(name='sockets.1.silent!')
    Server.objects.create(name='sockets.2.dead!', beats=None)
    (_, ok, text, _), (_, is_silent_ok, silent, remedy) = engine.current().examine_workers(0.5)
    assert ok is True and 'process ' in text
    assert (
        is_silent_ok is False and 'sockets.1.silent!' in silent and 'dead' not in silent and 'CHANNEL_LAYERS' in remedy
    )


def test_where_no_server_runs_it_says_how_to_start_one(running):
    Server.objects.all().delete()
    ((_, ok, text, remedy),) = engine.current().examine_workers(0.5)
    assert ok is None and 'no server is running' in text and 'runsockets' in remedy


def test_a_server_is_not_asked_where_nothing_reaches_it(running, monkeypatch):
    monkeypatch.setattr(layer, 'is_local', lambda: True)
    assert engine.current().examine_workers(0.5)[0].ok is None
    assert engine.current().statistics() == {'waiting': {}, 'dropped': {}}


def test_statistics_are_of_all_servers(running, monkeypatch):
    monkeypatch.setattr(engine.current(), 'dropped', type(engine.current().dropped)())
    assert engine.current().statistics() == {'waiting': {}, 'dropped': {}}
    engine.current().note_dropped({'sockets.3.full!': 2})
    engine.current().note_dropped({'sockets.3.full!': 1})
    release = threading.Event()
    running.loop.call_soon_threadsafe(
        lambda: [running.pool.submit(release.wait, 5) for _ in range(running.pool.size + 3)]
    )
    # The threads are woken one after another.
    deadline = time.monotonic() + 5
    while running.pool.waiting != 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        assert engine.current().statistics() == {'waiting': {running.name: 3}, 'dropped': {'sockets.3.full!': 3}}
    finally:
        release.set()


def test_servers_that_cannot_be_asked_keep_nobody_from_the_list(running, monkeypatch, caplog):
    async def send(self, channel, message):
        raise ConnectionError('Redis is away')

    monkeypatch.setattr(InMemoryChannelLayer, 'send', send)
    assert engine.current().statistics() == {} and 'Redis is away' in caplog.text


def test_an_answer_that_cannot_be_sent_does_not_end_the_server(running, monkeypatch):
    send, failed = InMemoryChannelLayer.send, []

    async def send_once(self, channel, message):
        if message['type'] == 'sockets.answer' and not failed:
            failed.append(channel)
            raise ConnectionError('Redis is away')
        await send(self, channel, message)

    monkeypatch.setattr(InMemoryChannelLayer, 'send', send_once)
    # It is asked again.
    assert list(questions.ask([running.name], 2)) == [running.name] and failed


def test_the_loop_of_the_server_is_the_one_that_uses_the_layer(running):
    assert delivery.sending_loop() is running.loop and probe.beating()


def test_servers_are_known_on_a_layer_in_memory_too(settings, monkeypatch):
    """ "None holds a connection" was said of servers that beat, and of none."""
    settings.CHANNEL_LAYERS = {'default': {'BACKEND': 'channels.layers.InMemoryChannelLayer'}}
    alive = set()
    monkeypatch.setattr(type(engine.current()), 'live_servers', lambda self, servers: alive)
    remedy = 'Start a server: python manage.py runsockets, uvicorn or daphne.'
    assert doctor.examine_servers()[0][1:] == (None, 'None is running.', remedy)
    alive.add('one!')
    assert doctor.examine_servers()[0][1:] == (True, 'one! (0 connections).', '')
    alive.add('two!')
    ((name, ok, text, remedy),) = doctor.examine_servers()
    assert ok is False and text == '2 servers run, and an in-memory layer reaches the connections of one.'
