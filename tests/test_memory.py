from sockets.connection.memory import Memories, Memory


def test_a_row_is_told_once_in_a_while_that_its_client_lives():
    memory = Memory(0)
    assert [memory.is_due(now, 15) for now in (0, 1, 14.9, 15, 16, 40)] == [True, False, False, True, False, True]


def test_a_memory_has_a_bucket_for_each_route_that_has_a_rate():
    memory = Memory(0)
    assert [memory.wait(0, 1, 2) for _ in range(3)] == [0, 0, 1]
    assert [memory.wait(0, 0.1, 1, 'route') for _ in range(2)] == [0, 10]
    assert memory.wait(1, 1, 2) == 0


def test_a_connection_that_no_rate_has_counted_keeps_no_buckets():
    # There was a dict for each idle connection.
    memory = Memory(0)
    memory.is_due(0, 15), memory.is_doubtful()
    assert memory.buckets is None
    memory.wait(0, 1, 2)
    assert memory.buckets is not None


def test_a_memory_is_remembered_until_it_is_forgotten_or_silent_for_long():
    memories = Memories()
    first = memories.get('a', 0)
    assert memories.get('a', 1) is first
    memories.get('b', 3000).is_due(3000, 15)
    assert len(memories) == 2
    memories.get('c', 4000)
    assert len(memories) == 2 and memories.get('a', 4000) is not first
    memories.forget('a'), memories.forget('a')
    assert len(memories) == 2
