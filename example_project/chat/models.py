from datetime import timedelta

from django.db import IntegrityError, models, transaction
from django.utils import timezone

from sockets.streams import Stream


class MessageManager(models.Manager):
    def say(self, room, name, text, ref):
        """Tell the room. Return its id, and whether it is new: not if ``name`` said it before, in the frame ``ref``."""
        if not isinstance(ref, str) or len(ref) > 64:
            ref = None
        try:
            # The row and what the pages get of it are committed together.
            with transaction.atomic():
                message = self.create(room=room, name=name, ref=ref, text=text)
                Stream('room:' + room).send_json(message.content())
        except IntegrityError:
            return self.get(room=room, name=name, ref=ref).pk, False
        return message.pk, True


class Message(models.Model):
    """What somebody said in a room."""

    room = models.CharField(max_length=40)
    name = models.CharField(max_length=150)
    text = models.CharField(max_length=500)
    at = models.DateTimeField(default=timezone.now, db_index=True)
    # The frame that brought it. A page that did not hear our answer sends it again after a restart of the server.
    ref = models.CharField(max_length=64, null=True, editable=False)

    objects = MessageManager()

    class Meta:
        unique_together = [('room', 'name', 'ref')]

    def __str__(self):
        return f'{self.name} in {self.room}: {self.text}'

    def content(self):
        """Return it as the page gets it."""
        return {'type': 'SAID', 'id': self.pk, 'name': self.name, 'text': self.text, 'at': self.at}


class KickManager(models.Manager):
    def applies_to(self, room, row):
        """Whether the person of the connection ``row`` has been kicked out of ``room`` not long ago."""
        who = {'user': row.user_id} if row.user_id else {'session_key': row.session_id}
        return self.filter(room=room, at__gt=timezone.now() - Kick.LASTS, **who).exists()


class Kick(models.Model):
    """Somebody who has to stay out of a room for a while."""

    LASTS = timedelta(minutes=5)

    room = models.CharField(max_length=40)
    user = models.ForeignKey('auth.User', null=True, blank=True, on_delete=models.CASCADE)
    session_key = models.CharField(max_length=40, null=True, blank=True)
    at = models.DateTimeField(default=timezone.now)

    objects = KickManager()

    def __str__(self):
        return f'{self.user or self.session_key} out of {self.room}'
