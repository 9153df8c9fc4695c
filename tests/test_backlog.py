"""How much may wait for a client: a long frame alone is none of its faults."""

import pytest

from sockets.backlog import BACKLOG, Backlog

MIB = 1024 * 1024


def add(backlog, waiting, *sizes):
    """Add frames of ``sizes`` while nothing is taken; return what was said of each."""
    found = []
    for size in sizes:
        waiting += size
        found.append(backlog.add(size, waiting))
    return found


def test_many_frames_are_too_much_beyond_the_bound():
    assert add(Backlog(), 0, *[MIB] * 6) == [False] * 5 + [True]


@pytest.mark.parametrize('before', [[], [1000], [MIB, MIB]])
@pytest.mark.parametrize('size', [5 * MIB, 40 * MIB])
def test_one_long_frame_is_not_too_much_and_what_comes_behind_it_counts(before, size):
    # Every follower of a stream was cut off by a message of 5 MiB.
    backlog = Backlog()
    assert add(backlog, 0, *before, size, 1000) == [False] * (len(before) + 2)
    assert add(backlog, sum(before) + size + 1000, BACKLOG) == [True]


def test_a_second_long_frame_counts():
    assert add(Backlog(), 0, 5 * MIB, 5 * MIB) == [False, True]
    assert add(Backlog(), 0, 5 * MIB, 20 * MIB) == [False, True]


def test_a_long_frame_that_is_sent_leaves_no_room_for_more():
    backlog = Backlog()
    assert add(backlog, 0, 40 * MIB, *[1000] * 10) == [False] * 11
    # Only the ten wait.
    assert add(backlog, 10000, *[MIB] * 5) == [False] * 4 + [True]
    backlog = Backlog()
    add(backlog, 0, 40 * MIB)
    assert add(backlog, MIB, MIB, 2 * MIB, MIB, MIB, MIB) == [False] * 4 + [True]
