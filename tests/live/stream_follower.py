"""A client of streams, as the protocol wants it: positions, gaps, ``RESUME``, ``lost``. For asyncio."""

import asyncio
import collections
import random
import time

from . import fleet

# Seconds that a gap waits for the push that is missing, and at most as many again at random.
GAP = 0.2
# Seconds without FOLLOWING, or an answer, after which it asks.
PATIENCE = 5
# Seconds after which a client that has had nothing begins where it can: nobody has told it where.
BEGUN = 30

Count = collections.Counter


class Following:
    """How far one client has read one stream."""

    def __init__(self, name):
        self.name = name
        # None before its first FOLLOWING.
        self.epoch = self.offset = None
        # Where it has begun, and began again: (epoch, offset); and what it was given, as (epoch, offset, content).
        self.begins, self.given = [], []
        # What it was told is lost: (epoch, offset) where it was, (epoch, offset) where it went on.
        self.lost = []
        # By offset: what came before the message that it waits for. Of one epoch, in the order in which it came.
        self.early = {}
        self.early_epoch = None
        # The last that is known to be there, of the epoch it is in.
        self.head = 0
        # Whether its FOLLOWING has come on this connection, and any message.
        self.is_greeted = self.has_heard = False
        # Where the stream stood, before it was told where it begins.
        self.heard = None

    @property
    def begun(self):
        return self.epoch is not None

    @property
    def is_behind(self):
        return self.begun and (self.head > self.offset or bool(self.early))

    def begin(self, epoch, offset):
        self.epoch, self.offset, self.head = epoch, offset, offset
        self.begins.append((epoch, offset))


class Follower:
    """A client that follows ``names``. What it holds outlives its connections."""

    def __init__(self, number, names):
        self.number, self.names = number, names
        self.dice = random.Random(number)
        self.streams = {name: Following(name) for name in names}
        self.counts = Count()
        self.connection = None
        self.timers, self.asking, self.asked, self.ref = {}, {}, {}, 0
        self.errors = []
        self.largest = 0

    async def stay(self, port, until):
        """Connect to ``port`` and listen until ``until()``, or until the connection ends; return the code of that."""
        path = '/streams/{}/'.format('.'.join(self.names))
        self.connection = await asyncio.wait_for(fleet.Connection.open(port, path), 30)
        self.counts['connects'] += 1
        self.asking.clear()
        for following in self.streams.values():
            following.is_greeted = following.has_heard = False
            following.heard = None
            self.arm(following, PATIENCE)
        code = None
        listener = asyncio.ensure_future(self.listen())
        try:
            while not until() and not listener.done():
                await asyncio.wait([listener], timeout=0.2)
            if listener.done():
                code = listener.result()
        finally:
            for timer in self.timers.values():
                timer.cancel()
            self.timers.clear()
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
            if code is None:
                self.connection.writer.close()
            self.connection = None
        return code

    async def listen(self):
        while True:
            frame = await self.connection.receive(3600)
            if isinstance(frame, int):
                return frame
            self.take(frame)

    def take(self, frame):
        kind = frame.get('type')
        if 'kept' in frame:
            self.counts['pushes'] += 1
            kept = frame['kept']
            self.on_message(self.streams[kept['stream']], kept['epoch'], kept['offset'], frame)
        elif kind == 'FOLLOWING':
            self.on_following(self.streams[frame['stream']], frame)
        elif kind == 'RESUMED':
            self.on_resumed(frame)
        elif kind == 'PING':
            self.connection.send({'type': 'PING'})
        elif kind == 'ERROR':
            self.counts['errors'] += 1
            self.errors.append(frame)
            if 'ref' in frame:
                for name, (ref, _) in list(self.asking.items()):
                    if ref == frame['ref']:
                        del self.asking[name]
                        self.arm(self.streams[name], 1)

    def on_following(self, following, frame):
        self.counts['following'] += 1
        epoch, offset = frame['epoch'], frame['offset']
        is_first = not following.is_greeted
        following.is_greeted = True
        if not following.begun and frame.get('again'):
            return self.begin_later(following, epoch, offset)
        if is_first and not following.early and following.name not in self.asking:
            self.disarm(following)
        if not following.begun:
            since = frame.get('since', frame)
            following.begin(since['epoch'], since['offset'])
            self.drain(following)
        if following.epoch == epoch:
            following.head = max(following.head, offset)
        is_behind = epoch != following.epoch or offset > following.offset
        # Whatever is read after a connection was made is not older than what was had before: it may be a backup.
        if is_behind or (is_first and not following.has_heard and offset < following.offset):
            self.ask(following)

    def on_message(self, following, epoch, offset, content):
        following.has_heard = True
        if not following.begun:
            if following.early_epoch != epoch:
                following.early, following.early_epoch = {}, epoch
            following.early[offset] = content
            return
        if following.epoch == '' and following.offset == 0 and offset == 1:
            following.epoch = epoch
        if epoch == following.epoch:
            if offset <= following.offset:
                self.counts['duplicates'] += 1
                return
            if offset == following.offset + 1:
                self.give(following, offset, content)
                self.drain(following)
                return
        if following.early_epoch != epoch:
            following.early, following.early_epoch = {}, epoch
        elif offset in following.early:
            self.counts['duplicates'] += 1
        following.early[offset] = content
        if following.name not in self.asking:
            self.arm_for_gap(following)

    def give(self, following, offset, content):
        assert offset == following.offset + 1
        following.offset = offset
        following.head = max(following.head, offset)
        following.given.append((following.epoch, offset, content))
        self.counts['deliveries'] += 1

    def drain(self, following):
        """Give what came early and is next now."""
        if following.early_epoch != following.epoch:
            return
        while following.offset + 1 in following.early:
            self.give(following, following.offset + 1, following.early.pop(following.offset + 1))
        for offset in [offset for offset in following.early if offset <= following.offset]:
            del following.early[offset]
            self.counts['duplicates'] += 1
        if not following.early and following.is_greeted and following.name not in self.asking:
            self.disarm(following)

    def arm_for_gap(self, following):
        seconds = GAP * (1 + self.dice.random())
        timer = self.timers.get(following.name)
        if timer is None or timer.when() > asyncio.get_event_loop().time() + seconds:
            self.arm(following, seconds)

    def arm(self, following, seconds):
        """Ask in so many seconds, if there is still reason to."""
        self.disarm(following)
        self.timers[following.name] = asyncio.get_event_loop().call_later(seconds, self.on_timer, following)

    def disarm(self, following):
        timer = self.timers.pop(following.name, None)
        if timer is not None:
            timer.cancel()

    def begin_later(self, following, epoch, offset):
        """Begin at what was heard, if nobody says where for so long."""
        if following.heard is None:
            self.arm(following, BEGUN)
        following.heard = epoch, offset

    def on_timer(self, following):
        self.timers.pop(following.name, None)
        if following.heard is not None and not following.begun:
            self.counts['begun late'] += 1
            epoch, offset = following.heard
            following.begin(epoch, min([offset, *(at - 1 for at in following.early)]))
            self.drain(following)
        if following.begun and (following.is_behind or not following.is_greeted):
            if following.is_greeted:
                self.counts['gaps'] += 1
            self.ask(following)

    def ask(self, following):
        if not following.begun or self.connection is None:
            return
        ref, at = self.asking.get(following.name, (None, 0))
        if ref is not None and time.monotonic() - at < PATIENCE:
            # The timer asks again if there is no answer.
            return
        self.ref += 1
        self.asking[following.name] = self.ref, time.monotonic()
        self.asked[following.name] = following.epoch, following.offset
        self.counts['resumes'] += 1
        position = {'epoch': following.epoch, 'offset': following.offset}
        self.connection.send({'type': 'RESUME', 'ref': self.ref, 'streams': {following.name: position}})
        # An answer can get lost with a server or a layer.
        self.arm(following, PATIENCE + self.dice.random())

    def on_resumed(self, frame):
        self.counts['resumed'] += 1
        for name, (ref, _) in list(self.asking.items()):
            if ref == frame['ref']:
                del self.asking[name]
                self.disarm(self.streams[name])
                if name not in frame['streams']:
                    # It does not follow yet.
                    self.arm(self.streams[name], PATIENCE)
        for name, part in frame['streams'].items():
            following = self.streams[name]
            following.is_greeted = True
            if part['lost']:
                assert part['messages'] == []
                if self.asked.get(name) != (following.epoch, following.offset):
                    # Pushes have come since it asked: that is lost from where it was, not from where it is.
                    self.ask(following)
                    continue
                self.counts['lost'] += 1
                following.lost.append(((following.epoch, following.offset), (part['epoch'], part['offset'])))
                following.begin(part['epoch'], part['offset'])
                self.drain(following)
                continue
            if following.epoch == '' and following.offset == 0:
                following.epoch = part['epoch']
            for message in part['messages']:
                kept = message['kept']
                assert kept['stream'] == name and kept['epoch'] == following.epoch == part['epoch']
                if kept['offset'] <= following.offset:
                    self.counts['duplicates'] += 1
                    continue
                self.give(following, kept['offset'], message)
                self.counts['resumed messages'] += 1
            self.drain(following)
            if part['more']:
                self.counts['more'] += 1
                self.ask(following)
                continue
            if following.early_epoch != following.epoch:
                # Late pushes of an epoch that has ended.
                following.early = {}
            if following.is_behind:
                self.arm_for_gap(following)
