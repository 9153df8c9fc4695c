import threading
import time

import pytest

from sockets.layers import liveness
from sockets.layers.liveness import Liveness, uptime
from sockets.layers.scripts import DEAD, FINE, GONE, UNKNOWN


@pytest.fixture
def clock(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(liveness, 'uptime', lambda: clock[0])
    return clock


def at_work():
    process = Liveness(2)
    process.note_work()
    return process


def test_a_process_that_never_notes_its_work_is_never_uncertain(clock):
    process = Liveness(2)
    clock[0] += 1000
    assert process.may_serve() and process.wait()


def test_a_process_that_is_at_work_serves(clock):
    process = at_work()
    for _ in range(10):
        clock[0] += 1.9
        assert process.may_serve()
        process.note_work()
    assert process.interruptions == 0


def test_a_process_that_was_stopped_serves_when_a_heartbeat_has_been_answered(clock):
    process = at_work()
    clock[0] += 75
    # Before any thread has noticed, and after.
    assert not process.may_serve()
    process.note_work()
    assert not process.may_serve() and process.interruptions == 1
    # This one was given before.
    process.take_answer(FINE, 0)
    assert not process.may_serve()
    process.take_answer(FINE, 1)
    assert process.may_serve()


@pytest.mark.parametrize('answer', [DEAD, GONE])
def test_a_process_that_was_found_dead_does_not_serve_whenever_it_is_told(clock, answer):
    process = at_work()
    process.take_answer(answer, 0)
    assert not process.may_serve() and not process.wait()


def test_a_redis_that_does_not_know_us_matters_only_to_a_process_that_was_stopped(clock):
    process = at_work()
    process.take_answer(UNKNOWN, 0)
    assert process.may_serve()
    clock[0] += 75
    # It may have found us dead before it forgot.
    process.take_answer(UNKNOWN, 0)
    assert process.is_dead


def test_a_frame_waits_for_the_answer():
    process = at_work()
    # It was stopped, and then not again: on a machine that is slow, that would wait for ever.
    process.lease = 60
    process.at_work -= 75
    process.note_work()
    threading.Timer(0.1, process.take_answer, [FINE, 1]).start()
    began = time.monotonic()
    assert process.wait()
    assert 0.05 < time.monotonic() - began < 2


def test_the_question_costs_less_than_two_microseconds():
    process = at_work()
    best = min(_seconds_of(process.may_serve) for _ in range(5))
    assert best < 2e-6


def _seconds_of(function, times=10000):
    began = time.perf_counter()
    for _ in range(times):
        function()
    return (time.perf_counter() - began) / times


def test_the_clock_does_not_stand_still_in_a_suspended_machine(monkeypatch):
    before = uptime()
    time.sleep(0.01)
    assert uptime() > before
    monkeypatch.delattr(liveness.time, 'CLOCK_BOOTTIME', raising=False)
    assert abs(uptime() - time.time()) < 1
