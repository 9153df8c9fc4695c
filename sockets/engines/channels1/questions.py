"""What a process asks the workers of others over the layer, and how it waits for the answer."""

import os
import socket
import time

from channels.routing import Route

from .channel_layer import adapted, channel_layer
from .delivery import send

# What a worker on a layer of several processes answers: ``manage.py sockets doctor`` asks.
DOCTOR = 'sockets.doctor'


def round_trip(seconds):
    """Send a message through the layer to ourselves; return whether it came back within ``seconds``."""
    layer = channel_layer()
    name = layer.new_channel(DOCTOR + '?')
    layer.send(name, {'n': 1})
    return _wait_for(layer, name, seconds) is not None


def ask_worker(channel, seconds, **question):
    """Send ``question`` to any worker that listens to ``channel``; return its answer, or ``None`` after ``seconds``."""
    layer = channel_layer()
    name = layer.new_channel(channel + '?')
    layer.send(channel, {'reply_channel': name, **question})
    return _wait_for(layer, name, seconds)


def has_other_workers():
    """Return whether workers of other processes handle the frames of the connections of this one."""
    return not adapted().is_served_locally()


def _wait_for(layer, name, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        channel, message = layer.receive([name])
        if channel is not None:
            return message
        time.sleep(0.001)


def answer_doctor(message):
    """What a worker does with a message of ``manage.py sockets doctor``: say who it is."""
    send(message.channel_layer, message.reply_channel.name, {'process': os.getpid(), 'host': socket.gethostname()})


def answer_on(layer, answers):
    """Have workers of ``layer`` answer: ``answers`` is a dict of channels and functions."""
    # Who could ask a worker that shares its layer with nobody?
    if not layer.local_only():
        for channel, function in answers.items():
            if channel not in layer.router.channels:
                layer.router.add_route(Route(channel, function))
