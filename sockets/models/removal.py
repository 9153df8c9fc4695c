"""Rows go, and what is to run when their connections end is noted in the same transaction."""

import logging
import threading
import time
import uuid
from typing import Any, Dict, List, Optional

from django.db import DatabaseError, transaction

from .. import databases, engine, signals
from ..connection import calls, identity_cache
from .ends import Ending, in_seconds
from .rooms import Membership

logger = logging.getLogger('sockets')

# Seconds for which nobody else runs the functions of an end that is claimed, unless the claim is renewed.
LEASE = 20

# How often rows are looked at again of which somebody else has deleted some, before they are deleted one by one.
_TRIES = 3


class Claim:
    """What this process alone may run until ``LEASE`` seconds after ``since``: ``ends``, pairs of a row and its end."""

    def __init__(self) -> None:
        self.name = uuid.uuid4().hex
        self.since = time.monotonic()
        self.ends: List[Any] = []


def remove(rows: List[Any], database: str, code: Optional[int], reason: Optional[str], is_shared: bool) -> List[Any]:
    """Delete ``rows`` and note their ends; return those that this call deleted, and nobody else.

    With ``is_shared``, any process may run what is to run. Else this one is to: each row that has something to run has
    a ``claim``.
    """
    all_rows: Any = type(rows[0])._base_manager.using(database) if rows else None
    for _ in range(_TRIES):
        if not rows:
            return []
        keys = sorted(row.pk for row in rows)
        try:
            with transaction.atomic(using=database):
                count = sum(all_rows.filter(pk__in=part)._raw_delete(database) for part in databases.parts(keys))
                if count == len(rows):
                    # Django sends no signal of it.
                    identity_cache.written(rows, database)
                    note(rows, database, code, reason, is_shared)
                    return rows
                transaction.set_rollback(True, using=database)
        except DatabaseError as error:
            # Two that delete may wait for each other.
            logger.info('Deleting %d rows again: %s', len(rows), error)
        left = {
            pk for part in databases.parts(keys) for pk in all_rows.filter(pk__in=part).values_list('pk', flat=True)
        }
        rows = [row for row in rows if row.pk in left]
    return [row for row in rows if remove_one(row, database, code, reason, is_shared)]


def remove_one(
    row: Any,
    database: str,
    code: Optional[int],
    reason: Optional[str],
    is_shared: bool = False,
    keeps_rooms: bool = False,
) -> bool:
    """Delete ``row`` and note its end; return whether this call deleted it."""
    with transaction.atomic(using=database):
        if not row.remove():
            return False
        note([row], database, code, reason, is_shared, keeps_rooms)
        return True


def close(row: Any, database: str) -> Any:
    """Delete ``row``, whose end is handled at once; return whether this call deleted it."""
    if not row.has_arrived:
        return row.remove()
    with transaction.atomic(using=database):
        if not row.remove():
            return False
        row.rooms_left = list(
            Membership.objects.using(database).filter(socket=row.pk, stream=None).values_list('name', flat=True)
        )
        leaving(row).save(using=database, force_insert=True)
    return True


def note(
    rows: List[Any],
    database: str,
    code: Optional[int],
    reason: Optional[str],
    is_shared: bool = False,
    keeps_rooms: bool = False,
) -> None:
    """Note the ends of ``rows``, which have been removed in this transaction, and empty their rooms.

    With ``keeps_rooms``, Django is about to do that.
    """
    noisy = {path for path in {row.path for row in rows} if has_something_to_run(path, type(rows[0]))}
    # Who waits for nobody does not run the functions itself.
    is_shared = is_shared or getattr(threading.current_thread(), 'waits_for_nobody', False)
    rooms: Dict[Any, List[str]] = {}
    claim = None if is_shared else Claim()
    memberships = Membership.objects.using(database)
    for part in databases.parts(row.pk for row in rows):
        if noisy or any(row.has_arrived for row in rows):
            for pk, name in (
                memberships.filter(socket__in=part, stream=None).order_by('pk').values_list('socket_id', 'name')
            ):
                rooms.setdefault(pk, []).append(name)
        if not keeps_rooms:
            of_these = memberships.filter(socket__in=part)
            of_these._raw_delete(of_these.db)
    ends = []
    for row in rows:
        row.rooms_left, row.claim, row.is_noted = rooms.get(row.pk, []), None, row.path in noisy
        if row.is_noted:
            end = Ending.of(row, row.rooms_left, code, reason)
            if claim is not None:
                end.claimed_by, end.claimed_until = claim.name, in_seconds(LEASE)
                claim.ends.append((row, end))
                row.claim = claim
            ends.append(end)
        if row.has_arrived:
            ends.append(leaving(row))
    Ending.objects.using(database).bulk_create(ends, batch_size=databases.IN_ONE_QUERY)


def leaving(row: Any) -> Ending:
    """Return the end that waits whether the person of the connection ``row`` comes back."""
    handler = engine.current().handler_at(row.path)
    return Ending.of(row, row.rooms_left, due=in_seconds(delay_of(handler)))


def delay_of(handler: Any) -> Any:
    """Return the seconds after which somebody who does not come back to ``handler`` has left."""
    return getattr(handler, 'left_after', 0)


def has_something_to_run(path: str, model: Any) -> bool:
    """Return whether anything of the project is to run when a connection to ``path`` ends, a row of ``model``."""
    handler = engine.current().handler_at(path)
    return signals.socket_disconnected.has_listeners(handler or model) or (
        handler is not None and calls.runs_at_the_end(handler)
    )
