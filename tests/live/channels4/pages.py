"""A page, and its socket, which says what happens to it on stdout."""

import asyncio
import importlib
import os
import time

from django.http import HttpResponse
from django.urls import path
from django.views.generic import View

from sockets import SocketRouter
from sockets.exceptions import FrameError
from sockets.models import Socket

if os.environ.get('WATCHED'):
    # A module of the project that runserver watches.
    importlib.import_module(os.environ['WATCHED'])


def say(*what):
    print(*what, flush=True)


class Page(View):
    socket = SocketRouter()

    def get(self, request):
        time.sleep(float(request.GET.get('seconds', 0)))
        return HttpResponse('a page')

    @socket.connect
    def opened(socket):
        seconds = socket.scope['query_string'].decode().partition('connect=')[2]
        time.sleep(float(seconds or 0))
        say('OPENED', socket.channel_name)

    @socket.disconnect
    def left(socket, message):
        say('LEFT', socket.channel_name, message['code'])

    @socket.route('ECHO')
    def echo(socket, content):
        return content

    @socket.route('ECHO_ASYNC')
    async def echo_async(socket, content):
        return content

    @socket.route('WHO')
    def who(socket):
        return {'type': 'I_AM', 'pid': os.getpid(), 'name': socket.channel_name}

    @socket.route('SLEEP')
    def sleep(socket, content):
        time.sleep(content['seconds'])
        say('SLEPT', content.get('n'))
        return {'type': 'SLEPT', 'n': content.get('n')}

    @socket.route('SLEEP_ASYNC')
    async def sleep_async(socket, content):
        await asyncio.sleep(content['seconds'])
        say('SLEPT', content.get('n'))
        return {'type': 'SLEPT', 'n': content.get('n')}

    @socket.route('STUBBORN')
    async def stubborn(socket, content):
        deadline = time.monotonic() + content['seconds']
        while time.monotonic() < deadline:
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                say('NOT NOW')
        return {'type': 'SLEPT'}

    @socket.route('BLOCK')
    async def block(socket, content):
        time.sleep(content['seconds'])
        return {'type': 'SLEPT'}

    @socket.route('FLOOD')
    def flood(socket, content):
        text = 'x' * content['size']
        for _ in range(content['times']):
            socket.send_json({'type': 'FLOOD', 'text': text})
        return {'type': 'DONE'}

    @socket.route('CLOSE')
    def close(socket, content):
        socket.close(content['code'])

    @socket.route('ALL')
    def all(socket, content):
        return {'type': 'SENT', 'to': Socket.objects.all().send_json({'type': 'SAID', 'text': content.get('text')})}


urlpatterns = [path('page/', Page.as_view())]


class Picky(View):
    """Refuses whom it does not know, in a coroutine."""

    socket = SocketRouter()

    @socket.connect
    async def opened(socket):
        await asyncio.sleep(0)
        raise FrameError('not_allowed', 'Not you.')

    @socket.arrived
    def arrived(socket):
        say('ARRIVED')

    @socket.left
    def left(socket):
        say('LEFT')
