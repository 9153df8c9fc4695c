import re
import subprocess
import sys

import pytest

import sockets


def test_the_exported_names_are_the_documented_ones():
    assert sockets.__all__ == ['RoutedSocketHandler', 'SocketRouter', '__version__']
    for name in sockets.__all__:
        assert getattr(sockets, name)
    assert re.match(r'\d+\.\d+\.\d+$', sockets.__version__)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match='SocketRoutr'):
        sockets.SocketRoutr


def test_the_router_is_imported_without_settings_and_without_a_warning():
    subprocess.check_call([sys.executable, '-W', 'error', '-c', 'from sockets import SocketRouter'])


def test_a_view_with_a_router_is_defined_without_settings():
    subprocess.check_call(
        [
            sys.executable,
            '-W',
            'error',
            '-c',
            """
from sockets import SocketRouter
class Page:
    socket = SocketRouter()
    @socket.route('PING')
    def on_ping(socket): pass
""",
        ]
    )
