"""``settings.SOCKETS``, read when it is used, with every default in one place."""

from django.conf import settings
from django.core.signals import setting_changed

DEFAULTS = {
    # Alias in CHANNEL_LAYERS that fan-out sends through.
    'CHANNEL_LAYER': 'default',
    # Channels 4: threads of a server that run functions.
    'THREADS': 4,
    # Channels 4: the routing, a list or its dotted path. None: what ASGI_APPLICATION leads to.
    'ROUTING': None,
    # Bytes of one frame; a longer one is refused before it is parsed.
    'MAX_MESSAGE_SIZE': 1024 * 1024,
    # Bytes of one binary frame where binary frames are taken. None: MAX_MESSAGE_SIZE.
    'MAX_BINARY_SIZE': None,
    # Seconds that a full mailbox may accept nothing before messages for it are dropped.
    # Channels' own pending store waits 2 s (channels.message.PendingMessageStore.retry_time).
    'SEND_TIMEOUT': 2.0,
    # Seconds between two updates of the last_ping of a row.
    'LAST_PING_RESOLUTION': 15,
    # Seconds for which the row and the user of a connection are kept between its frames, where one process handles them
    # all. 0: each frame that asks for them reads them.
    'IDENTITY_MAX_AGE': 1,
    # Seconds between two searches for dead servers that connects and fan-outs start. None: they start none.
    'PURGE_INTERVAL': 10,
    # Open connections of one user, and of one address. None: any number.
    'MAX_CONNECTIONS_PER_USER': None,
    'MAX_CONNECTIONS_PER_ADDRESS': None,
    # Frames of one connection that are handled in a second, on average over two. None: any number.
    'MAX_FRAMES_PER_SECOND': None,
    # How many more bad frames than good ones one connection may send before it is closed: frames that cannot be
    # understood or are beyond the rate. None: any number.
    'MAX_BAD_FRAMES': 100,
    # Seconds that a function may run before its connection is closed. None: any number.
    'MAX_HANDLING_TIME': None,
    # How many messages a stream keeps, and for how many seconds. None: all, for ever.
    'STREAM_MAX_MESSAGES': 1000,
    'STREAM_MAX_AGE': 7 * 24 * 3600,
    # Dotted paths of the middleware of all handlers, the outermost first.
    'MIDDLEWARE': (),
    # Hosts that a browser's page may come from, written as in ALLOWED_HOSTS, or whole origins, such as
    # 'http://localhost:3000'. None: ALLOWED_HOSTS.
    'ALLOWED_ORIGINS': None,
    # Seconds that a client has for its handshake, and a worker to accept it, before the connection is reset. None: what
    # the server was told, and daphne's 5.
    'HANDSHAKE_TIMEOUT': None,
    # Functions of the opening request that return its user, (user, until when) or None, or their dotted paths. The session
    # is asked after them.
    'AUTHENTICATION': (),
    # Origins, written as in ALLOWED_ORIGINS, of pages that may connect if one of those functions finds their user. Cookies
    # that come from there do not count.
    'TOKEN_ORIGINS': (),
    # Refuse clients that send no Origin header, which every browser does.
    'REQUIRE_ORIGIN': False,
    # Addresses or networks of proxies whose CLIENT_ADDRESS_HEADER is trusted; 'unix' is a unix socket.
    'TRUSTED_PROXIES': (),
    # The header in which they write the client's address, such as 'X-Real-IP'. None: X-Forwarded-For.
    'CLIENT_ADDRESS_HEADER': None,
    # The header in which a proxy writes the path prefix that it removed. None: no proxy does.
    'ROOT_PATH_HEADER': None,
    # Names of headers, query parameters and cookies that are not stored in rows, because they may prove who a client
    # is. A * stands for anything, - and _ for each other.
    'CREDENTIALS': (
        '*authorization*',
        '*token*',
        '*secret*',
        '*password*',
        '*passwd*',
        '*credential*',
        '*jwt*',
        '*api-key*',
        '*apikey*',
        '*access-key*',
        '*assertion*',
        '*signature*',
        'sig',
        'auth',
        '*-auth',
        '*oauth*',
        '*oidc*',
        'ticket',
        'otp',
        'session',
        '*-session',
        '*session-id*',
        '*sessionid*',
        '*sessid*',
        'sid',
        '*.sid',
        # Pages cannot set other headers, so some put a token there.
        'sec-websocket-protocol',
    ),
    # Bytes of the body of a request for a page, which is held in memory. None: any number.
    'MAX_BODY_SIZE': 100 * 1024 * 1024,
}


def __getattr__(name):
    """Return the setting ``name``; ``AttributeError`` for a name that is not in ``DEFAULTS``."""
    if name not in DEFAULTS:
        raise AttributeError('{!r} is not a setting of SOCKETS; the settings are: {}'.format(name, ', '.join(DEFAULTS)))
    # Each frame reads several: from now on this is an attribute, and this function is not called for it.
    value = globals()[name] = getattr(settings, 'SOCKETS', {}).get(name, DEFAULTS[name])
    return value


# What Django's settings keep of what they were asked for, and forget when it changes. To ask them is a call for each.
_django = vars(settings)


def of_django(name):
    """Return Django's setting ``name``, at the cost of a look-up: frames read some of them."""
    return _django[name] if name in _django else getattr(settings, name)


def _forget(setting, **kwargs):
    if setting == 'SOCKETS':
        for name in DEFAULTS:
            globals().pop(name, None)


# Tests change settings, and say so with this signal.
setting_changed.connect(_forget)
