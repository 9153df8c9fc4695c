"""Options of handler classes, and attributes that only look like options."""

import difflib
import re

from django.core.exceptions import ImproperlyConfigured

from .. import conf
from ..routes import permission_names

# What a handler class has. Another name that is close to one of these is a mistake that would let everybody in.
_OPTIONS = ('login_required', 'permission', 'middleware', 'authentication', 'subprotocols')

_OF_A_ROUTE = "it is an option of a route: Route('TYPE', 'method_name', {0}=...) or @socket.route('TYPE', {0}=...)"
_RATE = _OF_A_ROUTE.format('rate') + "; of all frames of a connection, it is SOCKETS['MAX_FRAMES_PER_SECOND']"

# What others call it, and what it is called here.
_REMEDIES = {
    'rate': _RATE,
    'rate_limit': _RATE,
    'throttle_classes': _RATE,
    'per': _OF_A_ROUTE.format('per'),
    'form': _OF_A_ROUTE.format('form'),
    'form_class': _OF_A_ROUTE.format('form'),
    'guard': "it is an option of a view's router: SocketRouter(handler=ThisClass, guard='view')",
}
for _option, _names in (
    (
        'login_required',
        (
            'require_login',
            'requires_login',
            'needs_login',
            'auth_required',
            'require_auth',
            'requires_auth',
            'authentication_required',
        ),
    ),
    (
        'permission',
        (
            'permissions',
            'perms',
            'permission_required',
            'permissions_required',
            'required_permission',
            'required_permissions',
            'require_permission',
            'require_permissions',
            'requires_permission',
            'requires_permissions',
            'needs_permission',
            'permission_classes',
        ),
    ),
    ('middleware', ('middleware_classes',)),
    ('subprotocols', ('subprotocol', 'websocket_protocols', 'ws_protocols')),
    ('authentication', ('authentication_classes', 'authentications', 'authenticators', 'authenticate', 'auth_classes')),
):
    _REMEDIES.update((_name, 'it is called ' + _option) for _name in _names)


def remedy_for(name):
    """Return what to write for ``name``, which looks like an option and is not one; ``None`` if it does not."""
    if name in _OPTIONS:
        return None
    if name.upper() in conf.DEFAULTS and name.upper() not in ('CHANNEL_LAYER', 'MIDDLEWARE'):
        return f"it is a setting for all handlers: SOCKETS['{name.upper()}']"
    close = difflib.get_close_matches(name, _OPTIONS, n=1, cutoff=0.9)
    return _REMEDIES.get(name) or ('it is called ' + close[0] if close else None)


def check_handler(cls, base):
    """Raise ``ImproperlyConfigured`` if ``cls``, a subclass of the handler class ``base``, seems to have options that do
    nothing, or a permission that is not a name.
    """
    try:
        permission_names(cls.permission)
    except TypeError as error:
        raise ImproperlyConfigured(f'{cls.__name__}.permission: {error}') from error
    _check_hidden(cls, base)
    _check_subprotocols(cls)
    for klass in cls.__mro__:
        # Its dispatch() is that of a view, and would take each frame for a request.
        if klass.__module__ == 'django.contrib.auth.mixins':
            raise ImproperlyConfigured(
                f'{cls.__name__} has the mixin {klass.__name__}, which guards views. A handler class has the attributes '
                'login_required and permission.'
            )
        if klass in base.__mro__:
            continue
        for name, value in vars(klass).items():
            # Methods and properties are the author's own, whatever they are called.
            if value is None or hasattr(value, '__get__') or cls.__dict__.get(name, value) is None:
                continue
            remedy = remedy_for(name)
            if remedy is not None:
                raise ImproperlyConfigured(
                    f'{cls.__name__}.{name} has no effect: {remedy}. (If it is something of your own, give it another '
                    'name.)'
                )


def _check_subprotocols(cls):
    names = cls.subprotocols
    if not (isinstance(names, (list, tuple)) and all(isinstance(name, str) and _TOKEN.match(name) for name in names)):
        raise ImproperlyConfigured(
            f'{cls.__name__}.subprotocols is {names!r}: write a list of names without spaces and commas, such as '
            "subprotocols = ['v2.chat', 'v1.chat']."
        )


# Of RFC 7230, as WebSocket() of browsers takes it.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")


def _check_hidden(cls, base):
    """Refuse a mixin that asks for a login or a permission that stands behind the class whose default holds."""
    for name in ('login_required', 'permission', 'authentication'):
        holder = next((klass for klass in cls.__mro__ if name in vars(klass)), None)
        if holder not in base.__mro__:
            # The value that holds was set on purpose.
            continue
        for klass in cls.__mro__:
            if klass not in base.__mro__ and vars(klass).get(name):
                raise ImproperlyConfigured(
                    f'{klass.__name__}.{name} has no effect on {cls.__name__}, in whose bases {holder.__name__} comes first: write class {cls.__name__}({klass.__name__}, ...).'
                )
