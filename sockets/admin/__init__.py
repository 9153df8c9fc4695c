"""Connections and streams in Django's admin: to look at, to send to, to end, to clear."""

from .connections import SocketAdmin
from .streams import StreamAdmin

__all__ = ['SocketAdmin', 'StreamAdmin']
