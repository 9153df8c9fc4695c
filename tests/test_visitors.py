from sockets.connection.visitors import Visitor, Visitors


def test_a_row_is_told_once_in_a_while_that_its_client_lives():
    visitor = Visitor(0)
    assert [visitor.is_due(now, 15) for now in (0, 1, 14.9, 15, 16, 40)] == [True, False, False, True, False, True]


def test_a_visitor_has_a_bucket_for_each_route_that_has_a_rate():
    visitor = Visitor(0)
    assert [visitor.wait(0, 1, 2) for _ in range(3)] == [0, 0, 1]
    assert [visitor.wait(0, 0.1, 1, 'route') for _ in range(2)] == [0, 10]
    assert visitor.wait(1, 1, 2) == 0


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
