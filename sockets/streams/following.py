"""Who follows which stream: a connection notes it, and is then told where the stream stands."""

import json
import logging
import threading
import time
from functools import partial
from typing import Any, Optional

from django.db import connections, transaction

from .. import rates
from ..connection.memory import memories
from ..execution import background
from ..models import Membership, StreamHead
from . import pushes
from .positions import check_limit, check_position, position_of
from .tables import database, key_of, membership_key, printable

logger = logging.getLogger('sockets')

# How often a second a process reads where a stream stands for those that have just begun to follow it. Those that come in
# between are told together.
READS_AT_ONCE = 1
READS_PER_SECOND = 1

# How often it is tried again, once a second, while the database or the layer is away.
TRIES = 60


def follow(handler: Any, name: str, since: Any, last: Any) -> None:
    """Note that the connection of ``handler`` follows the stream ``name``, and have it told where that stands."""
    key, row = key_of(name), handler.row
    if since is not None:
        check_position(since, printable(name))
    check_limit('last', last)
    if row is None:
        raise RuntimeError(f'Cannot follow {name!r:.40} before the connection is accepted.')
    envelope = envelope_of(handler)
    membership = membership_key(name, envelope)
    if not row.enter(membership, name=printable(name), stream=key, envelope=envelope):
        # It has ended.
        return
    memory = memories.get(handler.channel_name)
    memory.follows = {*(memory.follows or ()), membership}
    # Read when others see that it follows: it is pushed whatever is numbered after that.
    transaction.on_commit(
        partial(teller.add, key, Waiting(printable(name), handler.channel_name, envelope, since, last)),
        using=database(),
    )


def unfollow(handler: Any, name: str) -> None:
    """Note that the connection of ``handler`` does not follow the stream ``name`` any more."""
    # TypeError for what names no stream.
    key_of(name)
    membership = membership_key(name, envelope_of(handler))
    memory = memories.get(handler.channel_name)
    memory.follows = (memory.follows or set()) - {membership}
    if handler.row is not None:
        handler.row.withdraw(membership)


def followed(handler: Any, names: Any) -> Any:
    """Return those of ``names`` that are streams which the connection of ``handler`` follows."""
    envelope = envelope_of(handler)
    keys = {membership_key(name, envelope): name for name in names}
    if handler._connection.is_served_here:
        held = memories.get(handler.channel_name).follows or ()
    elif handler.row is None:
        held = ()
    else:
        rows = Membership.objects.using(database()).filter(socket=handler.row.pk, key__in=list(keys))
        held = set(rows.values_list('key', flat=True))
    return [name for key, name in keys.items() if key in held]


def envelope_of(handler: Any) -> Optional[str]:
    """Return the names of the streams of demultiplexers in which ``handler`` is, the outermost first, as JSON."""
    names: Any = []
    while getattr(handler, 'stream', None) is not None and hasattr(handler, '_whole'):
        names.insert(0, handler.stream)
        handler = handler._whole
    return json.dumps(names) if names else None


class Waiting:
    """A connection that is to be told where a stream stands."""

    __slots__ = ('stream', 'name', 'envelope', 'since', 'last', 'tries')

    def __init__(self, stream: str, name: str, envelope: Optional[str], since: Any, last: Any) -> None:
        self.stream, self.name, self.envelope, self.since, self.last = stream, name, envelope, since, last
        self.tries = TRIES

    def text(self, head: Any) -> str:
        since = self.since
        if self.last is not None and head is not None:
            since = position_of(self.stream, head, max(head.trimmed, head.offset - self.last))
        return pushes.following_text(self.stream, head, since)


class Teller:
    """Tells connections where the streams stand that they have begun to follow, many at a time by one query.

    In a test there is only one thread, and nobody waits.
    """

    def __init__(self, is_patient: bool = True) -> None:
        self.is_patient = is_patient
        self._lock = threading.Lock()
        self._waiting: Any = {}
        self._buckets = rates.Buckets()
        self._is_at_work = False

    def add(self, key: str, waiting: Waiting) -> None:
        """Have ``waiting`` told where the stream ``key`` stands, by a query that begins from now on."""
        if not self.is_patient:
            return tell({key: [waiting]})
        with self._lock:
            self._waiting.setdefault(key, []).append(waiting)
            if self._is_at_work:
                return
            self._is_at_work = True
        background.run(self._work, 'sockets-streams')

    def _work(self) -> None:
        while True:
            with self._lock:
                due, pause = self._take(time.monotonic())
                if pause is None:
                    self._is_at_work = False
                    return
            if due:
                try:
                    untold = tell(due)
                except Exception as error:
                    untold = due
                    # The connection to the database may be one that has failed.
                    connections.close_all()
                    logger.error('Could not tell where streams stand: %s: %s', type(error).__name__, error)
                if untold:
                    # The stream may not move for long, and nobody else would tell them.
                    self._put_back(untold)
                    time.sleep(1)
            elif pause:
                time.sleep(pause)

    def _put_back(self, untold: Any) -> None:
        with self._lock:
            for key, waiting in untold.items():
                for one in waiting:
                    one.tries -= 1
                    if one.tries > 0:
                        self._waiting.setdefault(key, []).append(one)

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


def tell(due: Any) -> Any:
    """Read where streams stand, and tell those that wait for it: a dict of keys and lists of ``Waiting``.

    Return those that the layer did not take it for.
    """
    heads = StreamHead.objects.using(database()).in_bulk(list(due))
    untold: Any = {}
    for key, waiting in due.items():
        texts: Any = {}
        for one in waiting:
            texts.setdefault((one.text(heads.get(key)), one.envelope), []).append(one)
        for (text, envelope), those in texts.items():
            if not pushes.send({envelope: [one.name for one in those]}, text):
                untold.setdefault(key, []).extend(those)
    return untold
