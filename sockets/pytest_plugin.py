"""The fixture of ``sockets.testing``, which pytest finds by itself. Imported in any project, before its settings."""

import pytest


@pytest.fixture
def socket_client(db):
    """``SocketClient`` of ``sockets.testing``, connected: call it with a path and the same options."""
    from .testing import SocketClient, sandbox

    def connect(*args, **kwargs):
        return SocketClient(*args, **kwargs).connect()

    with sandbox():
        yield connect
