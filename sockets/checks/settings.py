"""The names and values in ``SOCKETS``."""

import difflib
import ipaddress
import re

from django.conf import settings
from django.core.checks import Error, Warning, register

from .. import conf, engine


@register('sockets')
def check_settings(app_configs=None, **kwargs):
    """E006: names in ``SOCKETS`` that do not exist, E007: values that make no sense, W018: those that change nothing."""
    given = getattr(settings, 'SOCKETS', {})
    if not isinstance(given, dict):
        return [Error('SOCKETS is not a dict.', hint="Write SOCKETS = {'MAX_MESSAGE_SIZE': 65536}.", id='sockets.E007')]
    found = []
    for name in given:
        if name not in conf.DEFAULTS:
            close = difflib.get_close_matches(str(name).upper(), conf.DEFAULTS, n=1)
            found.append(
                Error(
                    f'SOCKETS has no setting {name!r}.',
                    id='sockets.E006',
                    hint=f'Did you mean {close[0]!r}?' if close else 'There are: {}.'.format(', '.join(conf.DEFAULTS)),
                )
            )
    for name, valid, remedy in _VALUES:
        if name in given and not valid(given[name]):
            found.append(Error(f"SOCKETS['{name}'] is {given[name]!r}.", hint=remedy, id='sockets.E007'))
    return found + [
        Warning(
            f"SOCKETS['{name}'] has no effect on the Channels that is installed.",
            hint=f'Remove it. {_ELSEWHERE[name]}',
            id='sockets.W018',
        )
        for name in engine.current().unused_settings
        if given.get(name) is not None
    ]


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float('inf')


def _is_number_or_none(value):
    return value is None or _is_number(value)


def _is_count(value):
    return _is_number(value) and isinstance(value, int)


def _is_count_or_none(value):
    return value is None or _is_count(value)


def _is_stream_limit(value):
    # As a stream's own: more is no date.
    return _is_count_or_none(value) and (value is None or value < 2**31)


def is_list(value):
    return isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(entry, str) for entry in value)


def _are_networks(value):
    try:
        return is_list(value) and all(entry == 'unix' or ipaddress.ip_network(entry) for entry in value)
    except ValueError:
        return False


def _is_header_or_none(value):
    # Servers drop headers with an underscore, and HTTP_X_REAL_IP is what Django calls X-Real-IP.
    return (
        value is None
        or isinstance(value, str)
        and bool(re.fullmatch('[A-Za-z0-9-]+', value))
        and (value.lower() != 'forwarded')
    )


_VALUES = (
    ('CHANNEL_LAYER', lambda value: isinstance(value, str), 'Give a name of CHANNEL_LAYERS.'),
    ('THREADS', _is_count, 'Give a number of threads.'),
    (
        'ROUTING',
        lambda value: value is None or isinstance(value, (str, list, tuple)),
        "Give the dotted path of your list of routes, such as 'mysite.routing.channel_routing', or None.",
    ),
    ('MAX_MESSAGE_SIZE', _is_count, 'Give a number of bytes.'),
    ('MAX_BINARY_SIZE', _is_count_or_none, 'Give a number of bytes, or None.'),
    ('SEND_TIMEOUT', _is_number, 'Give a number of seconds.'),
    ('LAST_PING_RESOLUTION', _is_number, 'Give a number of seconds.'),
    (
        'IDENTITY_MAX_AGE',
        lambda value: value == 0 and not isinstance(value, bool) or _is_number(value),
        'Give a number of seconds, or 0.',
    ),
    ('PURGE_INTERVAL', _is_number_or_none, 'Give a number of seconds, or None.'),
    ('MAX_CONNECTIONS_PER_USER', _is_count_or_none, 'Give a number of connections, or None.'),
    ('MAX_CONNECTIONS_PER_ADDRESS', _is_count_or_none, 'Give a number of connections, or None.'),
    ('MAX_FRAMES_PER_SECOND', _is_number_or_none, 'Give a number of frames, or None.'),
    ('MAX_BAD_FRAMES', _is_count_or_none, 'Give a number of frames, or None.'),
    ('MAX_HANDLING_TIME', _is_number_or_none, 'Give a number of seconds, or None.'),
    ('HANDSHAKE_TIMEOUT', _is_number_or_none, 'Give a number of seconds, or None.'),
    ('STREAM_MAX_MESSAGES', _is_stream_limit, 'Give a number of messages, or None.'),
    ('STREAM_MAX_AGE', _is_stream_limit, 'Give a whole number of seconds, or None.'),
    ('MIDDLEWARE', is_list, "Give a list of dotted paths, such as ['mysite.middleware.audit']."),
    (
        'ALLOWED_ORIGINS',
        lambda value: value is None or is_list(value),
        "Give a list of hosts as in ALLOWED_HOSTS and of whole origins, such as ['example.com', 'file://'], or None.",
    ),
    (
        'AUTHENTICATION',
        lambda value: (
            isinstance(value, (list, tuple)) and all(isinstance(entry, str) or callable(entry) for entry in value)
        ),
        "Give a list of functions of the request, or of their dotted paths, such as ['mysite.auth.by_token'].",
    ),
    ('TOKEN_ORIGINS', is_list, "Give a list of origins, such as ['https://example.org'], or ['*'] for all."),
    ('REQUIRE_ORIGIN', lambda value: isinstance(value, bool), 'Give True or False.'),
    ('TRUSTED_PROXIES', _are_networks, "Give a list like ['127.0.0.1', '10.0.0.0/8', 'unix']."),
    (
        'CLIENT_ADDRESS_HEADER',
        _is_header_or_none,
        (
            'Give the name of a header as your proxy writes it, with hyphens, such '
            "as 'X-Forwarded-For' or 'X-Real-IP'. (Forwarded is not understood.)"
        ),
    ),
    ('ROOT_PATH_HEADER', _is_header_or_none, "Give the name of a header, such as 'X-Script-Name', or None."),
    (
        'CREDENTIALS',
        is_list,
        (
            'Give a list of names of headers, query parameters and cookies, such as '
            "[*sockets.conf.DEFAULTS['CREDENTIALS'], 'X-My-Key']."
        ),
    ),
    ('MAX_BODY_SIZE', _is_count_or_none, 'Give a number of bytes, or None.'),
)


# What does the same where one of these does nothing.
_ELSEWHERE = {
    'THREADS': 'Give runsockets --threads.',
    'ROUTING': 'The routing is the ROUTING of your channel layer.',
    'MAX_BODY_SIZE': 'Django and the server have limits of their own for bodies.',
    'ROOT_PATH_HEADER': 'Give the server its --root-path, or set FORCE_SCRIPT_NAME.',
}


@register('sockets')
def check_proxies(app_configs=None, **kwargs):
    """W013: proxies that are believed, and no word about which of their headers."""
    given = getattr(settings, 'SOCKETS', {})
    if not isinstance(given, dict) or not given.get('TRUSTED_PROXIES') or given.get('CLIENT_ADDRESS_HEADER'):
        return []
    return [
        Warning(
            "SOCKETS['TRUSTED_PROXIES'] names proxies, and nothing says which header they write. Of one that "
            'sets another and passes X-Forwarded-For on, each client chooses its own address.',
            hint="Set SOCKETS['CLIENT_ADDRESS_HEADER'] to the header that your proxy writes itself, such as "
            "'X-Forwarded-For' or 'X-Real-IP'.",
            id='sockets.W013',
        )
    ]
