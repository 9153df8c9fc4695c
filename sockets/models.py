"""Who is connected, which rooms they are in, and fan-out to them."""
import hashlib
import logging
import threading
from datetime import timedelta
from functools import partial

from django.conf import settings
from django.db import DatabaseError, models, router, transaction
from django.utils import timezone

from . import callbacks, contracts, databases, engine, fanout, messages
from .connection import identity_cache

logger = logging.getLogger('sockets')

# Rows of a dead server that are removed before their disconnect functions run.
_PART = 100


class BaseModel(models.Model):
    """When a row was made, and when it was last saved."""

    created = models.DateTimeField(auto_now_add=True, db_index=True)
    modified = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True


class SocketQuerySet(models.QuerySet):
    """Connections to speak to. What is sent is on its way when a method returns, also inside a handler.

    A connection that a queryset finds twice, by two of its rooms or two groups of its user, is told, closed, marked,
    removed and counted once.
    """

    def in_room(self, name):
        """Return those connections that have joined the room ``name`` and not left it."""
        # No join: a connection in two rooms is one row of in_room('a') | in_room('b').
        return self.filter(pk__in=Membership.objects.filter(key=Membership.key_of(name)).values('socket'))

    def on_primary(self):
        """Return these connections, read from the database that they are written to, unless ``using()`` names another.

        A replica may not know yet who has just connected or joined.
        """
        return self.using(self._db or router.db_for_write(self.model, **self._hints))

    def count(self):
        """Return how many connections there are; of ``values()``, how many rows."""
        query = self.query
        if self._fields is not None or not (len(query.alias_map) > 1 or query.extra_tables or query.combinator):
            return super().count()
        if self._result_cache is not None or not self._is_plain():
            return len({row.pk for row in self} if self._result_cache is not None else self._each('pk'))
        return super(SocketQuerySet, self.order_by().values('pk').distinct()).count()

    def send_json(self, content):
        """Send the ``dict`` ``content`` to every connection and return how many it was handed to.

        One query, encoded once. ``TypeError``, before anything is sent, for what Django's JSON encoder cannot
        encode.
        """
        text = messages.encode(content)
        if settings.DEBUG:
            _check_declared(self._each('path'), content)
        return self._send({'text': text})

    def send_action(self, type, **fields):
        """Send ``{'type': type, **fields}`` to every connection and return how many it was handed to."""
        return self.send_json({messages.TYPE: type, **fields})

    def send(self, text=None, bytes=None):
        """Send a frame of ``text`` (``str``) or ``bytes`` as it is; return how many connections it was handed to."""
        return self._send(fanout.message(text, bytes))

    def close(self, code=messages.CLOSE_NORMAL):
        """Close every connection with ``code`` and return how many were told; their rows go as they close."""
        return self._send({'close': messages.close_code(code)})

    def mark_active(self):
        """Note that these connections are alive now; return how many rows that were."""
        now = timezone.now()
        return sum(part.update(active=True, last_ping=now, modified=now) for part in self._parts())

    def mark_inactive(self):
        """Note that these connections have yet to prove that they are alive; return how many rows that were."""
        now = timezone.now()
        return sum(part.update(active=False, modified=now) for part in self._parts())

    def note_life(self, resolution=0):
        """Mark those active that are not, or were last heard ``resolution`` seconds ago; return how many."""
        since = timezone.now() - timedelta(seconds=resolution)
        return sum(part.filter(models.Q(active=False) | models.Q(last_ping__lte=since)).mark_active()
                   for part in self._parts())

    def cleanup_stale(self):
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
        return fanout.send_many([name for name in names.values() if engine.server_of(name) not in away],
                                   {'text': messages.encode({messages.TYPE: messages.PING})})

    def purge_inactive(self, in_last_mins=5):
        """Remove connections that are inactive and gave no sign of life in the last ``in_last_mins`` minutes.

        Each is told to reconnect and closed, and its disconnect function runs. Return how many rows were removed.
        """
        since = timezone.now() - timedelta(minutes=in_last_mins)
        removed = [row for part in self._parts() for row in part.filter(active=False, last_ping__lt=since).remove()]
        callbacks.end(removed, 'This connection gave no sign of life.', messages.CLOSE_NORMAL)
        return len(removed)

    def purge_dead(self, at_most=None):
        """Remove the connections of servers that are gone, ``at_most`` so many; return how many that were.

        Their disconnect functions run here. Only our own channel layers know which servers are gone, of those on a
        layer of the same name; on others, ``cleanup_stale`` and ``purge_inactive`` find such rows by their silence.
        """
        count = 0
        for part in self._parts():
            count += part._purge_dead(None if at_most is None else at_most - count)
            if count == at_most:
                break
        return count

    def _purge_dead(self, at_most):
        count = 0
        audible = self.filter(layer=engine.current().layer_name())
        for server in engine.current().dead_servers(audible.values_list('server', flat=True).order_by().distinct()):
            removed = True
            # Somebody else may be done with it, and it may live again.
            while removed and server in engine.current().dead_servers():
                # In parts: what has been removed by a process that dies has no disconnect function to run any more.
                part = _PART if at_most is None else min(_PART, at_most - count)
                removed = audible.filter(server=server)[:part].remove()
                # If it is not, it will hear of it from its layer and closes all that it has.
                callbacks.end(removed, 'The server of this connection is gone.', None)
                count += len(removed)
                if count == at_most:
                    return count
            engine.current().forget_server(server)
        return count

    def revoke(self, details='You may not use this connection any more.'):
        """Take the right to these connections away and return how many that were.

        Their rows go now. When the transaction is committed, each client is sent ``RECONNECT`` with ``details`` and
        closed with 4401, and the disconnect functions run. No frame of theirs reaches a route from then on. It is no ban:
        whose session is still good may connect again.
        """
        removed = self.remove()
        if removed:
            transaction.on_commit(partial(callbacks.end, removed, details, messages.CLOSE_LOGIN_REQUIRED),
                                  using=self.on_primary().db)
        return len(removed)

    def delete(self):
        """Delete the rows, close their connections, and return what Django does: how many rows that were, and of what."""
        return _count_gone(super().delete)

    delete.alters_data = delete.queryset_only = True

    def remove(self):
        """Delete the rows, and nothing else, and return those that this call deleted."""
        found = {}
        # A union knows no select_related(). Of only('path'), too, a disconnect function may ask for anything.
        for part in self._parts() if self.query.combinator else [self.on_primary()]:
            found.update((row.pk, row) for row in part.defer(None).select_related('user', 'session'))
        rows = list(found.values())
        if len(rows) > 1 and self._is_alone_in_deleting(rows):
            return rows
        # Of several that delete a row, one is told that it did.
        return [row for row in rows if row.remove()]

    def _is_alone_in_deleting(self, rows):
        """Delete ``rows`` with one query, unless somebody else has deleted one of them; return whether that was done."""
        found = self.model._base_manager.using(self.on_primary().db).filter(pk__in=[row.pk for row in rows])
        try:
            with transaction.atomic(using=found.db):
                if found._raw_delete(found.db) == len(rows):
                    identity_cache.written(rows, found.db)
                    return True
                transaction.set_rollback(True, using=found.db)
        except DatabaseError as error:
            # SQLite takes no more than 999 names in a query, and two that delete may wait for each other.
            logger.info('Deleting %d rows one by one: %s', len(rows), error)
        return False

    def _is_plain(self):
        """Whether more can be asked of the rows: not of a slice, a union, ``distinct(*fields)`` or an aggregate."""
        query = self.query
        return query.can_filter() and not (query.combinator or query.distinct_fields or query.group_by is not None)

    def _parts(self):
        """Yield querysets in which each of these connections can be filtered and written, where they are written."""
        if self._is_plain():
            yield self.on_primary()
        else:
            yield from self._with_keys(self.on_primary()._each('pk'))

    def _each(self, field):
        """Return the values of ``field``: each once, in order."""
        if self.query.combinator:
            # values_list() would change the querysets that this union is of (Django 2.2 and older).
            return list(dict.fromkeys(getattr(row, field) for row in self.all()))
        return list(dict.fromkeys(self.values_list(field, flat=True)))

    def _with_keys(self, keys):
        rows = self.model.objects.using(self.on_primary().db)
        for part in databases.parts(keys):
            yield rows.filter(pk__in=part)

    def _send(self, message):
        count = fanout.send_many(self._each('channel_name'), message)
        callbacks.purge_if_due()
        return count


class Socket(BaseModel):
    """One open connection."""

    session = models.ForeignKey('sessions.Session', null=True, blank=True, on_delete=models.CASCADE,
                                related_name='sockets')
    # Channel names are shorter than 100 characters (asgiref.base_layer.BaseChannelLayer).
    channel_name = models.CharField(max_length=100, unique=True)
    # The prefix of the channel name, which all connections of one server process share.
    server = models.CharField(max_length=100, db_index=True, editable=False, default='')
    # What the layer that it lives on calls itself. Rows that older versions of this package made have none.
    layer = models.CharField(max_length=100, null=True, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE,
                             related_name='sockets')
    path = models.CharField(max_length=255, db_index=True)
    active = models.BooleanField(default=True)
    last_ping = models.DateTimeField(default=timezone.now, db_index=True)
    user_ip = models.GenericIPAddressField('address', null=True, blank=True, db_index=True, unpack_ipv4=True)
    # Path, query string and headers of the request that opened it, as JSON: what socket.request is made of.
    handshake = models.TextField(editable=False, default='')

    objects = SocketQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=['active', 'last_ping'], name='sockets_active_last_ping')]
        permissions = [
            ('send_socket', 'Can send to socket'),
            ('close_socket', 'Can close socket'),
            ('logout_socket', 'Can log out the user of socket'),
        ]

    def __str__(self):
        return '{} {}'.format(self.path, self.channel_name)

    def send_json(self, content):
        """Send the ``dict`` ``content`` to this connection; return 1, or 0 if its server took no message."""
        text = messages.encode(content)
        if settings.DEBUG:
            _check_declared([self.path], content)
        return fanout.send_many([self.channel_name], {'text': text})

    def send_action(self, type, **fields):
        """Send ``{'type': type, **fields}`` to this connection; return 1, or 0 if its server took no message."""
        return self.send_json({messages.TYPE: type, **fields})

    def send(self, text=None, bytes=None):
        """Send a frame of ``text`` or ``bytes`` as it is; return 1, or 0 if its server took no message."""
        return fanout.send_many([self.channel_name], fanout.message(text, bytes))

    def close(self, code=messages.CLOSE_NORMAL):
        """Close this connection with ``code``; return 1, or 0 if its server took no message."""
        return fanout.send_many([self.channel_name], {'close': messages.close_code(code)})

    def join(self, room):
        """Enter the room of that name, whatever its characters or length; return whether this connection is in it now.

        It leaves by ``leave()``, or as it ends.
        """
        if self.pk is None:
            return False
        # Not socket=self: routers need not allow a relation to a row that was read from a replica.
        membership, is_new = self._memberships().get_or_create(
            socket_id=self.pk, key=Membership.key_of(room), defaults={'name': Membership.printable(room)})
        if is_new and not type(self).objects.using(self._database).filter(pk=self.pk).exists():
            # It has ended in the meantime, and whoever ended it has not seen this.
            membership.delete()
            return False
        return True

    def leave(self, room):
        """Leave the room of that name; return whether this connection was in it."""
        return bool(self._memberships().filter(key=Membership.key_of(room)).delete()[0])

    @property
    def rooms(self):
        """The names of the rooms that this connection is in."""
        return list(self._memberships().values_list('name', flat=True))

    def save(self, *args, **kwargs):
        """Save the row; ``server`` follows from the channel name, ``layer`` from who makes it."""
        self.server = engine.server_of(self.channel_name)
        if self._state.adding:
            if self.layer is None:
                self.layer = engine.current().layer_name()
            if fanout.local_servers is not None:
                fanout.local_servers.add(self.server)
        super().save(*args, **kwargs)

    def delete(self, *args, **kwargs):
        """Delete the row, close its connection, and return what Django does: how many rows that were, and of what."""
        return _count_gone(partial(super().delete, *args, **kwargs))

    delete.alters_data = True

    def remove(self):
        """Delete the row, and nothing else, and return whether this call did it; of several, only one is told so."""
        # Not delete(), which closes the connection and runs its disconnect function (sockets.revocation).
        rows = type(self)._base_manager.using(self._database).filter(pk=self.pk)
        count = rows._raw_delete(rows.db)
        # Of which Django sends no signal.
        identity_cache.written([self], rows.db)
        return bool(count)

    def forget(self):
        """Let go of what belonged to this connection, whose row has been removed and whose functions have run."""
        # Not delete(), which is a transaction of its own: this is every connection.
        rooms = self._memberships()
        rooms._raw_delete(rooms.db)
        self.pk = None

    @property
    def _database(self):
        # It may have been read from a replica.
        return router.db_for_write(type(self), instance=self)

    def _memberships(self):
        return Membership.objects.using(self._database).filter(socket=self.pk)


class Membership(models.Model):
    """That a connection is in a room."""

    # No constraint: rows are removed without asking who refers to them, and what refers to none is in no queryset.
    socket = models.ForeignKey(Socket, on_delete=models.CASCADE, related_name='memberships', db_constraint=False)
    # Of the name, which no column could hold: databases limit length and characters, and some take "Tea" for "tea".
    key = models.CharField(max_length=64)
    name = models.TextField()

    class Meta:
        unique_together = [('key', 'socket')]

    def __str__(self):
        return self.name

    @staticmethod
    def key_of(name):
        """Return the key of the room ``name``; ``TypeError`` if that is no ``str``."""
        if not isinstance(name, str):
            raise TypeError('A room is called by a str, not {!r:.40}.'.format(name))
        return hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()

    @staticmethod
    def printable(name):
        """Return ``name`` as every database can hold it."""
        return name.encode('utf-8', 'replace').decode().replace('\0', '?')


# Rows that were removed in this thread as Django was about to delete them (sockets.revocation). It finds none of them.
_gone = threading.local()


def note_gone():
    """Count a row of a connection that was removed before Django could delete it."""
    _gone.count = getattr(_gone, 'count', 0) + 1


def _count_gone(delete):
    """Return what ``delete()`` returns, with the rows that were removed meanwhile."""
    before = getattr(_gone, 'count', 0)
    total, of_models = delete()
    gone = getattr(_gone, 'count', 0) - before
    label = Socket._meta.label
    return total + gone, {**of_models, label: of_models.get(label, 0) + gone}


def _check_declared(paths, content):
    """Raise ``TypeError`` where a handler at one of ``paths`` does not declare that it sends ``content``."""
    for path in paths:
        handler = engine.current().handler_at(path)
        if handler is not None:
            contracts.check_sent_on(handler, content)

