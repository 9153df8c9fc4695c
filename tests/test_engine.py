from sockets import engine


def test_a_server_prefix_is_what_its_channels_share():
    assert engine.server_of('daphne.response.X!y') == 'daphne.response.X!'
    assert engine.server_of('websocket.connect') == 'websocket.connect'
