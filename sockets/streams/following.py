"""Who follows which stream: a connection notes it, and is then told where the stream stands."""

import collections
import json
import logging
import os
import threading
import time
from functools import partial
from typing import Any, Optional

from django.db import connections, transaction

from .. import rates
from ..connection.memory import memories
from ..execution import background
from ..models import Membership
from . import pushes
from .positions import check_limit, check_position, position_of
from .tables import database, heads, key_of, membership_key, printable

logger = logging.getLogger('sockets')

# How often a second a process reads where a stream stands for those that have just begun to follow it. Those that come in
# between are told together.
READS_AT_ONCE = 1
READS_PER_SECOND = 1

# How often it is tried again, once a second, while the database or the layer is away.
TRIES = 60

# Seconds after which a client that has asked for nothing of the stream is told again where to begin: the first time, and how
# much later the next ones. What it was told may have been lost.
AGAIN_AFTER = 1, 4, 16


def follow(handler: Any, name: str, since: Any, last: Any) -> None:
    """Note that the connection of ``handler`` follows the stream ``name``, and have it told where that stands."""
    key, row = key_of(name), handler.row
    if since is not None:
        check_position(since, printable(name))
    check_limit('last', last)
    if row is None:
        raise RuntimeError(f'Call accept() first: {name!r:.40} cannot be followed before the connection is accepted.')
    envelope = envelope_of(handler)
    membership = membership_key(name, envelope)
    if not row.enter(membership, name=printable(name), stream=key, envelope=envelope):
        # It has ended.
        return
    waiting = Waiting(key, printable(name), handler.channel_name, membership, envelope, since, last)
    # Read when others see that it follows: it is pushed whatever is numbered after that.
    transaction.on_commit(partial(_begin, memories.get(handler.channel_name), waiting), using=database())


def _begin(memory: Any, waiting: 'Waiting') -> None:
    memory.follows = memory.follows or set()
    memory.follows.add(waiting.membership)
    teller.follow(waiting)


def unfollow(handler: Any, name: str) -> None:
    """Note that the connection of ``handler`` does not follow the stream ``name`` any more."""
    # TypeError for what names no stream.
    key_of(name)
    membership = membership_key(name, envelope_of(handler))
    memory = memories.get(handler.channel_name)
    # Until the transaction has ended, and if it is rolled back, only the table knows.
    (memory.follows or set()).discard(membership)
    if handler.row is not None:
        handler.row.withdraw(membership)
    transaction.on_commit(partial(_end, memory, handler.channel_name, membership), using=database())


def _end(memory: Any, name: str, membership: str) -> None:
    (memory.follows or set()).discard(membership)
    teller.forget(name, [membership])


def followed(handler: Any, names: Any) -> Any:
    """Return those of ``names`` that are streams which the connection of ``handler`` follows. Its client knows of them."""
    envelope = envelope_of(handler)
    keys = {membership_key(name, envelope): name for name in names}
    teller.forget(handler.channel_name, keys)
    held: Any = ()
    if handler._connection.is_served_here:
        held = memories.get(handler.channel_name).follows or ()
    unknown = [key for key in keys if key not in held]
    if unknown and handler.row is not None:
        # What this process does not remember, the table says.
        rows = Membership.objects.using(database()).filter(socket=handler.row.pk, key__in=unknown)
        held = {*held, *rows.values_list('key', flat=True)}
    return [name for key, name in keys.items() if key in held]


def envelope_of(handler: Any) -> Optional[str]:
    """Return the names of the streams of demultiplexers in which ``handler`` is, the outermost first, as JSON."""
    names: Any = []
    while getattr(handler, 'stream', None) is not None and hasattr(handler, '_whole'):
        names.insert(0, handler.stream)
        handler = handler._whole
    return json.dumps(names) if names else None


class Waiting:
    """A connection that is to be told where a stream stands, and where its client begins if that has had nothing of it."""

    __slots__ = ('key', 'stream', 'name', 'membership', 'envelope', 'since', 'last', 'begins', 'tries', 'times')

    def __init__(
        self, key: str, stream: str, name: str, membership: str, envelope: Optional[str], since: Any, last: Any
    ) -> None:
        self.key, self.stream, self.name, self.membership, self.envelope = key, stream, name, membership, envelope
        self.since, self.last = since, last
        # Where its client begins; None until the head was read.
        self.begins: Any = None
        self.tries = TRIES
        # How often it has been told.
        self.times = 0

    @property
    def place(self) -> Any:
        return self.name, self.membership

    def text(self, head: Any) -> str:
        at = position_of(self.stream, head)
        if self.begins is None:
            self.begins = self.since or at
            if self.last is not None and head is not None:
                self.begins = position_of(self.stream, head, max(head.trimmed, head.offset - self.last))
        is_elsewhere = (self.begins['epoch'], self.begins['offset']) != (at['epoch'], at['offset'])
        return pushes.following_text(self.stream, head, self.begins if self.since or is_elsewhere else None)


class Teller:
    """Tells connections where the streams stand that they have begun to follow, many at a time by one query.

    It tells each of them some times more, unless the client has asked for something of the stream meanwhile. In a test there
    is only one thread, and nobody waits.
    """

    def __init__(self, is_patient: bool = True) -> None:
        self.is_patient = is_patient
        self.begin()

    def begin(self) -> None:
        """Tell nobody. A process that was forked has none of the connections, and not the thread that was at work."""
        self._lock = threading.Lock()
        # Who is to be told, or told again, by connection and membership; and of these, by stream, who is to be told now.
        self._following: Any = {}
        self._waiting: Any = {}
        # Those that were told so many times, and when each is told again, in that order.
        self._told: Any = [collections.deque() for _ in AGAIN_AFTER]
        self._buckets = rates.Buckets()
        self._is_at_work = False

    def follow(self, waiting: Waiting) -> None:
        """Have ``waiting`` told where its stream stands, by a query that begins from now on."""
        with self._lock:
            self._following[waiting.place] = waiting
        self._add([waiting])

    def forget(self, name: str, memberships: Any) -> None:
        """Tell the connection ``name`` nothing more of these: it does not follow them any more, or its client knows of them."""
        with self._lock:
            for membership in memberships:
                self._following.pop((name, membership), None)

    def tell_again(self) -> None:
        """Have those told again for whom it is time. The housekeeper asks every second."""
        now, due = time.monotonic(), []
        with self._lock:
            for told in self._told:
                while told and told[0][0] <= now:
                    waiting = told.popleft()[1]
                    if not self._is_over(waiting):
                        due.append(waiting)
        if due:
            self._add(due)

    def _is_over(self, waiting: Waiting) -> bool:
        """Whether ``waiting`` needs to be told nothing more."""
        if self._following.get(waiting.place) is not waiting:
            return True
        if waiting.name in memories:
            return False
        # It has ended.
        del self._following[waiting.place]
        return True

    def _add(self, those: Any) -> None:
        with self._lock:
            for waiting in those:
                self._waiting.setdefault(waiting.key, []).append(waiting)
            if self._is_at_work:
                return
            self._is_at_work = True
        if self.is_patient:
            try:
                background.run(self._work, 'sockets-streams')
            except RuntimeError as error:
                # The process ends, or may have no more threads: the next one that follows has it done.
                self._is_at_work = False
                logger.error('Could not tell where streams stand: %s', error)
        else:
            with self._lock:
                due, self._waiting, self._is_at_work = self._waiting, {}, False
            self._note_told(due, tell(due))

    def _work(self) -> None:
        is_done = False
        try:
            while not is_done:
                is_done = self._tell_some()
        finally:
            # What is raised to end a thread, too.
            if not is_done:
                self._is_at_work = False

    def _tell_some(self) -> bool:
        """Tell those for whom it is time, or wait for that; return whether nobody is left, and another thread may begin."""
        with self._lock:
            due, pause = self._take(time.monotonic())
            if pause is None:
                self._is_at_work = False
                return True
        if due:
            try:
                untold = tell(due)
            except Exception as error:
                untold = due
                # The connection to the database may be one that has failed.
                connections.close_all()
                logger.error('Could not tell where streams stand: %s: %s', type(error).__name__, error)
            self._note_told(due, untold)
            if untold:
                # The stream may not move for long, and nobody else would tell them.
                self._put_back(untold)
                time.sleep(1)
        elif pause:
            time.sleep(pause)
        return False

    def _note_told(self, due: Any, untold: Any) -> None:
        """Have those of ``due`` that are not in ``untold`` told again later."""
        now = time.monotonic()
        with self._lock:
            for key, those in due.items():
                left = set(map(id, untold.get(key, ())))
                for waiting in those:
                    if id(waiting) in left:
                        continue
                    if waiting.times < len(AGAIN_AFTER):
                        self._told[waiting.times].append((now + AGAIN_AFTER[waiting.times], waiting))
                        waiting.times += 1
                    elif self._following.get(waiting.place) is waiting:
                        del self._following[waiting.place]

    def _put_back(self, untold: Any) -> None:
        with self._lock:
            for key, waiting in untold.items():
                for one in waiting:
                    one.tries -= 1
                    if one.tries > 0:
                        self._waiting.setdefault(key, []).append(one)
                    elif self._following.get(one.place) is one:
                        del self._following[one.place]

    def _take(self, now: float) -> Any:
        """Return what may be read now, and the seconds until there is more; ``None`` if nobody waits."""
        due, pauses = {}, []
        for key in list(self._waiting):
            pause = self._buckets.wait(key, now, READS_PER_SECOND, READS_AT_ONCE)
            if pause:
                pauses.append(pause)
            else:
                due[key] = self._waiting.pop(key)
        return due, 0 if due else min(pauses) if pauses else None


teller = Teller()

if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=lambda: teller.begin())


def tell(due: Any) -> Any:
    """Read where streams stand, and tell those that wait for it: a dict of keys and lists of ``Waiting``.

    Return those that the layer did not take it for.
    """
    found = heads().in_bulk(list(due))
    untold: Any = {}
    for key, waiting in due.items():
        texts: Any = {}
        for one in waiting:
            texts.setdefault((one.text(found.get(key)), one.envelope), []).append(one)
        for (text, envelope), those in texts.items():
            if not pushes.send({envelope: [one.name for one in those]}, text):
                untold.setdefault(key, []).extend(those)
    return untold
