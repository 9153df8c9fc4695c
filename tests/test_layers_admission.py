"""A storm against a clock of our own: who is let in when, and how much of the server's time is lost."""

import heapq
import itertools
import random

import pytest

from sockets.layers import admission
from sockets.layers.admission import Admission

# daphne's, after which a client that waits is reset.
TIMEOUT = 5


class Storm:
    """Clients that want to connect, ``threads`` that take ``seconds`` for each, and an ``Admission`` between them."""

    def __init__(self, threads, seconds, together=1):
        self.together = together
        self.admission = Admission()
        self.threads, self.seconds = threads, seconds
        self.random = random.Random(1)
        self.now = 0
        self.events, self.serial = [], itertools.count()
        self.queue, self.at_work = [], 0
        self.waits, self.asked, self.lost = [], 0, 0

    def at(self, time, function, *args):
        heapq.heappush(self.events, (time, next(self.serial), function, args))

    def come(self):
        self.asked += 1
        oldest = self.now - self.queue[0] if self.queue else 0
        slot = self.admission.ask(self.now, len(self.queue), oldest)
        if slot is not None:
            self.at(self.now + slot + self.random.random() / 4, self.come)
            return
        self.queue.append(self.now)
        self.serve()
        if self.queue and self.queue[-1] == self.now:
            self.at(self.now + TIMEOUT, self.time_out, self.now)

    def time_out(self, since):
        if since in self.queue:
            self.queue.remove(since)
            self.lost += 1
            self.at(self.now + 5 * self.random.random(), self.come)

    def serve(self):
        while self.queue and self.at_work < self.threads:
            self.waits.append(self.now - self.queue.pop(0))
            self.admission.taken(self.now, len(self.queue))
            self.at_work += 1
            more = min(self.together - 1, len(self.queue))
            for _ in range(more):
                self.waits.append(self.now - self.queue.pop(0))
            if more:
                self.admission.taken_with(more, len(self.queue))
            seconds = sum(self.seconds() for _ in range(1 + more))
            self.at(self.now + seconds, self.done, seconds, 1 + more, bool(more) and not self.queue)

    def done(self, seconds, count, is_measured):
        self.at_work -= 1
        if is_measured:
            self.admission.served(seconds, count, self.now)
        self.ended = self.now
        self.serve()

    def run(self):
        while self.events:
            self.now, _, function, args = heapq.heappop(self.events)
            function(*args)


def storm(count, threads, seconds, within=5, together=1):
    """Return a storm of ``count`` clients that come back ``within`` seconds, when it is over."""
    found = Storm(threads, seconds, together)
    for _ in range(count):
        # What is left of a delay that had begun before.
        found.at(within * found.random.random() * found.random.random(), found.come)
    found.run()
    return found


@pytest.mark.parametrize(
    'count, threads, seconds',
    [
        (1500, 2, 0.002),
        (1500, 2, 0.01),
        (1500, 2, 0.03),
        (1500, 2, 0.1),
        (5000, 2, 0.01),
        (1500, 8, 0.1),
        (1500, 32, 0.1),
        (20000, 2, 0.01),
    ],
)
def test_all_are_in_as_soon_as_the_threads_can_serve_them(count, threads, seconds):
    ended = storm(count, threads, lambda: seconds)
    assert len(ended.waits) == count
    assert ended.ended <= max(1.15 * count * seconds / threads, 5.1)
    # Until the first were measured, 100 may have been let in.
    assert ended.lost <= 30
    # Each attempt costs the server something.
    assert ended.asked <= 3 * count


@pytest.mark.parametrize(
    'count, threads, seconds, together',
    [(5000, 2, 0.001, 50), (5000, 1, 0.001, 50), (5000, 2, 0.01, 5), (1500, 2, 0.02, 2)],
)
def test_so_they_are_when_several_are_served_together(count, threads, seconds, together):
    ended = storm(count, threads, lambda: seconds, together=together)
    assert len(ended.waits) == count
    assert ended.ended <= max(1.2 * count * seconds / threads, 5.2)
    assert ended.lost <= 30 and ended.asked <= 3 * count


def test_the_time_of_those_that_are_served_together_is_measured_also_where_none_are_left():
    found = Admission()
    for n in range(100):
        found.taken(n, 19)
        found.taken_with(19, 0)
        found.served(0.02, 20, n + 0.02)
    assert found.gap == pytest.approx(0.001, rel=0.1)
    for n in range(100):
        found.taken(100 + n * 0.1, 100)
        found.taken_with(19, 81)
    assert found.gap == pytest.approx(0.005, rel=0.1)


@pytest.mark.parametrize('count, threads, seconds', [(300, 1, 0.2), (100, 2, 1)])
def test_what_takes_long_keeps_its_threads_busy_all_the_time(count, threads, seconds):
    ended = storm(count, threads, lambda: seconds)
    assert len(ended.waits) == count and ended.ended <= 1.1 * count * seconds / threads


def test_a_first_one_that_takes_long_costs_little():
    seconds = itertools.chain([1, 1], itertools.repeat(0.01))
    ended = storm(1500, 2, lambda: next(seconds))
    assert ended.ended <= 1.05 * 7.5 + 1 and not ended.lost


def test_what_takes_very_different_times_is_served_as_well():
    draw = random.Random(2)
    ended = storm(1500, 2, lambda: 0.3 if draw.random() < 0.1 else 0.01)
    assert ended.ended <= 1.2 * 1500 * 0.039 / 2 + 1 and ended.lost <= 100


def crowd(found, count):
    for _ in range(count):
        found.at(5 * found.random.random() * found.random.random(), found.come)
    found.run()
    return found


def test_a_server_that_gets_faster_when_most_have_been_told_has_not_told_them_to_come_too_late():
    # It is busy with telling them, as long as they come.
    found = Storm(2, lambda: 0.014 if found.now < 5 else 0.01)
    assert crowd(found, 5000).ended <= 1.1 * (5 + (5000 - 5 / 0.007) * 0.005)


def test_all_are_in_soon_when_threads_that_hung_go_on():
    # Rates were taken for so small after it that some were told to come a minute later.
    found = Storm(2, lambda: 0.014 + (max(0, 27 - found.now) if found.now > 19 else 0))
    assert crowd(found, 5000).ended <= 1.15 * 5000 * 0.007 + 8


def test_a_client_that_comes_while_others_wait_for_their_slot_starves_none_of_them():
    found = Storm(2, lambda: 0.05)
    for _ in range(400):
        found.at(found.random.random(), found.come)
    # As many again as can be served, without end.
    for n in range(2000):
        found.at(n * 0.06, found.come)
    found.run()
    assert len(found.waits) == 2400 and max(found.waits) < TIMEOUT


def measured(gap):
    """Return an ``Admission`` that has measured ``gap`` seconds."""
    found = Admission()
    for n in range(1000):
        found.taken(n * gap, 1)
    return found


def test_a_burst_on_a_server_that_has_nothing_to_do_is_let_in():
    found = Admission()
    assert [found.ask(0, waiting, 0) for waiting in range(100)] == [None] * 100


def test_a_client_that_waits_for_threads_that_serve_no_connects_is_told_to_come_back():
    assert Admission().ask(100, 3, 2.1) >= admission.EARLIEST
    assert measured(0.001).ask(10, 3, 2.1) == admission.EARLIEST
    assert measured(0.001).ask(10, 3, 1.9) is None


def test_a_queue_is_bounded_by_its_length_too():
    found = measured(0.0001)
    assert found.ask(0.2, admission.LONGEST_QUEUE - 1, 0) is None
    assert found.ask(0.2, admission.LONGEST_QUEUE, 0.1) == 0.1


def test_no_client_is_sent_away_for_very_long_nor_all_of_them_for_the_same_time():
    found = measured(0.02)
    slots = [found.ask(20, 200, 0) for _ in range(100000)]
    assert max(slots) <= admission.LATEST
    assert max(slots[-50000:].count(slot) for slot in set(slots[-100:])) < 1000


def test_a_client_that_comes_before_anything_is_measured_is_told_to_come_back_soon():
    found = Admission()
    slots = [found.ask(0, 200, 0) for _ in range(5000)]
    assert 1 <= min(slots) < 1.1 and 2.9 < max(slots) <= 3


def test_a_measure_is_good_for_a_minute():
    found = Admission()
    for n in range(100):
        found.taken(n, 5)
    assert found.gap > 0.5 and found.ask(100, 10, 0) is not None
    assert found.ask(99 + admission.GOOD_FOR + 1, 10, 0) is None


def test_the_time_between_two_storms_is_not_a_sample():
    found = Admission()
    for start in range(0, 1000, 50):
        for n in range(10):
            found.taken(start + n * 0.01, 9 - n)
    assert found.gap < 0.02
