"""What can go wrong with a Redis, and what of it is worth another try."""
import redis

# Redis cannot be reached: worth another try.
AWAY = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)


class Down(redis.exceptions.ConnectionError):
    """A shard has not answered lately; nobody has waited for it."""


class Late(redis.exceptions.ResponseError):
    """A script came too late to Redis, which did nothing."""


class OutOfMemory(redis.exceptions.ResponseError):
    """Redis has reached its ``maxmemory`` and takes no messages: give it more, or find out what fills it."""


def explained(error):
    """Return ``error``, which Redis gave as a reply, or the exception of ours that says what it means."""
    if 'OOM' in str(error):
        return OutOfMemory('Redis takes no more messages, it has reached its maxmemory: {}'.format(error))
    return error
