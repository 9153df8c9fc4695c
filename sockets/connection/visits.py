"""Who has arrived at a path, and who has left it: people, with however many connections, and however often they reload.

Whoever is to say that somebody has left, and whoever has just come back, both try to take the same ``Ending``.
"""

from django.db import transaction

from . import disconnect
from .calls import pass_on


def arrive(handler):
    """Note that the person of the connection of ``handler`` is here; call its functions if they were not before.

    It yields the steps to that.
    """
    if not _are_counted(handler):
        return
    if handler.closed:
        return turn_away(handler)
    from ..models import Ending, Socket

    row = handler._identity.row
    earlier = _others(row).filter(pk__lt=row.pk).exclude(has_arrived=False)
    # Asked first: a connection that ends meanwhile is either still found here, or its end is found there.
    was_here = earlier.exists()
    with transaction.atomic(using=row._database):
        if not Socket.objects.using(row._database).filter(pk=row.pk).update(has_arrived=True):
            # It has ended meanwhile.
            return
        waiting = Ending.objects.using(row._database).of_person(row).filter(has_left=False)
        # Where there is an earlier one, that may be about to find them, and not know otherwise that it has returned.
        has_returned = not was_here and waiting._raw_delete(waiting.db)
    row.has_arrived = True
    # Of several that come at once, the first one arrives.
    if not (was_here or has_returned or earlier.exists()):
        yield from pass_on(handler, 'arrived', None)


def turn_away(handler):
    """Note that the connection of ``handler``, which is closed as it is opened, brings nobody: the next one does."""
    if _are_counted(handler):
        from ..models import Socket

        row = handler._identity.row
        Socket.objects.using(row._database).filter(pk=row.pk, has_arrived=None).update(has_arrived=False)


def _are_counted(handler):
    has_functions = handler.arrived_functions or handler.left_functions
    return bool(has_functions and handler._identity is not None and handler._identity.row is not None)


def leave(row, end):
    """Call what is to be called when the person of the connection ``row`` has left, if the ``Ending`` ``end`` says so."""
    from ..models import Ending

    ends = Ending.objects.using(row._database)
    if not end.has_left:
        if _others(row).filter(has_arrived=True).exists():
            return
        waiting = list(ends.of_person(row).filter(has_left=False).order_by('-due', '-pk').values_list('pk', flat=True))
        # Another connection has ended later, or somebody is back.
        if waiting[:1] != [end.pk]:
            return
        with transaction.atomic(using=row._database):
            if not ends.filter(pk=end.pk, has_left=False).update(has_left=True):
                return
            ends.filter(pk__in=waiting[1:]).delete()
    disconnect.run(row, 'left')


def _others(row):
    """Return the other connections of the person of the connection ``row`` at its path."""
    from ..models import Socket

    others = Socket.objects.using(row._database).filter(path=row.path).exclude(pk=row.pk)
    if row.user_id is not None:
        return others.filter(user=row.user_id)
    if row.session_id is not None:
        return others.filter(user=None, session=row.session_id)
    return others.none()
