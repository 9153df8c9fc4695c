from sockets.visitors import Visitor, Visitors


def test_a_row_is_told_once_in_a_while_that_its_client_lives():
    visitor = Visitor(0)
    assert [visitor.is_due(now, 15) for now in (0, 1, 14.9, 15, 16, 40)] == [True, False, False, True, False, True]


def test_a_bucket_holds_the_frames_of_two_seconds_and_fills_again():
    visitor = Visitor(0)
    assert [visitor.takes_token(0, 5) for _ in range(12)] == [True] * 10 + [False] * 2
    assert [visitor.takes_token(0.4, 5) for _ in range(3)] == [True, True, False]
    assert [visitor.takes_token(1000, 5) for _ in range(11)] == [True] * 10 + [False]


def test_less_than_one_frame_a_second_is_a_rate_as_well():
    visitor = Visitor(0)
    assert [visitor.takes_token(now, 0.1) for now in (0, 1, 9, 10, 11)] == [True, False, False, True, False]


def test_a_visitor_is_remembered_until_it_is_forgotten_or_silent_for_long():
    visitors = Visitors()
    first = visitors.get('a', 0)
    assert visitors.get('a', 1) is first
    visitors.get('b', 3000).is_due(3000, 15)
    assert len(visitors) == 2
    visitors.get('c', 4000)
    assert len(visitors) == 2 and visitors.get('a', 4000) is not first
    visitors.forget('a'), visitors.forget('a')
    assert len(visitors) == 2
