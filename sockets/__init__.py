"""Routed websockets for Django: decorate methods of a view, get a socket beside its page."""

from typing import TYPE_CHECKING, Any

from .router import SocketRouter

if TYPE_CHECKING:
    from .handlers import RoutedSocketHandler

__all__ = ['RoutedSocketHandler', 'SocketRouter', '__version__']
__version__ = '1.0.0'

default_app_config = 'sockets.apps.SocketsConfig'


def __getattr__(name: str) -> Any:
    # Channels can be imported only where Django's settings are; SocketRouter must not need them.
    if name == 'RoutedSocketHandler':
        from .handlers import RoutedSocketHandler

        return RoutedSocketHandler
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
