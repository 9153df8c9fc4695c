"""As a project's asgi.py is."""

import os

os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.live.channels4.site')

from sockets.asgi import get_application

application = get_application('tests.live.channels4.routing.channel_routing')
