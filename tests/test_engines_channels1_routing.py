import pytest
from channels import channel_layers, include, route, route_class
from channels.message import Message

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


def test_a_frame_is_matched_without_a_copy_of_it_unless_an_include_takes_something_off_its_path(layer, monkeypatch):
    copied = []
    copy = Message.copy
    monkeypatch.setattr(Message, 'copy', lambda message: copied.append(message['path']) or copy(message))
    entries = [
        include([route_class(RoutedSocketHandler, path=r'^/(?P<room>\w+)/$')]),
        include([route_class(RoutedSocketHandler, path=r'^/(?P<room>\w+)/$')], path=r'^/(?P<site>\w+)(?=/)'),
    ]
    with sandbox(layer, entries):
        message = Message({'reply_channel': 'a!b', 'path': '/tea/'}, 'websocket.receive', channel_layers['default'])
        assert routing.consumer_of(message) == (RoutedSocketHandler, {'room': 'tea'})
        assert copied == []
        message = Message({'reply_channel': 'a!b', 'path': '/a/tea/'}, 'websocket.receive', channel_layers['default'])
        assert routing.consumer_of(message) == (RoutedSocketHandler, {'site': 'a', 'room': 'tea'})
        assert copied == ['/a/tea/'] and message['path'] == '/a/tea/'
