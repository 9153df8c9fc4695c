"""Work in the background, whose end is not waited for."""

import logging
import threading

from django.db import connections

logger = logging.getLogger('sockets')


def run(function, name):
    """Call ``function`` in a thread of its own, which has its own database connections and leaves none behind; return it."""

    def work():
        try:
            function()
        except Exception:
            logger.exception('%s failed', name)
        finally:
            connections.close_all()

    thread = threading.Thread(target=work, daemon=True, name=name)
    thread.start()
    return thread
