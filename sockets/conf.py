"""``settings.SOCKETS``, read when it is used, with every default in one place."""
from django.conf import settings

DEFAULTS = {
    # Alias in CHANNEL_LAYERS that fan-out sends through.
    'CHANNEL_LAYER': 'default',
    # Bytes of one frame; a longer one is refused before it is parsed.
    'MAX_MESSAGE_SIZE': 1024 * 1024,
    # Seconds a full mailbox may take nothing before its messages are given up.
    # Channels' own pending store waits 2 s (channels.message.PendingMessageStore.retry_time).
    'SEND_TIMEOUT': 2.0,
    # Hosts that a browser's page may come from, written as in ALLOWED_HOSTS. None: ALLOWED_HOSTS.
    'ALLOWED_ORIGINS': None,
    # Refuse clients that send no Origin header, which every browser does.
    'REQUIRE_ORIGIN': False,
    # Addresses or networks of proxies whose X-Forwarded-For or X-Real-IP is believed; 'unix' is a unix socket.
    'TRUSTED_PROXIES': (),
}


def __getattr__(name):
    """Return the setting ``name``; ``AttributeError`` for a name that is not in ``DEFAULTS``."""
    if name not in DEFAULTS:
        raise AttributeError('{!r} is no setting of SOCKETS; there are: {}'.format(name, ', '.join(DEFAULTS)))
    return getattr(settings, 'SOCKETS', {}).get(name, DEFAULTS[name])
