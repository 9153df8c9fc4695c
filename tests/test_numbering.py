"""Numbers of messages and what clients make of them, under whatever happens: hypothesis plays writers, network and time."""

import json
from datetime import timedelta

import pytest
from django.utils import timezone
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from sockets.models import StreamHead, StreamMessage
from sockets.streams import Stream, following, housekeeping, numbering, pushes, replays, retention

pytestmark = pytest.mark.django_db

NAME = 'tea'
CLIENTS = range(3)


class Client:
    """What design and browser client do about one stream, without the pauses."""

    def __init__(self, machine, number):
        self.machine, self.number = machine, number
        # Where it is; None until it is told. What it has had since it was told that something is lost.
        self.position, self.had = None, []
        self.is_here = False
        # Where it begins if it has had nothing, as was said when it came; and what was pushed before it knew of that.
        self.begins, self.early = None, []
        # Frames on their way to it.
        self.wire = []

    def come(self, since=None, last=None):
        self.is_here = True
        head = self.machine.head()
        at = (head.epoch, head.offset) if head else ('', 0)
        self.begins = at if last is None or head is None else (head.epoch, max(head.trimmed, head.offset - last))
        if since is not None:
            self.begins = since
            since = {'epoch': since[0], 'offset': since[1]}
        following.memories.add(self.number)
        key = self.machine.stream.key
        following.teller.follow(following.Waiting(key, NAME, self.number, 'membership', None, since, last))

    def go(self):
        self.is_here = False
        self.wire, self.early = [], []
        following.memories.discard(self.number)

    def receive(self, text):
        frame = json.loads(text)
        if frame['type'] == 'FOLLOWING':
            return self.follow(frame)
        at = frame['kept']
        if self.position is None:
            self.early.append(text)
        elif self.is_other(at) or at['offset'] > self.position[1] + 1:
            self.resume()
        else:
            self.take(frame)

    def follow(self, at):
        if self.position is None:
            if at.get('again'):
                return
            since = at.get('since', at)
            self.position = since['epoch'], since['offset']
            # However often what said so was lost.
            assert self.position == self.begins
        if self.is_other(at) or at['offset'] > self.position[1]:
            self.resume()
        early, self.early = self.early, []
        for text in early:
            self.receive(text)

    def is_other(self, at):
        return at['epoch'] != self.position[0] and self.position != ('', 0)

    def take(self, frame):
        at = frame['kept']
        if self.position == ('', 0):
            self.position = at['epoch'], 0
        if at['epoch'] == self.position[0] and at['offset'] == self.position[1] + 1:
            self.position = at['epoch'], at['offset']
            self.had.append((at['epoch'], at['offset'], frame['n']))

    def resume(self):
        more = True
        while more:
            epoch, offset = self.position
            asked = {NAME: {'epoch': epoch, 'offset': offset}}
            answer = replays.resume(self, {'streams': asked})['streams'][NAME]
            assert answer['lost'] == self.machine.is_lost(epoch, offset)
            more = answer['more']
            if answer['lost']:
                self.machine.check(self)
                self.position, self.had = (answer['epoch'], answer['offset']), []
            for frame in answer['messages']:
                self.take(frame)
            assert self.position[1] >= answer['offset'] or not answer['epoch']


class Streams(RuleBasedStateMachine):
    """Each client has exactly what the table has, in order, once, or was told that it has lost something."""

    def __init__(self):
        super().__init__()
        StreamHead.objects.all().delete()
        StreamMessage.objects.all().delete()
        numbering._forget()
        replays.cache.forget(Stream(NAME).key)
        self.stream = Stream(NAME)
        following.teller = following.Teller(is_patient=False)
        following.memories = set()
        self.clients = [Client(self, number) for number in CLIENTS]
        self.serial = 0
        # What is written and not committed; and of each message, those that were visible when it was written.
        self.open, self.before = [], {}
        # All that was numbered, by epoch and number.
        self.numbered, self.old_epochs = {}, set()
        pushes.send = self.push
        following.followed = self.followed
        pushes.followers = lambda *keys: {key: {None: CLIENTS} for key in keys}

    def push(self, names, text):
        for number in names[None]:
            if self.clients[number].is_here:
                self.clients[number].wire.append(text)
        return True

    def followed(self, client, names):
        following.teller.forget(client.number, ['membership'])
        return list(names)

    def head(self):
        return StreamHead.objects.filter(pk=self.stream.key).first()

    def is_lost(self, epoch, offset):
        head = self.head()
        if head is None:
            return (epoch, offset) != ('', 0)
        return (epoch, offset) != ('', 0) and (epoch != head.epoch or offset > head.offset) or offset < head.trimmed

    def check(self, client):
        """What it has had since it last lost something is without gaps, and as the messages were."""
        for had, after in zip(client.had, client.had[1:]):
            assert after[:2] == (had[0], had[1] + 1)
        for epoch, offset, n in client.had:
            assert self.numbered[epoch, offset] == n

    @rule()
    def write(self):
        """A writer inserts a message, and gets a primary key; nobody else sees it yet."""
        self.serial += 1
        self.open.append(self.serial)
        visible = StreamMessage.objects.values_list('text', flat=True)
        self.before[self.serial] = {json.loads(text)['n'] for text in visible}

    @precondition(lambda self: self.open)
    @rule(data=st.data(), is_numbered=st.booleans(), age=st.integers(0, 3))
    def commit(self, data, is_numbered, age):
        """It commits, and numbers, unless it dies in between."""
        n = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        text = json.dumps({'type': 'SAID', 'n': n})
        StreamMessage.objects.create(pk=n, key=self.stream.key, name=NAME, text=text)
        StreamMessage.objects.filter(pk=n).update(created=timezone.now() - timedelta(seconds=age * 100))
        if is_numbered:
            numbering.number_and_push(self.stream)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def roll_back(self, data):
        self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))

    @rule()
    def keep_house(self):
        StreamHead.objects.filter(remind_at__isnull=False).update(remind_at=timezone.now() - timedelta(seconds=2))
        for step in housekeeping.STEPS.values():
            step()

    @rule(count=st.one_of(st.none(), st.integers(1, 4)), age=st.sampled_from([None, 50, 150, 250]))
    def trim(self, count, age):
        StreamHead.objects.update(max_messages=count, max_age=age, trim_at=timezone.now() - timedelta(seconds=2))
        retention.trim()

    @rule()
    def clear(self):
        retention.clear(self.stream.key)

    @rule(is_begun_anew=st.booleans())
    def delete(self, is_begun_anew):
        """Somebody deletes the stream: its numbers begin anew."""
        if is_begun_anew:
            StreamHead.objects.all().delete()
            StreamMessage.objects.filter(offset__gt=0).delete()
            replays.cache.forget(self.stream.key)

    @rule(client=st.sampled_from(CLIENTS), data=st.data(), last=st.one_of(st.none(), st.integers(1, 3)))
    def come_or_go(self, client, data, last):
        client = self.clients[client]
        if client.is_here:
            client.go()
        else:
            head = self.head()
            epoch, offset = (head.epoch, head.offset) if head else ('', 0)
            places = [None, ('', 0), ('other', 1), *((epoch, n) for n in range(offset + 1))]
            client.come(None if last else data.draw(st.sampled_from(places)), last)

    @rule()
    def tell_again(self):
        """Time goes by, and who has asked for nothing is told again where to begin."""
        for told in following.teller._told:
            due = [(0, waiting) for _, waiting in told]
            told.clear()
            told.extend(due)
        following.teller.tell_again()

    @rule(client=st.sampled_from(CLIENTS), data=st.data(), fate=st.sampled_from(['arrive'] * 4 + ['lost', 'twice']))
    def deliver(self, client, data, fate):
        """A frame arrives, in whatever order, is lost, or comes twice."""
        client = self.clients[client]
        if client.wire:
            place = data.draw(st.integers(0, len(client.wire) - 1))
            text = client.wire[place] if fate == 'twice' else client.wire.pop(place)
            if fate != 'lost':
                client.receive(text)

    @invariant()
    def numbers_have_no_gaps(self):
        head = self.head()
        if head is None:
            return
        rows = StreamMessage.objects.filter(key=self.stream.key, offset__gt=head.trimmed).order_by('offset')
        rows = [(row.offset, json.loads(row.text)['n']) for row in rows]
        assert [offset for offset, _ in rows] == list(range(head.trimmed + 1, head.offset + 1))
        for offset, n in rows:
            assert self.numbered.setdefault((head.epoch, offset), n) == n
        for place, (_, n) in enumerate(rows):
            # What was visible when it was written is before it.
            assert not self.before[n].intersection(n for _, n in rows[place + 1 :])

    def teardown(self):
        """In the end all is numbered, who is away comes back, and each is reminded."""
        StreamMessage.objects.filter(offset=None).update(created=timezone.now() - timedelta(seconds=10))
        self.keep_house()
        assert not StreamMessage.objects.filter(offset=None).exists()
        self.numbers_have_no_gaps()
        # What has told them where to begin was lost, and will not be each time.
        began = [client for client in self.clients if client.position is None]
        for client in began:
            client.wire.clear()
        StreamMessage.objects.create(key=self.stream.key, name=NAME, text='{"type":"SAID","n":0}')
        self.before[0] = set()
        numbering.number_and_push(self.stream)
        self.keep_house()
        self.numbers_have_no_gaps()
        self.tell_again()
        for client in began:
            is_told = (client.number, 'membership') in following.teller._following
            for text in client.wire:
                client.receive(text)
            assert client.position is not None or not client.is_here or not is_told
            self.check(client)
        head = self.head()
        for client in self.clients:
            client.go()
            client.come()
            client.receive(client.wire.pop())
            assert client.position == ((head.epoch, head.offset) if head else ('', 0))
            self.check(client)


def test_clients_have_all_messages_once_and_in_order(monkeypatch):
    monkeypatch.setattr(replays, 'MAX_MESSAGES', 2)
    monkeypatch.setattr(replays, 'SHARED_FOR', 0)
    of_modules = (
        (pushes, 'send'),
        (pushes, 'followers'),
        *((following, name) for name in ('followed', 'teller', 'memories')),
    )
    for module, name in of_modules:
        # What each example sets is put back at the end.
        monkeypatch.setattr(module, name, getattr(module, name))
    run_state_machine_as_test(Streams, settings=settings(max_examples=60, stateful_step_count=40, deadline=None))
