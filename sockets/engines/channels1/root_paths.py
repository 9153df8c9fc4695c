"""The part of a path that a proxy has taken off, as the proxy says."""

import re
from urllib.parse import quote, unquote

from ... import conf


def root_path_of(headers):
    """Return the value of the header ``ROOT_PATH_HEADER``, or ``None``; ``ValueError`` if it is not a path."""
    name = conf.ROOT_PATH_HEADER
    values = headers.getRawHeaders(name.encode('latin1')) if name else None
    if not values:
        return None
    # Of two, one is the client's. A value that is not ASCII is a ValueError, too.
    path = unquote(values[0].decode('ascii'))
    if len(values) > 1 or not _ROOT_PATH.match(path):
        raise ValueError(f'its {name} is not a path: {values!r:.100}')
    return quote(path.rstrip('/')).encode()


# No control characters, and no //, which begins another host's URL.
_ROOT_PATH = re.compile(r'(/|(/[^/\\?#\s\x00-\x1f\x7f-\x9f\ufffd]+)+/?)\Z')
