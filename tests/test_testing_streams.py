"""A client of the test kit that goes away, comes back and has what it has missed of its streams."""

import pytest

from sockets import RoutedSocketHandler
from sockets.models import StreamHead
from sockets.multiplexing import SocketDemultiplexer
from sockets.streams import Stream, replays
from sockets.testing import SocketClient, sandbox

pytestmark = pytest.mark.django_db


class Room(RoutedSocketHandler):
    names, last, greeting = ('tea',), None, None

    def connect(self, message, **kwargs):
        super().connect(message, **kwargs)
        for name in self.names:
            self.follow(name, last=self.last)
        if self.greeting:
            say('tea', self.greeting)


def say(name, *texts):
    for text in texts:
        Stream(name).send_action('SAID', text=text)


def texts(client):
    """Take what was received, and return what of it is of streams."""
    contents = [content.get('payload', content) for content in client.received()]
    return [content['text'] for content in contents if 'kept' in content]


def client_of(**attributes):
    return SocketClient('/room/', handler=type('OwnRoom', (Room,), attributes))


@pytest.mark.parametrize('before', [(), ('a',), ('a', 'b')])
def test_who_comes_back_has_what_was_sent_meanwhile_once_and_in_order(before):
    with client_of() as client:
        say('tea', *before)
        assert texts(client) == list(before)
        for time in range(3):
            with client.away():
                say('tea', f'c{time}', f'd{time}')
                assert client.close_code == 1006
            say('tea', f'e{time}')
            assert texts(client) == [f'c{time}', f'd{time}', f'e{time}']
        with client.away():
            pass
        assert texts(client) == [] == client.lost


def test_what_was_not_taken_before_is_there_once():
    with client_of() as client:
        say('tea', 'a')
        with client.away():
            say('tea', 'b')
        client.resume()
        assert texts(client) == ['a', 'b']


def test_what_is_sent_on_connect_comes_after_what_was_missed():
    with client_of(greeting='hello') as client:
        with client.away():
            say('tea', 'a', 'b')
        say('tea', 'c')
        assert texts(client) == ['hello', 'a', 'b', 'hello', 'c']


def test_many_messages_of_several_streams_come_in_parts(monkeypatch):
    monkeypatch.setattr(replays, 'MAX_MESSAGES', 3)
    with client_of(names=('tea', 'milk')) as client:
        with client.away():
            say('tea', *'abcdefgh')
            say('milk', *'ABCDE')
        received = texts(client)
    assert [text for text in received if text.islower()] == list('abcdefgh')
    assert [text for text in received if text.isupper()] == list('ABCDE')


def test_a_first_visit_begins_where_the_server_says():
    with sandbox():
        say('tea', *'abcde')
        client = client_of(last=2).connect()
        assert texts(client) == []
        client.resume()
        assert texts(client) == ['d', 'e']


def test_what_is_not_kept_any_more_is_lost_and_it_goes_on():
    with client_of() as client:
        say('tea', 'a')
        with client.away():
            say('tea', 'b', 'c')
            Stream('tea').clear()
        say('tea', 'd')
        assert (texts(client), client.lost) == (['a', 'd'], ['tea'])
        with client.away():
            say('tea', 'e')
        assert (texts(client), client.lost) == (['e'], [])


def test_another_epoch_is_lost():
    with client_of() as client:
        say('tea', 'a')
        with client.away():
            StreamHead.objects.update(epoch='other')
        assert client.lost == ['tea']


def test_streams_of_a_demultiplexer_come_in_their_envelopes():
    class Whole(SocketDemultiplexer):
        streams = {'chat': Room, 'game': Room}

    with SocketClient('/room/', handler=Whole) as client:
        with client.away():
            say('tea', 'a')
        received = [content for content in client.received() if 'kept' in content['payload']]
        assert [(content['stream'], content['payload']['text']) for content in received] == [
            ('chat', 'a'),
            ('game', 'a'),
        ]


@pytest.mark.parametrize(
    'content', [{'stream': 'a', 'payload': {'type': 'X'}}, {'stream': 'a', 'payload': {}, 'ref': 1}]
)
def test_a_message_that_looks_like_an_envelope_is_one_of_its_stream(content):
    with client_of() as client:
        Stream('tea').send_json(content)
        with client.away():
            Stream('tea').send_json(content)
        assert [got['kept']['offset'] for got in client.received() if 'kept' in got] == [1, 2]


def test_who_calls_away_without_a_block_is_away_until_it_connects():
    # Nothing happened, and the test went on as if.
    with client_of() as client:
        say('tea', 'a')
        client.away()
        assert client.close_code == 1006
        say('tea', 'b')
        client.connect()
        client.resume()
        assert texts(client) == ['a', 'b']


@pytest.mark.parametrize('method', ['away', 'resume'])
def test_who_was_never_connected_is_told_to_connect(method):
    with sandbox(), pytest.raises(RuntimeError, match='call its connect\\(\\) first'):
        getattr(SocketClient('/room/', handler=Room), method)()


def test_who_is_not_let_in_again_has_nothing():
    class Closing(Room):
        is_open = True

        def connect(self, message, **kwargs):
            if self.is_open:
                super().connect(message, **kwargs)
            else:
                self.close()

    with SocketClient('/room/', handler=Closing) as client:
        with client.away():
            say('tea', 'a')
            Closing.is_open = False
        assert texts(client) == []


def test_a_failure_while_it_is_away_is_the_failure_of_the_test():
    with pytest.raises(ZeroDivisionError), client_of() as client, client.away():
        1 / 0


def test_an_answer_without_the_stream_fails_the_test():
    class Own(Room):
        routes = (('RESUME', lambda socket, content: {'type': 'MINE'}),)

    with SocketClient('/room/', handler=Own) as client:
        with pytest.raises(AssertionError, match="nothing of the stream 'tea'"), client.away():
            say('tea', 'b')
