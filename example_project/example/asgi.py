"""What servers serve: ``daphne example.asgi:channel_layer`` on Channels 1, ``daphne example.asgi:application`` on Channels 4."""

import os

os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'example.settings')

from example.settings import CHANNELS

if CHANNELS == '1':
    from channels.asgi import get_channel_layer

    channel_layer = get_channel_layer()
else:
    from sockets.asgi import get_application

    application = get_application('example.routing.channel_routing')
