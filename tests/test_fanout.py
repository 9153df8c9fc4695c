import logging
import threading
import time

import pytest
from asgiref.inmemory import ChannelLayer
from channels import channel_layers

from sockets import fanout, signals
from sockets.exceptions import DeliveryFailed
from sockets.testing import sandbox

from .conftest import InMemoryChannelLayer

MESSAGE = {'text': '{}'}


@pytest.fixture
def small_layer(settings):
    """A layer whose mailboxes hold 3 messages, and that counts what it was asked to send."""

    class Layer(ChannelLayer):
        tries = 0

        def send(self, channel, message):
            self.tries += 1
            super().send(channel, message)

    settings.SOCKETS = {'SEND_TIMEOUT': 0.2}
    with sandbox(Layer(capacity=3)):
        yield channel_layers['default']


def test_a_full_mailbox_is_waited_for_and_nothing_is_lost(small_layer):
    received = []

    def read():
        while len(received) < 50:
            channel, message = small_layer.receive(['server!'])
            if channel:
                received.append(channel)
            time.sleep(0.002)

    reader = threading.Thread(target=read)
    reader.start()
    names = [f'server!{n}' for n in range(50)]
    assert fanout.send_many(names, MESSAGE) == 50
    reader.join()
    assert received == names


def test_a_slow_server_gets_everything_as_long_as_it_takes_something(small_layer):
    received = []

    def read():
        while len(received) < 8:
            time.sleep(0.1)
            received.append(small_layer.receive(['server!'])[0])

    reader = threading.Thread(target=read)
    reader.start()
    # 5 of them wait for 0.5 s in all, and no one for the 0.2 s that a server may take nothing.
    assert fanout.send_many([f'server!{n}' for n in range(8)], MESSAGE) == 8
    reader.join()


def test_messages_to_a_server_that_takes_nothing_are_dropped_and_logged_once(small_layer, caplog):
    def listen(servers, **kwargs):
        told.append(servers)

    told = []
    signals.messages_dropped.connect(listen)
    names = [f'dead!{n}' for n in range(10)] + ['alive!1', 'alive!2']
    started = time.monotonic()
    with caplog.at_level(logging.ERROR, 'sockets'):
        assert fanout.send_many(names, MESSAGE) == 3 + 2
    assert 0.2 <= time.monotonic() - started < 2
    (record,) = caplog.records
    assert '7 messages' in record.getMessage() and 'dead! (7)' in record.getMessage()
    assert 'alive' not in record.getMessage()
    assert told == [{'dead!': 7}]
    # A mailbox is asked once per pause, however many connections share it.
    assert small_layer.channel_layer.tries < 60


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


class Away(Exception):
    """What a layer raises when its Redis cannot be reached."""


def test_a_fan_out_that_cannot_reach_some_serves_the_others_and_says_how_many():
    class Sharded(ChannelLayer):
        def send_many(self, channel_names, message):
            asked.append(list(channel_names))
            error = Away('Redis is away')
            error.undelivered = [name for name in channel_names if name.startswith('far!')]
            error.refused = [name for name in channel_names if name.startswith('full!')]
            if error.undelivered:
                raise error
            return []

    asked = []
    with sandbox(Sharded()), pytest.raises(DeliveryFailed, match='3 of 5 connections.*Redis is away') as raised:
        fanout.send_many(['far!1', 'near!1', 'full!1', 'far!2', 'near!2'], MESSAGE)
    assert (raised.value.delivered, raised.value.total) == (3, 5)
    assert isinstance(raised.value.__cause__, Away)
    # Who is full is tried again, who cannot be reached is not.
    assert asked[1:] == [['full!1']]


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
