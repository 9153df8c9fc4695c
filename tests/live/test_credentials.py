"""What a function finds of credentials in a frame, in a server of each kind."""

import asyncio

import pytest

from . import fleet
from .hall import CLASSIC, RUNSOCKETS
from .stack import ON_CHANNELS_1

pytestmark = pytest.mark.timed

SITE = '''"""A site whose functions look at the request that opened their connection."""
from tests.live.soak_site import *  # noqa: F401,F403
from tests.live import stack
from tests.live.soak_site import CHANNEL_LAYERS, SOCKETS

if stack.ON_CHANNELS_1:
    CHANNEL_LAYERS['default']['ROUTING'] = 'reading_site.routing'
SOCKETS.update(stack.routed('reading_site.routing'))


def __getattr__(name):
    if name == 'routing':
        from sockets import RoutedSocketHandler
        from sockets.routing import route_class

        class Reader(RoutedSocketHandler):
            def default_route(self, content):
                return {'type': 'READ', 'token': self.request.GET.get('token'), 'room': self.request.GET.get('room'),
                        'jwt': self.request.COOKIES.get('jwt')}
        return [route_class(Reader, path='^/read/$')]
    raise AttributeError(name)
'''


@pytest.mark.parametrize('shape', [RUNSOCKETS, CLASSIC])
def test_a_credential_is_in_no_row_and_found_where_the_process_holds_the_request(tmp_path, database_url, redis, shape):
    (tmp_path / 'reading_site.py').write_text(SITE)
    servers = fleet.Fleet(tmp_path, database_url, redis)
    servers.environment.update(DJANGO_SETTINGS_MODULE='reading_site', PYTHONPATH=str(tmp_path))

    # On Channels 4, daphne runs the handlers.
    holds_request = shape == RUNSOCKETS or not ON_CHANNELS_1

    async def scenario():
        server = servers.runsockets() if shape == RUNSOCKETS else servers.daphne()
        if not holds_request:
            # The one that handles the connect is not the one that handles the frames.
            servers.worker('--only-channels', 'websocket.connect')
            frames = servers.worker('--exclude-channels', 'websocket.connect')
        connection = await fleet.Connection.open(
            server.port, '/read/?token=s3cr3t&room=tea', cookie='jwt=s3cr3t; theme=dark'
        )
        for _ in range(2):
            secret = 's3cr3t' if holds_request else None
            assert await connection.ask({'type': 'READ'}) == {
                'type': 'READ',
                'token': secret,
                'room': 'tea',
                'jwt': secret,
            }
        kept = servers.python('print(Socket.objects.get().handshake)')
        assert 's3cr3t' not in kept and 'theme=dark' in kept
        if not holds_request:
            frames.wait_for_log("request.GET['token'] is not there")
            assert frames.log.count("request.GET['token'] is not there") == 1
        await connection.close()

    try:
        asyncio.run(scenario())
    finally:
        servers.stop()
