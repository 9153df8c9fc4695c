import threading

import pytest

from sockets.rates import Buckets, Rate, take


@pytest.mark.parametrize(
    'value, burst, per_second, words',
    [
        (5, 5, 5, '5 frames a second'),
        (0.5, 1, 0.5, '0.5 frames a second'),
        ('5/s', 5, 5, '5/s'),
        ('30/m', 30, 0.5, '30/m'),
        ('1.5/s', 1.5, 1.5, '1.5/s'),
        ('36/h', 36, 0.01, '36/h'),
        ('0.5/m', 1, 1 / 120, '0.5/m'),
    ],
)
def test_a_rate_is_so_many_at_once_refilled_over_the_unit(value, burst, per_second, words):
    rate = Rate(value)
    assert (rate.burst, rate.per_second, str(rate)) == (burst, per_second, words)
    assert str(Rate(value, per='user')) == words + ' per user'


@pytest.mark.parametrize(
    'value',
    [
        '5/d',
        '5/min',
        '/s',
        '5',
        '-1/s',
        '5/s\n',
        ' 5/s',
        '1e3/s',
        'often',
        '0/s',
        0,
        -1,
        True,
        float('nan'),
        float('inf'),
        [],
        (5, 's'),
        b'5/s',
        None,
    ],
)
def test_a_wrong_rate_is_an_error(value):
    with pytest.raises(TypeError, match="A route's rate is a number of frames a second, or a text like '30/m', not "):
        Rate(value)


@pytest.mark.parametrize('per', ['users', 'User', '', None, 1, 'address', True])
def test_a_rate_is_counted_per_connection_or_per_user(per):
    with pytest.raises(TypeError, match="per='connection' or per='user', not "):
        Rate(5, per)


def frames(rate, times):
    """Return the seconds that each of the frames at ``times`` is told to wait."""
    bucket, waits = (rate.burst, 0), []
    for now in times:
        bucket, seconds = take(bucket, now, rate.per_second, rate.burst)
        waits.append(seconds)
    return waits


def test_ten_a_minute_are_ten_at_once_and_then_one_every_six_seconds():
    # It was one, and then one every six seconds.
    waits = frames(Rate('10/m'), [0] * 12 + [6, 6, 60, 3600])
    assert waits[:10] == [0] * 10 and waits[10:12] == [pytest.approx(6)] * 2
    assert waits[12] == 0 and waits[13] == pytest.approx(6) and waits[14:] == [0, 0]


def test_five_a_second_are_five_at_once():
    # It was ten.
    assert [seconds == 0 for seconds in frames(Rate('5/s'), [0] * 7)] == [True] * 5 + [False] * 2


def test_a_refused_frame_takes_no_token():
    rate = Rate('1/m')
    assert [seconds == 0 for seconds in frames(rate, [0, *range(1, 60), 60])] == [True] + [False] * 59 + [True]


@pytest.mark.parametrize('value', ['10/m', '7/h', 3, 0.3, '1/s', '333/h'])
def test_a_frame_is_let_through_after_the_wait_that_was_told(value):
    rate, now = Rate(value), 123456.789
    bucket = rate.burst, now
    for _ in range(200):
        bucket, seconds = take(bucket, now, rate.per_second, rate.burst)
        if seconds:
            now += seconds
            bucket, seconds = take(bucket, now, rate.per_second, rate.burst)
            assert seconds == 0


def test_a_clock_that_goes_back_changes_no_bucket():
    assert frames(Rate('2/m'), [100, 50, 100]) == [0, 0, pytest.approx(30)]


def test_buckets_are_shared_by_threads_and_forgotten_when_they_are_full_again():
    buckets, taken = Buckets(), []
    rate = Rate('50/m')

    def send():
        for _ in range(20):
            taken.append(buckets.wait('alice', 0, rate.per_second, rate.burst) == 0)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken.count(True) == 50
    buckets.wait('bob', 61, rate.per_second, rate.burst)
    assert len(buckets) == 1
