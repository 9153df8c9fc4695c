"""When the right to a connection ends, and when it goes on under another name: what Django tells of users and sessions.

Rows that are deleted in any way that Django knows of (with their session or user, by the admin, by a queryset) are
connections that are closed.
"""

from collections import namedtuple
from functools import partial

from django.apps import apps
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.auth.signals import user_logged_out
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.models import Session
from django.db import router, transaction
from django.db.models.signals import post_save, pre_delete
from django.utils import timezone

from .. import callbacks, databases, messages
from ..models import Socket, note_changed, note_gone, removal
from . import auth, expiry

# Sessions that are read to find those of a user, 20 us each: no engine of Django's can be asked whose a session is.
SESSIONS_READ = 100000

# Primary keys of users, keys of sessions, how many connections, and whether no session can have been overlooked.
LoggedOut = namedtuple('LoggedOut', 'users sessions connections found_all')


def install():
    """Listen to what ends the right to a connection."""
    pre_delete.connect(_row_goes, sender=Socket, dispatch_uid='sockets')
    post_save.connect(_session_saved, sender=Session, dispatch_uid='sockets')
    user_logged_out.connect(_logged_out, dispatch_uid='sockets')
    for model in apps.get_models(include_auto_created=True):
        # Proxies and children are senders of their own.
        if issubclass(model, get_user_model()):
            post_save.connect(_user_saved, sender=model, dispatch_uid='sockets')
    if SessionBase.cycle_key.__name__ != 'cycle_key_with_sockets':
        SessionBase.cycle_key = _with_sockets(SessionBase.cycle_key)
        if hasattr(SessionBase, 'acycle_key'):
            SessionBase.acycle_key = _with_sockets_async(SessionBase.acycle_key)
    expiry.install()


def log_out(rows):
    """End the sessions of the users of ``rows`` everywhere, and those of its anonymous connections, and close what they
    have open with 4401. Return ``LoggedOut``.

    A session in the database is found by its connections, or among the ``SESSIONS_READ`` that expire last. Other
    engines cannot be searched: there, connections are closed and sessions go on.
    """
    rows = rows.on_primary()
    users = set(rows.order_by().exclude(user=None).values_list('user', flat=True))
    sessions, found_all = _sessions_of(users)
    details = 'You have been logged out.'
    end = messages.CLOSE_LOGIN_REQUIRED, details
    removed = rows.filter(user=None).remove(*end)
    for part in databases.parts(users):
        removed += Socket.objects.on_primary().filter(user__in=part).remove(*end)
    sessions.update(row.session_id for row in removed if row.session_id is not None)
    for part in databases.parts(sessions):
        # Opened before they logged in.
        removed += Socket.objects.on_primary().filter(session__in=part).remove(*end)
    try:
        # Before anybody is told, or who is quick comes back.
        with databases.on_primary():
            for session in sessions:
                auth.session_store().delete(session)
    finally:
        transaction.on_commit(partial(callbacks.end, removed, details, messages.CLOSE_LOGIN_REQUIRED), using=rows.db)
    return LoggedOut(users, sessions, len(removed), found_all)


def can_search_sessions():
    """Return whether the engine of sessions has a table of them."""
    return hasattr(auth.session_store(), 'get_model_class')


def _sessions_of(users):
    """Return the keys of the sessions of ``users`` as far as they can be found, and whether those are all."""
    if not users or not can_search_sessions():
        return set(), not users
    names = {str(pk) for pk in users}
    model = auth.session_store().get_model_class()
    sessions = model.objects.using(router.db_for_write(model))
    live = sessions.filter(expire_date__gt=timezone.now()).order_by('-expire_date')
    keys, found_all = set(), True
    for number, session in enumerate(live[: SESSIONS_READ + 1].iterator()):
        if number == SESSIONS_READ:
            found_all = False
        elif session.get_decoded().get(SESSION_KEY) in names:
            keys.add(session.pk)
    return keys, found_all


def _row_goes(instance, using, **kwargs):
    # With what the disconnect function may ask for, which may be what is being deleted.
    row = Socket.objects.using(using).select_related('user', 'session').filter(pk=instance.pk).first()
    details = 'Your session is gone. Come back with a new one.'
    # Django empties its rooms, and counts that.
    if row is not None and removal.remove_one(row, using, messages.CLOSE_LOGIN_REQUIRED, details, keeps_rooms=True):
        note_gone()
        transaction.on_commit(partial(callbacks.end, [row], details, messages.CLOSE_LOGIN_REQUIRED), using=using)


def _session_saved(instance, using, raw=False, created=False, **kwargs):
    if not created and not raw and instance.expire_date <= timezone.now():
        Socket.objects.using(using).filter(session=instance.pk).revoke('Your session has expired.')


def _user_saved(instance, using, raw=False, created=False, **kwargs):
    if not created and not raw and not auth.is_active(instance):
        Socket.objects.using(using).filter(user=instance.pk).revoke('Your account is not active.')


def _logged_out(request, user, **kwargs):
    # A session in the database takes its rows along. Others leave no trace in a row: all of the user's go.
    if user is not None and auth.row_session_key(request.session) is None:
        # What a token has opened is of no session.
        mine = Socket.objects.on_primary().filter(user=user.pk, session=None, authentication=None)
        mine.revoke('You have logged out.')


def _with_sockets(cycle_key):
    """Return ``cycle_key`` (a login gives a session another key) made to take the session's connections along."""

    def cycle_key_with_sockets(self):
        old = auth.row_session_key(self)
        all_rows = Socket.objects.on_primary()
        rows = [] if old is None else list(all_rows.filter(session=old).values_list('pk', flat=True))
        if not rows:
            return cycle_key(self)
        # Or they would be deleted with the old key.
        mine = all_rows.filter(pk__in=rows)
        mine.update(session=None)
        try:
            cycle_key(self)
        except Exception:
            mine.update(session=old)
            raise
        mine.update(session=auth.row_session_key(self))
        # Of which Django sends no signal.
        note_changed(rows, mine.db)

    return cycle_key_with_sockets


def _with_sockets_async(acycle_key):
    """Return ``acycle_key``, which Django has since 5.1, made to do the same."""

    async def acycle_key_with_sockets(self):
        old = auth.row_session_key(self)
        all_rows = Socket.objects.on_primary()
        rows = [] if old is None else [pk async for pk in all_rows.filter(session=old).values_list('pk', flat=True)]
        if not rows:
            return await acycle_key(self)
        mine = all_rows.filter(pk__in=rows)
        await mine.aupdate(session=None)
        try:
            await acycle_key(self)
        except Exception:
            await mine.aupdate(session=old)
            raise
        await mine.aupdate(session=auth.row_session_key(self))
        note_changed(rows, mine.db)

    return acycle_key_with_sockets
