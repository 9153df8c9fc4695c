import gc
import sys
import threading

from sockets.execution import stacks


def test_each_thread_has_a_frame():
    frames = stacks.current_frames()
    assert threading.get_ident() in frames and set(frames) <= set(sys._current_frames())


def test_nothing_is_collected_while_the_frames_are_looked_at(monkeypatch):
    # A process of Python 3.11 stood still for ever when a collection began in there.
    monkeypatch.setattr(sys, '_current_frames', gc.isenabled)
    assert gc.isenabled()
    assert stacks.current_frames() is False
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off(monkeypatch):
    gc.disable()
    try:
        stacks.current_frames()
        assert not gc.isenabled()
    finally:
        gc.enable()
