"""The row of an open connection."""

from functools import partial
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from django.conf import settings
from django.db import models, router
from django.utils import timezone

from .. import engine, fanout, messages
from ..connection import identity_cache
from .base import BaseModel
from .coroutines import SpeakingToOne
from .fields import nullable_boolean
from .gone import count_gone
from .queryset import SocketQuerySet, check_declared
from .rooms import Membership


class Socket(SpeakingToOne, BaseModel):
    """One open connection."""

    session = models.ForeignKey(
        'sessions.Session', null=True, blank=True, on_delete=models.CASCADE, related_name='sockets'
    )
    # Channel names are shorter than 100 characters (asgiref.base_layer.BaseChannelLayer).
    channel_name = models.CharField(max_length=100, unique=True)
    # The prefix of the channel name, which all connections of one server process share.
    server = models.CharField(max_length=100, db_index=True, editable=False, default='')
    # What the layer that it lives on calls itself. Rows that older versions of this package made have none.
    layer = models.CharField(max_length=100, null=True, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, related_name='sockets'
    )
    # What has found the user, where that was no session: the name of an authentication. And until when that holds.
    authentication = models.CharField(max_length=100, null=True, editable=False)
    authenticated_until = models.DateTimeField(null=True, db_index=True, editable=False)
    path = models.CharField(max_length=255, db_index=True)
    active = models.BooleanField(default=True)
    last_ping = models.DateTimeField(default=timezone.now, db_index=True)
    user_ip = models.GenericIPAddressField('address', null=True, blank=True, db_index=True, unpack_ipv4=True)
    # Path, query string and headers of the request that opened it, as JSON: what socket.request is made of.
    handshake = models.TextField(editable=False, default='')
    # Whether a view has been told that this person has arrived.
    has_arrived = nullable_boolean(editable=False)

    # Of a row that has been removed: its rooms, who claims its end, and whether anything is to run.
    rooms_left = claim = None
    is_noted = False

    objects: 'SocketQuerySet' = SocketQuerySet.as_manager()

    if TYPE_CHECKING:
        # Django makes these of the fields above.
        pk: Any
        user_id: Any
        session_id: Optional[str]

    class Meta:
        indexes = [models.Index(fields=['active', 'last_ping'], name='sockets_active_last_ping')]
        permissions = [
            ('send_socket', 'Can send to socket'),
            ('close_socket', 'Can close socket'),
            ('logout_socket', 'Can log out the user of socket'),
        ]

    def __str__(self) -> str:
        return f'{self.path} {self.channel_name}'

    def send_json(self, content: Dict[str, Any]) -> int:
        """Send the ``dict`` ``content`` to this connection; return 1, or 0 if its server took no message."""
        text = messages.encode(content)
        if settings.DEBUG:
            check_declared([self.path], content)
        return fanout.send_many([self.channel_name], {'text': text})

    def send_action(self, type: str, **fields: Any) -> int:
        """Send ``{'type': type, **fields}`` to this connection; return 1, or 0 if its server took no message."""
        return self.send_json(messages.action(type, fields))

    def send(self, text: Optional[str] = None, bytes: Optional[bytes] = None) -> int:
        """Send a frame of ``text`` or ``bytes`` as it is; return 1, or 0 if its server took no message."""
        return fanout.send_many([self.channel_name], fanout.message(text, bytes))

    def close(self, code: int = messages.CLOSE_NORMAL) -> int:
        """Close this connection with ``code``; return 1, or 0 if its server took no message."""
        return fanout.send_many([self.channel_name], {'close': messages.close_code(code)})

    def join(self, room: str) -> bool:
        """Enter the room of that name, whatever its characters or length; return whether this connection is in it now.

        It leaves by ``leave()``, or as it ends.
        """
        return self.enter(Membership.key_of(room), name=Membership.printable(room))

    def enter(self, key: str, **fields: Any) -> bool:
        """Note the membership ``key``, with ``fields`` if it is new; return whether this connection has it now."""
        if self.pk is None:
            return False
        # Not socket=self: routers need not allow a relation to a row that was read from a replica.
        membership, is_new = self._memberships().get_or_create(socket_id=self.pk, key=key, defaults=fields)
        if is_new and not type(self).objects.using(self._database).filter(pk=self.pk).exists():
            # It has ended in the meantime, and whoever ended it has not seen this.
            membership.delete()
            return False
        return True

    def leave(self, room: str) -> bool:
        """Leave the room of that name; return whether this connection was in it."""
        return self.withdraw(Membership.key_of(room))

    def withdraw(self, key: str) -> bool:
        """Remove the membership ``key``; return whether there was one."""
        return bool(self._memberships().filter(key=key).delete()[0])

    @property
    def rooms(self) -> List[str]:
        """The names of the rooms that this connection is in."""
        if self.rooms_left is not None:
            return list(self.rooms_left)
        return list(self._memberships().filter(stream=None).values_list('name', flat=True))

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the row; ``server`` follows from the channel name, ``layer`` from who makes it."""
        self._complete()
        super().save(*args, **kwargs)

    # Whoever inserts several rows together does what this one does, and asks whether a project has put another here.
    _own_save = save

    def _complete(self) -> None:
        self.server = engine.server_of(self.channel_name)
        if self._state.adding:
            if self.layer is None:
                self.layer = engine.current().layer_name()
            if fanout.local_servers is not None:
                fanout.local_servers.add(self.server)

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        """Delete the row, close its connection, and return what Django does: how many rows that were, and of what."""
        return count_gone(partial(super().delete, *args, **kwargs))

    delete.alters_data = True  # type: ignore[attr-defined]

    def remove(self) -> bool:
        """Delete the row, and nothing else, and return whether this call did it; of several, only one is told so."""
        # Not delete(), which closes the connection and runs its disconnect function (sockets.access.revocation).
        rows = type(self)._base_manager.using(self._database).filter(pk=self.pk)
        count = rows._raw_delete(rows.db)
        # Of which Django sends no signal.
        identity_cache.written([self], rows.db)
        return bool(count)

    def forget(self) -> None:
        """Let go of what belonged to this connection, whose row has been removed and whose functions have run."""
        # Not delete(), which is a transaction of its own: this is every connection.
        rooms = self._memberships()
        rooms._raw_delete(rooms.db)
        self.pk = None

    @property
    def _database(self) -> str:
        # It may have been read from a replica.
        return router.db_for_write(type(self), instance=self)

    def _memberships(self) -> Any:
        return Membership.objects.using(self._database).filter(socket=self.pk)
