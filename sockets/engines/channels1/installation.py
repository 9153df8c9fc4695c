"""What this engine adds to Channels and daphne when the apps are loaded."""

import functools

from channels.signals import consumer_finished, consumer_started, worker_process_ready, worker_ready

from ...declaration import arguments
from ...execution import background, thread_state
from ...layers import dropped
from ...router import refuse_views
from ...signals import announce, messages_dropped
from . import checks, compat, factory, questions, routing, rows, shutdown, workers  # noqa: F401, checks register themselves


def install():
    """Take Channels and daphne over, as far as the modules of this package do."""
    compat.patch_postgresql()
    factory.patch_daphne()
    shutdown.patch_server()
    routing.patch_include()
    routing.check_routings(refuse_views, arguments.refuse_taken)
    consumer_started.connect(thread_state.begin)
    for signal in (consumer_started, consumer_finished):
        # Both are sent with each frame, and Django would find out anew each time who receives them.
        signal.use_caching = True
    worker_ready.connect(_prepare, dispatch_uid='sockets')
    worker_ready.connect(workers.start_housekeeper, dispatch_uid='sockets.on_worker')
    worker_process_ready.connect(workers.take_over, dispatch_uid='sockets')
    if _announce_expired not in dropped.listeners:
        dropped.listeners.append(_announce_expired)


def _prepare(sender, **kwargs):
    """Complete the routing of a worker, be it a thread of ``runserver``."""
    routing.refuse_unrouted(sender.channel_layer.router)
    questions.answer_on(sender.channel_layer, {questions.DOCTOR: questions.answer_doctor, rows.CHANNEL: rows.answer})


def _announce_expired(servers):
    # A receiver may take its time, and this thread has others that wait for it.
    background.run(functools.partial(announce, messages_dropped, sender=None, servers=servers), 'sockets-dropped')
