"""The consumers of Channels 4, our handlers beside them, and a loop with nothing around it."""

import asyncio
import json
import sys

import django

django.setup()

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.db import database_sync_to_async  # noqa: E402
from channels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

from benchmarks.channels4 import handlers  # noqa: E402

NEWS = {'type': 'NEWS', 'text': 'x' * 100}


class Sync(JsonWebsocketConsumer):
    def receive_json(self, content):
        self.send_json(content)


class SyncUser(JsonWebsocketConsumer):
    def receive_json(self, content):
        if not self.scope['user'].is_authenticated:
            self.close()
            return
        self.send_json(content)


class SyncPermission(JsonWebsocketConsumer):
    def receive_json(self, content):
        if not self.scope['user'].has_perm('auth.change_user'):
            self.close()
            return
        self.send_json(content)


class Async(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content):
        await self.send_json(content)


class AsyncUser(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content):
        if not self.scope['user'].is_authenticated:
            await self.close()
            return
        await self.send_json(content)


class AsyncPermission(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content):
        if not await database_sync_to_async(self.scope['user'].has_perm)('auth.change_user'):
            await self.close()
            return
        await self.send_json(content)


class AsyncPermissionOfDjango5(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content):
        if not await self.scope['user'].ahas_perm('auth.change_user'):
            await self.close()
            return
        await self.send_json(content)


class Grouped(AsyncJsonWebsocketConsumer):
    groups = ['everyone']

    async def receive_json(self, content):
        await self.channel_layer.group_send('everyone', {'type': 'news', 'content': dict(NEWS, n=content['n'])})

    async def news(self, event):
        await self.send_json(event['content'])


class GroupedUser(AsyncUser):
    groups = ['everyone']


async def bare(scope, receive, send):
    """Echo JSON: what a server leaves to its applications."""
    await receive()
    await send({'type': 'websocket.accept'})
    while True:
        event = await receive()
        if event['type'] == 'websocket.disconnect':
            return
        await send({'type': 'websocket.send', 'text': json.dumps(json.loads(event['text']))})


async def used(scope, receive, send):
    """Answer any request with what this server runs on: a uvicorn that is slower than people's is not measured."""
    loop = type(asyncio.get_running_loop())
    body = json.dumps(
        {
            'loop': f'{loop.__module__}.{loop.__qualname__}',
            # uvicorn's own send() is a method of what parses HTTP.
            'http': type(getattr(send, '__self__', None)).__module__,
            'websockets': sorted(name for name in sys.modules if name.startswith('uvicorn.protocols.websockets.')),
        }
    )
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-type', b'application/json')]})
    await send({'type': 'http.response.body', 'body': body.encode()})


application = ProtocolTypeRouter(
    {
        'http': used,
        'websocket': URLRouter(
            [
                path('sync/', Sync.as_asgi()),
                path('sync/user/', AuthMiddlewareStack(SyncUser.as_asgi())),
                path('sync/permission/', AuthMiddlewareStack(SyncPermission.as_asgi())),
                path('async/', Async.as_asgi()),
                path('async/user/', AuthMiddlewareStack(AsyncUser.as_asgi())),
                path('async/permission/', AuthMiddlewareStack(AsyncPermission.as_asgi())),
                path('async/ahas_perm/', AuthMiddlewareStack(AsyncPermissionOfDjango5.as_asgi())),
                path('grouped/', Grouped.as_asgi()),
                path('grouped/user/', AuthMiddlewareStack(GroupedUser.as_asgi())),
                path('bare/', bare),
                *(path(name, handler.as_asgi()) for name, handler in handlers.paths.items()),
            ]
        ),
    }
)
