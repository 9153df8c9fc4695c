import gc
import json
import subprocess
import sys

import pytest

from sockets.execution.garbage import INTERVAL, PAUSE, SHORT, Spacing


@pytest.fixture
def thresholds():
    """Those of Python. What was there is set again afterwards: a server that ran in this process puts collections off."""
    found, callbacks = gc.get_threshold(), list(gc.callbacks)
    gc.callbacks.clear()
    gc.set_threshold(700, 10, 10)
    yield 700, 10, 10
    gc.set_threshold(*found)
    gc.callbacks.extend(callbacks)


@pytest.fixture
def clock():
    return [1000.0]


@pytest.fixture
def blocks():
    """How much there is."""
    return [1000]


@pytest.fixture
def spacing(thresholds, clock, blocks):
    return Spacing(lambda: clock[0], lambda: blocks[0])


def collect(spacing, clock, generation, took):
    spacing('start', {'generation': generation})
    clock[0] += took
    spacing('stop', {'generation': generation})


def test_a_full_collection_that_took_long_puts_off_the_next_one(spacing, clock, thresholds):
    # 5,000 connections came back, and half a second was lost every four seconds.
    collect(spacing, clock, 2, 0.5)
    assert gc.get_threshold()[:2] == thresholds[:2] and gc.get_threshold()[2] > 10**9
    clock[0] += PAUSE * 0.5 - 1
    collect(spacing, clock, 0, 0.001)
    assert gc.get_threshold()[2] > 10**9
    clock[0] += 1
    collect(spacing, clock, 1, 0.001)
    assert gc.get_threshold() == thresholds


def test_a_short_one_puts_off_nothing(spacing, clock, thresholds):
    collect(spacing, clock, 2, SHORT / 2)
    assert gc.get_threshold() == thresholds


def test_smaller_collections_put_off_nothing_however_long_they_took(spacing, clock, thresholds):
    collect(spacing, clock, 0, 1)
    collect(spacing, clock, 1, 1)
    assert gc.get_threshold() == thresholds


def test_one_that_somebody_asked_for_counts_as_well(spacing, clock, thresholds):
    collect(spacing, clock, 2, 0.5)
    clock[0] += 49
    collect(spacing, clock, 2, 0.5)
    clock[0] += 2
    collect(spacing, clock, 0, 0.001)
    assert gc.get_threshold()[2] > 10**9
    # There is not much left.
    collect(spacing, clock, 2, 0.001)
    assert gc.get_threshold() == thresholds


def test_who_sets_other_thresholds_has_them(spacing, clock, thresholds):
    collect(spacing, clock, 2, 0.5)
    gc.set_threshold(1000, 20, 30)
    clock[0] += PAUSE
    collect(spacing, clock, 0, 0.001)
    assert gc.get_threshold() == (1000, 20, 30)
    collect(spacing, clock, 2, 0.5)
    assert gc.get_threshold()[:2] == (1000, 20)
    clock[0] += PAUSE
    collect(spacing, clock, 0, 0.001)
    assert gc.get_threshold() == (1000, 20, 30)


def test_who_sets_again_what_was_there_while_one_was_put_off_does_not_put_it_off_for_ever(spacing, clock, thresholds):
    # As one who wants no collections for a while: full ones never came again, and nothing was collected that had grown old.
    collect(spacing, clock, 2, 0.5)
    found = gc.get_threshold()
    gc.set_threshold(0)
    collect(spacing, clock, 2, 0.001)
    gc.set_threshold(*found)
    clock[0] += PAUSE
    collect(spacing, clock, 0, 0.001)
    assert gc.get_threshold() == thresholds


def test_what_makes_garbage_fast_is_not_put_off(spacing, clock, blocks, thresholds):
    # A process grew without end whose functions made circles faster than a hundredth of its time collects.
    collect(spacing, clock, 2, 0.5)
    for count, is_put_off in ((1900, True), (2001, False)):
        clock[0] += INTERVAL
        blocks[0] = count
        collect(spacing, clock, 0, 0.001)
        assert (gc.get_threshold() != thresholds) is is_put_off
    # What has come to stay does not bring a collection each second.
    collect(spacing, clock, 2, 0.5)
    clock[0] += INTERVAL
    collect(spacing, clock, 0, 0.001)
    assert gc.get_threshold() != thresholds


def test_one_that_had_begun_before_anybody_looked_is_no_trouble(spacing, clock, thresholds):
    spacing('stop', {'generation': 2})
    assert gc.get_threshold() == thresholds


# Makes garbage in circles that grow old, beside so many objects that a full collection takes its time.
CIRCLES = """
import gc, json
from sockets.execution import garbage

def circles(times):
    full.clear()
    for _ in range(times):
        old = []
        for _ in range(40000):
            circle = []
            circle.append(circle)
            old.append(circle)
        kept.append(old)
        if len(kept) > 30:
            del kept[:10]
    return len(full)

full, kept = [], []
gc.callbacks.append(lambda phase, info: phase == 'stop' and info['generation'] == 2 and full.append(1))
held = [[n] for n in range(400000)]
usual = circles(60)
garbage.space_out()
garbage.space_out()
spaced = circles(60)
print(json.dumps([usual, spaced, len(gc.callbacks)]))
"""


def test_python_collects_all_less_often_once_that_takes_long():
    printed = subprocess.check_output([sys.executable, '-c', CIRCLES])
    usual, spaced, callbacks = json.loads(printed)
    assert usual > 2 and spaced <= 2 and callbacks == 2


FREEZE = """
import gc
from sockets.execution import garbage

garbage.leave_out_what_is_there()
print(gc.get_freeze_count() > 1000, len(gc.get_objects()) < 1000)
"""


def test_what_is_there_at_the_start_is_looked_at_by_no_collection():
    printed = subprocess.check_output([sys.executable, '-c', FREEZE])
    assert printed.split() == [b'True', b'True']
