"""Where a connection may come from: origins and addresses. The values are what the client says of itself."""
import ipaddress
from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import validate_host

from . import conf


def origin_allowed(origin, host):
    """Whether a page of ``origin`` may open a socket; ``host`` is the Host header. Both ``str`` or ``None``.

    A browser sends its cookies along from any page, so the Origin is all that tells a foreign page from ours.
    """
    if not origin:
        return not conf.REQUIRE_ORIGIN
    hostname = _hostname(origin)
    if hostname is None:
        return False
    if conf.ALLOWED_ORIGINS is not None:
        return validate_host(hostname, conf.ALLOWED_ORIGINS)
    allowed = settings.ALLOWED_HOSTS
    if settings.DEBUG and not allowed:
        allowed = ['localhost', '127.0.0.1', '[::1]']
    # ALLOWED_HOSTS = ['*'] says that the site has many names, not that every site is ours.
    if '*' in allowed and hostname == _hostname('//' + (host or '')):
        return True
    return validate_host(hostname, [pattern for pattern in allowed if pattern != '*'])


def client_ip(peer, forwarded_for):
    """Return the client's address in canonical form, or ``None`` when it has none that is an address.

    ``peer`` is who opened the TCP connection (``None`` on a unix socket), ``forwarded_for`` the X-Forwarded-For header,
    or X-Real-IP where there is none, or ``None``. It counts only as far as trusted proxies wrote it: from its right
    end.
    """
    networks = conf.TRUSTED_PROXIES
    address = _address(peer)
    hops = [hop.strip() for hop in (forwarded_for or '').split(',') if hop.strip()]
    trusted = 'unix' in networks if peer is None else _in_networks(address, networks)
    while trusted and hops:
        address = _address(hops.pop())
        trusted = _in_networks(address, networks)
    return None if address is None else str(address)


def _hostname(url):
    """Return the lower-case host of ``url`` as ALLOWED_HOSTS writes it, IPv6 in brackets, or ``None``."""
    try:
        hostname = urlsplit(url).hostname
    except ValueError:
        return None
    return '[{}]'.format(hostname) if hostname and ':' in hostname else hostname or None


def _address(text):
    # A scope (fe80::1%eth0) is a name of this machine's, not part of the address.
    try:
        address = ipaddress.ip_address((text or '').partition('%')[0])
    except ValueError:
        return None
    return getattr(address, 'ipv4_mapped', None) or address


def _in_networks(address, networks):
    return address is not None and any(
        address in ipaddress.ip_network(network) for network in networks if network != 'unix')
