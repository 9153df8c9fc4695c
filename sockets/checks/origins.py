"""The hosts whose pages may open websockets."""

from django.conf import settings
from django.core.checks import Warning, register

from .. import conf
from ..access import origins
from .installation import is_checkable
from .settings import is_list


@register('sockets')
def check_origins(app_configs=None, **kwargs):
    """W008: hosts of which none can be that of a page; origins that no browser sends."""
    if not is_checkable():
        return []
    return [
        *(_of_pages() or _useless('ALLOWED_ORIGINS', conf.ALLOWED_ORIGINS)),
        *_useless('TOKEN_ORIGINS', conf.TOKEN_ORIGINS),
    ]


def _useless(setting, entries):
    useless = sorted(entry for entry in entries or () if not origins.can_match(entry)) if is_list(entries) else []
    if useless:
        yield Warning(
            "SOCKETS['{}'] has {}, which no browser says.".format(setting, ', '.join(map(repr, useless))),
            id='sockets.W008',
            hint=(
                "Write a host without port ('example.com', '.example.com'), a whole origin as browsers send it "
                "('http://localhost:3000', 'capacitor://localhost', 'file://'), or 'null'."
            ),
        )


def _of_pages():
    name = 'ALLOWED_HOSTS' if conf.ALLOWED_ORIGINS is None else "SOCKETS['ALLOWED_ORIGINS']"
    hosts = settings.ALLOWED_HOSTS if conf.ALLOWED_ORIGINS is None else conf.ALLOWED_ORIGINS
    # With DEBUG, no host at all means this machine.
    # An entry with a scheme is a whole origin.
    if not is_list(hosts):
        return []
    if any(
        origins.origin_allowed(host if '://' in host or host == origins.NULL else 'http://' + host, host)
        for host in (*hosts, 'localhost')
    ):
        return []
    return [
        Warning(
            f'{name} is {hosts!r}: the websocket of every page is refused with HTTP 403.',
            hint=f"Name the hosts of your pages, without http:// and port: {name} = ['example.com'].",
            id='sockets.W008',
        )
    ]
