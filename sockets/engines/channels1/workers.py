"""Threads that handle frames: what ends one of them, what takes its place, and how ``runworker`` stops."""

import functools
import logging
import os
import signal
import threading
import time
import traceback

from django.db import connections

from ... import presence
from ...connection import overtime
from ...execution import stacks
from .channel_layer import adapted
from .frame_worker import FrameWorker
from .shutdown import DRAIN_TIMEOUT

logger = logging.getLogger('sockets')

# Threads of a process that may hang and be replaced. Whatever makes them hang would make the next ones hang as well,
# and each keeps its memory and its database connection.
MOST_HUNG = 10

# Seconds that the interpreter has to end when the workers have ended. It may wait for other threads, or for Redis.
EXIT_TIMEOUT = 5


class WorkerThread(threading.Thread):
    """A Channels worker for some channels. If it ends with an exception, that is logged and it starts again."""

    def __init__(self, layer, channels, **options):
        super().__init__(name='sockets-' + min(channels or ['worker']), daemon=True)
        self.make_another = functools.partial(WorkerThread, layer, channels, **options)
        self.layer = layer
        self.worker = FrameWorker(layer, signal_handlers=False, only_channels=channels, **options)
        self.is_replaced = False

    def run(self):
        while not self.worker.termed:
            try:
                self.worker.run()
            except BaseException:
                logger.exception('The worker of %s died and is restarted', self.name)
                # So that a worker which dies at once is not restarted without pause.
                time.sleep(0.1)
        # This sends its last messages, and lets another thread take the next frame of that connection.
        adapted(self.layer).release()
        connections.close_all()

    def stop(self):
        """Have it end when the function that it runs has returned; it may handle one more frame."""
        self.worker.termed = True

    def replace(self):
        """Start another thread in place of this one, whose function hangs. This one ends when that has returned."""
        hung = [thread for thread in threading.enumerate() if getattr(thread, 'is_replaced', False)]
        if len(hung) >= MOST_HUNG:
            logger.critical(
                'The functions of %d threads hang: %s is not replaced. Restart this process.', len(hung) + 1, self.name
            )
            return
        self.is_replaced = True
        self.stop()
        self.make_another().start()


def start_housekeeper(sender, **kwargs):
    """Start the housekeeper in a process with workers, also in ``runserver``."""
    # Looked up at the call: a test replaces it.
    presence.start_housekeeper()


def take_over(sender, **kwargs):
    """Have ``runworker`` run its worker ``sender``, of one thread or many, with our threads, and shut down cleanly."""
    sender.run = functools.partial(_run, sender)


def _run(worker):
    signals = []
    for number in (signal.SIGTERM, signal.SIGINT):
        # No lock: the main thread, which runs this, may hold it.
        signal.signal(number, lambda *args: signals.append(args))
    overtime.keep_watch()
    for _ in (worker, *getattr(worker, 'workers', ())):
        WorkerThread(
            worker.channel_layer,
            worker.only_channels,
            exclude_channels=worker.exclude_channels,
            callback=worker.callback,
            message_retries=worker.message_retries,
        ).start()
    while not signals:
        time.sleep(0.1)
    finish(threading.enumerate(), time.monotonic() + DRAIN_TIMEOUT)
    threading.Thread(target=_exit, daemon=True, name='sockets-exit').start()


def finish(threads, deadline):
    """Stop those of ``threads`` that are workers, and log the stacks of those that have not ended at ``deadline``."""
    threads = [thread for thread in threads if isinstance(thread, WorkerThread) and not thread.is_replaced]
    for thread in threads:
        thread.stop()
    for thread in threads:
        thread.join(max(0.05, deadline - time.monotonic()))
    frames = stacks.current_frames()
    for thread in threads:
        if thread.is_alive():
            logger.error(
                '%s has not ended in time. Its stack:\n%s',
                thread.name,
                ''.join(traceback.format_stack(frames.get(thread.ident))),
            )


def _exit():
    time.sleep(EXIT_TIMEOUT)
    logger.error('This process has not ended by itself after %d s, and is ended', EXIT_TIMEOUT)
    os._exit(0)


def at_work():
    """Return the threads that are running a function."""
    return [
        thread
        for thread in threading.enumerate()
        if isinstance(thread, WorkerThread) and thread.is_alive() and thread.worker.in_job
    ]
