"""Where a connection may come from: origins and addresses. The values are what the client says of itself."""

import ipaddress
import re

from django.conf import settings
from django.http.request import validate_host

from .. import conf

# As browsers write it (RFC 6454, section 6.2): no user, no path, a host of another alphabet in ASCII.
_ORIGIN = re.compile(r'(https?|wss?)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?', re.ASCII)
_HOST = re.compile(r'(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?', re.ASCII)
_PORTS = {'http': 80, 'ws': 80, 'https': 443, 'wss': 443}

# What a browser sends for a page without an origin: in a sandbox, of a data: URL, in some apps.
NULL = 'null'
# A whole origin. All files have the same one.
_WHOLE = re.compile(r'file://|[a-z][a-z0-9+.-]*://[^/?#@\\*\s,]+', re.ASCII)

# An address as some proxies write it.
_WITH_PORT = re.compile(r'\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}', re.ASCII)

FORWARDED_FOR = 'X-Forwarded-For'


def origin_allowed(origin, host, is_secure=False):
    """Whether a page of ``origin`` may open a socket; ``host`` is the Host header. Both ``str`` or ``None``.

    A browser sends its cookies along from any page, so that only the Origin tells a foreign page from ours. Over TLS
    (``is_secure``), a page without it is foreign: it may have been changed on its way. So is one at another port of
    the same host, if ``host`` names one.
    """
    if not origin:
        return not conf.REQUIRE_ORIGIN
    return _is_of(origin, conf.ALLOWED_ORIGINS, host, is_secure)


def may_send_token(origin, host, is_secure=False):
    """Whether a page of ``origin`` may open a socket if something else than its cookies says who its user is."""
    return bool(origin and conf.TOKEN_ORIGINS) and _is_of(origin, conf.TOKEN_ORIGINS, host, is_secure)


def _is_of(origin, allowed, host, is_secure):
    """Whether ``origin`` is one of ``allowed``; of ``ALLOWED_HOSTS`` if that is ``None``."""
    if not origin.isascii():
        # lower() makes ASCII of some letters that are not ASCII.
        return False
    origin = _whole(origin)
    if allowed is not None and any(('://' in entry or entry == NULL) and _whole(entry) == origin for entry in allowed):
        return True
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        return False
    scheme, hostname, port = match.groups()
    hostname = _without_dot(hostname)
    if allowed is not None and '*' in allowed:
        return True
    if is_secure and scheme in ('http', 'ws'):
        return False
    our_name, our_port = _split(host)
    if hostname == our_name and our_port is not None and int(port or _PORTS[scheme]) != our_port:
        return False
    if allowed is not None:
        return validate_host(hostname, [entry for entry in allowed if entry != NULL])
    allowed = settings.ALLOWED_HOSTS
    if settings.DEBUG and not allowed:
        allowed = ['localhost', '127.0.0.1', '[::1]']
    # ALLOWED_HOSTS = ['*'] says that the site has many names, not that every site is ours.
    if '*' in allowed and hostname == our_name:
        return True
    return validate_host(hostname, [pattern for pattern in allowed if pattern != '*'])


def can_match(entry):
    """Whether a browser may say what ``entry`` of ``ALLOWED_ORIGINS`` or ``TOKEN_ORIGINS`` is for: a host, a whole origin, ``null``."""
    if entry in (NULL, '*'):
        return True
    if '://' not in entry:
        match = _HOST.fullmatch(entry.lower().lstrip('.'))
        return match is not None and match.group(2) is None
    origin = _whole(entry)
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        return bool(_WHOLE.fullmatch(origin)) and origin.partition(':')[0] not in _PORTS
    scheme, _, port = match.groups()
    # Browsers leave out the port of a scheme.
    return port is None or int(port) != _PORTS[scheme]


def remedy(origin):
    """Return a sentence or two about what would let in a page of ``origin``, which was refused."""
    if not origin:
        return "SOCKETS['REQUIRE_ORIGIN'] refuses clients without one."
    entry = "add it to SOCKETS['ALLOWED_ORIGINS'] as it stands here{}.".format(
        ', and your own hosts as well: this setting replaces ALLOWED_HOSTS' if conf.ALLOWED_ORIGINS is None else ''
    )
    if _ORIGIN.fullmatch(_whole(origin)):
        return 'If it is yours, add its host to {}; if only its port differs, or it has no TLS and we have, {}'.format(
            'ALLOWED_HOSTS' if conf.ALLOWED_ORIGINS is None else "SOCKETS['ALLOWED_ORIGINS']", entry
        )
    if origin == NULL:
        return (
            f'If your own pages are in a sandbox, or in an app that says so, {entry} Any page in a sandbox says the '
            'same, whoever wrote it.'
        )
    if can_match(origin):
        return f'If it is an app of yours, {entry}'
    return "No browser sends such an origin, so SOCKETS['ALLOWED_ORIGINS'] cannot let it in."


def address_header():
    """Return the name of the header in which trusted proxies say where a connection comes from."""
    return conf.CLIENT_ADDRESS_HEADER or FORWARDED_FOR


def client_ip(peer, header):
    """Return the client's address in canonical form, or ``None`` when it has none that is an address.

    ``peer`` is who opened the TCP connection (``None`` on a unix socket), ``header`` the value of ``address_header()``,
    or ``None``. It counts only as far as trusted proxies wrote it: X-Forwarded-For from its right end, where each of
    them adds whom it saw, any other as a whole.
    """
    networks = conf.TRUSTED_PROXIES
    address = _address(peer)
    trusted = 'unix' in networks if peer is None else _in_networks(address, networks)
    is_list = address_header().lower() == FORWARDED_FOR.lower()
    hops = (header.split(',') if is_list else [header]) if header and header.strip() else []
    while trusted and hops:
        # A trusted proxy may write something else than an address. Then the address is not known.
        address = _address(hops.pop().strip())
        trusted = _in_networks(address, networks)
    return None if address is None else str(address)


def _whole(origin):
    """Return ``origin`` in lower case, without the slashes that some write behind it."""
    origin = origin.lower().rstrip('/')
    return origin + '//' if origin.endswith(':') else origin


def _split(host):
    """Return the name and the port of a Host header, each ``None`` if it has none."""
    match = _HOST.fullmatch((host or '').lower())
    if match is None:
        return None, None
    name, port = match.groups()
    return _without_dot(name), port and int(port)


def _without_dot(hostname):
    # As Django does with Host: "example.com." is the same name.
    return hostname[:-1] if hostname.endswith('.') else hostname


def _address(text):
    text = text or ''
    match = _WITH_PORT.fullmatch(text)
    if match is not None:
        text = match.group(1) or match.group(2)
    if ':' in text:
        # A scope (fe80::1%eth0) is a name of this machine's, not part of the address.
        text = text.partition('%')[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, 'ipv4_mapped', None) or address


def _in_networks(address, networks):
    return address is not None and any(
        address in ipaddress.ip_network(network) for network in networks if network != 'unix'
    )
