"""What ``manage.py sockets doctor`` says."""

import collections
import time

# Seconds that a part of a site has to answer.
PATIENCE = 5

Finding = collections.namedtuple('Finding', 'name ok text remedy')
Finding.__new__.__defaults__ = ('',)
Finding.__doc__ = """What was found: ``ok`` is ``None`` where there was nothing to try, or nothing that is wrong."""


def milliseconds(began):
    """Return how long it is since ``began``, a ``time.perf_counter()``, as text."""
    return f'{1000 * (time.perf_counter() - began):.1f} ms'
