import os

os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.live.site')

from .stack import ON_CHANNELS_1

if ON_CHANNELS_1:
    from channels.asgi import get_channel_layer

    channel_layer = get_channel_layer()
else:
    from django.conf import settings

    from sockets.asgi import get_application

    application = get_application(settings.SOCKETS['ROUTING'])
