"""The consumers of Channels 4."""
import django

django.setup()

from channels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

NEWS = {'type': 'NEWS', 'text': 'x' * 100}


class Sync(JsonWebsocketConsumer):
    def receive_json(self, content):
        self.send_json(content)


class Async(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content):
        await self.send_json(content)


class Grouped(AsyncJsonWebsocketConsumer):
    groups = ['everyone']

    async def receive_json(self, content):
        await self.channel_layer.group_send('everyone', {'type': 'news', 'content': dict(NEWS, n=content['n'])})

    async def news(self, event):
        await self.send_json(event['content'])


application = ProtocolTypeRouter({'websocket': URLRouter([
    path('sync/', Sync.as_asgi()),
    path('async/', Async.as_asgi()),
    path('grouped/', Grouped.as_asgi()),
])})
