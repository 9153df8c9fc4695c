"""Connections in Django's admin: to look at, to send to, to end."""

from .connections import SocketAdmin

__all__ = ['SocketAdmin']
