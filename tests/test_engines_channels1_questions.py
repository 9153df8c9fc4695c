import os

from channels import channel_layers

from sockets.engines.channels1 import questions, routing
from sockets.testing import work


def test_a_worker_says_who_it_is_unless_its_layer_reaches_nobody_else(layer):
    layer.send(questions.DOCTOR, {'reply_channel': 'sockets.doctor?x'})
    work()
    channel, message = layer.receive(['sockets.doctor?x'])
    assert (message is None) == channel_layers['default'].local_only()
    assert message is None or message['process'] == os.getpid()
    assert [entry.consumer for entry in routing.routed('default')].count(questions.answer_doctor) == (
        message is not None
    )
