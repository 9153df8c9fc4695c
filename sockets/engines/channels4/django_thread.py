"""The thread of asgiref's on which Django's async ORM runs, for all ``async def`` functions of this process."""

from asgiref.sync import SyncToAsync

from ...execution import thread_state

_under_way = []


def look_after():
    """Have it close database connections that have ended or failed. Django does so for pages only, on other threads.

    Nobody waits for it: functions may be at work there.
    """
    executor = SyncToAsync.single_thread_executor
    # Where nobody has used it, there is no such thread.
    if executor._threads and (not _under_way or _under_way[0].done()):
        try:
            _under_way[:] = [executor.submit(thread_state.close_ended)]
        except RuntimeError:
            # The interpreter ends.
            pass
