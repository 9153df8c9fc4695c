"""What a handler class asks of clients that connect or send: a login, permissions, and what its guards ask."""

from .. import contracts
from ..exceptions import ConnectionRevoked, PermissionMissing
from ..routes import permission_names


class Demands:
    """``login``: whether one is asked for; ``permissions``: names; ``guards``: functions of a handler that raise."""

    __slots__ = ('login', 'permissions', 'guards')

    def __init__(self, login, permissions, guards):
        self.login = login
        self.permissions = permissions
        self.guards = guards


def of_frame(cls):
    """Return what the handler class ``cls`` asks of a frame."""
    return Demands(cls.login_required, permission_names(cls.permission) if cls.permission else (), cls._guards)


def of_connection(cls):
    """Return what the handler class ``cls`` asks of a connection: of a demultiplexer, all that its streams ask."""
    found = of_frame(cls)
    for stream in cls._streams.values():
        other = of_connection(stream)
        found = Demands(
            found.login or other.login,
            tuple(dict.fromkeys(found.permissions + other.permissions)),
            (*found.guards, *other.guards),
        )
    return found


def check_frame(handler):
    """Raise unless the user of ``handler`` may send anything here."""
    cls = type(handler)
    if cls.login_required or cls.permission or cls._guards:
        asked = cls.login_required, cls.permission, cls._guards
        made = cls.__dict__.get('_demands')
        if made is None or made[0] != asked:
            # Once for each class, and for each change that a test may make.
            made = cls._demands = asked, of_frame(cls)
        check(handler, made[1])


def check(handler, demands):
    """Raise unless the user of ``handler`` meets the ``demands``: ``ConnectionRevoked`` or ``PermissionMissing``."""
    if demands.login and not handler.user.is_authenticated:
        raise ConnectionRevoked('Log in to use this socket.')
    if not contracts.has_permissions(handler, demands.permissions):
        raise PermissionMissing()
    for guard in demands.guards:
        guard(handler)
