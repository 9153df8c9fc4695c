"""Streams: where each one stands, and its messages."""

from typing import Any

from django.db import models
from django.db.models.functions import Now


class StreamHeadQuerySet(models.QuerySet):
    """Streams, and what is to be done about them by now, by the clock of the database."""

    def to_remind(self) -> 'StreamHeadQuerySet':
        """Return those whose followers are to be told where they stand."""
        return self.filter(remind_at__lte=Now())

    def to_trim(self) -> 'StreamHeadQuerySet':
        """Return those that have messages beyond their retention."""
        return self.filter(trim_at__lte=Now())


class StreamHead(models.Model):
    """Where a stream stands. It is made, and locked, by whoever numbers its messages."""

    # Of the name, as that of a room.
    key = models.CharField(max_length=64, primary_key=True)
    name = models.TextField()
    # Another one says that the numbers have begun anew.
    epoch = models.CharField(max_length=12)
    # The numbers of its last message, and of the last of those that are removed.
    offset = models.BigIntegerField(default=0)
    trimmed = models.BigIntegerField(default=0)
    # When its last message was numbered.
    moved = models.DateTimeField(null=True)
    # Its own retention; None for that of SOCKETS.
    max_messages = models.PositiveIntegerField(null=True)
    max_age = models.PositiveIntegerField(null=True)
    # When its followers are told again where it stands, and how often they have been since it moved.
    remind_at = models.DateTimeField(null=True, db_index=True)
    reminders = models.PositiveSmallIntegerField(default=0)
    # When to look for messages beyond its retention.
    trim_at = models.DateTimeField(null=True, db_index=True)

    objects = StreamHeadQuerySet.as_manager()

    class Meta:
        verbose_name = 'stream'
        permissions = [('clear_streamhead', 'Can clear stream')]

    def __str__(self) -> str:
        return self.name

    @property
    def kept(self) -> int:
        """How many messages the stream keeps."""
        return self.offset - self.trimmed


class StreamMessage(models.Model):
    """A message of a stream. Writers insert it without a number, and lock nothing."""

    id = models.BigAutoField(primary_key=True)
    # No relation: the head may not be there yet, and whoever refers to it would lock it.
    key = models.CharField(max_length=64)
    name = models.TextField()
    # Its number, from 1 without gaps; None until it is committed and numbered. Migration 0013 makes an index of those without
    # one, which must be made anew by a migration that alters this table on SQLite.
    offset = models.BigIntegerField(null=True)
    # The content, as JSON.
    text = models.TextField()
    created = models.DateTimeField(auto_now_add=True)

    objects: Any = models.Manager()

    class Meta:
        unique_together = [('key', 'offset')]

    def __str__(self) -> str:
        return f'{self.name} {self.offset}'
