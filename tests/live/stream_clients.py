"""A client of streams, for asyncio, that does what the contract asks of one and no more."""

import asyncio
import collections
import random

from . import fleet

# Seconds that a gap waits for the missing message, and as much again at random.
GAP = 0.2


class Followed:
    """What one client has had of one stream."""

    def __init__(self):
        # None until the first FOLLOWING.
        self.epoch = self.offset = None
        # Where it has begun, and again after each ``lost``, and what came after that: (offset, [(offset, id), ...]).
        self.parts = []
        # Where the server says that the stream stands; what came too early; whether FOLLOWING came on this connection.
        self.head = 0
        self.early = {}
        self.is_told = False
        self.timer = None
        # What was last seen, for whoever has to find out why something is missing.
        self.seen = collections.deque(maxlen=15)

    def begin(self, epoch, offset):
        self.epoch, self.offset, self.head = epoch, offset, offset
        self.parts.append((offset, []))
        self.early = {at: content for at, content in self.early.items() if at > offset}


class Client:
    """A client that follows ``names``, comes and goes, and notes what it gets."""

    def __init__(self, number, names):
        self.number = number
        self.streams = {name: Followed() for name in names}
        self.counts = collections.Counter()
        # (stream, position that was asked from, epoch)
        self.lost = []
        self.faults = []
        self.connection = None
        self.refs = 0
        self.asked = None
        self.to_ask = set()

    async def run(self, ports, is_over):
        """Come and go until ``is_over``, then stay."""
        dice = random.Random(self.number)
        await asyncio.sleep(dice.random() * 2)
        while True:
            try:
                self.connection = await fleet.Connection.open(dice.choice(ports), '/streams/')
            except (fleet.Refused, OSError, asyncio.TimeoutError):
                await asyncio.sleep(0.3 + dice.random() * 0.5)
                continue
            self.counts['connections'] += 1
            stay = 3600 if is_over() else 2 + dice.random() * 8
            try:
                await asyncio.wait_for(self._listen(), stay)
            except asyncio.TimeoutError:
                pass
            if dice.random() < 0.3:
                self.connection._write(0x88, (1000).to_bytes(2, 'big'))
            self.connection.writer.close()
            self._leave()
            await asyncio.sleep(0.1 if is_over() else dice.random() * 3)

    def missing(self):
        """Return the streams of which this knows that it lacks something."""
        return [name for name, stream in self.streams.items() if not stream.is_told or self._is_behind(stream)]

    async def _listen(self):
        self.asked, self.to_ask = None, set()
        self.connection.send({'type': 'FOLLOW', 'names': list(self.streams)})
        while True:
            content = await self.connection._receive()
            if isinstance(content, int):
                return
            kind = content.get('type')
            if kind == 'PING':
                self.connection.send({'type': 'PING'})
            elif kind == 'RECONNECT':
                return
            elif kind == 'FOLLOWING':
                self._following(content)
            elif kind == 'RESUMED':
                self._resumed(content)
            elif 'kept' in content:
                self._message(content)
            elif kind == 'ERROR':
                self.counts['errors'] += 1
                if content.get('ref') is None:
                    # Of its FOLLOW: it begins anew.
                    return
                self._ask_later(1)

    def _leave(self):
        for stream in self.streams.values():
            stream.is_told = False
            stream.seen.append('left')
            if stream.timer is not None:
                stream.timer.cancel()
                stream.timer = None

    def _following(self, content):
        stream = self.streams[content['stream']]
        epoch, offset = content['epoch'], content['offset']
        stream.seen.append(f'FOLLOWING {epoch} {offset}')
        is_first, stream.is_told = not stream.is_told, True
        if stream.epoch is None:
            stream.begin(epoch, offset)
        self._adopt(stream, epoch)
        if epoch == stream.epoch:
            stream.head = max(stream.head, offset)
            self._deliver(content['stream'], stream)
        if epoch != stream.epoch or stream.head > stream.offset or (is_first and offset < stream.offset):
            self._ask(content['stream'])

    def _message(self, content):
        name, epoch, offset = (content['kept'][key] for key in ('stream', 'epoch', 'offset'))
        stream = self.streams[name]
        self.counts['pushes'] += 1
        stream.seen.append(f'push {epoch} {offset}')
        if stream.epoch is None:
            stream.early[offset] = content
            return
        self._adopt(stream, epoch)
        if epoch != stream.epoch:
            self._wait_for_gap(name, stream)
            return
        stream.head = max(stream.head, offset)
        if offset <= stream.offset or offset in stream.early:
            self.counts['duplicates'] += 1
            return
        stream.early[offset] = content
        self._deliver(name, stream)

    def _resumed(self, content):
        asked, self.asked = self.asked, None
        if asked is None or content.get('ref') != asked['ref']:
            self.faults.append(f'An answer to nothing: {content.get("ref")}')
            return
        for name, position in asked['streams'].items():
            stream, answer = self.streams[name], content['streams'].get(name)
            if answer is None:
                self.faults.append(f'{name}: followed, and not answered')
                continue
            stream.seen.append(
                'RESUMED from {} to {} {} lost={} more={}: {}'.format(
                    position['offset'],
                    answer['epoch'],
                    answer['offset'],
                    answer['lost'],
                    answer['more'],
                    [message['kept']['offset'] for message in answer['messages']],
                )
            )
            if answer['lost']:
                self.lost.append((name, position['epoch'], position['offset']))
                stream.begin(answer['epoch'], answer['offset'])
                self._deliver(name, stream)
                continue
            self._adopt(stream, answer['epoch'])
            stream.head = max(stream.head, answer['offset'])
            for message in answer['messages']:
                self.counts['replayed'] += 1
                at = message['kept']['offset']
                if at <= stream.offset or at in stream.early:
                    self.counts['duplicates'] += 1
                else:
                    stream.early[at] = message
            if answer['messages']:
                self.counts['gaps filled'] += 1
            self._deliver(name, stream)
            if answer['more']:
                self.to_ask.add(name)
            elif not self._is_behind(stream):
                # A gap that has been filled meanwhile.
                self.to_ask.discard(name)
        self._ask_now()

    def _adopt(self, stream, epoch):
        if stream.epoch == '' and stream.offset == 0 and epoch:
            stream.epoch = epoch

    def _is_behind(self, stream):
        return stream.epoch is None or bool(stream.early) or stream.head > stream.offset

    def _deliver(self, name, stream):
        while stream.offset + 1 in stream.early:
            content = stream.early.pop(stream.offset + 1)
            stream.offset += 1
            stream.parts[-1][1].append((stream.offset, content['id']))
            self.counts['deliveries'] += 1
        for at in [at for at in stream.early if at <= stream.offset]:
            del stream.early[at]
        if self._is_behind(stream):
            self._wait_for_gap(name, stream)

    def _wait_for_gap(self, name, stream):
        if stream.timer is None:
            loop = asyncio.get_event_loop()
            stream.timer = loop.call_later(GAP * (1 + random.random()), self._gap, name)

    def _gap(self, name):
        stream = self.streams[name]
        stream.timer = None
        if stream.is_told and self._is_behind(stream):
            self._ask(name)

    def _ask(self, name):
        self.to_ask.add(name)
        self._ask_now()

    def _ask_now(self):
        if self.asked is not None or not self.to_ask:
            return
        self.refs += 1
        names, self.to_ask = self.to_ask, set()
        positions = {
            name: {'epoch': self.streams[name].epoch, 'offset': self.streams[name].offset}
            for name in names
            if self.streams[name].is_told
        }
        if positions:
            self.asked = {'type': 'RESUME', 'ref': self.refs, 'streams': positions}
            self.connection.send(self.asked)

    def _ask_later(self, seconds):
        """Ask once more for what an ERROR has answered."""
        asked, connection = self.asked, self.connection

        def ask():
            if self.connection is connection and self.asked is asked and asked is not None:
                self.asked = None
                self.to_ask.update(asked['streams'])
                self._ask_now()

        asyncio.get_event_loop().call_later(seconds, ask)
