"""``on_commit`` in a test, whose transaction is never committed."""
import contextlib
from unittest import mock

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper


@contextlib.contextmanager
def run_on_commit():
    """Run what is given to ``transaction.on_commit`` when it would run outside of a test.

    The transaction that a ``TestCase`` wraps a test in is never committed. In here, what is outermost within it counts
    as a transaction: as it ends, its functions run, but those of a block that is rolled back.
    """
    # Where each connection stands: how deep in atomic blocks, and how many functions wait.
    begun = {connection: (len(connection.savepoint_ids), len(connection.run_on_commit))
             for connection in connections.all() if connection.in_atomic_block}

    def run(connection):
        depth, waiting = begun.get(connection, (None, 0))
        if len(connection.savepoint_ids) == depth and connection.in_atomic_block:
            functions = [function for _, function in connection.run_on_commit[waiting:]]
            del connection.run_on_commit[waiting:]
            # A block without a savepoint leaves its rollback to the one around it: these are never committed.
            for function in () if connection.needs_rollback else functions:
                function()

    leave, on_commit = transaction.Atomic.__exit__, BaseDatabaseWrapper.on_commit

    def leave_and_run(self, *raised):
        leave(self, *raised)
        run(transaction.get_connection(self.using))

    def on_commit_and_run(self, function):
        on_commit(self, function)
        run(self)

    with mock.patch.object(transaction.Atomic, '__exit__', leave_and_run), \
            mock.patch.object(BaseDatabaseWrapper, 'on_commit', on_commit_and_run):
        yield
