"""The site of ``soak_site``, whose functions and pages tell what they find in their thread and leave traces in it.

``FORCE_SCRIPT_NAME`` is that setting.
"""

import os

from tests.live import stack
from tests.live.soak_site import *  # noqa: F403
from tests.live.soak_site import CHANNEL_LAYERS, SOCKETS, note

if stack.ON_CHANNELS_1:
    CHANNEL_LAYERS['default']['ROUTING'] = 'tests.live.threads_site.routing'
SOCKETS.update(stack.routed('tests.live.threads_site.routing'))
ROOT_URLCONF = 'tests.live.threads_site'
FORCE_SCRIPT_NAME = os.environ.get('FORCE_SCRIPT_NAME')
INSTALLED_APPS = INSTALLED_APPS + ['django.contrib.staticfiles']  # noqa: F405


def look(request):
    """Return what is found in this thread, and about ``request``, and leave something else there."""
    from django.urls import reverse, set_script_prefix
    from django.utils import timezone, translation

    found = {
        'url': reverse('item', args=[7]),
        'language': translation.get_language(),
        'zone': timezone.get_current_timezone_name(),
        'secure': request.is_secure(),
        'script': request.META['SCRIPT_NAME'],
    }
    translation.activate('de')
    timezone.activate('Asia/Tokyo')
    set_script_prefix('/elsewhere/')
    return found


def item(request, number):
    from django.http import JsonResponse

    return JsonResponse(look(request))


def chat(request):
    from django.http import HttpResponse
    from django.templatetags.static import static

    # No page of sockets.js's: what is tried is the connection.
    return HttpResponse(
        '<!doctype html><title>chat</title><script type="module">'
        'import {{SocketRouter}} from "{}";'
        'const socket = new SocketRouter("/chat/");'
        'socket.route("SAID", content => document.title = content.text);'
        'window.chat = socket; document.title = "ready";</script>'.format(static('sockets/sockets.js'))
    )


def __getattr__(name):
    # Django imports this module as its settings before there are any apps, and as routing and URLs after that.
    if name == 'urlpatterns':
        from django.contrib.staticfiles.views import serve
        from django.urls import re_path

        return [
            re_path(r'^item/(\d+)/$', item, name='item'),
            re_path(r'^chat/$', chat),
            re_path(r'^static/(?P<path>.*)$', serve, {'insecure': True}),
        ]
    if name == 'routing':
        from sockets import RoutedSocketHandler, SocketRouter
        from sockets.models import Socket
        from sockets.routing import route_class

        router = SocketRouter()

        @router.connect
        def on_connect(socket):
            socket.send_action('OPENED', **look(socket.request))

        @router.route('LOOK')
        def on_look(socket):
            return dict(look(socket.request), type='SEEN')

        @router.route('LOOK_ASYNC')
        async def on_look_async(socket):
            return dict(look(socket.request), type='SEEN')

        @router.disconnect
        def on_disconnect(socket):
            found = look(socket.request)
            note('close', socket.socket.pk, found['url'], found['language'], found['zone'])

        class Chat(RoutedSocketHandler):
            routes = (*RoutedSocketHandler.routes, ('SAY', 'on_say'))

            def on_say(self, content):
                return {
                    'type': 'HEARD',
                    'by': Socket.objects.filter(path=self.path).send_action('SAID', text=content['text']),
                }

        return [route_class(router.Handler, path=r'^/look/$'), route_class(Chat, path=r'^/chat/$')]
    raise AttributeError(name)
