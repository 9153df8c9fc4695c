"""Connections to speak to, and to remove."""

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Dict, Iterable, Iterator, List, Optional

from django.conf import settings
from django.db import models, router, transaction
from django.utils import timezone

from .. import callbacks, contracts, databases, engine, fanout, messages
from . import removal
from .coroutines import SpeakingToMany
from .gone import count_gone
from .rooms import Membership

if TYPE_CHECKING:
    from .connections import Socket

    class _QuerySet(models.QuerySet):
        """For type checkers that know nothing of Django: what is made of such a queryset is one, and holds rows."""

        def all(self) -> 'SocketQuerySet': ...
        def filter(self, *args: Any, **kwargs: Any) -> 'SocketQuerySet': ...
        def exclude(self, *args: Any, **kwargs: Any) -> 'SocketQuerySet': ...
        def order_by(self, *fields: Any) -> 'SocketQuerySet': ...
        def distinct(self, *fields: Any) -> 'SocketQuerySet': ...
        def select_related(self, *fields: Any) -> 'SocketQuerySet': ...
        def using(self, alias: Optional[str]) -> 'SocketQuerySet': ...
        def none(self) -> 'SocketQuerySet': ...
        def get(self, *args: Any, **kwargs: Any) -> 'Socket': ...
        def first(self) -> 'Optional[Socket]': ...
        def last(self) -> 'Optional[Socket]': ...
        def __or__(self, other: Any) -> 'SocketQuerySet': ...
        def __and__(self, other: Any) -> 'SocketQuerySet': ...
else:
    _QuerySet = models.QuerySet

# Rows of a dead server that are removed in one transaction.
_PART = 2000


class SocketQuerySet(SpeakingToMany, _QuerySet):
    """Connections to speak to. What is sent is on its way when a method returns, also inside a handler.

    A connection that a queryset finds twice, by two of its rooms or two groups of its user, is told, closed, marked,
    removed and counted once.
    """

    def in_room(self, name: str) -> 'SocketQuerySet':
        """Return those connections that have joined the room ``name`` and not left it."""
        # No join: a connection in two rooms is one row of in_room('a') | in_room('b').
        return self.filter(pk__in=Membership.objects.filter(key=Membership.key_of(name)).values('socket'))

    def on_primary(self) -> 'SocketQuerySet':
        """Return these connections, read from the database that they are written to, unless ``using()`` names another.

        A replica may not know yet who has just connected or joined.
        """
        return self.using(self._db or router.db_for_write(self.model, **self._hints))

    def count(self) -> int:
        """Return how many connections there are; of ``values()``, how many rows."""
        query = self.query
        if self._fields is not None or not (len(query.alias_map) > 1 or query.extra_tables or query.combinator):
            return super().count()
        if self._result_cache is not None or not self._is_plain():
            return len({row.pk for row in self} if self._result_cache is not None else self._each('pk'))
        return super(SocketQuerySet, self.order_by().values('pk').distinct()).count()

    def send_json(self, content: Dict[str, Any]) -> int:
        """Send the ``dict`` ``content`` to every connection and return how many it was handed to.

        One query, encoded once. ``TypeError``, before anything is sent, for what Django's JSON encoder cannot
        encode.
        """
        text = messages.encode(content)
        if settings.DEBUG:
            check_declared(self._each('path'), content)
        return self._send({'text': text})

    def send_action(self, type: str, **fields: Any) -> int:
        """Send ``{'type': type, **fields}`` to every connection and return how many it was handed to."""
        return self.send_json(messages.action(type, fields))

    def send(self, text: Optional[str] = None, bytes: Optional[bytes] = None) -> int:
        """Send a frame of ``text`` (``str``) or ``bytes`` as it is; return how many connections it was handed to."""
        return self._send(fanout.message(text, bytes))

    def close(self, code: int = messages.CLOSE_NORMAL) -> int:
        """Close every connection with ``code`` and return how many were told; their rows go as they close."""
        return self._send({'close': messages.close_code(code)})

    def mark_active(self) -> int:
        """Note that these connections are alive now; return how many rows that were."""
        now = timezone.now()
        return sum(part.update(active=True, last_ping=now, modified=now) for part in self._parts())

    def mark_inactive(self) -> int:
        """Note that these connections have yet to prove that they are alive; return how many rows that were."""
        now = timezone.now()
        return sum(part.update(active=False, modified=now) for part in self._parts())

    def note_life(self, resolution: float = 0) -> int:
        """Mark those active that are not, or were last heard ``resolution`` seconds ago; return how many."""
        since = timezone.now() - timedelta(seconds=resolution)
        return sum(
            part.filter(models.Q(active=False) | models.Q(last_ping__lte=since)).mark_active() for part in self._parts()
        )

    def cleanup_stale(self) -> int:
        """Ask every connection for a sign of life: mark it inactive and send it ``PING``, to which a client
        answers ``PING``. Return how many were asked. ``purge_inactive`` removes those that stay silent.
        """
        names = dict(pair for part in self._parts() for pair in part.values_list('pk', 'channel_name'))
        away = fanout.unreachable(names.values())
        not_ours = fanout.servers_elsewhere(away)
        names = {pk: name for pk, name in names.items() if engine.server_of(name) not in not_ours}
        # Marked before they are asked, or a quick answer would be overwritten; and no others, though more may match by
        # now, or those of filter(active=True) none any more.
        for part in self._with_keys(names):
            part.mark_inactive()
        return fanout.send_many(
            [name for name in names.values() if engine.server_of(name) not in away],
            {'text': messages.encode({messages.TYPE: messages.PING})},
        )

    def purge_inactive(self, in_last_mins: float = 5) -> int:
        """Remove connections that are inactive and gave no sign of life in the last ``in_last_mins`` minutes.

        Each is told to reconnect and closed, and its disconnect function runs. Return how many rows were removed.
        """
        since = timezone.now() - timedelta(minutes=in_last_mins)
        details = 'This connection gave no sign of life.'
        # It may have ended in any way.
        return self._end(
            [
                row
                for part in self._parts()
                for row in part.filter(active=False, last_ping__lt=since).remove(None, details, is_shared=True)
            ],
            details,
            messages.CLOSE_NORMAL,
        )

    def purge_dead(self, at_most: Optional[int] = None) -> int:
        """Remove the connections of servers that are gone, ``at_most`` so many; return how many that were.

        Their disconnect functions run here, and in other processes that look after the rows. Only our own channel
        layers know which servers are gone, of those on a layer of the same name; on others, ``cleanup_stale`` and
        ``purge_inactive`` find such rows by their silence.
        """
        details = 'The server of this connection is gone.'
        removed: List[Any] = []
        for part in self._parts():
            removed += part._remove_dead(details, None if at_most is None else at_most - len(removed))
            if len(removed) == at_most:
                break
        return self._end(removed, details, None)

    def _remove_dead(self, details: str, at_most: Optional[int]) -> List[Any]:
        found: List[Any] = []
        audible = self.filter(layer=engine.current().layer_name())
        for server in engine.current().dead_servers(audible.values_list('server', flat=True).order_by().distinct()):
            removed = True
            # Somebody else may be done with it, and it may live again.
            while removed and server in engine.current().dead_servers():
                part = _PART if at_most is None else min(_PART, at_most - len(found))
                removed = audible.filter(server=server)[:part].remove(None, details, is_shared=True)
                found += removed
                if len(found) == at_most:
                    return found
            engine.current().forget_server(server)
        return found

    def revoke(self, details: str = 'You may not use this connection any more.') -> int:
        """Take the right to these connections away and return how many that were.

        Their rows go now. When the transaction is committed, each client is sent ``RECONNECT`` with ``details`` and
        closed with 4401, and the disconnect functions run. No frame of theirs reaches a route from then on. It is no ban:
        whose session is still good may connect again.
        """
        return self._end(self.remove(messages.CLOSE_LOGIN_REQUIRED, details), details, messages.CLOSE_LOGIN_REQUIRED)

    def delete(self) -> Any:
        """Delete the rows, close their connections, and return what Django does: how many rows that were, and of what."""
        return count_gone(super().delete)

    delete.alters_data = delete.queryset_only = True  # type: ignore[attr-defined]

    def remove(self, code: Optional[int] = None, reason: Optional[str] = None, is_shared: bool = False) -> List[Any]:
        """Delete the rows, note what is to run when such connections end, and return the rows that this call deleted.

        ``code`` and ``reason`` are what their disconnect functions hear. With ``is_shared``, other processes may run
        them. ``callbacks.end`` is to be called with the rows when that is committed.
        """
        found: Dict[Any, Any] = {}
        # A union knows no select_related(). Of only('path'), too, a disconnect function may ask for anything.
        for part in self._parts() if self.query.combinator else [self.on_primary()]:
            found.update((row.pk, row) for row in part.defer(None).select_related('user', 'session'))
        return removal.remove(list(found.values()), self.on_primary().db, code, reason, is_shared)

    def _end(self, removed: List[Any], details: str, code: Optional[int]) -> int:
        if removed:
            transaction.on_commit(partial(callbacks.end, removed, details, code), using=self.on_primary().db)
        return len(removed)

    def _is_plain(self) -> bool:
        """Whether more can be asked of the rows: not of a slice, a union, ``distinct(*fields)`` or an aggregate."""
        query = self.query
        return query.can_filter() and not (query.combinator or query.distinct_fields or query.group_by is not None)

    def _parts(self) -> 'Iterator[SocketQuerySet]':
        """Yield querysets in which each of these connections can be filtered and written, where they are written."""
        if self._is_plain():
            yield self.on_primary()
        else:
            yield from self._with_keys(self.on_primary()._each('pk'))

    def _each(self, field: str) -> List[Any]:
        """Return the values of ``field``: each once, in order."""
        if self.query.combinator:
            # values_list() would change the querysets that this union is of (Django 2.2 and older).
            return list(dict.fromkeys(getattr(row, field) for row in self.all()))
        return list(dict.fromkeys(self.values_list(field, flat=True)))

    def _with_keys(self, keys: Iterable[Any]) -> 'Iterator[SocketQuerySet]':
        rows = self.model.objects.using(self.on_primary().db)
        for part in databases.parts(keys):
            yield rows.filter(pk__in=part)

    def _send(self, message: Dict[str, Any]) -> int:
        count = fanout.send_many(self._each('channel_name'), message)
        callbacks.purge_if_due()
        return count


def check_declared(paths: Iterable[str], content: Dict[str, Any]) -> None:
    """Raise ``TypeError`` where a handler at one of ``paths`` does not declare that it sends ``content``."""
    for path in paths:
        handler = engine.current().handler_at(path)
        if handler is not None:
            contracts.check_sent_on(handler, content)
