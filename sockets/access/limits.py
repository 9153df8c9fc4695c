"""Limits of a client: its frames, bad frames and connections. Their values are ``SOCKETS['MAX_...']``."""

import math
import time

from .. import conf, engine, messages, rates
from ..exceptions import FrameError, TooManyConnections

# The mistakes that only a client makes.
_BAD = (
    messages.INVALID_JSON,
    messages.INVALID_MESSAGE,
    messages.UNKNOWN_TYPE,
    messages.TOO_LARGE,
    messages.RATE_LIMITED,
)


def check_rate(memory, socket, content):
    """Take a token for a frame; ``FrameError`` if it is beyond the rate of its route, or of all whose route has none.

    ``content`` is ``None`` for a frame that cannot be understood. A frame that is refused takes no token.
    """
    table, route = socket._route_table, None
    if table.has_rates and content is not None:
        route = table.binary if isinstance(content, bytes) else table.match(content.get(messages.TYPE))
    if route is not None and route.rate is not None:
        rate, user = route.rate, None
        if rate.per == rates.USER:
            user = _user_of(memory, socket)
        if user:
            seconds = _wait_for_user(user, route)
        else:
            seconds = memory.wait(time.monotonic(), rate.per_second, rate.burst, route)
    elif conf.MAX_FRAMES_PER_SECOND is not None:
        rate = f'{conf.MAX_FRAMES_PER_SECOND} frames a second'
        seconds = memory.wait(time.monotonic(), conf.MAX_FRAMES_PER_SECOND, max(2 * conf.MAX_FRAMES_PER_SECOND, 1))
    else:
        return
    if seconds:
        raise FrameError(messages.RATE_LIMITED, f'At most {rate}.', retry_after=math.ceil(seconds * 1000) / 1000)


def _user_of(memory, socket):
    """Return the key of the connection's user as text, empty if it is anonymous. One query for each connection."""
    if memory.user is None:
        user = socket.user
        if socket.row is None:
            # The row is gone, and with it the user. The frame will be refused for that.
            return ''
        memory.user = str(user.pk) if user.is_authenticated else ''
    return memory.user


def _wait_for_user(user, route):
    """Take a token that all connections of a user share; return the seconds until there is one, 0 if it was taken."""
    rate, function = route.rate, getattr(route.function, 'function', route.function)
    # The same for every class that has this route from the same base, and in every process.
    name = '{}.{} {} {}'.format(
        function.__module__, getattr(function, '__qualname__', type(function).__qualname__), route.name, user
    )
    return engine.current().take_token(name, time.monotonic(), rate.per_second, rate.burst)


def code_after(memory, outcome):
    """Return the code to close with after a frame of that ``outcome``, if it is one bad frame too many, or ``None``.

    Bad frames count up, others down: a client that sends mostly bad ones is closed, in whatever order they come.
    """
    if outcome not in _BAD:
        memory.bad_frames = max(0, memory.bad_frames - 1)
        return None
    memory.bad_frames += 1
    if conf.MAX_BAD_FRAMES is None or memory.bad_frames < conf.MAX_BAD_FRAMES:
        return None
    return messages.CLOSE_RATE_LIMITED if outcome == messages.RATE_LIMITED else messages.CLOSE_BAD_FRAMES


def limits_connections():
    """Whether a user or an address may have so many connections only."""
    return conf.MAX_CONNECTIONS_PER_USER is not None or conf.MAX_CONNECTIONS_PER_ADDRESS is not None


def check_connections(user, user_ip, others=()):
    """Raise ``TooManyConnections`` if ``user`` or the address ``user_ip`` has as many as it may, with ``others``, rows that are
    not in the table yet.
    """
    from ..models import Socket

    for limit, who in (
        (conf.MAX_CONNECTIONS_PER_USER, ('user_id', user.pk)),
        (conf.MAX_CONNECTIONS_PER_ADDRESS, ('user_ip', user_ip)),
    ):
        if limit is None or None in who:
            continue
        waiting = sum(getattr(row, who[0]) == who[1] for row in others)
        if Socket.objects.on_primary().filter(**dict([who])).count() + waiting >= limit:
            raise TooManyConnections(f'You have {limit} connections; close one first.')


def count(rows, user, user_ip):
    """Return whether a limit counts some of ``rows``, which may not be in the table yet, for ``user`` or ``user_ip``."""
    return any(
        (conf.MAX_CONNECTIONS_PER_USER is not None and row.user_id is not None and row.user_id == user.pk)
        or (conf.MAX_CONNECTIONS_PER_ADDRESS is not None and row.user_ip is not None and row.user_ip == user_ip)
        for row in rows
    )
