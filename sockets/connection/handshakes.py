"""The request that asked for a connection, as plain data: a dict with ``headers``, ``query_string`` and the like of ASGI.

Headers are bytes of Latin-1 (RFC 7230, section 3.2.4), and what is beyond ASCII in a query string is escaped.
"""

import json

from ..access import credentials

_KEPT = 'path', 'client', 'server', 'root_path', 'scheme'
_KEPT_IF_ANY = ('subprotocol',)


def text_of(content, secret_cookie):
    """Return the request ``content`` as a text for a row, without credentials and the cookie of that name."""
    return json.dumps(
        credentials.strip(
            {
                **{key: content.get(key) for key in _KEPT},
                **{key: content[key] for key in _KEPT_IF_ANY if content.get(key)},
                'query_string': decoded(content.get('query_string') or ''),
                'headers': [[decoded(name), decoded(value)] for name, value in headers(content)],
            },
            secret_cookie,
        )
    )


def header(content, name):
    """Return the header ``name`` of the request ``content``; several are one list. ``None`` if there is none.

    Unlike ``request.META``, where X_Real_IP, which no proxy strips, is X-Real-IP.
    """
    name = name.lower()
    values = [decoded(value) for header, value in headers(content) if decoded(header).lower() == name]
    return ','.join(values) if values else None


def headers(content):
    """Return the headers of ``content`` as pairs."""
    found = content.get('headers') or ()
    # Those of Channels 1's own test client.
    return found.items() if isinstance(found, dict) else found


def decoded(value):
    """Return ``value``, bytes or a text, as a text."""
    return value.decode('latin1') if isinstance(value, bytes) else value


def encoded(value):
    """Return ``value``, a text or bytes, as bytes."""
    return value.encode('latin1', 'replace') if isinstance(value, str) else value
