"""The request that opens a websocket, as a browser sends it."""


def handshake(headers, cookies, query_string, address):
    """Return the request as ASGI has it: a dict with ``headers``, ``query_string``, ``client`` and ``server``.

    ``headers`` is a dict, ``cookies`` a cookie jar, ``address`` that of the client, ``None`` a unix socket.
    """
    sent = [[name.lower().encode('ascii'), value.encode('latin1')] for name, value in headers.items()]
    pairs = ['{}={}'.format(cookie.key, cookie.coded_value) for cookie in cookies.values()]
    if pairs:
        sent.append([b'cookie', '; '.join(pairs).encode('latin1')])
    client, server = (None, None) if address is None else ([address, 50000], ['127.0.0.1', 80])
    return {'headers': sent, 'query_string': query_string.encode(), 'client': client, 'server': server}
