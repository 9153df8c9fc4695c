"""What Channels' workers and daphne have to do with the state of a thread."""

import functools
import threading
from types import SimpleNamespace

import pytest
from channels import channel_layers, route
from channels.message import Message
from channels.signals import consumer_finished, consumer_started
from channels.worker import Worker
from django.core.management import call_command
from django.http import HttpResponse
from django.urls import reverse

from sockets import presence, testing
from sockets.engines.channels1 import audit, channel_layer, page_consumers
from sockets.engines.channels1.sandbox import SERVER, Empty, UntilEmpty
from sockets.execution import thread_state
from sockets.models import Socket
from sockets.testing import SocketClient, sandbox

from .paths import re_path
from .test_thread_state import (  # noqa: F401, fixtures
    FRESH,
    TRACES,
    Database,
    leave_traces,
    look,
    nothing_is_left,
    nothing_seen,
    router,
    seen,
)
from .wire import REQUEST, Wire, frame

pytestmark = pytest.mark.django_db

urlpatterns = [re_path(r'^item/(\d+)/$', lambda request, number: HttpResponse(reverse('item', args=[7])), name='item')]


def test_a_consumer_of_the_projects_own_that_ends_a_connection_keeps_its_state_too():
    # It may be a page, in a worker.
    def consume(message):
        leave_traces()
        Socket.objects.revoke()
        seen.append(look())

    with sandbox(), SocketClient('/page/', handler=router.Handler):
        del seen[:]
        channel_layers['default'].router.add_route(route('jobs', consume))
        channel_layers['default'].send('jobs', {})
        testing.work()
        assert seen == [('disconnect', FRESH, ''), TRACES]


def test_everything_that_a_worker_does_begins_with_fresh_state():
    # Consumers of the project's own, and pages in the same worker.
    with sandbox():
        layer = channel_layers['default']
        layer.router.add_route(route('jobs', lambda message: seen.append(look()) or leave_traces()))
        for _ in range(2):
            layer.send('jobs', {})
        thread = threading.Thread(target=work, args=(layer,))
        thread.start()
        thread.join()
    assert seen == [FRESH, FRESH]


def work(layer):
    from channels.worker import Worker

    try:
        Worker(UntilEmpty(layer), signal_handlers=False).run()
    except Empty:
        pass


@pytest.mark.parametrize('root_path, expected', [('', None), ('/shop', '/shop')])
def test_daphne_says_the_root_path_of_connects_and_frames_if_there_is_one(root_path, expected):
    wire = Wire(root_path=root_path)
    wire.receive(REQUEST + b'\r\n')
    wire.reply(accept=True)
    wire.receive(frame(b'hello'))
    assert [channel for channel, _ in wire.layer.sent] == ['websocket.connect', 'websocket.receive']
    assert [message.get('root_path') for _, message in wire.layer.sent] == [expected, expected]


@pytest.mark.parametrize(
    'forced, root_path, found',
    [(None, '', ''), (None, '/shop', '/shop'), ('/forced', '', '/forced'), ('/forced', '/shop', '/forced')],
)
def test_a_page_has_the_script_name_that_is_forced_whatever_serves_it(settings, forced, root_path, found):
    # runserver tells daphne; a worker behind a daphne has to know by itself.
    settings.ROOT_URLCONF, settings.FORCE_SCRIPT_NAME = __name__, forced
    with sandbox():
        layer = channel_layers['default']
        page_consumers.PageConsumer()(
            Message(
                {
                    'reply_channel': 'daphne.response.test!page',
                    'method': 'GET',
                    'path': '/item/1/',
                    'root_path': root_path,
                    'headers': [[b'host', b'example.com']],
                    'query_string': b'',
                },
                'http.request',
                layer,
            )
        )
        channel, reply = layer.receive(['daphne.response.test!'])
    assert reply['content'] == found.encode() + b'/item/7/'


@pytest.fixture
def database(monkeypatch):
    database = Database()
    monkeypatch.setattr(thread_state, 'connections', SimpleNamespace(all=lambda: [database]))
    yield database
    database.near.close(), database.far.close()


def test_a_thread_looks_before_whatever_it_does_but_not_before_each_of_many_frames(database, monkeypatch):
    # Looked for after each consumer only, a session that the database had ended failed the first frame after a silence.
    clock = [1000.0]
    monkeypatch.setattr(thread_state, 'time', SimpleNamespace(monotonic=lambda: clock[0]))
    assert thread_state.begin in [receiver() for _, receiver in consumer_started.receivers]
    thread_state._thread.next_look = 0
    for seconds, looked in ((0, 1), (0.05, 1), (0.06, 2), (60, 3)):
        clock[0] += seconds
        consumer_started.send(sender=None, environ={})
        assert database.looked == looked


def test_background_threads_look_before_each_round(monkeypatch, capsys):
    looked, ours = [], threading.get_ident()

    def note(name):
        # Threads that other tests have started look as well.
        if threading.get_ident() == ours:
            looked.append(name)

    for name in ('begin', 'close_stale'):
        monkeypatch.setattr(thread_state, name, functools.partial(note, name))
    keeper = presence.Housekeeper()
    monkeypatch.setattr(presence, 'time', SimpleNamespace(sleep=lambda seconds: None, monotonic=lambda: 0))

    def look_once():
        looked.append('look')
        keeper.is_replaced = True

    keeper.look = look_once
    keeper.run()
    assert looked == ['begin', 'look']
    del looked[:]
    auditor = audit.Auditor(SimpleNamespace(send_channel=SERVER, reply_protocols={}))

    def look_twice(protocols):
        looked.append('look')
        if len(looked) > 3:
            raise SystemExit

    auditor.connections, auditor.look = dict, look_twice
    monkeypatch.setattr(audit, 'time', SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(channel_layer.Adapter, 'set_close_message', lambda self, message: None)
    with pytest.raises(SystemExit):
        auditor.run()
    assert looked == ['close_stale', 'look', 'close_stale', 'close_stale', 'look']
    del looked[:]
    call_command('sockets', 'purge')
    assert looked == ['close_stale']


# They have Channels close the database.
@pytest.mark.django_db(transaction=True)
def test_who_listens_to_the_signals_of_a_consumer_later_is_heard_and_may_leave():
    # Who receives them is not found out anew for each frame.
    signals, heard = (consumer_started, consumer_finished), []

    def note(signal, **kwargs):
        heard.append(signal)

    def handle():
        for signal in signals:
            signal.send(sender=Worker, environ={})

    handle()
    for signal in signals:
        assert signal.use_caching
        signal.connect(note)
    handle()
    assert heard == [consumer_started, consumer_finished]
    for signal in signals:
        signal.disconnect(note)
    handle()
    assert len(heard) == 2
