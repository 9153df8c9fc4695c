"""What crosses a process on Channels 4, on a channel layer that this package has never heard of."""

import asyncio
import collections
import queue

import pytest
from asgiref.sync import sync_to_async
from channels.layers import BaseChannelLayer
from channels.testing import WebsocketCommunicator

from sockets import RoutedSocketHandler
from sockets.engines.channels4 import delivery
from sockets.models import Socket

pytestmark = pytest.mark.django_db(transaction=True)


class Layer(BaseChannelLayer):
    """As a layer of somebody else may be, on whatever broker: it sends and receives, between threads, and has no groups."""

    extensions = ()

    def __init__(self, **options):
        super().__init__(**options)
        self.sent = []
        self._queues = collections.defaultdict(queue.SimpleQueue)

    async def send(self, channel, message):
        self.require_valid_channel_name(channel)
        self.sent.append(message)
        self._queues[channel].put(message)

    async def receive(self, channel):
        while True:
            try:
                return self._queues[channel].get_nowait()
            except queue.Empty:
                await asyncio.sleep(0.01)

    async def new_channel(self, prefix='specific.'):
        return prefix + 'x'


async def open_connection():
    client = WebsocketCommunicator(RoutedSocketHandler.as_asgi(), '/', [(b'host', b'example.com')])
    client.scope.update(client=['127.0.0.1', 1], server=['example.com', 80])
    assert (await client.connect(timeout=10))[0]
    return client


def test_a_fan_out_takes_any_channel_layer_and_is_one_message_for_a_server(settings, monkeypatch):
    settings.CHANNEL_LAYERS = {'default': {'BACKEND': f'{__name__}.Layer'}}
    # As from another process.
    monkeypatch.setattr(delivery, 'servers_here', list)

    async def talk():
        clients = [await open_connection() for _ in range(3)]
        layer = delivery.channel_layer()
        layer.sent.clear()
        count = await sync_to_async(Socket.objects.send_json, thread_sensitive=False)({'type': 'NEWS'})
        received = [await client.receive_json_from(timeout=10) for client in clients]
        sent = list(layer.sent)
        for client in clients:
            await client.disconnect(timeout=10)
        return count, received, len(sent)

    assert asyncio.run(talk()) == (3, [{'type': 'NEWS'}] * 3, 1)
