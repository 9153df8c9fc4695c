"""The tables: who is connected, which rooms they are in, and whose ends are still to be handled."""

from .base import BaseModel
from .connections import Socket
from .ends import Ending
from .gone import note_gone
from .queryset import SocketQuerySet
from .rooms import Membership

__all__ = ['BaseModel', 'Ending', 'Membership', 'Socket', 'SocketQuerySet', 'note_gone']
