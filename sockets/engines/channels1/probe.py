"""What ``manage.py sockets doctor`` finds out about the channel layer and its workers."""

import time

from ... import engine
from ...operations.findings import Finding, milliseconds
from .channel_layer import channel_layer
from .questions import DOCTOR, ask_worker, round_trip


def examine_layer(patience):
    """Send a message through the layer and receive it."""
    # The first time, it connects.
    for _ in range(2):
        began = time.perf_counter()
        if not round_trip(patience / 2):
            return [Finding('layer', False, 'It takes messages and gives none back.')]
    text = f'{type(channel_layer().channel_layer).__name__} answers in {milliseconds(began)}.'
    for info in _redis_info():
        text += ' Redis {}.'.format(info['redis_version'])
        if info.get('maxmemory') and info.get('maxmemory_policy') != 'noeviction':
            return [
                Finding(
                    'layer',
                    False,
                    text + ' When it is full, it throws messages away ({}).'.format(info['maxmemory_policy']),
                    'Type: redis-cli config set maxmemory-policy noeviction',
                )
            ]
    return [Finding('layer', True, text)]


def examine_workers(patience):
    """Send a message to whichever worker takes it, and wait for its answer."""
    if engine.current().is_local():
        return [Finding('worker', None, 'Nobody to ask: an in-memory layer reaches its own process only.')]
    began = time.perf_counter()
    answer = ask_worker(DOCTOR, patience)
    if answer is None:
        return [
            Finding(
                'worker',
                False,
                f'None answered within {patience} s.',
                'Type: python manage.py runsockets, or runworker beside daphne. '
                f'One with --only-channels needs {DOCTOR}, too.',
            )
        ]
    return [
        Finding(
            'worker',
            True,
            'Process {} on {} answers in {}.'.format(answer['process'], answer['host'], milliseconds(began)),
        )
    ]


def _redis_info():
    """Return what each Redis behind the layer says of itself (``INFO``); an empty list if there is none."""
    layer = channel_layer()
    return [layer.connection(index).info() for index in range(getattr(layer, 'ring_size', 0))]
