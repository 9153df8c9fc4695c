"""The order of frames, under whatever happens: hypothesis plays the connections, the workers and the clock."""

import collections

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sockets.layers.mailbox import FRAME_BYTES
from sockets.layers.mailboxes import CLOSE_EXPIRY, FRAMES, Full, Mailboxes

CAPACITY = 3
LEASE = 10
EXPIRY = 100
CONNECTIONS = ['server!a', 'server!b', 'server!c']


def mailboxes(capacity=CAPACITY, server_capacity=5):
    return Mailboxes(lambda channel: capacity, server_capacity, EXPIRY, LEASE)


class Order(RuleBasedStateMachine):
    """Frames of a connection are taken one at a time and in order, and all of them are taken in the end."""

    def __init__(self):
        super().__init__()
        self.boxes = mailboxes()
        self.now = 0
        self.serial = 0
        # Per connection, the frames that nobody has taken yet.
        self.expected = collections.defaultdict(collections.deque)
        # Per connection, the claim of the one frame that may be in work, and until when it is the only one.
        self.busy = {}
        self.late = []

    @rule(connection=st.sampled_from(CONNECTIONS), kind=st.sampled_from(sorted(FRAMES)))
    def send(self, connection, kind):
        self.serial += 1
        is_control = kind != 'websocket.receive'
        message = {'n': self.serial, 'reply_channel': connection}
        try:
            line = self.boxes.put(kind, message, self.now, connection, is_control)
        except Full:
            assert not is_control and len(self.expected[connection]) >= CAPACITY
            return
        expected = self.expected[connection]
        if (
            kind == 'websocket.disconnect'
            and connection not in self.busy
            and expected
            and expected[0][0] == 'websocket.connect'
        ):
            # It has gone before anybody heard of it.
            assert line is None
            return expected.clear()
        expected.append((kind, self.serial))
        assert (line is None) == (connection in self.busy)

    @rule(kinds=st.sets(st.sampled_from(sorted(FRAMES)), min_size=1))
    def receive(self, kinds):
        queued, claim = self.boxes.take(kinds, self.now, 'worker')
        if queued is None:
            waiting = [
                c for c, frames in self.expected.items() if frames and c not in self.busy and frames[0][0] in kinds
            ]
            assert waiting == []
            return
        connection = queued.message['reply_channel']
        assert connection not in self.busy
        assert queued.channel in kinds
        assert (queued.channel, queued.message['n']) == self.expected[connection].popleft()
        self.busy[connection] = claim

    # A handler that raises is done as well.
    @precondition(lambda self: self.busy)
    @rule(data=st.data())
    def finish(self, data):
        connection = data.draw(st.sampled_from(sorted(self.busy)))
        line = self.boxes.done(self.busy.pop(connection))
        assert (line is not None) == bool(self.expected[connection])

    @precondition(lambda self: self.busy)
    @rule(data=st.data())
    def die(self, data):
        """A worker takes longer than its lease: the connection goes on without it."""
        connection = data.draw(st.sampled_from(sorted(self.busy)))
        claim = self.busy[connection]
        self.now = max(self.now, claim.until)
        overdue = self.boxes.overdue(self.now)
        assert claim in overdue
        for connection, claim in list(self.busy.items()):
            if claim in overdue:
                self.boxes.done(claim)
                self.late.append(self.busy.pop(connection))

    @precondition(lambda self: self.late)
    @rule()
    def finish_late(self):
        """It ends its frame after all, which no longer means anything."""
        assert self.boxes.done(self.late.pop()) is None

    @invariant()
    def everything_is_somewhere(self):
        assert len(self.boxes) == sum(len(frames) for frames in self.expected.values())

    def teardown(self):
        while True:
            for connection in list(self.busy):
                self.finish_one(connection)
            queued, claim = self.boxes.take(FRAMES, self.now, 'worker')
            if queued is None:
                break
            connection = queued.message['reply_channel']
            assert (queued.channel, queued.message['n']) == self.expected[connection].popleft()
            self.busy[connection] = claim
        assert not any(self.expected.values())

    def finish_one(self, connection):
        self.boxes.done(self.busy.pop(connection))


TestOrder = Order.TestCase
TestOrder.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def frame(boxes, n, connection='server!a', kind='websocket.receive', now=0):
    return boxes.put(kind, {'n': n}, now, connection, kind != 'websocket.receive')


def test_connections_take_turns_and_none_starves():
    boxes = mailboxes()
    for n in range(3):
        frame(boxes, n, 'server!greedy')
    frame(boxes, 'modest', 'server!modest')
    taken = []
    for _ in range(4):
        queued, claim = boxes.take(['websocket.receive'], 0)
        taken.append(queued.message['n'])
        boxes.done(claim)
    assert taken == [0, 'modest', 1, 2]


def test_a_flood_fills_its_own_mailbox_and_no_other():
    boxes = mailboxes()
    for n in range(CAPACITY):
        frame(boxes, n)
    with pytest.raises(Full):
        frame(boxes, 'too many')
    frame(boxes, 'other', 'server!b')
    # That it has ended is known all the same, and last.
    frame(boxes, 'end', kind='websocket.disconnect')
    taken = []
    while True:
        queued, claim = boxes.take(FRAMES, 0)
        if queued is None:
            break
        taken.append(queued.message['n'])
        boxes.done(claim)
    assert taken == [0, 'other', 1, 2, 'end']


def test_messages_to_connections_are_counted_per_connection_and_per_server():
    boxes = mailboxes(capacity=2, server_capacity=3)
    for _ in range(2):
        boxes.put('server!slow', {}, 0)
    with pytest.raises(Full):
        boxes.put('server!slow', {}, 0)
    boxes.put('server!fast', {}, 0)
    with pytest.raises(Full):
        boxes.put('server!another', {}, 0)
    boxes.put('server!slow', {'close': 1000}, 0, is_control=True)
    boxes.put('other!fast', {}, 0)
    assert [boxes.take(['server!'], 0)[0].channel for _ in range(4)] == [
        'server!slow',
        'server!slow',
        'server!fast',
        'server!slow',
    ]
    boxes.put('server!slow', {}, 0)


def test_what_has_expired_makes_room_and_is_not_taken():
    boxes = mailboxes()
    for n in range(CAPACITY):
        boxes.put('channel', {'n': n}, 0)
    assert boxes.take(['channel'], EXPIRY) == (None, None)
    assert len(boxes) == 0
    boxes.put('channel', {'n': 'new'}, EXPIRY)
    assert boxes.take(['channel'], EXPIRY)[0].message == {'n': 'new'}


def test_an_expired_frame_is_skipped_and_the_end_of_its_connection_is_not():
    boxes = mailboxes()
    frame(boxes, 'old')
    frame(boxes, 'end', kind='websocket.disconnect')
    assert boxes.take(['websocket.receive'], EXPIRY) == (None, None)
    assert boxes.take(['websocket.disconnect'], EXPIRY * 2)[0].message == {'n': 'end'}


def test_expired_messages_that_are_not_received_are_removed():
    boxes = mailboxes()
    boxes.put('http.disconnect', {}, 0)
    boxes.put('server!a', {}, 0)
    boxes.sweep(EXPIRY - 1)
    assert len(boxes) == 2
    boxes.sweep(EXPIRY)
    assert len(boxes) == 0 and not boxes._boxes and not boxes._limits.waiting and not boxes._ready


def test_all_that_waits_for_a_server_is_taken_at_once_but_what_has_expired():
    boxes = mailboxes()
    for now, channel in enumerate(['a!1', 'a!1', 'a!2', 'b!1']):
        boxes.put(channel, {'n': now}, now)
    messages = boxes.take_all('a!', EXPIRY)
    assert [(queued.channel, queued.message['n']) for queued in messages] == [('a!1', 1), ('a!2', 2)]
    assert boxes.take_all('a!', EXPIRY) == []
    assert boxes.take(['a!'], EXPIRY) == (None, None)
    assert boxes.take(['b!'], EXPIRY)[0].message == {'n': 3}
    # Nothing of it counts any more.
    assert not boxes._boxes and not boxes._limits.waiting and not boxes._ready


def test_an_owner_at_work_gets_another_lease():
    boxes = mailboxes()
    frame(boxes, 1)
    frame(boxes, 2)
    _, claim = boxes.take(FRAMES, 0)
    boxes.renew(claim, LEASE)
    assert boxes.overdue(LEASE) == []
    assert boxes.take(FRAMES, LEASE) == (None, None)
    assert boxes.overdue(2 * LEASE) == [claim]


def test_of_a_connection_that_is_told_to_close_only_the_disconnect_is_received():
    boxes = mailboxes()
    for n in range(2):
        boxes.put('websocket.receive', {'n': n}, 0, 'server!a')
    boxes.put('websocket.receive', {'n': 'other'}, 0, 'server!b')
    _, claim = boxes.take(FRAMES, 0)
    boxes.put('websocket.disconnect', {'n': 'end'}, 0, 'server!a', is_control=True)
    boxes.close('server!a', 0)
    assert boxes.put('websocket.receive', {'n': 2}, 0, 'server!a') is None
    assert boxes.done(claim) == 'websocket.disconnect'
    taken = [boxes.take(FRAMES, 0)[0].message['n'] for _ in range(2)]
    assert sorted(taken) == ['end', 'other'] and boxes.take(FRAMES, 0) == (None, None)


def test_a_connection_that_closes_leaves_nothing_behind():
    boxes = mailboxes()
    boxes.put('websocket.receive', {}, 0, 'server!a')
    boxes.close('server!a', 0)
    assert boxes.take(FRAMES, 0) == (None, None) and not boxes.has_frames()
    boxes.put('websocket.disconnect', {}, 1, 'server!a', is_control=True)
    boxes.close('server!nobody', 1)
    assert set(boxes._closed) == {'server!nobody'}
    boxes.sweep(1 + EXPIRY)
    assert not boxes._closed


def test_a_close_does_not_expire_with_the_messages_before_it():
    boxes = mailboxes()
    boxes.put('server!a', {'text': 'old'}, 0)
    boxes.put('server!a', {'text': 'RECONNECT', 'close': 4401}, 0, is_control=True)
    boxes.close('server!a', 0)
    boxes.sweep(2 * EXPIRY)
    assert [queued.message for queued in boxes.take_all('server!', 2 * EXPIRY)] == [
        {'text': 'RECONNECT', 'close': 4401}
    ]
    # Where nobody serves, it goes some day.
    boxes.put('server!a', {'close': 4401}, 0, is_control=True)
    boxes.sweep(1 + CLOSE_EXPIRY)
    assert len(boxes) == 0


CONNECT = 'websocket.connect'


def test_a_client_that_left_before_its_connect_was_taken_leaves_nothing():
    boxes = mailboxes()
    frame(boxes, 0, kind=CONNECT)
    assert boxes.count_ready(CONNECT) == 1
    assert frame(boxes, 1, kind='websocket.disconnect') is None
    assert boxes.take(FRAMES, 0) == (None, None) and not boxes.has_frames() and not boxes.count_ready(CONNECT)
    # Once it has been taken, its end is handled.
    frame(boxes, 2, kind=CONNECT)
    _, claim = boxes.take(FRAMES, 0)
    assert frame(boxes, 3, kind='websocket.disconnect') is None
    assert boxes.done(claim) == 'websocket.disconnect'
    assert boxes.take(FRAMES, 0)[0].message['n'] == 3


def test_a_connect_expires_and_an_end_does_not():
    boxes = Mailboxes(lambda channel: CAPACITY, 5, EXPIRY, LEASE, connect_expiry=6)
    frame(boxes, 0, kind=CONNECT)
    frame(boxes, 1, 'server!b', 'websocket.disconnect')
    assert boxes.take(FRAMES, 6)[0].message['n'] == 1
    assert boxes.take(FRAMES, 6) == (None, None) and not boxes.count_ready(CONNECT)


def test_a_connect_can_be_withdrawn_until_it_is_taken():
    boxes = mailboxes()
    frame(boxes, 0, kind=CONNECT)
    assert boxes.withdraw('server!a') and not boxes.withdraw('server!a')
    frame(boxes, 0, kind=CONNECT)
    boxes.take(FRAMES, 0)
    assert not boxes.withdraw('server!a')
    frame(boxes, 1, 'server!b')
    assert not boxes.withdraw('server!b')


def test_frames_go_before_connects_but_not_for_ever():
    boxes = mailboxes()
    taken = []
    for n in range(4):
        frame(boxes, n, f'server!new{n}', CONNECT)
    for n in range(10):
        frame(boxes, n, f'server!old{n}')
        queued, _ = boxes.take(FRAMES, 1 + n / 10)
        taken.append(queued.channel == CONNECT)
    assert taken == [True, False, False, False, False] * 2
    # Whoever serves connects only does not wait.
    assert boxes.take([CONNECT], 2)[0].channel == CONNECT


def test_it_knows_what_is_at_work():
    boxes = mailboxes()
    frame(boxes, 0, kind=CONNECT)
    frame(boxes, 1, 'server!b')
    claims = [boxes.take([kind], 0)[1] for kind in (CONNECT, 'websocket.receive')]
    assert [boxes.at_work([CONNECT]), boxes.at_work(['websocket.receive']), boxes.at_work(FRAMES)] == [1, 1, 2]
    for claim in claims:
        boxes.done(claim)
    assert boxes.at_work(FRAMES) == 0


@pytest.mark.parametrize('kind, part', [('text', 'x'), ('bytes', b'x')])
def test_long_frames_of_a_connection_are_fewer_that_may_wait(kind, part):
    # A hundred of 4 MB were 400 MB, of one client.
    boxes = mailboxes(capacity=100)
    frame = {kind: part * (FRAME_BYTES // 4)}
    for _ in range(5):
        boxes.put('websocket.receive', frame, 0, 'server!a')
    with pytest.raises(Full):
        boxes.put('websocket.receive', {kind: part}, 0, 'server!a')
    # Nobody else's, nor its end, nor what it gets.
    boxes.put('websocket.receive', frame, 0, 'server!b')
    boxes.put('websocket.disconnect', {}, 0, 'server!a', is_control=True)
    for _ in range(5):
        boxes.put('server!a', frame, 0)
    boxes.take(['websocket.receive'], 0)
    boxes.put('websocket.receive', frame, 0, 'server!a')


def test_a_frame_that_need_not_wait_is_claimed_at_once_and_holds_back_the_next_one():
    boxes = mailboxes()
    claim = boxes.claim('websocket.receive', 'server!a', 10, 'thread')
    assert boxes.has_frames('server!a') and boxes.at_work(['websocket.receive']) == 1
    assert boxes.longest_at_work('websocket.receive', 12.5) == 2.5
    assert boxes.claim('websocket.receive', 'server!a', 11, 'other') is None
    assert boxes.put('websocket.receive', {}, 11, 'server!a') is None
    assert boxes.done(claim) == 'websocket.receive'
    # That one comes first.
    assert boxes.claim('websocket.receive', 'server!a', 12, 'thread') is None
    boxes.take({'websocket.receive'}, 12)
    boxes.close('server!b', 12)
    assert boxes.claim('websocket.receive', 'server!b', 12, 'thread') is None
    assert boxes.longest_at_work('websocket.disconnect', 99) == 0
