import pytest
from asgiref.inmemory import ChannelLayer

from sockets.engines.channels1 import delivery
from sockets.exceptions import MailboxFull

MESSAGE = {'text': '{}'}


def test_one_message_to_a_server_that_takes_nothing_is_an_error_with_its_name(settings):
    settings.SOCKETS = {'SEND_TIMEOUT': 0.2}
    layer = ChannelLayer(capacity=3)
    for _ in range(3):
        delivery.send(layer, 'dead!1', MESSAGE)
    with pytest.raises(MailboxFull, match='dead! has taken no message for 0.2 s'):
        delivery.send(layer, 'dead!1', MESSAGE)


def test_the_last_message_of_a_frame_is_left_to_a_layer_that_can_send_it_later(caplog):
    class Patient(ChannelLayer):
        def send_later(self, channel, message, on_failure):
            later.append((channel, message, on_failure))

    later = []
    layer = Patient()
    delivery.send_last(layer, 'a!1', MESSAGE)
    ((channel, message, on_failure),) = later
    assert (channel, message) == ('a!1', MESSAGE) and layer.receive_many(['a!']) == (None, None)
    # It was full, and may have room now.
    on_failure(layer.ChannelFull(channel))
    assert layer.receive_many(['a!']) == ('a!1', MESSAGE)
    assert not caplog.records
    on_failure(OSError('all is lost'))
    assert 'The answer to a frame of a!1 was lost' in caplog.text and 'all is lost' in caplog.text


def test_the_last_message_of_a_frame_is_sent_at_once_by_any_other_layer():
    layer = ChannelLayer()
    delivery.send_last(layer, 'a!1', MESSAGE)
    assert layer.receive_many(['a!']) == ('a!1', MESSAGE)
