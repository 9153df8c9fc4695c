"""The tables: who is connected, which rooms they are in, whose ends are still to be handled, which servers live, and what
streams keep.
"""

from .base import BaseModel
from .connections import Socket
from .ends import Ending
from .gone import note_changed, note_gone
from .queryset import SocketQuerySet
from .rooms import Membership
from .servers import Server
from .streams import StreamHead, StreamMessage

__all__ = [
    'BaseModel',
    'Ending',
    'Membership',
    'Server',
    'Socket',
    'SocketQuerySet',
    'StreamHead',
    'StreamMessage',
    'note_changed',
    'note_gone',
]
