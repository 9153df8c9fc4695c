"""Where the rows of streams are, and under which keys."""

import hashlib
from functools import partial

from ..models import Membership, Socket

key_of = partial(Membership.key_of, what='stream')
printable = Membership.printable


def database():
    """Return the database of streams: that of the rows of connections."""
    return Socket.objects.on_primary().db


def membership_key(name, envelope):
    """Return the key under which a connection notes that it follows the stream ``name``, within ``envelope``."""
    text = f'{envelope or ""}\0{name}'.encode('utf-8', 'surrogatepass')
    # As no key of a room begins.
    return 's' + hashlib.sha256(text).hexdigest()[1:]
