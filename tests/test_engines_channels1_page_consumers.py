import threading

import pytest
from channels import channel_layers
from channels.handler import ViewConsumer
from channels.message import Message
from channels.worker import Worker
from django.conf.urls import url
from django.http import HttpResponse, StreamingHttpResponse

from sockets.engines.channels1 import page_consumers
from sockets.engines.channels1.page_consumers import PageConsumer, StaticFilesPageConsumer
from sockets.layers import InMemoryChannelLayer

# A page looks after the connections to the database, of which an earlier test may have left one.
pytestmark = pytest.mark.django_db

SERVER = 'daphne.response.elsewhere!'
closed = []


def parts(count, raises=None):
    try:
        for n in range(count):
            if n == raises:
                raise KeyError('as told')
            yield b'%d' % n * 1024
    finally:
        closed.append('generator')


class Response(StreamingHttpResponse):
    def close(self):
        super().close()
        closed.append('response')


urlpatterns = [
    url(r'^whole/$', lambda request: HttpResponse(b'whole')),
    url(r'^stream/(\d+)/$', lambda request, count: Response(parts(int(count)))),
    url(r'^broken/(\d+)/$', lambda request, raises: Response(parts(9, int(raises)))),
]


@pytest.fixture
def layer(settings):
    settings.ROOT_URLCONF = __name__
    del closed[:]
    return InMemoryChannelLayer(capacity=10000, expiry=1)


def serve(layer, path, method='GET'):
    PageConsumer()(
        Message(
            {
                'reply_channel': SERVER + 'page',
                'path': path,
                'method': method,
                'headers': [(b'host', b'example.com')],
                'body': b'',
            },
            'http.request',
            layer,
        )
    )


def sent(layer):
    found = []
    while True:
        channel, message = layer.receive([SERVER])
        if channel is None:
            return found
        found.append(message)


class Answers:
    """A server that answers what it is asked; the client of its page leaves after ``stays`` questions."""

    def __init__(self, layer, stays=10**6):
        self.layer, self.stays, self.found, self.is_over = layer, stays, [], False

    def __enter__(self):
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *args):
        self.is_over = True
        self.thread.join(5)
        self.found += sent(self.layer)

    def run(self):
        while not self.is_over:
            for message in sent(self.layer):
                self.found.append(message)
                if 'answer_to' in message:
                    self.stays -= 1
                    self.layer.send(message['answer_to'], {'is_there': self.stays >= 0})


def test_a_page_is_numbered_and_asks_nothing(layer):
    serve(layer, '/whole/')
    (first,) = sent(layer)
    assert (first['status'], first['content'], first['more_content'], first['order']) == (200, b'whole', False, 0)
    serve(layer, '/stream/3/')
    assert [message['order'] for message in sent(layer)] == [0, 1, 2, 3]
    assert closed == ['generator', 'response']


def test_a_long_page_is_no_further_ahead_than_its_server_answers(layer):
    with Answers(layer) as answers:
        serve(layer, '/stream/1000/')
    assert len(answers.found) == 1001
    asked = [message['order'] for message in answers.found if 'answer_to' in message]
    assert asked[:2] == [page_consumers.UNANSWERED - 1, 2 * page_consumers.UNANSWERED - 1]


def test_a_page_whose_client_has_left_ends_with_its_generator_closed(layer):
    with Answers(layer, stays=1) as answers:
        serve(layer, '/stream/100000/')
    assert len(answers.found) == 2 * page_consumers.UNANSWERED
    assert closed == ['generator', 'response']


def test_a_page_whose_server_is_dead_ends(layer):
    # It went on for ever.
    serve(layer, '/stream/100000/')
    assert closed == ['generator', 'response']


def test_a_page_whose_server_takes_nothing_ends(settings):
    settings.ROOT_URLCONF = __name__
    del closed[:]

    class FullLayer(InMemoryChannelLayer):
        def send(self, channel, message):
            raise self.ChannelFull(channel)

    serve(FullLayer(expiry=0.2), '/stream/9/')
    assert closed == ['generator', 'response']


def test_a_view_that_fails_half_way_says_so(layer):
    # The client waited for the rest.
    with pytest.raises(KeyError):
        serve(layer, '/broken/3/')
    *_, last = sent(layer)
    assert last == {'order': 3, 'broken': True}
    assert closed == ['generator', 'response']


def test_a_view_that_fails_before_it_has_said_anything_is_a_500(layer):
    # It was a 503 two minutes later.
    with pytest.raises(KeyError):
        serve(layer, '/broken/0/')
    (only,) = sent(layer)
    assert only['status'] == 500 and b'as told' not in only['content']


@pytest.mark.parametrize('path', ['/whole/', '/stream/100000/'])
def test_a_head_runs_no_further_than_its_headers(layer, path):
    serve(layer, path, 'HEAD')
    (only,) = sent(layer)
    assert (only['status'], only['content'], only['more_content']) == (200, b'', False)
    assert closed in ([], ['generator', 'response'])


def test_a_worker_serves_pages_this_way_unless_its_routing_has_a_consumer_of_its_own():
    class Own(ViewConsumer):
        pass

    router = channel_layers['default'].router
    before = list(router.root.routing)
    try:
        for consumer, kind in (
            (None, PageConsumer),
            (page_consumers.StaticFilesConsumer(), StaticFilesPageConsumer),
            (Own(), Own),
        ):
            del router.root.routing[:]
            router.check_default(http_consumer=consumer)
            Worker(channel_layers['default'], signal_handlers=False).ready()
            assert type(router.root.routing[0].consumer) is kind
    finally:
        router.root.routing[:] = before
