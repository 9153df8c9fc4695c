import os

import pytest
from autobahn.websocket.xormasker import create_xor_masker

from sockets.server import Unmasker


@pytest.mark.parametrize('sizes', [[0], [1], [5], [74], [3, 4, 1, 200], [1] * 9, [1000001]])
def test_an_unmasker_does_what_autobahns_does_however_the_frame_is_cut(sizes):
    mask, total = os.urandom(4), sum(sizes)
    data = os.urandom(total)
    ours, theirs, done = Unmasker(mask), create_xor_masker(mask, total), 0
    for size in sizes:
        part = data[done:done + size]
        assert ours.process(part) == theirs.process(part)
        done += size
        assert ours.pointer() == theirs.pointer() == done
