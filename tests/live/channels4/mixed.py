"""As a project's asgi.py is that has consumers of Channels, too. There is no lifespan."""

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import re_path

# It loads the apps.
from .asgi import application as pages
from .pages import Page


class Echo(AsyncWebsocketConsumer):
    """A consumer of somebody else's."""

    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data)


routes = [re_path(r'^live/$', Page.socket.Handler.as_asgi()), re_path(r'^echo/$', Echo.as_asgi())]
application = ProtocolTypeRouter({'http': pages, 'websocket': URLRouter(routes)})
