"""Rows of new connections, inserted together: by one statement, with the signals of each."""

import contextlib
from typing import Any, Iterator, List, Optional, Sequence

from django.db import connections, models, router, transaction
from django.db.models.signals import post_save, pre_save

from .connections import Socket

# Seconds for which several rows wait for one that somebody holds, as in a long transaction with select_for_update() on the
# user of one of them; then each waits for its own. MySQL knows whole seconds.
PATIENCE = 0.1
_MYSQL_PATIENCE = 1


class Insertion:
    """The insertion of one ``row``. What went wrong with it is raised by ``finish()``."""

    __slots__ = ('row', 'using', 'is_done', 'error')

    def __init__(self, row: Socket) -> None:
        self.row = row
        row._complete()
        self.using = router.db_for_write(Socket, instance=row)
        self.is_done = False
        self.error: Optional[BaseException] = None
        pre_save.send(sender=Socket, instance=row, raw=False, using=self.using, update_fields=None)

    def finish(self) -> Socket:
        """Send the signal of a row that has been inserted, and return the row. Raise if it has not."""
        if not self.is_done:
            insert([self])
        if self.error is not None:
            raise self.error
        post_save.send(sender=Socket, instance=self.row, created=True, update_fields=None, raw=False, using=self.using)
        return self.row

    def withdraw(self) -> None:
        """Remove the row, which nobody has heard of, if it has been inserted; else it will not be."""
        is_done, self.is_done = self.is_done, True
        if is_done and self.error is None:
            self.row.remove()


class _Others(Insertion):
    __slots__ = ()

    def __init__(self) -> None:
        pass


# What stands for the insertions of all that wait for theirs: they come before whoever yields it goes on.
OTHERS = _Others()


def is_plain() -> bool:
    """Return whether a row is inserted as it was declared here: a project has replaced nothing of that."""
    return (
        Socket.save is Socket._own_save
        and Socket.save_base is models.Model.save_base
        and Socket.full_clean is models.Model.full_clean
        and type(Socket._base_manager) is models.Manager
    )


def insert(insertions: Sequence[Insertion]) -> None:
    """Insert the rows of those of ``insertions`` that were not inserted yet, together; after a failure, ``finish()`` inserts
    each alone.
    """
    waiting = [insertion for insertion in insertions if not insertion.is_done]
    try:
        for using in dict.fromkeys(insertion.using for insertion in waiting):
            _insert([insertion for insertion in waiting if insertion.using == using], using)
    except BaseException as error:
        # Whoever waits for one of them is told.
        for insertion in waiting:
            if not insertion.is_done:
                insertion.is_done, insertion.error = True, error
        raise


def _insert(insertions: List[Insertion], using: str) -> None:
    try:
        _create([insertion.row for insertion in insertions], using)
    except Exception as error:
        if len(insertions) == 1:
            insertions[0].is_done, insertions[0].error = True, error
        elif not connections[using].in_atomic_block:
            # The database may have ended it.
            connections[using].close_if_unusable_or_obsolete()
    else:
        for insertion in insertions:
            if insertion.is_done:
                # It has been withdrawn meanwhile.
                insertion.row.remove()
            insertion.is_done = True


def _create(rows: List[Socket], using: str) -> None:
    manager, keys = Socket._base_manager.using(using), [row.pk for row in rows]
    try:
        # A failure in a transaction of others, such as a test's, is to leave that usable.
        with _transaction(using, is_patient=len(rows) == 1):
            manager.bulk_create(rows)
            if any(row.pk is None for row in rows):
                # The database does not return them.
                found = manager.filter(channel_name__in=[row.channel_name for row in rows])
                found = dict(found.values_list('channel_name', 'pk'))
                for row in rows:
                    row.pk = found[row.channel_name]
    except BaseException:
        for row, key in zip(rows, keys):
            row.pk, row._state.adding = key, True
        raise
    for row in rows:
        row._state.adding, row._state.db = False, using


@contextlib.contextmanager
def _transaction(using: str, is_patient: bool) -> Iterator[None]:
    """A transaction. Unless it ``is_patient``, it fails where it would wait for long for rows that others hold."""
    database = connections[using]
    # A transaction of others would be impatient to its end.
    vendor = None if is_patient or database.in_atomic_block else database.vendor
    if vendor == 'mysql':
        _execute(
            database,
            'SET @sockets_patience = @@SESSION.innodb_lock_wait_timeout, '
            f'SESSION innodb_lock_wait_timeout = {_MYSQL_PATIENCE}',
        )
    try:
        with transaction.atomic(using=using):
            if vendor == 'postgresql':
                _execute(database, f'SET LOCAL lock_timeout = {round(PATIENCE * 1000)}')
            yield
    finally:
        if vendor == 'mysql':
            _execute(database, 'SET SESSION innodb_lock_wait_timeout = @sockets_patience')


def _execute(database: Any, sql: str) -> None:
    with database.cursor() as cursor:
        cursor.execute(sql)
