"""One message to many connections, over layers of Channels 1."""

import threading
import time

import pytest
from asgiref.inmemory import ChannelLayer

from sockets import fanout, signals
from sockets.exceptions import DeliveryFailed
from sockets.layers import InMemoryChannelLayer
from sockets.testing import sandbox

MESSAGE = {'text': '{}'}


class Away(Exception):
    """What a layer raises when its Redis cannot be reached."""


@pytest.fixture
def small_layer(settings):
    """A layer whose mailboxes hold 3 messages, and that counts what it was asked to send."""

    class Layer(ChannelLayer):
        tries = 0

        def send(self, channel, message):
            self.tries += 1
            super().send(channel, message)

    settings.SOCKETS = {'SEND_TIMEOUT': 0.2}
    layer = Layer(capacity=3)
    with sandbox(layer):
        yield layer


def test_a_full_mailbox_is_asked_once_per_pause_however_many_connections_share_it(small_layer):
    names = [f'dead!{n}' for n in range(10)] + ['alive!1', 'alive!2']
    assert fanout.send_many(names, MESSAGE) == 3 + 2
    assert small_layer.tries < 60


def test_a_layer_that_can_send_to_many_is_asked_to(settings):
    class Batching(ChannelLayer):
        def send_many(self, channel_names, message):
            asked.append(list(channel_names))
            return channel_names[2:]

    asked = []
    with sandbox(Batching()):
        assert fanout.send_many(['a!1', 'a!2', 'b!1', 'b!2', 'b!3'], MESSAGE) == 5
    # What was refused, and only that, is tried again.
    assert asked == [['a!1', 'a!2', 'b!1', 'b!2', 'b!3'], ['b!1', 'b!2', 'b!3'], ['b!3']]


def test_a_fan_out_on_any_other_layer_serves_those_it_can_before_it_fails():
    class Partly(ChannelLayer):
        def send(self, channel, message):
            tried.append(channel)
            if channel.startswith('far!'):
                raise Away('Redis is away')
            super().send(channel, message)

    tried = []
    layer = Partly()
    with sandbox(layer):
        with pytest.raises(DeliveryFailed, match='1 of 3 connections'):
            fanout.send_many(['far!1', 'far!2', 'near!1'], MESSAGE)
        assert tried == ['far!1', 'near!1'] and layer.receive(['near!']) == ('near!1', MESSAGE)
        with pytest.raises(AssertionError):
            fanout.send_many(['near!1'], 'no message')


def test_expired_messages_are_announced_as_dropped():
    told, heard = [], threading.Event()

    def listen(servers, **kwargs):
        told.append(servers)
        heard.set()

    signals.messages_dropped.connect(listen)
    layer = InMemoryChannelLayer(expiry=0.05)
    layer.send('server!1', MESSAGE), layer.send('server!2', MESSAGE), layer.send('background', {})
    time.sleep(0.1)
    assert layer.receive(['server!', 'background']) == (None, None)
    assert heard.wait(5)
    assert told == [{'server!': 2, 'background': 1}]
    assert layer.statistics()['dropped'] == told[0]
