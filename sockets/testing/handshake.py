"""The request that opens a websocket, as a browser sends it."""

from http.cookies import SimpleCookie
from typing import Any, Dict, Mapping, Optional


def handshake(
    headers: Mapping[str, str], cookies: SimpleCookie, query_string: str, address: Optional[str]
) -> Dict[str, Any]:
    """Return the request as ASGI has it: a dict with ``headers``, ``query_string``, ``client`` and ``server``.

    ``address`` is that of the client, ``None`` for a unix socket.
    """
    sent = [[name.lower().encode('ascii'), value.encode('latin1')] for name, value in headers.items()]
    pairs = [f'{cookie.key}={cookie.coded_value}' for cookie in cookies.values()]
    if pairs:
        sent.append([b'cookie', '; '.join(pairs).encode('latin1')])
    client, server = (None, None) if address is None else ([address, 50000], ['127.0.0.1', 80])
    return {'headers': sent, 'query_string': query_string.encode(), 'client': client, 'server': server}
