"""Tokens instead of sessions, in a server of each kind: the answer to a subprotocol, the end in time, and no token in a log."""

import time

import pytest
import websocket

from . import fleet
from .hall import CLASSIC, RUNSOCKETS
from .stack import ON_CHANNELS_1

pytestmark = pytest.mark.timed

TOKEN = 'a-token-that-nobody-may-read'

SITE = '''"""A site whose clients have tokens."""
from tests.live.soak_site import *  # noqa: F401,F403
from tests.live import stack
from tests.live.soak_site import CHANNEL_LAYERS

if stack.ON_CHANNELS_1:
    CHANNEL_LAYERS['default']['ROUTING'] = 'token_site.routing'
SOCKETS = {**stack.routed('token_site.routing'), 'AUTHENTICATION': ['token_site.by_token'], 'TOKEN_ORIGINS': ['https://app.example.org']}


def by_token(request):
    from datetime import timedelta

    from django.contrib.auth import get_user_model
    from django.core.exceptions import PermissionDenied
    from django.utils import timezone

    from sockets.authentication import token

    sent = token(request, parameter='token', subprotocol='bearer')
    if sent is None:
        return None
    if sent != 'a-token-that-nobody-may-read':
        raise PermissionDenied('Not known: ' + sent)
    seconds = float(request.GET.get('seconds', 3600))
    user, _ = get_user_model().objects.get_or_create(username='alice')
    return user, timezone.now() + timedelta(seconds=seconds)


def __getattr__(name):
    if name == 'routing':
        from sockets import RoutedSocketHandler
        from sockets.routing import route_class

        class Who(RoutedSocketHandler):
            def default_route(self, content):
                return {'type': 'WHO', 'user': self.user.get_username()}
        return [route_class(Who, path='^/who/$')]
    raise AttributeError(name)
'''


@pytest.mark.parametrize('shape', [RUNSOCKETS, CLASSIC])
def test_a_token_opens_a_connection_until_it_expires_and_is_in_no_log(tmp_path, database_url, redis, shape):
    (tmp_path / 'token_site.py').write_text(SITE)
    servers = fleet.Fleet(tmp_path, database_url, redis)
    servers.environment.update(DJANGO_SETTINGS_MODULE='token_site', PYTHONPATH=f'{tmp_path}:.')

    try:
        if shape == RUNSOCKETS:
            server = servers.runsockets()
        else:
            server = servers.daphne('-v', '2')
            if ON_CHANNELS_1:
                servers.worker()
        url = f'ws://127.0.0.1:{server.port}/who/'
        for offered in (['bearer', TOKEN], ['chat', 'bearer', TOKEN]):
            client = websocket.create_connection(
                url, subprotocols=offered, origin='https://app.example.org', timeout=10
            )
            assert client.getsubprotocol() == 'bearer'
            client.send('{"type": "WHO"}')
            assert '"alice"' in client.recv()
            client.close()
        # A browser shows a page why it was turned away only if its subprotocol is answered.
        client = websocket.create_connection(url, subprotocols=['bearer', 'another-token'], timeout=10)
        assert client.getsubprotocol() == 'bearer' and 'Not known: ***' in client.recv()
        opcode, frame = client.recv_data()
        assert (opcode, frame[:2]) == (8, (4401).to_bytes(2, 'big'))
        with pytest.raises(websocket.WebSocketBadStatusException):
            websocket.create_connection(url, subprotocols=['bearer', TOKEN], origin='https://else.example', timeout=10)
        client = websocket.create_connection(f'{url}?token={TOKEN}&seconds=3', timeout=10)
        began = time.monotonic()
        told = client.recv()
        assert 'expired' in told and 2 < time.monotonic() - began < 5
        opcode, frame = client.recv_data()
        assert (opcode, frame[:2]) == (8, (4401).to_bytes(2, 'big'))
        kept = servers.python('print([vars(row) for row in Socket.objects.all()])')
        assert TOKEN not in kept
    finally:
        servers.stop()
    for program in servers.programs:
        assert TOKEN not in program.log and 'another-token' not in program.log
