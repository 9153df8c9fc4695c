"""What a project's own tests need: a client that behaves as a browser, and a sandbox in which its frames are handled.

The engine plays the server (``sandbox()`` of its package); nothing else in here knows which engine that is.
"""

from .assertions import assert_not_received, assert_received
from .cases import SocketTestMixin
from .client import SocketClient
from .commits import run_on_commit
from .isolation import sandbox, work
from .sends import capture_sends

__all__ = [
    'SocketClient',
    'SocketTestMixin',
    'assert_not_received',
    'assert_received',
    'capture_sends',
    'run_on_commit',
    'sandbox',
    'work',
]
