"""The threads of Channels 4: how often they are woken for the frames of many clients."""

import asyncio

import pytest

from sockets.engines.channels4 import pool


@pytest.fixture
def run(monkeypatch):
    """Run a scenario, a coroutine function of a pool, the list of its wake-ups and the list of what has come back."""
    monkeypatch.setattr(pool, 'PATIENCE', 60)

    async def play(scenario):
        threads, wakes, back = pool.Pool(asyncio.get_running_loop(), 4), [], []
        threads.start()
        await until(lambda: threads._idle)
        wake = threads._wake
        monkeypatch.setattr(threads, '_wake', lambda: (wakes.append(1), wake()))
        await scenario(threads, wakes, back)
        threads.stop()

    return lambda scenario: asyncio.run(asyncio.wait_for(play(scenario), 30))


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def test_frames_that_come_together_wake_one_thread_once(run):
    async def scenario(threads, wakes, back):
        for n in range(20):
            threads.call(lambda outcome, n: back.append((n, outcome)), str, n)
        assert not wakes
        await until(lambda: len(back) == 20)
        assert back == [(n, str(n)) for n in range(20)] and len(wakes) == 1 and len(threads.threads) == 1

    run(scenario)


def test_a_frame_that_comes_alone_after_others_that_did_is_handled_at_once_and_looked_at_now_and_then(run):
    async def scenario(threads, wakes, back):
        at_once = []
        for n in range(2 + pool.LOOK_AGAIN):
            before = len(wakes)
            threads.call(lambda outcome, n: back.append(outcome), str, n)
            at_once.append(len(wakes) - before)
            await until(lambda: len(back) == n + 1 and len(threads._idle) == 1)
        assert at_once == [0, *[1] * pool.LOOK_AGAIN, 0]
        # It is seen when they come together again.
        before = len(wakes)
        for n in range(20):
            threads.call(lambda outcome, n: back.append(outcome), str, n)
        await until(lambda: len(back) == 22 + pool.LOOK_AGAIN and len(threads._idle) == 1)
        assert len(wakes) - before <= 1 + pool.LOOK_AGAIN
        before = len(wakes)
        for n in range(20):
            threads.call(lambda outcome, n: back.append(outcome), str, n)
        assert len(wakes) == before
        await until(lambda: len(back) == 42 + pool.LOOK_AGAIN)
        assert len(wakes) - before == 1

    run(scenario)


def test_what_a_function_raises_comes_back(run):
    async def scenario(threads, wakes, back):
        threads.call(lambda outcome, text: back.append(outcome), int, 'x')
        threads.call(lambda outcome, text: back.append(outcome), int, '7')
        await until(lambda: len(back) == 2)
        assert isinstance(back[0], ValueError) and back[1] == 7

    run(scenario)
