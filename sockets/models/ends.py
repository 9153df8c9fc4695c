"""Connections that have ended, and whose functions have yet to run."""

import json
import uuid
from datetime import timedelta
from typing import Any, List, Optional

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

# What is written into a claim, and until when it holds, is compared with the clock of the database: there is only one.


def in_seconds(seconds: float) -> Any:
    """Return the time in so many seconds, by the clock of the database."""
    if not seconds:
        return Now()
    return models.ExpressionWrapper(Now() + timedelta(seconds=seconds), output_field=models.DateTimeField())


class EndingQuerySet(models.QuerySet):
    """Ends that are noted."""

    def due(self, late: bool = True) -> 'EndingQuerySet':
        """Return those that nobody is handling and whose time has come; without ``late``, none that had to wait."""
        free = self.filter(models.Q(claimed_until=None) | models.Q(claimed_until__lt=Now()))
        return free.filter(models.Q(due=None) | models.Q(due__lte=Now())) if late else free.filter(due=None)

    def of_person(self, row: Any) -> 'EndingQuerySet':
        """Return the ends that wait whether the person of the connection ``row`` comes back to its path."""
        waiting = self.filter(path=row.path, due__isnull=False)
        if row.user_id is not None:
            return waiting.filter(user=row.user_id)
        if row.session_id is not None:
            return waiting.filter(user=None, session_key=row.session_id)
        return waiting.filter(channel_name=row.channel_name)


class Ending(models.Model):
    """A connection that has ended and whose functions are to run: what they may ask for, and who runs them.

    Its row is gone, and user and session may go any time. So nothing here has a constraint.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    noted = models.DateTimeField(auto_now_add=True)
    # What the row was.
    socket_pk = models.BigIntegerField()
    channel_name = models.CharField(max_length=100)
    server = models.CharField(max_length=100)
    layer = models.CharField(max_length=100, null=True)
    path = models.CharField(max_length=255)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.DO_NOTHING, db_constraint=False, related_name='+'
    )
    session_key = models.CharField(max_length=40, null=True, db_index=True)
    authentication = models.CharField(max_length=100, null=True)
    user_ip = models.GenericIPAddressField(null=True, unpack_ipv4=True)
    handshake = models.TextField(default='')
    opened = models.DateTimeField()
    last_ping = models.DateTimeField()
    # Names, as JSON.
    rooms = models.TextField(default='[]')
    # How it ended.
    code = models.IntegerField(null=True)
    reason = models.TextField(null=True)
    # When to ask whether the person has left, and whether somebody has found so; null for disconnect functions.
    due = models.DateTimeField(null=True)
    has_left = models.BooleanField(default=False)
    # Who runs the functions, and until when nobody else does.
    claimed_by = models.CharField(max_length=32, null=True)
    claimed_until = models.DateTimeField(null=True)

    objects = EndingQuerySet.as_manager()

    def __str__(self) -> str:
        return f'{self.path} {self.channel_name}'

    @classmethod
    def of(
        cls, row: Any, rooms: List[str], code: Optional[int] = None, reason: Optional[str] = None, **fields: Any
    ) -> 'Ending':
        """Return the end, not saved yet, of the connection ``row``, which was in ``rooms``."""
        return cls(
            socket_pk=row.pk,
            channel_name=row.channel_name,
            server=row.server,
            layer=row.layer,
            path=row.path,
            user_id=row.user_id,
            session_key=row.session_id,
            authentication=row.authentication,
            user_ip=row.user_ip,
            handshake=row.handshake,
            opened=row.created,
            last_ping=row.last_ping,
            rooms=json.dumps(rooms),
            code=code,
            reason=reason,
            **fields,
        )
