"""Sessions that have expired, which ``clearsessions`` finds by the hundred thousand: deleted as if none had a connection.

Rows of connections refer to sessions, with a cascade. For its sake Django reads every session that it deletes, and asks
for the rows of each.
"""

import functools

from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import router
from django.db.models.deletion import DO_NOTHING, get_candidate_relations_to_delete
from django.db.models.signals import post_delete, pre_delete
from django.utils import timezone

from .. import databases
from ..models import Socket


def install():
    """Have the engines of Django that keep sessions in the database delete the expired ones this way."""
    if SessionStore.clear_expired.__name__ != 'clear_expired_with_sockets':
        SessionStore.clear_expired = classmethod(_with_sockets(SessionStore.clear_expired.__func__))


def _with_sockets(clear_expired):
    def clear_expired_with_sockets(cls):
        # No row refers to a model of a project's own.
        return clear() if cls.get_model_class() is Session else clear_expired(cls)

    return functools.wraps(clear_expired, assigned=['__doc__'])(clear_expired_with_sockets)


def clear():
    """Close the connections of expired sessions, and delete those sessions. Memory does not grow with their number."""
    using = router.db_for_write(Session)
    now = timezone.now()
    expired = Session.objects.using(using).filter(expire_date__lt=now)
    Socket.objects.using(using).filter(session__expire_date__lt=now).revoke('Your session has expired.')
    if _only_connections_refer():
        # One query. Not those that were let in meanwhile: their row would end without a word, or keep the database from
        # deleting anything.
        taken = Socket.objects.using(using).exclude(session=None).order_by().values('session_id')
        expired.exclude(pk__in=taken)._raw_delete(using)
    part = ['']
    while part:
        # What is left, as Django does it, and none that a receiver or a trigger has brought back.
        left = expired.filter(pk__gt=part[-1]).order_by('pk')
        part = list(left.values_list('pk', flat=True)[: databases.IN_ONE_QUERY])
        Session.objects.using(using).filter(pk__in=part).delete()


def _only_connections_refer():
    """Return whether nothing but rows of connections has to hear that a session is deleted."""
    return not (pre_delete.has_listeners(Session) or post_delete.has_listeners(Session)) and all(
        relation.related_model is Socket or relation.field.remote_field.on_delete is DO_NOTHING
        for relation in get_candidate_relations_to_delete(Session._meta)
    )
