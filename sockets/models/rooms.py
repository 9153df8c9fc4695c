"""Which connections are in which rooms, and follow which streams."""

import hashlib

from django.db import models


class Membership(models.Model):
    """That a connection is in a room, or follows a stream."""

    # No constraint: rows are removed without asking who refers to them, and what refers to none is in no queryset.
    socket = models.ForeignKey(
        'sockets.Socket', on_delete=models.CASCADE, related_name='memberships', db_constraint=False
    )
    # Of the name, which no column could hold: databases limit length and characters, and some take "Tea" for "tea".
    key = models.CharField(max_length=64)
    name = models.TextField()
    # Of what follows a stream: the key of that, and the names of the streams of demultiplexers, as JSON, around its messages.
    stream = models.CharField(max_length=64, null=True, db_index=True)
    envelope = models.TextField(null=True)

    class Meta:
        unique_together = [('key', 'socket')]

    def __str__(self) -> str:
        return self.name

    @staticmethod
    def key_of(name: str) -> str:
        """Return the key of the room called ``name``; ``TypeError`` if that is no ``str``."""
        if not isinstance(name, str):
            raise TypeError(f'A room is called by a str, not {name!r:.40}.')
        return hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()

    @staticmethod
    def printable(name: str) -> str:
        """Return ``name`` as every database can hold it."""
        return name.encode('utf-8', 'replace').decode().replace('\0', '?')
