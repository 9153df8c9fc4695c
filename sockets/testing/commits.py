"""``transaction.on_commit`` in a test, whose transaction is never committed."""

import contextlib
import logging
from typing import Any, Callable, Iterator
from unittest import mock

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

logger = logging.getLogger('sockets')


@contextlib.contextmanager
def run_on_commit() -> Iterator[None]:
    """Run the functions given to ``transaction.on_commit`` when they would run outside of a test.

    The transaction that a ``TestCase`` wraps around a test is never committed. In here, the outermost ``atomic`` block
    of the test counts as the transaction: its functions run when it ends, except those of blocks that are rolled back.
    """
    # For each connection: how many atomic blocks are open, and how many functions wait.
    begun = {
        connection: (len(connection.savepoint_ids), len(connection.run_on_commit))
        for connection in connections.all()
        if connection.in_atomic_block
    }

    def run(connection: BaseDatabaseWrapper) -> None:
        depth, waiting = begun.get(connection, (None, 0))
        if len(connection.savepoint_ids) == depth and connection.in_atomic_block:
            # Since Django 4.2, each says besides whether it is robust.
            functions = [entry[1:] for entry in connection.run_on_commit[waiting:]]
            del connection.run_on_commit[waiting:]
            # A block without a savepoint that failed leaves the rollback to the block around it: nothing is committed.
            for function, *robust in () if connection.needs_rollback else functions:
                try:
                    function()
                except Exception:
                    if not any(robust):
                        raise
                    logger.exception('%r raised, which was to run on a commit', function)

    leave, on_commit = transaction.Atomic.__exit__, BaseDatabaseWrapper.on_commit

    def leave_and_run(self: Any, *raised: Any) -> None:
        leave(self, *raised)
        run(transaction.get_connection(self.using))

    def on_commit_and_run(self: Any, function: Callable[[], Any], *args: Any, **kwargs: Any) -> None:
        on_commit(self, function, *args, **kwargs)
        run(self)

    with mock.patch.object(transaction.Atomic, '__exit__', leave_and_run), mock.patch.object(
        BaseDatabaseWrapper, 'on_commit', on_commit_and_run
    ):
        yield
