"""What a client may do too much of: frames, rubbish, connections. The figures are ``SOCKETS['MAX_...']``."""
import time

from . import conf, messages
from .exceptions import FrameError, TooManyConnections

# The mistakes that are only a client's.
_BAD = (messages.INVALID_JSON, messages.INVALID_MESSAGE, messages.UNKNOWN_TYPE, messages.TOO_LARGE,
        messages.RATE_LIMITED)


def check_rate(visitor, table, content):
    """Take a token for a frame; ``FrameError`` if it is beyond the rate of its route, or of all whose route has none.

    ``content`` is ``None`` for a frame that cannot be understood.
    """
    rate, route = conf.MAX_FRAMES_PER_SECOND, None
    if table.has_rates and content is not None:
        matched = table.binary if isinstance(content, bytes) else table.match(content.get(messages.TYPE))
        if matched is not None and matched.rate is not None:
            rate, route = matched.rate, matched
    if rate is not None and not visitor.takes_token(time.monotonic(), rate, route):
        raise FrameError(messages.RATE_LIMITED, 'At most {} frames a second.'.format(rate))


def code_after(visitor, outcome):
    """Return the code to close with after a frame of that ``outcome``, if it is one bad frame too many, or ``None``.

    Bad frames count up, others down: whoever sends mostly bad ones is closed, however they are mixed.
    """
    if outcome not in _BAD:
        visitor.bad_frames = max(0, visitor.bad_frames - 1)
        return None
    visitor.bad_frames += 1
    if conf.MAX_BAD_FRAMES is None or visitor.bad_frames < conf.MAX_BAD_FRAMES:
        return None
    return messages.CLOSE_RATE_LIMITED if outcome == messages.RATE_LIMITED else messages.CLOSE_RUBBISH


def check_connections(user, user_ip):
    """Raise ``TooManyConnections`` if ``user`` or the address ``user_ip`` has as many as it may."""
    from .models import Socket
    for limit, who in ((conf.MAX_CONNECTIONS_PER_USER, {'user': user.pk}),
                       (conf.MAX_CONNECTIONS_PER_ADDRESS, {'user_ip': user_ip})):
        if limit is None or None in who.values():
            continue
        if Socket.objects.on_primary().filter(**who).count() >= limit:
            raise TooManyConnections('You have {} connections; close one first.'.format(limit))
