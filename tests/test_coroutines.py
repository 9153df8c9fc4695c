import asyncio
import threading

import pytest

from sockets.execution import coroutines


async def where():
    await asyncio.sleep(0)
    return threading.get_ident(), asyncio.get_event_loop()


def test_a_coroutine_runs_on_the_thread_that_calls_it_and_each_thread_keeps_its_loop():
    found = []
    threads = [
        threading.Thread(target=lambda: found.extend([coroutines.run(where()), coroutines.run(where())]))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
        thread.join()
    assert found[0] == found[1] and found[2] == found[3]
    assert found[0][1] is not found[2][1]


def test_what_a_coroutine_raises_is_raised():
    async def fail():
        raise KeyError('no')

    with pytest.raises(KeyError):
        coroutines.run(fail())


def test_a_task_that_is_left_behind_is_cancelled():
    seen = []

    async def forever():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append('cancelled')
            raise

    async def leave():
        seen.append(asyncio.ensure_future(forever()))
        await asyncio.sleep(0)

    coroutines.run(leave())
    assert seen[1:] == ['cancelled'] and seen[0].cancelled()


def test_a_coroutine_that_is_cancelled_does_not_end_the_worker():
    async def cancelled():
        asyncio.ensure_future(asyncio.sleep(60)).cancel()
        raise asyncio.CancelledError()

    with pytest.raises(RuntimeError, match='cancelled'):
        coroutines.run(cancelled())


@pytest.mark.parametrize('raised', [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_coroutine_that_exits_leaves_a_loop_that_goes_on(raised):
    tasks = []

    async def stubborn():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise raised()

    async def leave():
        tasks.append(asyncio.ensure_future(asyncio.sleep(60)))
        await asyncio.sleep(0)
        raise raised

    async def leave_two_stubborn_ones():
        tasks[:] = [asyncio.ensure_future(stubborn()) for _ in range(2)]
        await asyncio.sleep(0)
        return 'done'

    with pytest.raises(raised):
        coroutines.run(leave())
    assert tasks[0].cancelled()
    assert coroutines.run(leave_two_stubborn_ones()) == 'done'
    assert [type(task.exception()) for task in tasks] == [raised] * 2
    assert [coroutines.run(where())[0] for _ in range(2)] == [threading.get_ident()] * 2
