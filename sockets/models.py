"""Who is connected, and fan-out to them."""
from datetime import timedelta

from django.conf import settings
from django.db import models
from django.utils import timezone

from . import messages, signals, transport


class BaseModel(models.Model):
    """When a row was made, and when it was last saved."""

    created = models.DateTimeField(auto_now_add=True, db_index=True)
    modified = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True


class SocketQuerySet(models.QuerySet):
    """Connections to speak to. What is sent is on its way when a method returns, also inside a handler."""

    def send_json(self, content):
        """Send the ``dict`` ``content`` to every connection and return how many it was handed to.

        One query, encoded once. ``TypeError``, before anything is sent, for what Django's JSON encoder cannot
        encode.
        """
        return self._send({'text': messages.encode(content)})

    def send_action(self, type, **fields):
        """Send ``{'type': type, **fields}`` to every connection and return how many it was handed to."""
        return self.send_json({messages.TYPE: type, **fields})

    def close(self, code=messages.CLOSE_NORMAL):
        """Close every connection with ``code`` and return how many were told; their rows go as they close."""
        return self._send({'close': transport.close_code(code)})

    def mark_active(self):
        """Note that these connections are alive now; return how many rows that were."""
        now = timezone.now()
        return self.update(active=True, last_ping=now, modified=now)

    def mark_inactive(self):
        """Note that these connections have yet to prove that they are alive; return how many rows that were."""
        return self.update(active=False, modified=timezone.now())

    def cleanup_stale(self):
        """Ask every connection for a sign of life: mark it inactive and send it ``PING``, to which a client
        answers ``PING``. Return how many were asked. ``purge_inactive`` removes those that stay silent.
        """
        names = self._channel_names()
        # Marked before they are asked, or a quick answer would be overwritten. Those of filter(active=True) match no
        # more from here on, so we ask by name.
        self.mark_inactive()
        return transport.send_many(names, {'text': messages.encode({messages.TYPE: messages.PING})})

    def purge_inactive(self, in_last_mins=5):
        """Remove connections that are inactive and gave no sign of life in the last ``in_last_mins`` minutes.

        Each is told to reconnect and closed. Return how many rows were removed.
        """
        silent = self.filter(active=False, last_ping__lt=timezone.now() - timedelta(minutes=in_last_mins))
        purged = [row for row in silent if row.remove()]
        transport.send_many([row.channel_name for row in purged], {
            'text': messages.encode(messages.reconnect('This connection gave no sign of life.')),
            'close': messages.CLOSE_NORMAL,
        })
        for row in purged:
            signals.announce(signals.socket_disconnected, sender=self.model, socket=row, code=None)
        return len(purged)

    def _send(self, message):
        return transport.send_many(self._channel_names(), message)

    def _channel_names(self):
        return list(self.values_list('channel_name', flat=True))


class Socket(BaseModel):
    """One open connection."""

    session = models.ForeignKey('sessions.Session', null=True, blank=True, on_delete=models.CASCADE,
                                related_name='sockets')
    # Channel names are shorter than 100 characters (asgiref.base_layer.BaseChannelLayer).
    channel_name = models.CharField(max_length=100, unique=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE,
                             related_name='sockets')
    path = models.CharField(max_length=255, db_index=True)
    active = models.BooleanField(default=True)
    last_ping = models.DateTimeField(default=timezone.now)
    user_ip = models.GenericIPAddressField(null=True, blank=True, unpack_ipv4=True)

    objects = SocketQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=['active', 'last_ping'], name='sockets_active_last_ping')]

    def __str__(self):
        return '{} {}'.format(self.path, self.channel_name)

    def send_json(self, content):
        """Send the ``dict`` ``content`` to this connection; return 1, or 0 if its server took no message."""
        return transport.send_many([self.channel_name], {'text': messages.encode(content)})

    def send_action(self, type, **fields):
        """Send ``{'type': type, **fields}`` to this connection; return 1, or 0 if its server took no message."""
        return self.send_json({messages.TYPE: type, **fields})

    def close(self, code=messages.CLOSE_NORMAL):
        """Close this connection with ``code``; return 1, or 0 if its server took no message."""
        return transport.send_many([self.channel_name], {'close': transport.close_code(code)})

    def remove(self):
        """Delete the row and return whether this call did it; of several, only one is told so."""
        pk = self.pk
        removed = self.delete()[1].get(self._meta.label, 0)
        self.pk = pk
        return bool(removed)
