"""Who a connection is on Channels 4: coroutines on the loop, ``scope['user']``, the subprotocol in the accept."""

import asyncio
import logging
import threading

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.test import Client
from django.utils.functional import SimpleLazyObject

from sockets import RoutedSocketHandler
from sockets.authentication import token
from sockets.models import Socket

pytestmark = pytest.mark.django_db(transaction=True)


async def by_name(request):
    """The token is the name of the user."""
    sent = token(request, parameter='token', subprotocol='bearer')
    if sent is None:
        return None
    # A client of an event loop belongs to this one.
    assert threading.current_thread() is threading.main_thread()
    await asyncio.sleep(0)
    if sent == 'broken':
        raise RuntimeError('broken')
    user = await sync_to_async(get_user_model().objects.filter(username=sent).first)()
    if user is None:
        raise PermissionDenied('This token is not known.')
    return user


class Who(RoutedSocketHandler):
    authentication = [by_name]

    def default_route(self, content):
        return {'type': 'WHO', 'user': self.user.get_username()}


async def talk(path='/', subprotocols=(), headers=(), **scope):
    """Return what a connect is answered, and what is sent after that."""
    offered = [(b'sec-websocket-protocol', ', '.join(subprotocols).encode())] if subprotocols else []
    client = WebsocketCommunicator(
        Who.as_asgi(), path, [(b'host', b'example.com'), *offered, *headers], list(subprotocols)
    )
    client.scope.update(client=['127.0.0.1', 1], server=['example.com', 80], **scope)
    answer = await client.connect(timeout=10)
    sent, row = [], None
    if answer[0]:
        await client.send_json_to({'type': 'X'})
        sent = [await client.receive_output(timeout=10)]
        row = await sync_to_async(Socket.objects.order_by('-pk').first)()
        if row is None:
            sent.append(await client.receive_output(timeout=10))
        else:
            await client.disconnect(timeout=10)
    return answer, sent, row


def run(*args, **kwargs):
    return asyncio.run(talk(*args, **kwargs))


def test_a_coroutine_runs_on_the_loop_and_the_accept_names_the_subprotocol(alice):
    for path, offered, chosen in (('/?token=alice', (), None), ('/', ('bearer', 'alice'), 'bearer')):
        answer, (sent,), row = run(path, offered)
        assert answer == (True, chosen) and '"alice"' in sent['text']
        assert row.authentication == f'{__name__}.by_name' and row.session_id is None


def test_who_is_refused_by_a_coroutine_is_told_so_with_the_subprotocol():
    answer, (told, close), _ = run(subprotocols=('bearer', 'nobody'))
    assert answer == (True, 'bearer') and 'This token is not known.' in told['text'] and close['code'] == 4401


def test_a_fault_of_a_coroutine_is_logged_and_refused(caplog):
    assert run('/?token=broken')[0][0] is False
    assert 'by_name' in caplog.text and 'RuntimeError' in caplog.text


def test_the_user_of_a_middleware_counts_unless_it_is_of_the_session(alice, settings):
    answer, (sent,), row = run(user=SimpleLazyObject(lambda: alice))
    assert '"alice"' in sent['text'] and row.authentication == 'middleware'
    # As AuthMiddlewareStack does: a logout ends it.
    browser = Client()
    browser.force_login(alice)
    cookie = f'{settings.SESSION_COOKIE_NAME}={browser.session.session_key}'.encode()
    answer, (sent,), row = run(headers=[(b'cookie', cookie)], user=alice)
    assert '"alice"' in sent['text'] and row.authentication is None
    assert row.session_id == browser.session.session_key


def test_uvicorn_logs_no_token_of_a_query(caplog):
    caplog.set_level(logging.INFO)
    log = logging.getLogger('uvicorn.error')
    # As uvicorn.protocols.websockets does.
    log.info('%s - "WebSocket %s" [accepted]', '127.0.0.1:50000', '/page/?token=s3cr3t&room=tea')
    log.info('%s - "WebSocket %s" %d', '127.0.0.1:50000', '/page/?access%5Ftoken=s3cr3t', 403)
    log.info('No arguments?')
    log.info('%(one)s?', {'one': 1})
    assert [record.getMessage() for record in caplog.records] == [
        '127.0.0.1:50000 - "WebSocket /page/?room=tea" [accepted]',
        '127.0.0.1:50000 - "WebSocket /page/?" 403',
        'No arguments?',
        '1?',
    ]
