"""The site of the fleets, with a page that tells what its process holds: memory by allocation site, threads, files.

With ``TRACED``, allocations are traced from the first look on. What was imported before is half a million of them, and a
look at so many would stop the process for seconds: others would find it dead.
"""

import gc
import json
import os
import re
import threading
import tracemalloc
from pathlib import Path

from tests.live.soak_site import *  # noqa: F403

ROOT_URLCONF = 'tests.live.endurance_site'

# Bytes of an allocation site that are worth a line.
WORTH_A_LINE = 4096


def holdings(request):
    from django.http import HttpResponse

    gc.collect()
    status = Path('/proc/self/status').read_text()
    sites = {}
    if 'TRACED' in os.environ and not tracemalloc.is_tracing():
        tracemalloc.start()
    elif tracemalloc.is_tracing():
        snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(False, tracemalloc.__file__)])
        sites = {
            f'{statistic.traceback[0].filename}:{statistic.traceback[0].lineno}': statistic.size
            for statistic in snapshot.statistics('lineno')
            if statistic.size >= WORTH_A_LINE
        }
    return HttpResponse(
        json.dumps(
            {
                'sites': sites,
                'resident kB': int(re.search(r'VmRSS:\s+(\d+)', status).group(1)),
                'threads': threading.active_count(),
                'files': len(os.listdir('/proc/self/fd')),
            }
        )
    )


def __getattr__(name):
    if name == 'urlpatterns':
        from django.urls import re_path

        return [re_path(r'^holdings/$', holdings)]
    raise AttributeError(name)
