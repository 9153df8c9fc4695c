import pytest
from channels import channel_layers, include, route, route_class

from sockets import RoutedSocketHandler
from sockets.engines.channels1 import routing
from sockets.testing import sandbox

from .client import Connection


@pytest.mark.django_db
def test_a_path_whose_frames_are_routed_is_accepted_as_channels_would(layer):
    def receive(message):
        message.reply_channel.send({'text': '"plain channels"'})

    channel_layers['default'].router.root.routing.insert(0, route('websocket.receive', receive, path='^/plain/'))
    plain = Connection('/plain/')
    assert plain.messages() == [{'accept': True}]
    assert plain.send({'x': 1}) == ['plain channels']
    assert Connection('/nowhere/').messages() == [{'close': True}]


def test_the_routing_is_walked_with_its_url_arguments(layer):
    with sandbox(
        layer,
        [
            include([route_class(RoutedSocketHandler, path=r'^(?P<room>\w+)/$')], path=r'^/(?P<site>\w+)/'),
            route('http.request', len),
        ],
    ):
        room, page = routing.routed('default')[:2]
    assert (room.consumer, page.consumer, page.channels) == (RoutedSocketHandler, len, {'http.request'})
    assert [regexes['path'].pattern for regexes in room.conditions] == [r'^/(?P<site>\w+)/', r'^(?P<room>\w+)/$']
    assert page.conditions == ({},)
