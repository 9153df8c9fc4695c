"""Where the rows of streams are, under which keys, and how their heads are locked."""

import contextlib
import hashlib

from django.db import connections, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils.crypto import get_random_string

from ..models import Membership, Socket, StreamHead

printable = Membership.printable


def key_of(name):
    """Return the key of the stream ``name``; ``TypeError`` if that is no ``str``.

    It is that of what a database can hold of the name: a client is told that, and asks by it.
    """
    if not isinstance(name, str):
        raise TypeError(f"A stream is called by a str, not {name!r:.40}: f'user:{{user.pk}}', or the name of a Stream.")
    return Membership.key_of(printable(name))


def database():
    """Return the database of streams: that of the rows of connections."""
    return Socket.objects.on_primary().db


def heads():
    """Return all streams."""
    return StreamHead.objects.using(database())


def membership_key(name, envelope):
    """Return the key under which a connection notes that it follows the stream ``name``, within ``envelope``."""
    text = f'{envelope or ""}\0{printable(name)}'.encode()
    # As no key of a room begins.
    return 's' + hashlib.sha256(text).hexdigest()[1:]


@contextlib.contextmanager
def short_transaction(using):
    """A transaction that sees what others have committed while it waited, whatever isolation the site has chosen.

    With another one, numbering would fail when two do it, and MySQL would have it wait for pages.
    """
    connection = connections[using]
    is_whole = connection.get_autocommit()
    with transaction.atomic(using=using):
        if is_whole and connection.vendor in ('postgresql', 'mysql'):
            with connection.cursor() as cursor:
                cursor.execute('SET TRANSACTION ISOLATION LEVEL READ COMMITTED')
        yield


def make_head(key, name, using):
    """Make and return the head of the stream ``key``, which nobody else can lock. ``IntegrityError`` if another one has."""
    head = StreamHead(key=key, name=name, epoch=get_random_string(8))
    head.save(using=using, force_insert=True)
    return head


def lock(keys, using):
    """Return the heads of the streams ``keys``, locked, by key, without those that another one has locked.

    Where a database cannot tell which these are, they are waited for, by all in the same order. Each head has as ``clock`` what
    the clock of the database showed.
    """
    features = connections[using].features
    rows = StreamHead.objects.using(using).filter(pk__in=keys).order_by('pk').annotate(clock=Now())
    if features.has_select_for_update:
        rows = rows.select_for_update(skip_locked=features.has_select_for_update_skip_locked)
    elif not rows.order_by().update(reminders=F('reminders')):
        # SQLite must begin with a write, or it would fail when it comes to that.
        return {}
    return {head.key: head for head in rows}
