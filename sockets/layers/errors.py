"""What can go wrong with a Redis, and which errors are worth another try."""

import redis

# Redis cannot be reached: worth another try.
AWAY = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)


class Down(redis.exceptions.ConnectionError):
    """A shard has not answered lately, and was not asked."""


class Late(redis.exceptions.ResponseError):
    """A script came too late to Redis, which did nothing."""


class OutOfMemory(redis.exceptions.ResponseError):
    """Redis has reached its ``maxmemory`` and takes no messages: give it more, or find out what fills it."""


def is_read_only(error):
    """Whether ``error`` is the reply of a Redis that has become a replica. Its name may be that of another one by now."""
    return isinstance(error, redis.exceptions.ReadOnlyError) or 'READONLY' in str(error)


def explained(error):
    """Return ``error``, an error reply of Redis, or the exception of ours that explains it."""
    if 'OOM' in str(error):
        return OutOfMemory(f'Redis takes no more messages, it has reached its maxmemory: {error}')
    return error
