from datetime import timedelta

import pytest

from sockets.operations.ages import age


@pytest.mark.parametrize(
    'seconds, said',
    [
        (0, '0 s'),
        (119.9, '119 s'),
        (120, '2 min'),
        (7199, '119 min'),
        (7200, '2 h'),
        (172799, '47 h'),
        (172800, '2 d'),
        (-1, '0 s'),
    ],
)
def test_an_age_is_said_in_the_largest_unit_of_which_it_has_two(seconds, said):
    assert age(timedelta(seconds=seconds)) == said
